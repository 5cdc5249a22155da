"""Is this process alive, and may it get traffic?

Alive means that it answers. Ready means that Postgres is reachable and stands at this code's schema. Redis away is `degraded`
and still ready: a submit commits in Postgres, and its hints are published when Redis is back. A server that is set so that it
may lose work is refused here as it is at the start, when it may have been away.

Anybody may ask, so the answer says what is wrong and not with what: no address, version or setting.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from redis.exceptions import NoPermissionError, RedisError

from api.errors import NotReady
from api.nouns import Noun
from api.resources import resources
from broker.safety import refuse_eviction, refuse_volatile
from db.engine import within
from db.errors import DatabaseUnavailable, SchemaMismatch, UnsafeServer
from db.schema import check_revision
from schemas.problem import HealthSchema

_ANSWER_S: Final = 2.0
"""How long Postgres may take to answer a probe: whoever sends probes counts a late answer as none."""

_OTHER_VERSION: Final = "The database stands at another version than this code needs: `churn migrate status` says which."
_UNSAFE: Final = "is set so that it may lose work: the log of this process and `churn doctor` say how."

_log = structlog.get_logger(__name__)

health = Noun("health", __name__, description="Liveness and readiness of this process.")


@health.get("/health/live")
@health.response(200, HealthSchema)
def get_liveness() -> dict[str, Any]:
    """Answer whenever the process runs."""
    return {"status": "alive", "checks": {}}


@health.get("/health/ready")
@health.response(200, HealthSchema)
@health.problems(_503="Not ready.")
def get_readiness() -> dict[str, Any]:
    """Answer 200 if requests can be served: Postgres is reachable and at the right revision."""
    return _readiness()


@health.get("/health")
@health.response(200, HealthSchema)
@health.problems(_503="Not ready.")
def get_health() -> dict[str, Any]:
    """The same as readiness, under the short name."""
    return _readiness()


def _readiness() -> dict[str, Any]:
    _check_postgres()
    _check_durability()
    redis = _redis_state()
    return {"status": "ready" if redis == "ok" else "degraded", "checks": {"postgres": "ok", "schema": "ok", "redis": redis}}


def _check_postgres() -> None:
    try:
        check_revision(resources().overseer, within_s=_ANSWER_S)
    except SchemaMismatch as exc:
        raise _not_ready(
            "The database stands at another version than this code needs: `churn migrate status` says which.",
            exc,
            "schema_mismatch",
        ) from exc
    except DatabaseUnavailable as exc:
        raise NotReady("Postgres cannot be reached.", code="database_unavailable") from exc


def _check_durability() -> None:
    try:
        with resources().overseer.connect() as conn, within(conn, _ANSWER_S):
            refuse_volatile(conn, resources().settings)
    except UnsafeServer as exc:
        raise _not_ready(f"Postgres {_UNSAFE}", exc, "unsafe_postgres") from exc


def _redis_state() -> str:
    try:
        refuse_eviction(resources().probe)
    except UnsafeServer as exc:
        raise _not_ready(f"Redis {_UNSAFE}", exc, "unsafe_redis") from exc
    except NoPermissionError:
        return "ok"  # It answers, and keeps to itself how it is set.
    except RedisError:
        return "unreachable"
    return "ok"


def _not_ready(said: str, why: Exception, code: str) -> NotReady:
    # Whoever asks may read this answer: versions and settings are for the operator.
    _log.warning("not ready", code=code, reason=str(why))
    return NotReady(said, code=code)
