"""Registering a bundle: verified, copied to where the workers look for it, written to the table of models, and compiled."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.admin import transaction

if TYPE_CHECKING:
    from settings import Settings


def register_bundle(bundle_path: Path, settings: Settings, *, activate: bool) -> dict[str, Any]:
    """Register a bundle, and make it the current model if so asked; doing it again changes nothing.

    Returns
    -------
    dict
        The version, its checksum, where it lies now, the engine that will score it here (and why, if it is not the compiled
        one), and the previous current version if it was activated.

    Raises
    ------
    ModelError
        The bundle is damaged or made for other features.
    Conflict
        The version is taken by another bundle.
    """
    from db.audit import OPERATOR, Act, record
    from db.models import activate_model, register_model
    from scoring.model import load_bundle

    bundle = load_bundle(bundle_path)
    manifest = bundle.manifest
    if activate:
        check_accuracy(manifest.metrics, settings.min_model_accuracy)
    target = settings.model_storage_path / manifest.version
    with transaction(settings.database_owner_url) as conn:
        # First, because it refuses a version that is taken, whose bundle must not be laid over.
        register_model(conn, location=manifest.version, **bundle.record())
        store_bundle(bundle_path, target, sha256=bundle.sha256)
        record(conn, OPERATOR, Act.MODEL_REGISTERED, manifest.version, sha256=bundle.sha256)
    # Before it is activated, so that no worker meets it uncompiled, and outside of any transaction, as it takes seconds.
    report = {"version": manifest.version, "sha256": bundle.sha256, "location": str(target), "activated": activate}
    report |= compile_stored(target, settings, sha256=bundle.sha256)
    if not activate:
        return report
    with transaction(settings.database_owner_url) as conn:
        previous = activate_model(conn, manifest.version).previous_version
        record(conn, OPERATOR, Act.MODEL_ACTIVATED, manifest.version, previous=previous)
        return {**report, "previous_version": previous}


def compile_stored(target: Path, settings: Settings, *, sha256: str) -> dict[str, str]:
    """Compile a stored bundle for this machine, if the settings want that; which engine there is now, and why no better one."""
    from scoring.compiled import EngineChoice
    from scoring.compiling import ensure_compiled
    from scoring.native import FOLDER

    if settings.scoring_engine == EngineChoice.LIGHTGBM:
        return {"engine": EngineChoice.LIGHTGBM}
    reason = ensure_compiled(target, settings.model_storage_path / FOLDER, sha256=sha256)
    if reason is None:
        return {"engine": EngineChoice.COMPILED}
    if settings.scoring_engine == EngineChoice.COMPILED:
        raise click.ClickException(
            f"The model is registered, but SCORING_ENGINE=compiled, and it has no compiled engine: {reason}. Not activated."
        )
    return {"engine": EngineChoice.LIGHTGBM, "engine_reason": reason}


def activate_offline(version: str, settings: Settings) -> dict[str, Any]:
    """Make a registered model the current one without the API."""
    from db.audit import OPERATOR, Act, record
    from db.models import activate_model, get_model

    with transaction(settings.database_owner_url) as conn:
        check_accuracy(get_model(conn, version).metrics, settings.min_model_accuracy)
        activation = activate_model(conn, version)
        record(conn, OPERATOR, Act.MODEL_ACTIVATED, version, previous=activation.previous_version)
    return {
        "previous_version": activation.previous_version,
        "new_version": activation.new_version,
        "activated_at": activation.activated_at.isoformat(),
    }


def check_accuracy(metrics: Any, least: float) -> None:
    """Refuse to activate a model whose held-out AUC is below MIN_MODEL_ACCURACY."""
    auc = float(metrics.get("auc", 0.0))
    if auc < least:
        raise click.ClickException(f"The model's held-out AUC is {auc:.3f}, below MIN_MODEL_ACCURACY = {least}: not activated.")


def store_bundle(source: Path, target: Path, *, sha256: str) -> None:
    """Copy a bundle's own files to its place, whole or not at all; one that is there already must be the same.

    A copy that was torn off would fail its checksums, and with them every chunk that pinned the model.
    """
    from scoring.errors import ModelError
    from scoring.model import MANIFEST_NAME, MODEL_NAME, load_bundle

    if target.exists():
        try:
            load_bundle(target, expected_sha256=sha256)
        except ModelError as exc:
            raise click.ClickException(f"{target} holds another bundle: {exc}. Give the new one another version.") from exc
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        copy = Path(folder) / target.name
        copy.mkdir()
        for name in (MANIFEST_NAME, MODEL_NAME):
            shutil.copy2(source / name, copy / name)
        load_bundle(copy, expected_sha256=sha256)
        copy.rename(target)
