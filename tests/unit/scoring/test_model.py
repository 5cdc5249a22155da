"""The bundle: written whole or not at all, verified byte by byte when it is loaded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.calibrate import Calibration, Method
from scoring.errors import BundleCorrupt, BundleMismatch, ModelError
from scoring.manifest import parse_manifest
from scoring.model import ModelBundle, load_bundle, read_manifest, save_bundle
from scoring.risk import RiskThresholds
from tests.unit.scoring.factories import trained_model

CREATED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
CALIBRATION = Calibration(Method.PLATT, slope=0.9, intercept=-0.1)


@pytest.fixture
def saved(tmp_path: Path) -> ModelBundle:
    model = trained_model("v1.2_a-b", CALIBRATION)
    return save_bundle(tmp_path / "v1", model, thresholds=RiskThresholds(0.2, 0.5, 0.7), created_at=CREATED_AT)


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document))


def test_what_was_saved_is_loaded(saved: ModelBundle, tmp_path: Path) -> None:
    loaded = load_bundle(tmp_path / "v1", expected_sha256=saved.sha256)
    assert loaded.sha256 == saved.sha256
    assert loaded.model_text == saved.model_text
    assert loaded.manifest.to_bytes() == saved.manifest.to_bytes()
    assert loaded.manifest.version == "v1.2_a-b"
    assert loaded.manifest.created_at == CREATED_AT
    assert loaded.manifest.calibration == CALIBRATION
    assert loaded.manifest.thresholds == RiskThresholds(0.2, 0.5, 0.7)
    assert loaded.manifest.metrics["auc"] == 0.8
    assert loaded.manifest.training == {"data": "a test", "synthetic": True}
    np.testing.assert_array_equal(loaded.manifest.reference.matrix, saved.manifest.reference.matrix)


def test_the_bundles_checksum_is_the_manifests(saved: ModelBundle, tmp_path: Path) -> None:
    assert saved.sha256 == hashlib.sha256((tmp_path / "v1" / "manifest.json").read_bytes()).hexdigest()


def test_a_bundle_is_two_files_that_others_may_read(saved: ModelBundle, tmp_path: Path) -> None:
    assert sorted(path.name for path in (tmp_path / "v1").iterdir()) == ["manifest.json", "model.txt"]
    assert (tmp_path / "v1").stat().st_mode & 0o755 == 0o755


def test_one_flipped_bit_in_the_trees_is_refused(saved: ModelBundle, tmp_path: Path) -> None:
    model = tmp_path / "v1" / "model.txt"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"model\.txt was changed: SHA-256 is"):
        load_bundle(tmp_path / "v1")


def test_a_changed_manifest_is_not_the_registered_bundle(saved: ModelBundle, tmp_path: Path) -> None:
    rewrite_manifest(tmp_path / "v1", lambda document: document["thresholds"].update(low=0.1))
    assert load_bundle(tmp_path / "v1").manifest.thresholds.low == 0.1
    with pytest.raises(BundleCorrupt, match="differs from the registered bundle"):
        load_bundle(tmp_path / "v1", expected_sha256=saved.sha256)


@pytest.mark.parametrize("name", ["manifest.json", "model.txt"])
def test_a_missing_file_is_named(saved: ModelBundle, tmp_path: Path, name: str) -> None:
    (tmp_path / "v1" / name).unlink()
    with pytest.raises(BundleCorrupt, match=f"cannot read .*{name}: No such file"):
        load_bundle(tmp_path / "v1")


def test_a_newer_format_is_a_mismatch(saved: ModelBundle, tmp_path: Path) -> None:
    rewrite_manifest(tmp_path / "v1", lambda document: document.update(format=2))
    with pytest.raises(BundleMismatch, match="has format 2; this version reads format 1"):
        load_bundle(tmp_path / "v1")


def test_other_features_are_a_mismatch(saved: ModelBundle, tmp_path: Path) -> None:
    rewrite_manifest(tmp_path / "v1", lambda document: document["features"].pop())
    with pytest.raises(BundleMismatch, match="was trained on age, gender"):
        load_bundle(tmp_path / "v1")


def test_categories_in_another_order_are_a_mismatch(saved: ModelBundle, tmp_path: Path) -> None:
    rewrite_manifest(tmp_path / "v1", lambda document: document["features"][1]["categories"].reverse())
    with pytest.raises(BundleMismatch, match=r"changed since the model was trained: gender"):
        load_bundle(tmp_path / "v1")


@pytest.mark.parametrize("files", [{}, {"model.txt": "0", "../../etc/passwd": "0"}, {"/etc/passwd": "0"}])
def test_a_manifest_lists_the_model_and_no_other_file(saved: ModelBundle, tmp_path: Path, files: dict[str, str]) -> None:
    rewrite_manifest(tmp_path / "v1", lambda document: document.update(files=files))
    with pytest.raises(BundleCorrupt, match=r"must list the file model\.txt and no other"):
        load_bundle(tmp_path / "v1")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"format": 1}'])
def test_what_is_no_manifest_is_corrupt(content: bytes) -> None:
    with pytest.raises(BundleCorrupt, match="the manifest is not one"):
        parse_manifest(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["thresholds"].update(low=0.9),
        lambda document: document.update(version="../evil"),
        lambda document: document.update(created_at="yesterday"),
        lambda document: document["calibration"].update(method="magic"),
        lambda document: document["reference"].update(matrix=[[1, 2]]),
        lambda document: document["features"].insert(0, "age"),
    ],
)
def test_nonsense_in_a_manifest_is_corrupt(
    saved: ModelBundle, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewrite_manifest(tmp_path / "v1", change)
    with pytest.raises(BundleCorrupt, match="the manifest is not one"):
        load_bundle(tmp_path / "v1")


def test_describing_needs_no_trees(saved: ModelBundle, tmp_path: Path) -> None:
    (tmp_path / "v1" / "model.txt").unlink()
    assert read_manifest(tmp_path / "v1").version == "v1.2_a-b"


def test_a_bundle_is_never_overwritten(saved: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="already exists"):
        save_bundle(tmp_path / "v1", trained_model("v2"))
    assert load_bundle(tmp_path / "v1").sha256 == saved.sha256


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scoring.model.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_bundle(tmp_path / "models" / "v1", trained_model())
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("version", ["", ".hidden", "a/b", "a b", "x" * 51, "é", "v1\n"])
def test_a_version_that_is_no_folders_name_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(ValueError, match="model version"):
        save_bundle(tmp_path / "v1", trained_model(version))


def test_the_manifest_holds_plain_json(saved: ModelBundle, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads((tmp_path / "v1" / "manifest.json").read_text(), parse_constant=refuse)
    assert document["features"][1] == {"name": "gender", "kind": "category", "categories": ["male", "female", "other"]}


def test_loading_a_bundle_needs_neither_lightgbm_nor_sklearn(saved: ModelBundle, tmp_path: Path) -> None:
    # Whoever loads LightGBM before forking hangs the children (LightGBM#6137), so importing and verifying must not.
    code = (
        "import sys, pathlib, scoring.risk, scoring.features, scoring.table, scoring.matrix, scoring.engine, scoring.score\n"
        "from scoring.model import load_bundle\n"
        "load_bundle(pathlib.Path(sys.argv[1]))\n"
        "sys.exit(', '.join({'lightgbm', 'sklearn'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "v1")], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
