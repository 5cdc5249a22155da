"""What a team has used: its open batches, and the rows of a day's batches that were planned."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text

from db.allowance import Use, count_import, lock_use_of_team, use_of_team
from db.control import cancel_batch, sweep_batch
from db.planning import claim_plan, refuse_plan
from db.uploads import PART_BYTES
from tests.factories import add_batch, add_upload, score
from tests.integration.db.concurrency import meanwhile, wait_until_blocked


def used(conn: Connection, team: str = "a", batch_id: str = "") -> tuple[int, int]:
    use = lock_use_of_team(conn, team, batch_id)
    return use.open_batches, use.rows


def submitted(conn: Connection, batch_id: str, when: str) -> None:
    """Move a batch's submit in time."""
    conn.execute(text(f"UPDATE batch_jobs SET submitted_at = {when} WHERE batch_id = :b"), {"b": batch_id})


def test_nothing_was_used_to_begin_with(conn: Connection) -> None:
    use = use_of_team(conn, "a")
    assert (use.open_batches, use.rows) == (0, 0)
    assert 0 < use.day_ends_in_s <= 86_400


def test_each_team_has_its_own(conn: Connection) -> None:
    add_batch(conn, "x", sizes=(4, 3), failed=2, team="a")
    add_batch(conn, "y", sizes=(5,), team="b")
    assert (used(conn, "a"), used(conn, "b"), used(conn, "c")) == ((1, 9), (1, 5), (0, 0))


def test_rows_count_on_when_their_batch_has_ended(conn: Connection) -> None:
    add_batch(conn, "done", sizes=(3,), team="a")
    add_batch(conn, "cancelled", sizes=(4,), team="a")
    score(conn, "done")
    cancel_batch(conn, "cancelled")
    sweep_batch(conn, "cancelled")
    assert used(conn) == (0, 7)


def test_an_upload_has_no_rows_before_it_is_planned_and_none_when_it_is_refused(conn: Connection) -> None:
    add_upload(conn, "u", team="a")
    assert used(conn) == (1, 0)
    held = claim_plan(conn, "u", lease_s=60)
    assert held is not None
    refuse_plan(conn, held, code="not_csv", detail="no")
    assert used(conn) == (0, 0)


@pytest.mark.parametrize(("seconds", "rows"), [(0, 5), (-1, 3)])
def test_a_day_is_one_of_utc(conn: Connection, seconds: int, rows: int) -> None:
    conn.execute(text("SET LOCAL TimeZone = 'Pacific/Auckland'"))
    add_batch(conn, "now", sizes=(3,), team="a")
    add_batch(conn, "then", sizes=(2,), team="a")
    submitted(conn, "then", f"date_trunc('day', clock_timestamp(), 'UTC') + interval '{seconds} s'")
    assert used(conn)[1] == rows


def test_what_was_submitted_yesterday_is_held_to_yesterday(conn: Connection) -> None:
    for name, size in (("old", 4), ("planned-late", 2), ("now", 1)):
        add_batch(conn, name, sizes=(size,), team="a")
    for name in ("old", "planned-late"):
        submitted(conn, name, "clock_timestamp() - interval '1 day'")
    assert used(conn, batch_id="planned-late")[1] == 6
    assert used(conn, batch_id="now")[1] == 1


def test_imports_count_to_their_day_beside_the_batches(conn: Connection) -> None:
    add_batch(conn, "now", sizes=(2,), team="a")
    add_batch(conn, "old", sizes=(1,), team="a")
    submitted(conn, "old", "clock_timestamp() - interval '1 day'")
    assert [count_import(conn, team, n).rows for team, n in (("a", 3), ("b", 7), ("a", 4))] == [5, 7, 9]
    conn.execute(text("UPDATE imported_rows SET day = day - 1 WHERE team = 'a'"))
    count_import(conn, "a", 20)
    assert (used(conn)[1], used(conn, batch_id="now")[1], used(conn, batch_id="old")[1]) == (22, 22, 8)


def test_an_import_counts_to_the_day_of_utc(conn: Connection) -> None:
    conn.execute(text("SET LOCAL TimeZone = 'Pacific/Kiritimati'"))  # whose date is another one for 14 hours of 24
    assert count_import(conn, "a", 3).rows == 3
    conn.execute(text("SET LOCAL TimeZone = 'Pacific/Niue'"))
    assert count_import(conn, "a", 3).rows == 6


def test_a_batch_waits_for_an_import_at_the_same_time(ledger: Engine) -> None:
    def submit(second: Connection) -> Use:
        add_batch(second, "other", sizes=(4,), team="a")
        return lock_use_of_team(second, "a", "other")

    with ledger.connect() as conn:
        assert count_import(conn, "a", 3).rows == 3
        with meanwhile(ledger, submit) as found:
            wait_until_blocked(ledger)
            conn.commit()
            assert found.result().rows == 7


def test_uploads_count_by_their_parts_until_they_are_read(conn: Connection) -> None:
    add_upload(conn, "one", b"a" * (PART_BYTES + 1), team="a")
    add_upload(conn, "two", b"a", team="a")
    add_upload(conn, "other", b"a", team="b")
    assert use_of_team(conn, "a").upload_bytes == 3 * PART_BYTES
    held = claim_plan(conn, "one", lease_s=60)
    assert held is not None
    refuse_plan(conn, held, code="not_csv", detail="no")
    cancel_batch(conn, "two")
    sweep_batch(conn, "two")
    assert use_of_team(conn, "a").upload_bytes == 0


def test_what_is_added_at_the_same_time_is_waited_for(ledger: Engine) -> None:
    with ledger.connect() as conn:
        add_batch(conn, "one", sizes=(3,), team="a")
        assert used(conn) == (1, 3)

        def other(second: Connection) -> Use:
            add_batch(second, "other", sizes=(4,), team="a")
            return lock_use_of_team(second, "a", "other")

        with meanwhile(ledger, other) as found:
            wait_until_blocked(ledger)
            assert used(conn, "b") == (0, 0)
            conn.commit()
            assert found.result().rows == 7
