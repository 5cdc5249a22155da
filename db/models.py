"""Registered models: where a bundle lies, which checksum it must have, and which one is the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from db.engine import to_json
from db.errors import Conflict, NotFound
from schemas.states import ModelState


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model.

    Attributes
    ----------
    location : str
        Folder of the bundle below MODEL_STORAGE_PATH.
    sha256 : str
        Of the bundle's manifest, which holds those of its other files.
    """

    version: str
    state: ModelState
    location: str
    sha256: str
    metrics: Mapping[str, Any]
    manifest: Mapping[str, Any]
    registered_at: datetime
    activated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Activation:
    """What an activation changed."""

    previous_version: str | None
    new_version: str
    activated_at: datetime


_COLUMNS = "version, state, location, sha256, metrics, manifest, registered_at, activated_at"

_REGISTER = text("""
    INSERT INTO models (version, location, sha256, metrics, manifest)
    VALUES (:version, :location, :sha256, CAST(:metrics AS jsonb), CAST(:manifest AS jsonb))
    ON CONFLICT (version) DO NOTHING
    RETURNING version
""")
_GET = text(f"SELECT {_COLUMNS} FROM models WHERE version = :version")
_CHAMPION = text(f"SELECT {_COLUMNS} FROM models WHERE state = 'champion'")
_CHAMPION_VERSION = text("SELECT version FROM models WHERE state = 'champion'")
_LIST = text(f"SELECT {_COLUMNS} FROM models ORDER BY registered_at DESC, version")
# Any constant of its own will do; LOCK TABLE would take rights over all columns of the table.
_LOCK = text("SELECT pg_advisory_xact_lock(7166)")
_RETIRE = text("UPDATE models SET state = 'retired' WHERE state = 'champion' AND version <> :version")
_CROWN = text("""
    UPDATE models
       SET state = 'champion', activated_at = CASE WHEN state = 'champion' THEN activated_at ELSE clock_timestamp() END
     WHERE version = :version RETURNING activated_at
""")


def register_model(
    conn: Connection,
    *,
    version: str,
    location: str,
    sha256: str,
    metrics: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> None:
    """Write a model as a candidate; the same bundle again changes nothing.

    Raises
    ------
    Conflict
        The version is taken by another bundle.
    """
    values = {"version": version, "location": location, "sha256": sha256}
    values |= {"metrics": to_json(metrics), "manifest": to_json(manifest)}
    if conn.execute(_REGISTER, values).one_or_none() is None and get_model(conn, version).sha256 != sha256:
        raise Conflict(
            f"model {version!r} is registered already with another checksum; give the new bundle another version",
            code="model_exists",
        )


def current_version(conn: Connection) -> str:
    """The champion's version alone, for a submit, which needs nothing else of it.

    Raises
    ------
    Conflict
        No model is active yet.
    """
    version: str | None = conn.execute(_CHAMPION_VERSION).scalar_one_or_none()
    if version is None:
        raise no_active_model()
    return version


def get_model(conn: Connection, version: str) -> Model:
    """Read one model.

    Raises
    ------
    NotFound
        None of that version is registered.
    """
    row = conn.execute(_GET, {"version": version}).one_or_none()
    if row is None:
        raise no_such_model(version)
    return _model(row)


def current_model(conn: Connection) -> Model:
    """Read the champion.

    Raises
    ------
    Conflict
        No model is active yet.
    """
    row = conn.execute(_CHAMPION).one_or_none()
    if row is None:
        raise no_active_model()
    return _model(row)


def no_such_model(version: str) -> NotFound:
    """What is raised where a version is not registered."""
    return NotFound(f"there is no model {version!r}; see GET /api/v1/models for those registered", code="model_not_found")


def no_active_model() -> Conflict:
    """What is raised where there is no champion."""
    return Conflict("no model is active; train one and run `churn models activate VERSION`", code="no_active_model")


def list_models(conn: Connection) -> list[Model]:
    """All registered models, the newest first."""
    return [_model(row) for row in conn.execute(_LIST)]


def activate_model(conn: Connection, version: str) -> Activation:
    """Make a registered model the champion; batches that were submitted before keep theirs.

    Raises
    ------
    NotFound
        None of that version is registered.
    """
    conn.execute(_LOCK)
    champion = conn.execute(_CHAMPION).one_or_none()
    previous = None if champion is None else champion.version
    conn.execute(_RETIRE, {"version": version})
    activated_at = conn.execute(_CROWN, {"version": version}).scalar_one_or_none()
    if activated_at is None:
        raise NotFound(f"there is no model {version!r}; register it first", code="model_not_found")
    return Activation(previous, version, activated_at)


def _model(row: Row[Any]) -> Model:
    return Model(**{**row._mapping, "state": ModelState(row.state), "sha256": row.sha256.strip()})
