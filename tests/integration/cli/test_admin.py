"""Migrating, registering and activating, on a real Postgres and through the command itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.main import main
from datasets.synthetic import generate
from db.models import current_model, get_model
from db.schema import expected_revision
from scoring.model import load_bundle, save_bundle
from scoring.train import train

Run = Callable[..., int]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "bundle"
    save_bundle(path, train(generate(1_000, seed=5), version="t1", data="synthetic", synthetic=True, params={"num_leaves": 3}))
    return path


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "models"


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
