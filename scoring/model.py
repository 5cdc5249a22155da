"""The model bundle: a folder of `model.txt` (LightGBM's text format) and `manifest.json`, verified whenever it is loaded.

Nothing in it is executable, and its trees reach LightGBM's trusting parser only after their checksum was found right.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scoring.errors import BundleCorrupt, BundleMismatch, ModelError
from scoring.manifest import Manifest, check_version, parse_manifest
from scoring.risk import RiskThresholds

if TYPE_CHECKING:  # Training needs scikit-learn and LightGBM; loading a bundle must not.
    from scoring.train import TrainedModel

MANIFEST_NAME: Final = "manifest.json"
MODEL_NAME: Final = "model.txt"


@dataclass(frozen=True, slots=True, eq=False)
class ModelBundle:
    """A verified bundle in memory.

    Attributes
    ----------
    sha256 : str
        In hex, of the manifest's bytes, which hold the checksums of the other files.
    """

    manifest: Manifest
    model_text: str
    sha256: str

    def record(self) -> dict[str, Any]:
        """What a registry keeps of it: version, sha256, metrics, and the whole manifest as JSON."""
        manifest = json.loads(self.manifest.to_bytes())
        return {"version": self.manifest.version, "sha256": self.sha256, "metrics": manifest["metrics"], "manifest": manifest}


def save_bundle(
    path: Path, model: TrainedModel, *, thresholds: RiskThresholds | None = None, created_at: datetime | None = None
) -> ModelBundle:
    """Write a trained model as a bundle, whole or not at all.

    Parameters
    ----------
    path : Path
        The bundle's folder; must not exist yet, as a registered bundle never changes. Its parents are made.
    thresholds : RiskThresholds or None
        Where the risk bands end unless an installation sets its own; None for the usual ones.
    created_at : datetime or None
        Aware; None for now.

    Raises
    ------
    ModelError
        If `path` already exists.
    """
    content = model.model_text.encode()
    manifest = Manifest(
        version=check_version(model.version),
        created_at=(created_at or datetime.now(UTC)).astimezone(UTC),
        calibration=model.calibration,
        thresholds=thresholds or RiskThresholds(),
        metrics=model.metrics.to_json(),
        training=model.training,
        reference=model.reference,
        files={MODEL_NAME: hashlib.sha256(content).hexdigest()},
    )
    manifest_content = manifest.to_bytes()
    _write_folder(path, {MODEL_NAME: content, MANIFEST_NAME: manifest_content})
    return ModelBundle(manifest, model.model_text, hashlib.sha256(manifest_content).hexdigest())


def load_bundle(path: Path, *, expected_sha256: str | None = None) -> ModelBundle:
    """Read a bundle and verify every file of it; LightGBM is not needed.

    Parameters
    ----------
    expected_sha256 : str or None
        The bundle's SHA-256 as it was registered; None to trust the manifest.

    Raises
    ------
    BundleCorrupt
        If a file is missing or differs from its checksum.
    BundleMismatch
        If the bundle is of another format or for other features.
    """
    content = _read(path, MANIFEST_NAME)
    sha256 = hashlib.sha256(content).hexdigest()
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise BundleCorrupt(f"{path / MANIFEST_NAME} differs from the registered bundle: {_differ(sha256, expected_sha256)}")
    manifest = _parse(path, content)
    if manifest.files.keys() != {MODEL_NAME}:
        raise BundleCorrupt(f"{path / MANIFEST_NAME} must list the file {MODEL_NAME} and no other")
    model_content = _read(path, MODEL_NAME)
    model_sha256 = hashlib.sha256(model_content).hexdigest()
    if model_sha256 != manifest.files[MODEL_NAME]:
        raise BundleCorrupt(f"{path / MODEL_NAME} was changed: {_differ(model_sha256, manifest.files[MODEL_NAME])}")
    return ModelBundle(manifest, model_content.decode(), sha256)


def read_manifest(path: Path) -> Manifest:
    """Describe a bundle without reading its trees; errors as for `load_bundle`."""
    return _parse(path, _read(path, MANIFEST_NAME))


def _parse(path: Path, content: bytes) -> Manifest:
    try:
        return parse_manifest(content)
    except (BundleCorrupt, BundleMismatch) as exc:
        raise type(exc)(f"{path}: {exc}") from exc


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as exc:
        raise BundleCorrupt(f"cannot read {path / name}: {exc.strerror}") from exc


def _differ(found: str, expected: str) -> str:
    return f"SHA-256 is {found[:12]}..., expected {expected[:12]}..."


def _write_folder(path: Path, contents: dict[str, bytes]) -> None:
    """Write files into a folder beside `path` and rename it there, so that no reader ever sees half a bundle."""
    if path.exists():
        raise ModelError(f"{path} already exists; a bundle is never overwritten: choose another version or folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, content in contents.items():
            _write_synced(partial / name, content)
        partial.chmod(0o755)  # mkdtemp's 0700 would hide the bundle from a worker that runs as another user.
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
