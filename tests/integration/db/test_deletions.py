"""A prediction's customer always exists, though no foreign key says so: deletions and the chunks that close meanwhile."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from db.batches import get_batch, reconcile
from db.chunks import ChunkClaim
from db.customers import delete_customer, get_customer, hold_deletions, put_customer
from db.engine import clock
from db.errors import NotFound
from db.row_errors import row_errors_page, store_row_errors
from schemas.states import BatchStatus
from scoring.features import Code
from tests.factories import add_batch, add_customers, claim, customer, finish, row_error, score
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked

_ORPHANS = text("""
    SELECT count(*) FROM prediction_history p
     WHERE customer_id IS NOT NULL AND NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = p.customer_id)
""")


def delete(conn: Connection, customer_id: str = "C-0", *, keep_history: bool = False) -> bool:
    try:
        delete_customer(conn, customer_id, keep_history=keep_history)
    except NotFound:
        return False
    return True


def claimed_batch(engine: Engine, batch_id: str = "b", *, by_reference: bool = True) -> ChunkClaim:
    """A batch of C-0 and C-1, both stored, whose only chunk is being scored."""
    with engine.begin() as conn:
        add_customers(conn, "C-0", "C-1")
        add_batch(conn, batch_id, sizes=(2,), by_reference=by_reference)
        return claim(conn, batch_id)


class TestGuard:
    """A deletion and a closing chunk meet."""

    @pytest.mark.parametrize("by_reference", [True, False])
    def test_a_deletion_waits_for_a_closing_chunk_and_takes_its_prediction_along(
        self, ledger: Engine, by_reference: bool
    ) -> None:
        held = claimed_batch(ledger, by_reference=by_reference)
        with ledger.connect() as worker:
            finish(worker, held)
            with meanwhile(ledger, delete) as deletion:
                wait_until_blocked(ledger)
                worker.commit()
                assert deletion.result()
        with ledger.connect() as conn:
            names = conn.execute(text("SELECT customer_id FROM prediction_history ORDER BY id")).scalars().all()
            assert names == [None, "C-1"]
            assert get_batch(conn, "b").completed_customers == 2

    @pytest.mark.parametrize("by_reference", [True, False])
    def test_a_chunk_waits_for_a_deletion_and_leaves_its_customer_out(self, ledger: Engine, by_reference: bool) -> None:
        held = claimed_batch(ledger, by_reference=by_reference)
        with ledger.connect() as deleting:
            delete(deleting)
            with meanwhile(ledger, lambda conn: finish(conn, held)) as closing:
                wait_until_blocked(ledger)
                deleting.commit()
                assert closing.result()
        with ledger.connect() as conn:
            assert conn.execute(text("SELECT customer_id FROM prediction_history")).scalars().all() == ["C-1"]
            assert conn.execute(text("SELECT customer_id FROM customers")).scalars().all() == ["C-1"]
            assert get_batch(conn, "b").status is BatchStatus.PARTIAL
            assert reconcile(conn, "b").balanced

    def test_a_deletion_that_is_taken_back_leaves_everybody(self, ledger: Engine) -> None:
        held = claimed_batch(ledger)
        with ledger.connect() as deleting:
            delete(deleting)
            with meanwhile(ledger, lambda conn: finish(conn, held)) as closing:
                wait_until_blocked(ledger)
                deleting.rollback()
                closing.result()
        with ledger.connect() as conn:
            assert get_batch(conn, "b").completed_customers == 2

    def test_however_they_meet_no_prediction_is_left_without_its_customer(self, ledger: Engine) -> None:
        for number in range(25):
            held = claimed_batch(ledger, f"b{number}")
            together(ledger, lambda conn, h=held: finish(conn, h), delete)
            with ledger.begin() as conn:
                assert conn.execute(_ORPHANS).scalar_one() == 0
                assert reconcile(conn, f"b{number}").counters_agree
                assert not delete(conn), "the deletion was answered and must have happened"

    def test_chunks_do_not_wait_for_each_other(self, ledger: Engine) -> None:
        with ledger.connect() as one, ledger.connect() as two:
            two.execute(text("SET LOCAL lock_timeout = '1s'"))
            assert hold_deletions(one, since=clock(one)) == hold_deletions(two, since=clock(two)) == set()


class TestWhoIsGone:
    """Whom a closing chunk leaves out."""

    def test_deletions_since_the_submit_are_told_and_older_ones_only_to_those_who_read(self, conn: Connection) -> None:
        add_customers(conn, "C-0", "C-1")
        delete_customer(conn, "C-0", keep_history=True)
        submitted_at = clock(conn)
        delete_customer(conn, "C-1", keep_history=True)
        assert hold_deletions(conn, since=submitted_at, in_full=True) == {"C-1"}
        assert hold_deletions(conn, since=submitted_at) == {"C-0", "C-1"}

    def test_who_came_back_is_not_gone(self, conn: Connection) -> None:
        submitted_at = clock(conn)
        add_customers(conn, "C-0")
        delete_customer(conn, "C-0", keep_history=True)
        put_customer(conn, customer("C-0"))
        assert hold_deletions(conn, since=submitted_at) == set()

    def test_deletions_of_long_ago_are_forgotten(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        delete_customer(conn, "C-0", keep_history=True)
        conn.execute(text("UPDATE customer_deletions SET deleted_at = deleted_at - interval '25 h'"))
        assert hold_deletions(conn, since=clock(conn)) == set()

    def test_a_second_deletion_counts_from_its_own_time(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        delete_customer(conn, "C-0", keep_history=True)
        submitted_at = clock(conn)
        put_customer(conn, customer("C-0"))
        delete_customer(conn, "C-0", keep_history=True)
        assert hold_deletions(conn, since=submitted_at, in_full=True) == {"C-0"}


class TestBackDoors:
    """The table guards itself, whoever speaks SQL to it."""

    def test_a_raw_delete_leaves_its_tombstones(self, conn: Connection) -> None:
        submitted_at = clock(conn)
        add_customers(conn, "C-0", "C-1", "C-2")
        conn.execute(text("DELETE FROM customers WHERE customer_id < 'C-2'"))
        assert hold_deletions(conn, since=submitted_at) == {"C-0", "C-1"}

    def test_a_raw_delete_waits_for_a_closing_chunk(self, ledger: Engine) -> None:
        held = claimed_batch(ledger)
        with ledger.connect() as worker:
            finish(worker, held)
            with meanwhile(ledger, lambda conn: conn.execute(text("DELETE FROM customers")).rowcount) as deletion:
                wait_until_blocked(ledger)
                worker.commit()
                assert deletion.result() == 2

    @pytest.mark.parametrize(
        "statement",
        ["TRUNCATE customers", "TRUNCATE customers CASCADE", "UPDATE customers SET customer_id = 'C-9'"],
    )
    def test_what_would_orphan_predictions_is_refused(self, conn: Connection, statement: str) -> None:
        add_customers(conn, "C-0")
        with pytest.raises(DBAPIError, match="would leave predictions without their customer"):
            conn.execute(text(statement))

    def test_naming_the_id_without_changing_it_is_no_rename(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        conn.execute(text("UPDATE customers SET customer_id = customer_id, age = 30"))
        assert get_customer(conn, "C-0").values["age"] == 30

    def test_an_upsert_by_raw_sql_is_no_deletion(self, conn: Connection) -> None:
        submitted_at = clock(conn)
        add_customers(conn, "C-0")
        conn.execute(text("INSERT INTO customers SELECT * FROM customers ON CONFLICT (customer_id) DO UPDATE SET age = 20"))
        assert hold_deletions(conn, since=submitted_at) == set()


class TestHistory:
    """What stays of a deleted customer."""

    def test_history_is_kept_as_it_is(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2,))
        score(conn)
        delete_customer(conn, "C-0", keep_history=True)
        assert conn.execute(text("SELECT customer_id FROM prediction_history ORDER BY id")).scalars().all() == ["C-0", "C-1"]

    def test_or_it_loses_the_customers_id_and_nothing_else(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2,), failed=1)
        score(conn)
        store_row_errors(conn, "b", [row_error(9, customer_id="C-1", code=Code.MISSING)])
        delete_customer(conn, "C-1", keep_history=False)
        history = conn.execute(
            text("SELECT customer_id, row_number, churn_probability FROM prediction_history ORDER BY id")
        ).all()
        assert [tuple(row) for row in history] == [(None, 1, 0.25), ("C-2", 2, 0.25)]
        assert [(e.row, e.customer_id, e.value) for e in row_errors_page(conn, "b")] == [(0, "C-0", None), (9, None, None)]
        assert get_batch(conn, "b").completed_customers == reconcile(conn, "b").completed == 2

    def test_an_unknown_customer_is_not_found_and_leaves_no_tombstone(self, conn: Connection) -> None:
        submitted_at = clock(conn)
        with pytest.raises(NotFound, match="there is no customer 'x'"):
            delete_customer(conn, "x", keep_history=False)
        assert hold_deletions(conn, since=submitted_at) == set()

    def test_of_two_deletions_at_once_one_finds_nobody(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
        assert sorted(together(ledger, delete, delete)) == [False, True]
