"""Stores that are away or come back: without Redis everything is stored, and connections that were cut are replaced."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from settings import Settings
from tests.apps import application
from tests.asking import PREFIX, accepted, as_csv, batches_stored, customers, refused, submit
from tests.factories import add_customers, customer, score_requests

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def without_redis(settings: Settings, ledger: Engine) -> Iterator[FlaskClient]:
    with application(replace(settings, redis_url=NOWHERE)) as made:
        yield made.test_client()


class TestWithoutRedis:
    def test_a_submit_is_stored_and_answered_soon(self, without_redis: FlaskClient, ledger: Engine) -> None:
        began = time.monotonic()
        accepted(submit(without_redis, as_csv(customers(3))))
        assert time.monotonic() - began < 1
        assert batches_stored(ledger) == 1

    def test_its_hint_is_left_for_the_rescuer(self, without_redis: FlaskClient, ledger: Engine) -> None:
        accepted(submit(without_redis, as_csv(customers(3))))
        deadline = time.monotonic() + 5
        with ledger.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            while time.monotonic() < deadline:
                time.sleep(0.1)
                published = conn.execute(text("SELECT published_at FROM chunks")).scalars().all()
                if published == [None]:
                    break
        assert published == [None]

    def test_the_process_stays_ready(self, without_redis: FlaskClient) -> None:
        response = without_redis.get("/health/ready")
        assert (response.status_code, response.get_json()["status"]) == (200, "degraded")
        assert response.get_json()["checks"]["redis"] == "unreachable"

    def test_readiness_does_not_wait_for_a_redis_that_is_frozen(self, settings: Settings) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
            with application(replace(settings, redis_url=url, broker_timeout_seconds=60)) as made:
                began = time.monotonic()
                assert made.test_client().get("/health/ready").get_json()["status"] == "degraded"
                assert time.monotonic() - began < 10

    def test_a_prediction_is_stored_and_answered_with_202(self, without_redis: FlaskClient) -> None:
        response = without_redis.post(f"{PREFIX}/predictions", json=customer())
        assert response.status_code == 202
        assert without_redis.get(response.headers["Location"]).status_code == 202

    def test_a_prediction_that_is_stored_is_found_though_redis_is_frozen(self, settings: Settings, ledger: Engine) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
            patient = replace(settings, redis_url=url, broker_timeout_seconds=0.2, prediction_timeout_seconds=30)
            with application(patient) as made, ThreadPoolExecutor(1) as pool:
                answer = pool.submit(made.test_client().post, f"{PREFIX}/predictions", json=customer())
                while not answer.done():
                    with ledger.begin() as conn:
                        score_requests(conn, *conn.execute(text("SELECT id FROM prediction_requests")).scalars())
                assert answer.result().status_code == 200

    @pytest.mark.usefixtures("ledger")
    def test_a_prediction_is_answered_in_time_though_redis_is_frozen(self, settings: Settings) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
            with application(replace(settings, redis_url=url, broker_timeout_seconds=0.2)) as made:
                assert made.test_client().post(f"{PREFIX}/predictions", json=customer()).status_code == 202


def test_connections_that_were_cut_are_replaced(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_customers(conn, "C-0")
    assert client.get(f"{PREFIX}/customers/C-0").status_code == 200
    with ledger.connect() as conn:
        conn.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert client.get(f"{PREFIX}/customers/C-0").status_code == 200


def test_an_older_schema_is_not_ready(client: FlaskClient, engine: Engine) -> None:
    with engine.begin() as conn:
        known = conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        conn.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        problem = refused(client.get("/health/ready"), 503, "schema_mismatch")
        assert "migrate" in problem["detail"]
        assert "0001" not in problem["detail"]
        assert known not in problem["detail"]
    finally:
        with engine.begin() as conn:
            conn.execute(text("UPDATE alembic_version SET version_num = :known"), {"known": known})
