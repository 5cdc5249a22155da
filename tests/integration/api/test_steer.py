"""Cancel, pause, resume and retry: each says by its status whether anything changed."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from db.batches import get_batch
from tests.asking import PREFIX, accepted, refused, score_all
from tests.factories import add_batch, add_customers, add_upload, score


def steer(client: FlaskClient, action: str, batch_id: str = "b", **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"{PREFIX}/batches/{batch_id}/{action}", headers=given)


@pytest.fixture
def batch(ledger: Engine) -> None:
    """A batch of two chunks of two rows."""
    with ledger.begin() as conn:
        add_batch(conn)


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry"])
def test_there_is_no_such_batch(client: FlaskClient, action: str) -> None:
    refused(steer(client, action, "nope"), 404, "batch_not_found")


def test_cancel_ends_what_is_pending_and_keeps_what_is_scored(client: FlaskClient, ledger: Engine, batch: None) -> None:
    with ledger.begin() as conn:
        score(conn, "b", 0)
    first = steer(client, "cancel")
    assert first.status_code == 202
    answer = first.get_json()
    assert (answer["status"], answer["completed_customers"], answer["cancelled_customers"]) == ("cancelled", 2, 2)
    again = steer(client, "cancel")
    assert (again.status_code, again.get_json()["status"]) == (200, "cancelled")
    assert client.get(f"{PREFIX}/batches/b/reconciliation").get_json()["balanced"] is True


def test_an_upload_can_be_cancelled_before_it_is_read(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_upload(conn)
    assert steer(client, "cancel").get_json()["status"] == "cancelled"


def test_pause_and_resume_say_whether_they_changed_anything(client: FlaskClient, ledger: Engine, batch: None) -> None:
    assert (steer(client, "resume").status_code, steer(client, "pause").status_code) == (200, 202)
    again = steer(client, "pause")
    assert (again.status_code, again.get_json()["status"]) == (200, "paused")
    resumed = steer(client, "resume")
    assert (resumed.status_code, resumed.get_json()["status"]) == (202, "queued")


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_an_ended_batch_is_not_steered(client: FlaskClient, ledger: Engine, batch: None, action: str) -> None:
    score_all(ledger, "b")
    refused(steer(client, action), 409, "batch_final")


def test_a_batch_that_is_being_read_cannot_be_paused(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_upload(conn)
    refused(steer(client, "pause"), 409, "batch_validating")


class TestRetry:
    @pytest.fixture
    def partial(self, ledger: Engine) -> None:
        """A batch whose second row was not found while it was scored."""
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
            add_batch(conn, sizes=(2,), by_reference=True, priority="high", metadata={"team": "a"})
            score(conn, "b", 0, failed=1)

    @pytest.mark.usefixtures("partial")
    def test_the_failed_rows_become_a_child(self, client: FlaskClient, ledger: Engine) -> None:
        child = accepted(steer(client, "retry"))
        assert (child["parent_batch_id"], child["source"], child["total_customers"]) == ("b", "retry", 1)
        assert (child["priority"], child["metadata"]) == ("high", {"team": "a"})
        with ledger.connect() as conn:
            assert child["model_version"] == get_batch(conn, "b").model_version

    @pytest.mark.usefixtures("partial")
    def test_a_repeated_retry_is_the_same_child(self, client: FlaskClient) -> None:
        first = accepted(steer(client, "retry", Idempotency_Key="k"))
        assert accepted(steer(client, "retry", Idempotency_Key="k"))["batch_id"] == first["batch_id"]
        assert accepted(steer(client, "retry"))["batch_id"] != first["batch_id"]

    @pytest.mark.usefixtures("batch")
    def test_a_batch_that_has_not_ended_is_not_retried(self, client: FlaskClient) -> None:
        refused(steer(client, "retry"), 409, "batch_open")

    def test_rows_refused_for_their_values_are_not_retried(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(2,), failed=1)
        score_all(ledger, "b")
        refused(steer(client, "retry"), 409, "nothing_to_retry")
