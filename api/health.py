"""Is this process alive, may it get traffic, and how does the installation stand?

Alive means that it answers. Ready means that Postgres is reachable and stands at this code's schema. Redis away is `degraded`
and still ready: a submit commits in Postgres, and its hints are published when Redis is back, up to a bound of what may wait;
there only further batches are refused. A server that is set so that it may lose work is refused here as it is at the start,
when it may have been away.

Anybody may ask, so the answer says what is wrong and not with what: no address, version or setting.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from flask import Response, jsonify
from redis.exceptions import NoPermissionError, RedisError

from api.errors import NotReady
from api.nouns import Noun
from api.parts import ANSWER_S, State, look_at_parts, state_of
from api.resources import resources
from broker.safety import refuse_eviction, refuse_volatile
from db.backlog import measure_backlog
from db.engine import each_alone, within
from db.errors import DatabaseUnavailable, SchemaMismatch, UnsafeServer
from db.schema import check_revision
from schemas.problem import HealthReportSchema, HealthSchema

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
@health.response(200, HealthReportSchema)
@health.alt_response(503, schema=HealthReportSchema, description="A part without which requests are refused is down.")
def get_health() -> Response:
    """Say for a person how each part stands, how long it took to answer, and what to do.

    `ok` and `degraded` are 200: requests are served. Probes ask /health/live and /health/ready, which cost less.
    """
    parts = look_at_parts(resources())
    state = state_of(parts)
    answer = jsonify(
        status=str(state),
        parts=[
            {"part": part.name, "status": str(part.state), "latency_ms": part.latency_ms, "detail": part.detail}
            for part in parts
        ],
    )
    answer.status_code = 503 if state is State.DOWN else 200
    return answer


def _readiness() -> dict[str, Any]:
    _check_postgres()
    _check_durability()
    redis, backlog = _redis_state(), _backlog_state()
    is_whole = redis == backlog == "ok"
    checks = {"postgres": "ok", "schema": "ok", "redis": redis, "backlog": backlog}
    return {"status": "ready" if is_whole else "degraded", "checks": checks}


def _check_postgres() -> None:
    try:
        check_revision(resources().overseer, within_s=ANSWER_S)
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
        with resources().overseer.connect() as conn, within(conn, ANSWER_S):
            refuse_volatile(conn, resources().settings)
    except UnsafeServer as exc:
        raise _not_ready(f"Postgres {_UNSAFE}", exc, "unsafe_postgres") from exc


def _backlog_state() -> str:
    """Whether batches are accepted; predictions and polls are, however much waits."""
    most = resources().settings
    try:
        with each_alone(resources().overseer) as conn:
            waiting = measure_backlog(conn)
    except DatabaseUnavailable as exc:
        raise NotReady("Postgres cannot be reached.", code="database_unavailable") from exc
    is_full = waiting.customers >= most.max_backlog_customers or waiting.batches >= most.max_open_batches
    return "full" if is_full else "ok"


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
