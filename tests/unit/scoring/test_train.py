"""Training: repeatable, honest about rows it has not seen, and calibrated only where that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss

from datasets.synthetic import DESCRIPTION, generate
from scoring.calibrate import Method
from scoring.errors import DataError
from scoring.features import FEATURE_NAMES
from scoring.labelled import Labelled
from scoring.model import load_bundle, save_bundle
from scoring.score import Scorer
from scoring.train import DEFAULT_PARAMS, TrainedModel, choose_calibration, cross_validate, train

LABELLED = generate(3_000, seed=21)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return train(LABELLED, version="v1", data=DESCRIPTION, synthetic=True, seed=4)


def test_a_model_learns_the_synthetic_process(model: TrainedModel) -> None:
    assert model.metrics.auc > 0.82
    assert model.metrics.lift_at_10_percent > 2
    assert model.metrics.calibration_error < 0.06


def test_one_fifth_is_held_out_with_the_same_base_rate(model: TrainedModel) -> None:
    assert model.metrics.n_rows == 600
    assert model.training["n_rows_fitted"] == 2_400
    assert model.metrics.base_rate == pytest.approx(LABELLED.churned.mean(), abs=1 / 600)


def test_the_manifest_tells_how_it_was_trained(model: TrainedModel) -> None:
    training = model.training
    assert training["synthetic"] is True
    assert training["data"] == DESCRIPTION
    assert training["n_rows"] == 3_000
    assert training["seed"] == 4
    assert training["params"] == dict(DEFAULT_PARAMS)
    assert training["n_rounds"] > 10
    assert set(training["libraries"]) == {"lightgbm", "numpy", "scikit-learn"}
    assert training["data_sha256"] == LABELLED.examples().fingerprint()


def test_the_same_seed_gives_the_same_model(model: TrainedModel) -> None:
    again = train(LABELLED, version="v1", data=DESCRIPTION, synthetic=True, seed=4)
    assert again.model_text == model.model_text
    assert again.metrics == model.metrics


def test_another_seed_gives_another_model(model: TrainedModel) -> None:
    assert train(LABELLED, version="v1", data=DESCRIPTION, seed=5).model_text != model.model_text


def test_own_parameters_go_over_the_usual_ones() -> None:
    params = train(LABELLED, version="v1", data="", params={"num_leaves": 3}).training["params"]
    assert params == {**DEFAULT_PARAMS, "num_leaves": 3}


def test_a_trained_model_goes_through_a_bundle_to_a_scorer(model: TrainedModel, tmp_path: Path) -> None:
    save_bundle(tmp_path / "v1", model)
    scores = Scorer(load_bundle(tmp_path / "v1")).score(LABELLED.customers)
    leaving, staying = (scores.churn_probability[LABELLED.churned == left].mean() for left in (True, False))
    assert leaving > staying + 0.2


def test_labels_of_chance_are_not_learnt() -> None:
    # Any leak of test rows into the fitting would show as an AUC away from one half.
    chance = Labelled(LABELLED.customers, np.random.default_rng(3).random(3_000) < 0.3)
    assert np.mean([metrics.auc for metrics in cross_validate(chance)]) == pytest.approx(0.5, abs=0.04)


def test_folds_are_stratified_and_cover_every_row_once() -> None:
    folds = cross_validate(LABELLED, folds=3, params={"learning_rate": 0.3})
    assert [metrics.n_rows for metrics in folds] == [1_000] * 3
    assert [metrics.base_rate for metrics in folds] == pytest.approx([LABELLED.churned.mean()] * 3, abs=1e-3)


@pytest.mark.parametrize("churned", [np.ones(200, bool), np.zeros(200, bool), np.arange(200) < 49])
def test_too_few_of_an_outcome_are_refused(churned: np.ndarray) -> None:
    with pytest.raises(DataError, match="training needs at least 50 of each") as caught:
        train(Labelled(LABELLED.customers.slice(0, 200), churned), version="v1", data="")
    assert caught.value.code == "too_few_examples"


def test_a_bad_version_is_refused_before_the_work() -> None:
    with pytest.raises(ValueError, match="model version"):
        train(LABELLED, version="a/b", data="")


def test_columns_that_are_missing_altogether_are_fine() -> None:
    customers = LABELLED.customers
    for name in ("age", "income"):
        field = customers.schema.field(name)
        customers = customers.set_column(customers.column_names.index(name), field, pa.nulls(len(customers), field.type))
    bare = Labelled(customers, LABELLED.churned)
    assert np.isnan(bare.examples().matrix[:, FEATURE_NAMES.index("income")]).all()
    assert train(bare, version="v1", data="").metrics.auc > 0.8


def drawn(power: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose logits are `power` times too large, and outcomes of the true ones."""
    rng = np.random.default_rng(8)
    logit = rng.normal(-1.0, 1.2, n)
    return 1 / (1 + np.exp(-power * logit)), rng.random(n) < 1 / (1 + np.exp(-logit))


def test_probabilities_that_are_right_are_left_alone() -> None:
    assert choose_calibration(*drawn(1.0), seed=0).method is Method.NONE


def test_overconfident_probabilities_are_calibrated() -> None:
    probability, churned = drawn(2.5)
    chosen = choose_calibration(probability, churned, seed=0)
    assert chosen.method is Method.PLATT
    assert log_loss(churned, chosen.apply(probability)) < log_loss(churned, probability) - 0.05


def test_a_distortion_that_no_sigmoid_mends_is_calibrated_by_isotonic_regression() -> None:
    rng = np.random.default_rng(9)
    probability = rng.random(20_000)
    churned = rng.random(20_000) < np.where(probability < 0.5, 0.1, 0.6)
    assert choose_calibration(probability, churned, seed=0).method is Method.ISOTONIC


def test_a_fingerprint_follows_values_labels_and_order() -> None:
    examples = LABELLED.examples()
    backwards = np.arange(3_000)[::-1]
    relabelled = examples._replace(churned=~examples.churned)
    assert len({found.fingerprint() for found in (examples, examples.at(backwards), relabelled)}) == 3
