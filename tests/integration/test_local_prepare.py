"""Preparing: an active model is provided once, whatever an earlier start got to; what cannot be mended is told."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.models import current_model
from deploy.local.errors import LocalError
from deploy.local.ports import free_port
from deploy.local.prepare import provide_model, require_redis
from scoring.compiled import EngineChoice, choose_engine
from scoring.model import load_bundle
from scoring.native import FOLDER

# By version and not by what is installed: where there is a compiler, a missing one is a fault.
compiles = pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")

ROWS = 2_000


@pytest.fixture(autouse=True)
def _no_models(engine: Engine) -> None:
    _forget(engine)


def _forget(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM models"))


def test_a_database_without_a_model_gets_a_synthetic_one_that_says_so(engine: Engine, tmp_path: Path) -> None:
    provide_model(engine, tmp_path / "models", "first", training_rows=ROWS)
    with engine.connect() as conn:
        champion = current_model(conn)
    bundle = load_bundle(tmp_path / "models" / champion.location, expected_sha256=champion.sha256)
    assert champion.version == "first"
    assert bundle.manifest.training["synthetic"] is True
    assert "none of them exists" in bundle.manifest.training["data"]


def test_a_start_that_was_cut_off_after_storing_the_bundle_is_gone_on_with(engine: Engine, tmp_path: Path) -> None:
    provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.LIGHTGBM)
    stored = load_bundle(tmp_path / "first").sha256
    _forget(engine)
    provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.LIGHTGBM)
    with engine.connect() as conn:
        assert current_model(conn).sha256 == stored


def test_an_active_model_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.LIGHTGBM)
    provide_model(engine, tmp_path, "second", training_rows=ROWS, choice=EngineChoice.LIGHTGBM)
    with engine.connect() as conn:
        assert current_model(conn).version == "first"
    assert not (tmp_path / "second").exists()


def test_an_active_model_whose_bundle_is_gone_is_told_with_the_remedies(engine: Engine, tmp_path: Path) -> None:
    provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.LIGHTGBM)
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(LocalError, match=r"active model is first, but its bundle is not in .*MODEL_STORAGE_PATH.*make clean"):
        provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.LIGHTGBM)


def compiled_files(storage: Path) -> list[Path]:
    return list((storage / FOLDER).glob("*.native"))


@compiles
def test_the_model_is_compiled_before_it_is_active(engine: Engine, tmp_path: Path) -> None:
    provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.COMPILED)
    bundle = load_bundle(tmp_path / "first")
    chosen = choose_engine(bundle, choice=EngineChoice.AUTO, native_folder=tmp_path / FOLDER)
    assert chosen.name is EngineChoice.COMPILED


@compiles
def test_an_active_model_that_is_not_compiled_is_at_the_next_start(engine: Engine, tmp_path: Path) -> None:
    provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.LIGHTGBM)
    assert compiled_files(tmp_path) == []
    provide_model(engine, tmp_path, "first", training_rows=ROWS)
    assert len(compiled_files(tmp_path)) == 1


def test_a_model_that_cannot_be_compiled_is_told_and_scored_by_lightgbm_unless_that_is_ruled_out(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deploy.local.prepare.ensure_compiled", lambda *_, **__: "the compiler is ill")
    with pytest.raises(LocalError, match=r"SCORING_ENGINE=compiled, but .*: the compiler is ill"):
        provide_model(engine, tmp_path, "first", training_rows=ROWS, choice=EngineChoice.COMPILED)
    provide_model(engine, tmp_path, "first", training_rows=ROWS)
    assert "LightGBM scores it: the compiler is ill" in capsys.readouterr().out
    with engine.connect() as conn:
        assert current_model(conn).version == "first"


def test_a_redis_that_does_not_answer_is_told_at_once(redis_url: str) -> None:
    require_redis(redis_url)
    with pytest.raises(LocalError, match="REDIS_URL does not answer"):
        require_redis(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(LocalError, match="REDIS_URL does not answer"):
        require_redis("http://127.0.0.1")
