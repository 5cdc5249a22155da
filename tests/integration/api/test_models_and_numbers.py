"""Models, the day's numbers, and readiness."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from tests.asking import PREFIX, refused, score_all
from tests.factories import MODEL, add_batch, add_model, score


def test_models_are_listed_and_described(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_model(conn, "test-2", sha256="1" * 64)
    listed = client.get(f"{PREFIX}/models").get_json()["models"]
    assert [(model["version"], model["state"]) for model in listed] == [("test-2", "candidate"), (MODEL, "champion")]
    assert client.get(f"{PREFIX}/models/test-2").get_json() == listed[0]
    assert (listed[0]["sha256"], listed[0]["metrics"]) == ("1" * 64, {"auc": 0.85})
    refused(client.get(f"{PREFIX}/models/9"), 404, "model_not_found")


def test_activation_names_both_versions(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_model(conn, "test-2")
    answer = client.post(f"{PREFIX}/models/test-2/activate").get_json()
    assert (answer["previous_version"], answer["new_version"]) == (MODEL, "test-2")
    assert answer["activated_at"].endswith("Z")
    assert client.get(f"{PREFIX}/models/{MODEL}").get_json()["state"] == "retired"
    refused(client.post(f"{PREFIX}/models/9/activate"), 404, "model_not_found")


def test_a_model_below_the_least_quality_is_not_activated(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_model(conn, "test-2")
        conn.execute(text("UPDATE models SET metrics = CAST(:m AS jsonb) WHERE version = 'test-2'"), {"m": '{"auc": 0.49}'})
    refused(client.post(f"{PREFIX}/models/test-2/activate"), 409, "model_below_minimum")
    assert client.get(f"{PREFIX}/models/{MODEL}").get_json()["state"] == "champion"


def test_the_numbers_of_the_day(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "a", priority="high")
        add_batch(conn, "b")
    score_all(ledger, "b")
    with ledger.begin() as conn:
        score(conn, "a", 0)
    numbers = client.get(f"{PREFIX}/stats").get_json()
    assert (numbers["predictions_today"], numbers["predictions_by_risk"]) == (6, {"low": 6})
    assert numbers["batches_by_status"] == {"completed": 1, "processing": 1}
    assert numbers["chunks_by_priority"] == {"urgent": 0, "high": 1, "normal": 0, "low": 0}
    assert numbers["mean_batch_seconds"] >= 0
    assert numbers["oldest_chunk_seconds"] > 0


@pytest.mark.parametrize("path", ["/health/ready", f"{PREFIX}/health/ready"])
def test_a_process_with_its_stores_is_ready(client: FlaskClient, path: str) -> None:
    assert client.get(path).get_json() == {
        "status": "ready",
        "checks": {"postgres": "ok", "schema": "ok", "redis": "ok", "backlog": "ok"},
    }
