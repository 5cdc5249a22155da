"""The compiled engine scores as LightGBM does, to 1e-12, or it does not score at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scoring import compiled as compiled_module
from scoring.compiled import CompiledEngine, EngineChoice, check_parity, choose_engine, random_rows
from scoring.compiling import compile_model
from scoring.engine import LightGBMEngine
from scoring.errors import BundleMismatch, EngineUnavailable
from scoring.features import FEATURES, Kind
from scoring.model import MODEL_NAME, ModelBundle, load_bundle, save_bundle
from scoring.native import identity_of, path_of, write_native
from scoring.score import Scorer
from tests.unit.scoring.factories import booster_text, predict, table_of, trained_model

# By version and not by what is installed: where there is a compiler, a missing one is a fault.
pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")

FROZEN = Path(__file__).parent / "frozen"
TOLERANCE = 1e-12
CATEGORIES = [place for place, feature in enumerate(FEATURES) if feature.kind is Kind.CATEGORY]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return save_bundle(tmp_path_factory.mktemp("compiled") / "v1", trained_model())


@pytest.fixture(scope="module")
def object_code(bundle: ModelBundle) -> bytes:
    return compile_model(bundle.model_text)


@pytest.fixture
def native_folder(bundle: ModelBundle, object_code: bytes, tmp_path: Path) -> Path:
    """A folder that holds the bundle's compiled file."""
    folder = tmp_path / ".compiled"
    write_native(folder, identity_of(bundle.manifest.files[MODEL_NAME]), object_code)
    return folder


def choose(bundle: ModelBundle, native_folder: Path, choice: EngineChoice = EngineChoice.AUTO) -> compiled_module.ChosenEngine:
    return choose_engine(bundle, choice=choice, native_folder=native_folder)


# -- the same scores


@st.composite
def boosters(draw: st.DrawFn) -> str:
    """Models of many forms over few rows: some trees or hundreds, stumps and single leaves, few categories seen."""
    import lightgbm as lgb

    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_rows = draw(st.sampled_from([40, 200, 600]))
    matrix = random_rows(n_rows, seed=int(random.integers(2**31)))
    matrix[:, CATEGORIES] = np.where(matrix[:, CATEGORIES] > draw(st.integers(0, 3)), 0.0, matrix[:, CATEGORIES])
    if draw(st.booleans()):
        matrix = np.nan_to_num(matrix, nan=1.0)
    churned = (np.nan_to_num(matrix[:, 5]) + matrix[:, 1] * 3 > random.normal(20, 20, n_rows)).astype(np.float64)
    churned[:2] = 0.0, 1.0
    params = {
        "objective": "binary",
        "verbose": -1,
        "num_threads": 1,
        "seed": 1,
        "boosting": draw(st.sampled_from(["gbdt", "gbdt", "rf"])),
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "num_leaves": draw(st.sampled_from([2, 5, 31])),
        "min_data_in_leaf": draw(st.sampled_from([1, 20, n_rows])),  # the last leaves a single leaf to every tree
        "min_data_per_group": 1,
        "cat_smooth": draw(st.sampled_from([0.0, 10.0])),
        "max_cat_to_onehot": draw(st.sampled_from([1, 4])),
        "use_missing": draw(st.booleans()),
        "zero_as_missing": draw(st.booleans()),
        "learning_rate": draw(st.sampled_from([0.05, 1.0])),
    }
    data = lgb.Dataset(
        matrix,
        label=churned,
        feature_name=[feature.name for feature in FEATURES],
        categorical_feature=CATEGORIES,
        params={"verbose": -1},
    )
    n_rounds = draw(st.sampled_from([1, 2, 33, 34, 35, 69, 150]))  # the compiler cuts a forest into blocks of 34 trees
    return str(lgb.train(params, data, n_rounds).model_to_string())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(model_text=boosters(), seed=st.integers(0, 2**31))
@pytest.mark.filterwarnings("ignore::UserWarning:lightgbm")
def test_any_model_scores_as_with_lightgbm(model_text: str, seed: int) -> None:
    rows = random_rows(400, seed=seed)
    found = CompiledEngine(compile_model(model_text)).predict(rows)
    np.testing.assert_allclose(found, predict(model_text, rows), rtol=0, atol=TOLERANCE)


def test_two_thousand_trees_score_as_with_lightgbm() -> None:
    model_text = booster_text(n_rounds=2_000, num_leaves=2)
    rows = random_rows(2_000, seed=5)
    found = CompiledEngine(compile_model(model_text)).predict(rows)
    np.testing.assert_allclose(found, predict(model_text, rows), rtol=0, atol=TOLERANCE)


def test_the_frozen_customers_keep_their_scores() -> None:
    customers = table_of(*json.loads((FROZEN / "customers.json").read_text()))
    expected = json.loads((FROZEN / "churn_probability.json").read_text())
    frozen = load_bundle(FROZEN / "bundle")
    scorer = Scorer(frozen, engine=CompiledEngine(compile_model(frozen.model_text)))
    np.testing.assert_allclose(scorer.score(customers).churn_probability, expected, rtol=0, atol=TOLERANCE)


def test_rows_score_alike_alone_and_together(object_code: bytes) -> None:
    engine, rows = CompiledEngine(object_code), random_rows(200, seed=7)
    assert [engine.predict(row[None, :])[0] for row in rows] == engine.predict(rows).tolist()


def test_no_rows_have_no_scores(object_code: bytes) -> None:
    assert CompiledEngine(object_code).predict(np.empty((0, len(FEATURES)))).shape == (0,)


def test_a_matrix_in_another_order_in_memory_scores_the_same(object_code: bytes) -> None:
    engine, rows = CompiledEngine(object_code), random_rows(50)
    assert engine.predict(np.asfortranarray(rows)).tolist() == engine.predict(rows).tolist()
    assert engine.predict(np.vstack([rows, rows])[::2]).tolist() == engine.predict(np.vstack([rows, rows])[::2].copy()).tolist()


@pytest.mark.parametrize("shape", [(3, 14), (3, 16), (15,), (2, 3, 15)])
def test_a_matrix_of_another_shape_is_never_handed_to_machine_code(object_code: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is needed, not"):
        CompiledEngine(object_code).predict(np.zeros(shape))


def test_random_rows_cover_what_customers_can_be_and_more() -> None:
    rows = random_rows(2_000)
    for place, feature in enumerate(FEATURES):
        found = rows[:, place]
        assert np.isnan(found).any()
        assert set(range(len(feature.categories))) < set(found) or feature.kind is not Kind.CATEGORY
    assert random_rows(50).tobytes() == random_rows(50).tobytes()


# -- which engine


def test_a_compiled_model_is_used(bundle: ModelBundle, native_folder: Path) -> None:
    for choice in (EngineChoice.AUTO, EngineChoice.COMPILED):
        chosen = choose(bundle, native_folder, choice)
        assert (chosen.name, chosen.fallback, type(chosen.engine)) == ("compiled", None, CompiledEngine)


def test_lightgbm_is_used_where_it_is_asked_for(bundle: ModelBundle, native_folder: Path) -> None:
    chosen = choose(bundle, native_folder, EngineChoice.LIGHTGBM)
    assert (chosen.name, chosen.fallback, type(chosen.engine)) == ("lightgbm", None, LightGBMEngine)


def test_without_a_compiled_file_lightgbm_scores_and_says_so(bundle: ModelBundle, tmp_path: Path) -> None:
    chosen = choose(bundle, tmp_path / ".compiled")
    assert chosen.name == "lightgbm"
    assert chosen.fallback is not None
    assert chosen.fallback.code == "not_compiled"
    assert "registering it again" in str(chosen.fallback)


def test_an_engine_that_is_demanded_is_not_replaced(bundle: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="is not compiled"):
        choose(bundle, tmp_path / ".compiled", EngineChoice.COMPILED)


def test_without_a_compiler_lightgbm_scores(bundle: ModelBundle, native_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    chosen = choose(bundle, native_folder)
    assert (chosen.name, chosen.fallback and chosen.fallback.code) == ("lightgbm", "missing_compiler")


def test_machine_code_of_other_trees_does_not_score(bundle: ModelBundle, tmp_path: Path) -> None:
    other = compile_model(booster_text(n_rounds=6))
    write_native(tmp_path, identity_of(bundle.manifest.files[MODEL_NAME]), other)
    tmp_path.chmod(0o700)
    chosen = choose(bundle, tmp_path)
    assert (chosen.name, chosen.fallback and chosen.fallback.code) == ("lightgbm", "differs")


def test_what_is_no_machine_code_does_not_score(bundle: ModelBundle, native_folder: Path) -> None:
    write_native(native_folder, identity_of(bundle.manifest.files[MODEL_NAME]), b"")
    chosen = choose(bundle, native_folder)
    assert (chosen.name, chosen.fallback and chosen.fallback.code) == ("lightgbm", "not_loadable")


@pytest.mark.parametrize("value", [np.nan, 1e-11])
def test_an_engine_that_is_off_by_little_or_not_a_number_is_found_out(bundle: ModelBundle, value: float) -> None:
    class Off(LightGBMEngine):
        def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
            found = super().predict(matrix)
            found[-1] += value
            return found

    lightgbm = LightGBMEngine(bundle.model_text)
    check_parity(lightgbm, lightgbm, bundle)
    with pytest.raises(EngineUnavailable, match="away from LightGBM"):
        check_parity(Off(bundle.model_text), lightgbm, bundle)


def test_a_model_that_lightgbm_refuses_has_no_engine_at_all(bundle: ModelBundle, native_folder: Path) -> None:
    other = ModelBundle(bundle.manifest, booster_text(objective="regression"), bundle.sha256)
    with pytest.raises(BundleMismatch):
        choose(other, native_folder)


def test_a_forked_child_scores_with_machine_code(bundle: ModelBundle, native_folder: Path, tmp_path: Path) -> None:
    # The worker's way: imports in the parent, the engine in the child.
    code = """
import os, pathlib, sys
from scoring.compiled import EngineChoice, choose_engine, random_rows
from scoring.model import load_bundle
bundle = load_bundle(pathlib.Path(sys.argv[1]))
if {"lightgbm", "llvmlite", "lleaves"} & sys.modules.keys():
    sys.exit(5)
child = os.fork()
if child == 0:
    chosen = choose_engine(bundle, choice=EngineChoice.COMPILED, native_folder=pathlib.Path(sys.argv[2]))
    os._exit(0 if len(chosen.engine.predict(random_rows(5000))) == 5000 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    save_bundle(tmp_path / "v1", trained_model())
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "v1"), str(native_folder)], check=False, timeout=60)
    assert done.returncode == 0


def test_the_compiled_file_lies_under_its_own_name(bundle: ModelBundle, native_folder: Path) -> None:
    assert list(native_folder.iterdir()) == [path_of(native_folder, identity_of(bundle.manifest.files[MODEL_NAME]))]
