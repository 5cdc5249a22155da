"""Idempotency keys: one submit a key, however often and at whatever moment the client repeats it."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from db.batches import submit_batch
from db.errors import Conflict
from db.idempotency import keep_key, purge_keys, replayed_batch
from schemas.scopes import DEFAULT_TEAM
from scoring.errors import DataError
from tests.factories import new_batch
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked

BODY = "a" * 64
OTHER_BODY = "b" * 64


def submit(conn: Connection, batch_id: str, key: str = "k", body: str = BODY) -> str:
    """A submit as the API does it; tells the batch, or the code of what stood in the way."""
    if (replayed := replayed_batch(conn, key, body, team=DEFAULT_TEAM)) is not None:
        return replayed
    submit_batch(conn, new_batch(batch_id))
    try:
        keep_key(conn, key, body, batch_id, team=DEFAULT_TEAM)
    except Conflict as conflict:
        conn.rollback()
        return conflict.code
    return batch_id


def grow_old(conn: Connection) -> None:
    conn.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '25 h'"))


def test_the_same_request_again_is_answered_with_its_batch(conn: Connection) -> None:
    assert submit(conn, "first") == "first"
    assert submit(conn, "second") == "first"


def test_another_key_is_another_submit(conn: Connection) -> None:
    submit(conn, "first")
    assert submit(conn, "second", key="K") == "second"


def test_a_key_with_another_body_is_refused(conn: Connection) -> None:
    submit(conn, "first")
    with pytest.raises(DataError, match="was used for another request") as caught:
        replayed_batch(conn, "k", OTHER_BODY, team=DEFAULT_TEAM)
    assert caught.value.code == "idempotency_key_reused"


def test_a_submit_that_failed_leaves_its_key_free(ledger: Engine) -> None:
    with ledger.connect() as conn:
        submit(conn, "first")
        conn.rollback()
    with ledger.begin() as conn:
        assert submit(conn, "second") == "second"


@pytest.mark.parametrize("body", [BODY, OTHER_BODY])
def test_a_submit_waits_for_the_one_in_flight_and_then_says_so(ledger: Engine, body: str) -> None:
    with ledger.connect() as first:
        submit(first, "first")
        with meanwhile(ledger, lambda conn: submit(conn, "second", body=body)) as second:
            wait_until_blocked(ledger)
            first.commit()
            assert second.result() == "request_in_flight"
    with ledger.connect() as conn:
        assert replayed_batch(conn, "k", BODY, team=DEFAULT_TEAM) == "first"
        assert conn.execute(text("SELECT batch_id FROM batch_jobs")).scalars().all() == ["first"]


def test_a_submit_takes_over_from_one_in_flight_that_fails(ledger: Engine) -> None:
    with ledger.connect() as first:
        submit(first, "first")
        with meanwhile(ledger, lambda conn: submit(conn, "second")) as second:
            wait_until_blocked(ledger)
            first.rollback()
            assert second.result() == "second"


def test_submits_at_once_with_one_key_make_one_batch(ledger: Engine) -> None:
    for number in range(15):
        answers = together(ledger, *[lambda conn, n=number, i=i: submit(conn, f"b{n}-{i}", key=f"k{n}") for i in range(3)])
        made = {answer for answer in answers if answer != "request_in_flight"}
        with ledger.connect() as conn:
            found = conn.execute(
                text("SELECT batch_id FROM batch_jobs WHERE batch_id LIKE :p"), {"p": f"b{number}-%"}
            ).scalars()
            assert made == set(found)
        assert len(made) == 1


def test_a_key_is_forgotten_after_a_day(conn: Connection) -> None:
    submit(conn, "first")
    assert purge_keys(conn) == 0
    grow_old(conn)
    assert submit(conn, "second", body=OTHER_BODY) == "second"
    grow_old(conn)
    assert purge_keys(conn) == 1


def test_a_key_needs_its_batch(conn: Connection) -> None:
    with pytest.raises(IntegrityError):
        keep_key(conn, "k", BODY, "nothing", team=DEFAULT_TEAM)
