"""Compiling when a model is registered: once, apart, checked before anyone can find it; no fault of it is anyone else's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scoring import compiling
from scoring.compiled import EngineChoice, choose_engine
from scoring.compiling import compile_model, ensure_compiled
from scoring.errors import EngineUnavailable
from scoring.model import MODEL_NAME, ModelBundle, save_bundle
from scoring.native import identity_of, path_of
from tests.unit.scoring.factories import booster_text, trained_model

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")


@pytest.fixture
def bundle(tmp_path: Path) -> ModelBundle:
    return save_bundle(tmp_path / "v1", trained_model())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".compiled"


def never(*_: object, **__: object) -> None:
    raise AssertionError("compiled again")


def test_a_model_is_compiled_once(bundle: ModelBundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256) is None
    assert choose_engine(bundle, choice=EngineChoice.COMPILED, native_folder=folder).name == "compiled"
    monkeypatch.setattr(compiling.subprocess, "run", never)
    assert ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256) is None


def test_a_bundle_stays_two_files(bundle: ModelBundle, folder: Path, tmp_path: Path) -> None:
    assert ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256) is None
    assert sorted(path.name for path in (tmp_path / "v1").iterdir()) == ["manifest.json", "model.txt"]


def test_a_damaged_file_is_made_anew(bundle: ModelBundle, folder: Path, tmp_path: Path) -> None:
    ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256)
    path = path_of(folder, identity_of(bundle.manifest.files[MODEL_NAME]))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineUnavailable, match="was altered"):
        choose_engine(bundle, choice=EngineChoice.AUTO, native_folder=folder)
    assert ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256) is None
    assert choose_engine(bundle, choice=EngineChoice.AUTO, native_folder=folder).name == "compiled"


def test_another_bundle_than_the_registered_one_is_not_compiled(bundle: ModelBundle, folder: Path, tmp_path: Path) -> None:
    assert "differs from the registered bundle" in str(ensure_compiled(tmp_path / "v1", folder, sha256="0" * 64))
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_to_is_a_reason(bundle: ModelBundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be kept in" in str(ensure_compiled(tmp_path / "v1", tmp_path / "file" / "x", sha256=bundle.sha256))


def test_a_folder_open_to_others_is_a_reason(bundle: ModelBundle, folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert "is open to other users" in str(ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256))


def test_a_compiler_that_takes_too_long_is_ended(bundle: ModelBundle, folder: Path, tmp_path: Path) -> None:
    assert "took longer than" in str(ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256, timeout_s=0.05))


def test_a_compiler_that_dies_is_a_reason(
    bundle: ModelBundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o700)
    monkeypatch.setattr(compiling.sys, "executable", str(program))
    reason = ensure_compiled(tmp_path / "v1", folder, sha256=bundle.sha256)
    assert reason == "the compiler's process ended with status -11"


def test_a_model_of_linear_trees_is_not_compiled(folder: Path, tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "v2", trained_model(model_text=booster_text(linear_tree=True)))
    assert "linear trees" in str(ensure_compiled(tmp_path / "v2", folder, sha256=bundle.sha256))
    assert list(folder.iterdir()) == []


def test_machine_code_that_scores_otherwise_is_not_kept(
    bundle: ModelBundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = compile_model(booster_text(n_rounds=6))
    monkeypatch.setattr(compiling, "compile_model", lambda _: other)
    with pytest.raises(EngineUnavailable, match="away from LightGBM"):
        compiling._compile_bundle(tmp_path / "v1", folder, bundle.sha256)
    assert list(folder.iterdir()) == []


def test_what_the_compiler_cannot_read_is_one_error() -> None:
    with pytest.raises(EngineUnavailable, match="cannot be compiled") as caught:
        compile_model("not a model\n\npandas_categorical:null\n")
    assert caught.value.code == "not_compilable"
