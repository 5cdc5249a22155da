"""Migrating, registering and activating, on a real Postgres and through the command itself."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from cli.main import main
from datasets.synthetic import generate
from db.errors import Conflict
from db.models import current_model, get_model
from db.schema import expected_revision
from scoring.compiled import EngineChoice, choose_engine
from scoring.compiling import ensure_compiled
from scoring.model import load_bundle, save_bundle
from scoring.native import FOLDER
from scoring.train import train

Run = Callable[..., int]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "bundle"
    save_bundle(path, train(generate(1_000, seed=5), version="t1", data="synthetic", synthetic=True, params={"num_leaves": 3}))
    return path


@pytest.fixture(scope="module")
def machine_code(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundle's compiled engine; one compiler's run serves all tests but those about compiling."""
    folder = tmp_path_factory.mktemp("compiled") / FOLDER
    ensure_compiled(bundle, folder, sha256=load_bundle(bundle).sha256)
    return folder


@pytest.fixture
def storage(tmp_path: Path, machine_code: Path) -> Path:
    """The folder of all bundles: empty, but for the machine code of the bundle that is about to be registered."""
    path = tmp_path / "models"
    if machine_code.exists():  # as on all Pythons for which there is a compiler
        shutil.copytree(machine_code, path / FOLDER)
    return path


@pytest.fixture
def empty_storage(storage: Path) -> Path:
    """The same without the machine code, for tests about compiling."""
    shutil.rmtree(storage, ignore_errors=True)
    return storage


@pytest.fixture
def churn(postgres_url: str, storage: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `churn` in an installation of its own."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("MODEL_STORAGE_PATH", str(storage))
    monkeypatch.setenv("MIN_MODEL_ACCURACY", "0.5")
    return lambda *argv: main(argv)


def test_a_registered_bundle_lies_where_the_workers_look(churn: Run, engine: Engine, bundle: Path, storage: Path) -> None:
    assert churn("models", "register", str(bundle)) == 0
    with engine.connect() as conn:
        model = get_model(conn, "t1")
    stored = load_bundle(storage / model.location, expected_sha256=model.sha256)
    assert stored.model_text == load_bundle(bundle).model_text
    assert model.metrics["auc"] > 0.5
    assert sorted(path.name for path in storage.iterdir()) == [".compiled", "t1"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")
def test_a_registered_model_is_compiled(
    churn: Run, bundle: Path, empty_storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert churn("--json", "models", "register", str(bundle)) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == "compiled"
    native = empty_storage / FOLDER
    chosen = choose_engine(load_bundle(empty_storage / "t1"), choice=EngineChoice.AUTO, native_folder=native)
    assert chosen.name is EngineChoice.COMPILED


def test_machine_code_that_a_bundle_brings_along_is_not_taken(churn: Run, bundle: Path, storage: Path, tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    shutil.copytree(bundle, brought)
    (brought / FOLDER).mkdir(mode=0o700)
    (brought / FOLDER / "x.native").write_bytes(b"evil")
    assert churn("models", "register", str(brought)) == 0
    assert sorted(path.name for path in (storage / "t1").iterdir()) == ["manifest.json", "model.txt"]


def test_a_model_that_cannot_be_compiled_is_registered_and_told(
    churn: Run, engine: Engine, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scoring.compiling.ensure_compiled", lambda *_, **__: "the compiler is ill")
    assert churn("models", "register", str(bundle), "--activate") == 0
    assert "no compiled engine: the compiler is ill" in capsys.readouterr().err
    with engine.connect() as conn:
        assert current_model(conn).version == "t1"


def test_a_model_without_the_engine_that_is_demanded_is_not_activated(
    churn: Run, engine: Engine, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM models"))
    monkeypatch.setenv("SCORING_ENGINE", "compiled")
    monkeypatch.setattr("scoring.compiling.ensure_compiled", lambda *_, **__: "the compiler is ill")
    assert churn("models", "register", str(bundle), "--activate") == 1
    assert "the compiler is ill. Not activated" in capsys.readouterr().err
    with engine.connect() as conn, pytest.raises(Conflict):
        current_model(conn)


def test_nothing_is_compiled_where_lightgbm_is_to_score(
    churn: Run, bundle: Path, empty_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORING_ENGINE", "lightgbm")
    assert churn("models", "register", str(bundle)) == 0
    assert [path.name for path in empty_storage.iterdir()] == ["t1"]


def test_registering_again_changes_nothing_and_may_activate(churn: Run, engine: Engine, bundle: Path) -> None:
    assert churn("models", "register", str(bundle)) == 0
    assert churn("models", "register", str(bundle), "--activate") == 0
    with engine.connect() as conn:
        assert current_model(conn).version == "t1"


def test_another_bundle_of_the_same_version_is_refused(churn: Run, bundle: Path, storage: Path, tmp_path: Path) -> None:
    other = train(generate(1_000, seed=6), version="t1", data="synthetic", params={"num_leaves": 3})
    save_bundle(tmp_path / "other", other)
    assert churn("models", "register", str(bundle)) == 0
    assert churn("models", "register", str(tmp_path / "other")) == 6
    load_bundle(storage / "t1", expected_sha256=load_bundle(bundle).sha256)


def test_a_damaged_bundle_is_refused(churn: Run, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    (damaged / "model.txt").write_text((damaged / "model.txt").read_text().replace("1", "2", 1))
    assert churn("models", "register", str(damaged)) == 1
    assert "bug" not in capsys.readouterr().err


def test_a_model_is_activated_offline_if_it_is_good_enough(
    churn: Run, engine: Engine, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert churn("models", "register", str(bundle)) == 0
    assert churn("models", "activate", "t1", "--offline") == 0
    assert churn("models", "activate", "nope", "--offline") == 5
    monkeypatch.setenv("MIN_MODEL_ACCURACY", "0.99")
    assert churn("models", "activate", "t1", "--offline") == 1
    assert "MIN_MODEL_ACCURACY" in capsys.readouterr().err


def test_a_database_is_migrated_up_and_down(empty_postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = ("--database-url", empty_postgres_url)
    assert main(["migrate", "status", *url]) == 1
    assert main(["migrate", "up", *url]) == 0
    assert main(["migrate", "status", *url]) == 0
    assert expected_revision() in capsys.readouterr().out
    assert main(["migrate", "down", "base", "--yes", *url]) == 0
    assert main(["migrate", "status", *url]) == 1


def test_a_model_cannot_be_registered_in_an_empty_database(
    churn: Run, empty_postgres_url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_postgres_url)
    assert churn("models", "register", str(bundle)) == 1
    assert "churn migrate up" in capsys.readouterr().err
