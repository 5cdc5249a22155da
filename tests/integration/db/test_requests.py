"""Single predictions that wait: claimed once, fenced, removed by the transaction that stores the result."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text

from db.errors import FenceLost, NotFound
from db.predictions import is_batch_prediction
from db.requests import RequestClaim, claim_request, create_request, fail_request, finish_request, get_request, release_request
from db.rescue import rescue_requests
from schemas.states import RequestState
from tests.factories import MODEL, add_customers, customer
from tests.integration.db.concurrency import together


def create(conn: Connection, *, in_full: bool = True) -> int:
    given = customer() if in_full else None
    return create_request(conn, customer_id="C-0", customer=given, model_version=MODEL, request_id="r-1")


def claim(conn: Connection, request_id: int, *, lease_s: float = 60) -> RequestClaim:
    held = claim_request(conn, request_id, lease_s=lease_s)
    assert held is not None
    return held


def test_a_claim_brings_all_that_scoring_needs(conn: Connection) -> None:
    request_id = create(conn)
    held = claim(conn, request_id)
    assert (held.id, held.attempt, held.customer_id, held.customer) == (request_id, 1, "C-0", customer())
    assert (held.model_version, held.request_id) == (MODEL, "r-1")
    assert get_request(conn, request_id).state is RequestState.RUNNING
    assert not is_batch_prediction(request_id)


def test_a_stored_customer_is_named_alone(conn: Connection) -> None:
    add_customers(conn, "C-0")
    assert claim(conn, create(conn, in_full=False)).customer is None


def test_an_unknown_customer_is_not_found_at_once(conn: Connection) -> None:
    with pytest.raises(NotFound, match="there is no customer 'C-0'; send the customer in full"):
        create(conn, in_full=False)


def test_a_duplicate_hint_claims_nothing(conn: Connection) -> None:
    request_id = create(conn)
    claim(conn, request_id)
    assert claim_request(conn, request_id, lease_s=60) is None
    assert claim_request(conn, request_id + 1, lease_s=60) is None


def test_workers_with_one_hint_make_one_claim(ledger: Engine) -> None:
    for _ in range(5):
        with ledger.begin() as conn:
            request_id = create(conn)
        claims = together(ledger, *[lambda conn, i=request_id: claim_request(conn, i, lease_s=60)] * 3)
        assert sum(held is not None for held in claims) == 1


def test_a_finished_request_is_gone(conn: Connection) -> None:
    request_id = create(conn)
    finish_request(conn, claim(conn, request_id))
    with pytest.raises(NotFound, match=f"there is no prediction '{request_id}'"):
        get_request(conn, request_id)


def test_a_failed_request_says_why_and_forgets_its_customer(conn: Connection) -> None:
    request_id = create(conn)
    fail_request(conn, claim(conn, request_id), code="customer_not_found", detail="gone")
    failed = get_request(conn, request_id)
    assert (failed.state, failed.error_code, failed.error_detail) == (RequestState.FAILED, "customer_not_found", "gone")
    assert conn.execute(text("SELECT customer FROM prediction_requests")).scalar_one() is None
    assert claim_request(conn, request_id, lease_s=60) is None


def test_a_released_request_waits_out_its_backoff(conn: Connection) -> None:
    request_id = create(conn)
    release_request(conn, claim(conn, request_id), backoff_s=30)
    assert get_request(conn, request_id).state is RequestState.PENDING
    assert claim_request(conn, request_id, lease_s=60) is None
    conn.execute(text("UPDATE prediction_requests SET available_at = clock_timestamp()"))
    assert claim(conn, request_id).attempt == 2


def test_a_zombie_is_fenced(conn: Connection) -> None:
    request_id = create(conn)
    zombie = claim(conn, request_id, lease_s=0)
    rescue_requests(conn, max_attempts=3)
    heir = claim(conn, request_id)
    with pytest.raises(FenceLost, match=f"prediction {request_id} attempt 1"):
        finish_request(conn, zombie)
    fail_request(conn, zombie, code="c", detail="late")
    release_request(conn, zombie, backoff_s=0)
    assert get_request(conn, request_id).state is RequestState.RUNNING
    finish_request(conn, heir)
