"""How the installation stands, told to a person: each part alone, with real servers, some of them away or unsafe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from db.insights import take_turn
from settings import Settings
from tests.apps import application
from tests.asking import PREFIX, as_csv, customers, submit
from tests.factories import add_batch, add_request, customer

NOWHERE = "postgresql://churn@127.0.0.1:1/churn"
ALL = ["postgres", "redis", "backlog", "workers", "rescuer", "predictions", "model"]


@pytest.fixture(autouse=True)
def sign_of_life(ledger: Engine) -> None:
    """A worker has just taken its turn as the rescuer."""
    with ledger.begin() as conn:
        conn.execute(text("DELETE FROM insight_turns"))
        assert take_turn(conn, "paces", every_s=5)


def told(client: FlaskClient) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """The code, the whole state, and the parts by name."""
    answer = client.get("/health")
    report = answer.get_json()
    return answer.status_code, report["status"], {part["part"]: part for part in report["parts"]}


def states(parts: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: part["status"] for name, part in parts.items() if part["status"] != "ok"}


def test_all_is_well(client: FlaskClient, ledger: Engine) -> None:
    code, whole, parts = told(client)
    assert (code, whole, list(parts), states(parts)) == (200, "ok", ALL, {})
    assert all(part["latency_ms"] > 0 and part["detail"] for part in parts.values())


def test_redis_away_is_degraded(settings: Settings, ledger: Engine) -> None:
    with application(replace(settings, redis_url="redis://127.0.0.1:1/0")) as made:
        code, whole, parts = told(made.test_client())
    assert (code, whole, states(parts)) == (200, "degraded", {"redis": "degraded"})


def test_postgres_away_is_down_and_leaves_the_rest_unknown(settings: Settings) -> None:
    with application(replace(settings, database_url=NOWHERE)) as made:
        code, whole, parts = told(made.test_client())
    assert (code, whole) == (503, "down")
    assert states(parts) == {
        "postgres": "down",
        "backlog": "unknown",
        "workers": "unknown",
        "rescuer": "unknown",
        "predictions": "unknown",
        "model": "unknown",
    }
    assert parts["model"]["latency_ms"] is None


def test_another_schema_is_down_and_no_version_is_named(client: FlaskClient, engine: Engine, ledger: Engine) -> None:
    with engine.begin() as conn:
        known = conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        conn.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        code, _, parts = told(client)
        assert (code, parts["postgres"]["status"]) == (503, "down")
        assert "migrate" in parts["postgres"]["detail"]
        assert known not in str(parts)
        assert "0001" not in str(parts)
    finally:
        with engine.begin() as conn:
            conn.execute(text("UPDATE alembic_version SET version_num = :known"), {"known": known})


def test_a_full_backlog_is_degraded_and_ready_all_the_same(settings: Settings, ledger: Engine) -> None:
    with application(replace(settings, max_open_batches=1)) as made:
        client = made.test_client()
        assert told(client)[1] == "ok"
        with ledger.begin() as conn:
            add_batch(conn, "a")
        code, whole, parts = told(client)
        assert (code, whole, states(parts)) == (200, "degraded", {"backlog": "degraded"})
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.get_json()["status"], ready.get_json()["checks"]["backlog"]) == (
            200,
            "degraded",
            "full",
        )
        assert submit(client, as_csv(customers(1))).status_code == 503


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [
        ("UPDATE batch_jobs SET planned_at = clock_timestamp() - interval '50 s'", False),
        ("UPDATE batch_jobs SET planned_at = clock_timestamp() - interval '70 s'", True),
        ("UPDATE chunks SET state = 'running', attempt = 1, lease_until = clock_timestamp() - interval '20 s'", False),
        ("UPDATE chunks SET state = 'running', attempt = 1, lease_until = clock_timestamp() - interval '40 s'", True),
    ],
)
def test_workers_that_get_nowhere_are_seen_by_what_they_leave(
    client: FlaskClient, ledger: Engine, change: str, is_seen: bool
) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "a")
        conn.execute(text("UPDATE batch_jobs SET planned_at = clock_timestamp()"))
        conn.execute(text(change))
    code, whole, parts = told(client)
    assert (code, whole, states(parts)) == ((200, "degraded", {"workers": "degraded"}) if is_seen else (200, "ok", {}))


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [
        ("UPDATE insight_turns SET taken_at = clock_timestamp() - interval '50 s'", False),
        ("UPDATE insight_turns SET taken_at = clock_timestamp() - interval '70 s'", True),
        ("DELETE FROM insight_turns", True),
    ],
)
def test_that_there_is_no_worker_is_seen_without_any_work(
    client: FlaskClient, ledger: Engine, change: str, is_seen: bool
) -> None:
    with ledger.begin() as conn:
        conn.execute(text(change))
    code, whole, parts = told(client)
    assert (code, whole, states(parts)) == ((200, "degraded", {"rescuer": "degraded"}) if is_seen else (200, "ok", {}))


def test_a_prediction_that_waits_for_longer_than_its_client(settings: Settings, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_request(conn, customer())
    with application(replace(settings, prediction_timeout_seconds=60)) as made:
        assert states(told(made.test_client())[2]) == {}
        with ledger.begin() as conn:
            conn.execute(text("UPDATE prediction_requests SET submitted_at = submitted_at - interval '1 h'"))
        assert states(told(made.test_client())[2]) == {"predictions": "degraded"}


def test_no_model_and_one_that_cannot_be_used(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "a")
        conn.execute(text("UPDATE batch_jobs SET held_up = 'model_unusable'"))
    assert states(told(client)[2]) == {"model": "degraded"}
    with ledger.begin() as conn:
        conn.execute(text("UPDATE batch_jobs SET held_up = NULL"))
        conn.execute(text("UPDATE models SET state = 'retired'"))
    parts = told(client)[2]
    assert states(parts) == {"model": "degraded"}
    assert "churn models activate" in parts["model"]["detail"]


def test_it_is_found_below_the_base_path(client: FlaskClient, ledger: Engine) -> None:
    assert client.get(f"{PREFIX}/health").get_json()["status"] == "ok"
