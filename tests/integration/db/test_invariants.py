"""The invariants: a ledger in which all is well breaks none, and whoever doctors it is found out by the one that forbids it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from db.batches import get_batch
from db.customers import delete_customer, put_customer
from db.engine import clock
from db.invariants import INVARIANTS, Violation, is_checkable, violations
from db.row_errors import store_row_errors
from tests.factories import (
    add_batch,
    add_customers,
    add_model,
    add_prediction,
    add_request,
    add_upload,
    claim,
    customer,
    finish,
    row_error,
    score,
    score_requests,
)

_EVERY_BATCH_HAS_ITS_EVENT = text("""
    INSERT INTO outbox (batch_id, event)
    SELECT batch_id, 'batch.' || status FROM batch_jobs WHERE completed_at IS NOT NULL
""")


@pytest.fixture
def sound(conn: Connection) -> Connection:
    """A ledger with batches of every fate, single predictions, and customers who were deleted."""
    add_batch(conn, "done", sizes=(2, 3))
    score(conn, "done", 0)
    score(conn, "done", 1)
    add_batch(conn, "partial", sizes=(4, 2), failed=3)
    score(conn, "partial", 0, failed=2)
    score(conn, "partial", 1)
    add_batch(conn, "begun", sizes=(2, 2, 2))
    score(conn, "begun", 1)
    claim(conn, "begun", 2)
    add_upload(conn, "unread")
    score_requests(conn, add_request(conn, customer("S-1")), add_request(conn, customer("S-2")))
    delete_customer(conn, "S-1", keep_history=True)
    delete_customer(conn, "S-2", keep_history=False)
    give_events(conn)
    return conn


def give_events(conn: Connection) -> None:
    """An outbox that holds an event of each batch that has ended, where this revision of the schema has none by itself."""
    if not any(is_checkable(conn, each) for each in INVARIANTS if each.name == "I6"):
        conn.execute(text("CREATE TABLE outbox (batch_id varchar(50) UNIQUE, event text)"))
        conn.execute(_EVERY_BATCH_HAS_ITS_EVENT)


def doctor(conn: Connection, statement: str, **values: object) -> None:
    """Write what no function of ours would write."""
    assert conn.execute(text(statement), values).rowcount > 0, "nothing was changed"


def the_one(conn: Connection) -> Violation:
    (found,) = violations(conn)
    return found


def id_of(conn: Connection, batch_id: str, row: int) -> int:
    return get_batch(conn, batch_id).first_prediction_id + row


def test_a_sound_ledger_breaks_none(sound: Connection) -> None:
    assert violations(sound) == []


def test_they_are_those_that_the_database_can_tell() -> None:
    assert [each.name for each in INVARIANTS] == ["I1", "I2", "I3", "I4", "I6", "I7", "I8"]


class TestI1:
    """Every row of an ended batch is accounted for."""

    def test_a_row_that_is_neither_scored_nor_failed(self, sound: Connection) -> None:
        doctor(sound, "DELETE FROM prediction_history WHERE id = :id", id=id_of(sound, "done", 4))
        found = the_one(sound)
        assert (found.invariant, found.batch_id, found.details["predictions"]) == ("I1", "done", 4)
        assert "there are 4 predictions" in found.sentence

    def test_a_lost_row_error(self, sound: Connection) -> None:
        doctor(sound, "DELETE FROM row_errors WHERE batch_id = 'partial' AND row_number = 1")
        assert (the_one(sound).invariant, the_one(sound).batch_id) == ("I1", "partial")

    def test_counters_that_add_up_and_are_wrong(self, sound: Connection) -> None:
        doctor(sound, "UPDATE batch_jobs SET completed_customers = 4, failed_customers = 1 WHERE batch_id = 'done'")
        assert the_one(sound).invariant == "I1"

    def test_a_total_that_counters_and_tables_do_not_reach(self, sound: Connection) -> None:
        doctor(sound, "UPDATE batch_jobs SET total_customers = 6 WHERE batch_id = 'done'")
        assert the_one(sound).invariant == "I1"

    def test_rows_of_a_batch_that_goes_on_may_be_missing(self, sound: Connection) -> None:
        assert not get_batch(sound, "begun").is_final
        assert violations(sound) == []


class TestI2:
    """No row is there twice."""

    def test_a_row_under_another_row_s_id(self, sound: Connection) -> None:
        doctor(sound, "UPDATE prediction_history SET row_number = 0 WHERE id = :id", id=id_of(sound, "done", 1))
        found = the_one(sound)
        assert (found.invariant, found.batch_id, found.details["row_number"]) == ("I2", "done", 0)

    def test_a_batch_s_row_among_the_single_predictions(self, sound: Connection) -> None:
        add_prediction(sound, 900, batch_id="done", row_number=0)
        found = violations(sound)[0]
        assert (found.invariant, found.details["prediction_id"]) == ("I2", 900)

    def test_a_row_that_was_scored_and_refused(self, sound: Connection) -> None:
        store_row_errors(sound, "begun", [row_error(2)])
        assert "has an error as well" in the_one(sound).sentence


class TestI3:
    """A chunk's predictions are those of the attempt that closed it."""

    @pytest.mark.parametrize("state", ["pending", "quarantined", "cancelled"])
    def test_a_chunk_that_is_not_done(self, sound: Connection, state: str) -> None:
        doctor(sound, "UPDATE chunks SET state = :state WHERE batch_id = 'begun' AND chunk_no = 1", state=state)
        found = the_one(sound)
        assert (found.invariant, found.batch_id, found.details["n"], found.details["first_row"]) == ("I3", "begun", 2, 2)

    def test_another_attempt(self, sound: Connection) -> None:
        doctor(sound, "UPDATE prediction_history SET attempt = 7 WHERE id = :id", id=id_of(sound, "partial", 7))
        found = the_one(sound)
        assert (found.invariant, found.details["chunk_no"], found.details["attempts"]) == ("I3", 1, [7])

    def test_a_row_before_the_first_chunk(self, sound: Connection) -> None:
        doctor(sound, "DELETE FROM chunks WHERE batch_id = 'begun' AND chunk_no IN (0, 1)")
        assert the_one(sound).details["state"] == "missing"

    def test_a_batch_without_chunks(self, sound: Connection) -> None:
        doctor(sound, "DELETE FROM chunks WHERE batch_id = 'done'")
        assert (the_one(sound).details["n"], the_one(sound).details["state"]) == (5, "missing")

    def test_chunks_whose_numbers_are_not_in_the_order_of_their_rows(self, sound: Connection) -> None:
        """As those that are cut out of one that failed."""
        doctor(sound, "DELETE FROM chunk_inputs WHERE batch_id = 'done'")
        doctor(sound, "UPDATE chunks SET chunk_no = 9, attempt = 3 WHERE batch_id = 'done' AND chunk_no = 0")
        doctor(sound, "UPDATE prediction_history SET attempt = 3 WHERE batch_id = 'done' AND row_number < 2")
        assert violations(sound) == []


class TestI4:
    """A batch ends by its deadline."""

    def test_its_own_deadline(self, sound: Connection) -> None:
        doctor(sound, "UPDATE batch_jobs SET expires_at = clock_timestamp() - interval '5 s' WHERE batch_id = 'begun'")
        found = the_one(sound)
        assert (found.invariant, found.batch_id, found.details["status"]) == ("I4", "begun", "processing")
        assert "1 of 3 chunks" in found.sentence
        assert violations(sound, grace_s=60) == []

    def test_the_deadline_of_all(self, sound: Connection) -> None:
        found = violations(sound, deadline=clock(sound) - timedelta(seconds=1))
        assert {(each.invariant, each.batch_id) for each in found} == {("I4", "begun"), ("I4", "unread")}

    def test_one_to_come(self, sound: Connection) -> None:
        assert violations(sound, deadline=clock(sound) + timedelta(hours=1)) == []


class TestI6:
    """Whoever waits for a batch's end is told once."""

    def test_no_event(self, sound: Connection) -> None:
        doctor(sound, "DELETE FROM outbox WHERE batch_id = 'done'")
        found = the_one(sound)
        assert (found.invariant, found.batch_id, found.details["n"]) == ("I6", "done", 0)

    def test_an_event_of_another_end(self, sound: Connection) -> None:
        doctor(sound, "UPDATE outbox SET event = 'batch.failed' WHERE batch_id = 'done'")
        assert (the_one(sound).invariant, the_one(sound).details["events"]) == ("I6", ["batch.failed"])

    def test_an_event_of_a_batch_that_goes_on(self, sound: Connection) -> None:
        doctor(sound, "UPDATE batch_jobs SET status = 'processing' WHERE batch_id = 'done'")
        assert (the_one(sound).invariant, the_one(sound).batch_id) == ("I6", "done")

    def test_it_waits_for_its_table(self, sound: Connection) -> None:
        (invariant,) = (each for each in INVARIANTS if each.name == "I6")
        assert is_checkable(sound, invariant)
        sound.execute(text("DROP TABLE outbox CASCADE"))
        assert not is_checkable(sound, invariant)
        assert violations(sound) == []


class TestI7:
    """A prediction's customer exists."""

    def test_a_customer_who_never_was(self, sound: Connection) -> None:
        doctor(sound, "UPDATE prediction_history SET customer_id = 'nobody' WHERE id = :id", id=id_of(sound, "done", 3))
        found = the_one(sound)
        assert (found.invariant, found.batch_id) == ("I7", "done")
        assert "nobody" not in found.sentence

    def test_a_single_prediction(self, sound: Connection) -> None:
        add_prediction(sound, 900, customer_id="nobody")
        assert (the_one(sound).invariant, the_one(sound).batch_id) == ("I7", None)

    def test_one_made_after_the_deletion(self, sound: Connection) -> None:
        add_customers(sound, "late")
        delete_customer(sound, "late", keep_history=True)
        add_prediction(sound, 900, customer_id="late", predicted_at=clock(sound))
        assert the_one(sound).invariant == "I7"
        put_customer(sound, customer("late"))
        assert violations(sound) == []


class TestI8:
    """One batch, one model."""

    def test_another_model(self, sound: Connection) -> None:
        add_model(sound, "other")
        doctor(sound, "UPDATE prediction_history SET model_version = 'other' WHERE id = :id", id=id_of(sound, "done", 1))
        found = the_one(sound)
        assert (found.invariant, found.details["models"], found.details["n"], found.details["first_row"]) == (
            "I8",
            ["other"],
            1,
            1,
        )


class TestScope:
    """Which batches are looked at, and how much is told of them."""

    @pytest.fixture
    def broken_at(self, sound: Connection) -> datetime:
        """When a batch was submitted that lost a row since."""
        doctor(sound, "DELETE FROM prediction_history WHERE id = :id", id=id_of(sound, "done", 0))
        return get_batch(sound, "done").submitted_at

    def test_the_bounds_are_those_of_the_submit(self, sound: Connection, broken_at: datetime) -> None:
        a_moment = timedelta(microseconds=1)
        assert len(violations(sound, since=broken_at)) == 1
        assert violations(sound, since=broken_at + a_moment) == []
        assert violations(sound, until=broken_at) == []
        assert len(violations(sound, broken_at, broken_at + a_moment)) == 1

    def test_no_more_is_told_than_was_asked_for(self, conn: Connection) -> None:
        for n in range(4):
            add_batch(conn, f"b{n}", sizes=(1,))
            score(conn, f"b{n}")
        doctor(conn, "UPDATE prediction_history SET customer_id = 'nobody'")
        assert len([v for v in violations(conn, limit=3) if v.invariant == "I7"]) == 3


def test_they_hold_while_chunks_are_closed(sound: Connection) -> None:
    finish(sound, claim(sound, "begun", 0))
    assert violations(sound) == []
