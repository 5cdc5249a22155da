"""Models: whether those that are needed lie on this host as they were registered; and room for uploads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.checks.findings import Finding, Level, fine
from db.checkup import models_of_open_batches
from db.models import Model, list_models
from schemas.states import ModelState
from scoring.compiled import check_compiled
from scoring.errors import ModelError
from scoring.model import load_bundle
from scoring.native import FOLDER

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from settings import Settings


def model_findings(conn: Connection, storage: Path) -> Iterator[Finding]:
    """The champion, and the models that unfinished batches wait for."""
    models = {model.version: model for model in list_models(conn)}
    champion = next((model for model in models.values() if model.state is ModelState.CHAMPION), None)
    if champion is None:
        yield Finding(
            "model",
            Level.PROBLEM,
            "No model is active.",
            "Nothing can be submitted that does not name a model.",
            "Train and register one, then run `churn models activate VERSION`.",
        )
    needed = models_of_open_batches(conn) | ({champion.version} if champion else set())
    broken = [finding for version in sorted(needed) if (finding := _bundle_finding(models[version], storage))]
    yield from broken
    if champion is not None and not broken:
        yield fine("model", f"Model {champion.version} is active, and its bundle is the one that was registered.")


def room_finding(settings: Settings) -> Finding:
    """Whether the largest upload that is allowed would fit where this host keeps it while it arrives."""
    folder = tempfile.gettempdir()
    free_mb = shutil.disk_usage(folder).free >> 20
    if free_mb >= settings.max_request_size_mb:
        return fine("disk", "This host has room for an upload.")
    return Finding(
        "disk",
        Level.WARNING,
        f"{folder} has {free_mb} MiB left, less than an upload of MAX_REQUEST_SIZE_MB ({settings.max_request_size_mb}) takes.",
        "If the API runs here, a large upload may fail.",
        "Free the disk, set TMPDIR to another, or lower MAX_REQUEST_SIZE_MB.",
    )


def _bundle_finding(model: Model, storage: Path) -> Finding | None:
    try:
        bundle = load_bundle(storage / model.location, expected_sha256=model.sha256)
        check_compiled(bundle, storage / FOLDER)
    except ModelError as exc:
        return Finding(
            "model",
            Level.PROBLEM,
            f"Model {model.version} cannot be used on this host: {exc}.",
            "Workers that see the same files leave its chunks pending until it is mended.",
            "Bring the registered bundle back to MODEL_STORAGE_PATH; never edit one, register another version instead. A"
            " compiled file can be removed: the model is compiled anew when it is registered again.",
        )
    return None
