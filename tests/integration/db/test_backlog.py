"""The backlog: open batches and their customers, those that nobody has counted yet by an estimate."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from db.backlog import Backlog, measure_backlog
from db.control import cancel_batch, pause_batch, sweep_batch
from db.planning import claim_plan, renew_plan
from db.uploads import PART_BYTES
from schemas.states import Source
from tests.factories import add_batch, add_upload, claim, score


def test_an_empty_ledger_has_none(conn: Connection) -> None:
    assert measure_backlog(conn) == Backlog(0, 0)


def test_what_is_scored_or_refused_does_not_wait(conn: Connection) -> None:
    add_batch(conn, "a", sizes=(4, 3), failed=2)
    add_batch(conn, "b", sizes=(5,))
    score(conn, "a", 0, failed=1)
    assert measure_backlog(conn) == Backlog(2, 8)
    claim(conn, "a", 1)
    assert measure_backlog(conn) == Backlog(2, 8)


def test_ended_batches_do_not_wait_and_paused_ones_do(conn: Connection) -> None:
    for name in ("done", "cancelled", "paused"):
        add_batch(conn, name, sizes=(3,))
    score(conn, "done")
    cancel_batch(conn, "cancelled")
    sweep_batch(conn, "cancelled")
    pause_batch(conn, "paused")
    assert measure_backlog(conn) == Backlog(1, 3)


@pytest.mark.parametrize(("parts", "guess"), [(1, 20_000), (3, 60_000)])
def test_an_upload_that_nobody_has_read_is_guessed_by_its_size(conn: Connection, parts: int, guess: int) -> None:
    add_upload(conn, body=b"x" * (PART_BYTES * (parts - 1) + 1))
    assert measure_backlog(conn) == Backlog(1, guess)


def test_one_that_is_being_read_counts_at_least_what_was_read(conn: Connection) -> None:
    add_upload(conn)
    held = claim_plan(conn, "b", lease_s=60)
    assert held is not None
    renew_plan(conn, held, validated=70_000, lease_s=60)
    assert measure_backlog(conn) == Backlog(1, 70_000)


def test_a_filter_counts_more_than_the_submit_would_have_found_itself(conn: Connection) -> None:
    add_upload(conn, source=Source.FILTER, filter={"age": {"gte": 0}}, body=b"")
    assert measure_backlog(conn) == Backlog(1, 20_000)


def test_it_reads_open_batches_alone(conn: Connection) -> None:
    """By the partial index, whatever the past holds."""
    conn.execute(text("SET LOCAL enable_seqscan = off"))
    status = "status IN ('queued', 'validating', 'processing', 'paused', 'cancelling')"
    plan = " ".join(conn.execute(text(f"EXPLAIN SELECT count(*) FROM batch_jobs WHERE {status}")).scalars())
    assert "batch_jobs_open" in plan
