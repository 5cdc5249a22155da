"""Customers newly at risk: each ended batch compared once, in steps that go on where one ended; single predictions as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from db.chunks import close_chunk, count_chunk
from db.control import cancel_batch, sweep_batch
from db.customers import delete_customer
from db.insights import (
    Step,
    compare_singles,
    compare_some,
    newly_at_risk,
    newly_at_risk_today,
    take_turn,
    work_waits,
)
from db.predictions import store_predictions
from db.requests import ScoredRequest, claim_requests, finish_requests
from db.teams import ensure_team
from schemas.scopes import DEFAULT_TEAM
from tests.factories import (
    add_batch,
    add_customers,
    add_prediction,
    add_request,
    claim,
    customer,
    predictions_csv,
    score,
)


def predict(conn: Connection, batch_id: str, *bands: str, sizes: tuple[int, ...] | None = None, **fields: Any) -> None:
    """A batch that has ended, whose customers C-0, C-1, ... came into these bands."""
    add_batch(conn, batch_id, sizes=sizes or (len(bands),), **fields)
    first = 0
    for chunk_no, n in enumerate(sizes or (len(bands),)):
        held = claim(conn, batch_id, chunk_no)
        close_chunk(conn, held)
        for row, band in enumerate(bands[first : first + n], first):
            store_predictions(conn, predictions_csv(held, [(row, f"C-{row}")], risk_category=band))
        count_chunk(conn, batch_id, completed=n, failed=0, risk={}, errors={})
        first += n
    tick(conn)


def tick(conn: Connection) -> None:
    """Let what was predicted so far lie a minute back: in one transaction all have its time."""
    conn.execute(text("UPDATE prediction_history SET predicted_at = predicted_at - interval '1 min'"))


def compare_all(conn: Connection, *, rows: int = 1_000) -> list[Step]:
    """Steps until nothing is left."""
    return list(iter(lambda: compare_some(conn, rows=rows), None))


def came(conn: Connection) -> tuple[int, int]:
    totals = newly_at_risk(conn)
    return totals["high"], totals["critical"]


def today(conn: Connection, team: str = DEFAULT_TEAM) -> Mapping[str, int]:
    return newly_at_risk_today(conn, team=team)


class TestWhoCounts:
    """Whose band is high now and was lower before."""

    @pytest.mark.parametrize(
        ("before", "now", "counts"),
        [
            (None, "low", (0, 0)),
            (None, "medium", (0, 0)),
            (None, "high", (1, 0)),
            (None, "critical", (0, 1)),
            ("low", "medium", (0, 0)),
            ("low", "high", (1, 0)),
            ("medium", "high", (1, 0)),
            ("medium", "critical", (0, 1)),
            ("high", "high", (0, 0)),
            ("high", "critical", (0, 1)),
            ("critical", "high", (0, 0)),
            ("critical", "critical", (0, 0)),
            ("high", "low", (0, 0)),
        ],
    )
    @pytest.mark.parametrize("singly", [False, True])
    def test_by_the_band_before(
        self, conn: Connection, before: str | None, now: str, counts: tuple[int, int], singly: bool
    ) -> None:
        if before is not None:
            predict(conn, "before", before)
            compare_all(conn)
        earlier = came(conn)
        if singly:
            add_customers(conn, "C-0")
            predict_singly(conn, "C-0", now)
            compare_singles(conn, most=10)
        else:
            predict(conn, "now", now)
            compare_all(conn)
        high, critical = came(conn)
        assert (high - earlier[0], critical - earlier[1]) == counts

    def test_the_last_prediction_before_decides_and_no_later_one(self, conn: Connection) -> None:
        predict(conn, "a", "low")
        predict(conn, "b", "critical")
        predict(conn, "c", "low")
        predict(conn, "now", "high")
        predict(conn, "later", "high")
        compare_all(conn)
        # a: none; b: critical; c: none; now: high; later: none
        assert came(conn) == (1, 1)

    def test_of_two_at_one_time_the_id_decides(self, conn: Connection) -> None:
        for prediction_id, band in ((1, "low"), (2, "critical"), (3, "high")):
            add_prediction(conn, prediction_id, risk_category=band)
        conn.execute(text("INSERT INTO singles_at_risk VALUES (2), (3)"))
        compare_singles(conn, most=10)
        assert came(conn) == (0, 1)

    def test_a_customer_whose_history_was_made_anonymous_does_not_count(self, conn: Connection) -> None:
        add_customers(conn, "C-0", "C-1")
        predict(conn, "b", "high", "high")
        delete_customer(conn, "C-0", keep_history=False)
        compare_all(conn)
        assert came(conn) == (1, 0)

    def test_batches_without_results_are_not_compared(self, conn: Connection) -> None:
        add_batch(conn, "cancelled")
        score(conn, "cancelled")
        cancel_batch(conn, "cancelled")
        sweep_batch(conn, "cancelled")
        add_batch(conn, "open")
        assert not work_waits(conn)
        assert compare_some(conn, rows=10) is None


def predict_singly(conn: Connection, customer_id: str, band: str, team: str = DEFAULT_TEAM) -> None:
    request = add_request(conn, customer_id, team=team)
    (held,) = claim_requests(conn, [request], lease_s=60)
    finish_requests(conn, [ScoredRequest(held, 0.5, 0.5, band)])


class TestSteps:
    """A batch is compared in steps, once."""

    BANDS = ("high", "low", "critical", "high", "low", "high", "critical")

    @pytest.mark.parametrize("rows", [1, 2, 3, 6, 7, 8, 1_000])
    def test_their_size_does_not_matter(self, conn: Connection, rows: int) -> None:
        predict(conn, "b", *self.BANDS, sizes=(3, 4))
        steps = compare_all(conn, rows=rows)
        assert [step.ended for step in steps] == [False] * (len(steps) - 1) + [True]
        assert len(steps) == -(-7 // rows)
        assert came(conn) == (3, 2)
        assert today(conn) == {"high": 3, "critical": 2}
        assert not work_waits(conn)

    def test_rows_that_were_refused_are_passed_over(self, conn: Connection) -> None:
        add_batch(conn, "b", sizes=(1,), failed=20)
        held = claim(conn)
        close_chunk(conn, held)
        store_predictions(conn, predictions_csv(held, [(20, "C-20")], risk_category="high"))
        count_chunk(conn, "b", completed=1, failed=0, risk={}, errors={})
        compare_all(conn, rows=3)
        assert came(conn) == (1, 0)

    def test_a_batch_is_in_the_totals_once_all_of_it_is(self, conn: Connection) -> None:
        predict(conn, "b", *self.BANDS)
        compare_some(conn, rows=4)
        assert (came(conn), work_waits(conn)) == ((0, 0), True)
        compare_all(conn, rows=4)
        assert came(conn) == (3, 2)

    def test_a_step_that_dies_is_done_anew(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            predict(conn, "b", *self.BANDS)
        with ledger.connect() as conn:
            compare_some(conn, rows=4)
            conn.commit()
            compare_some(conn, rows=2)
            conn.rollback()
            compare_all(conn, rows=2)
            assert came(conn) == (3, 2)

    def test_the_batch_that_ended_first_comes_first(self, conn: Connection) -> None:
        predict(conn, "b", "high")
        predict(conn, "a", "high")
        assert [step.batch_id for step in compare_all(conn)] == ["b", "a"]

    def test_one_process_compares_at_a_time(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            predict(conn, "b", *self.BANDS)
            add_customers(conn, "C-0")
            predict_singly(conn, "C-0", "critical")
        with ledger.connect() as one, ledger.connect() as other:
            assert compare_some(one, rows=4) is not None
            assert compare_some(other, rows=4) is None
            assert compare_singles(other, most=10) == 0
            other.rollback()
            one.commit()
            assert compare_some(other, rows=4) == Step("b", ended=True)
            assert came(other) == (3, 2)
            assert compare_singles(other, most=10) == 1

    def test_scoring_goes_on_meanwhile(self, ledger: Engine) -> None:
        """No row of the batch, its customers or their predictions is locked by a step."""
        with ledger.begin() as conn:
            predict(conn, "b", *self.BANDS)
            add_customers(conn, "C-0")
        with ledger.connect() as comparing, ledger.begin() as conn:
            compare_some(comparing, rows=4)
            conn.execute(text("SET LOCAL lock_timeout = '1 s'"))
            delete_customer(conn, "C-0", keep_history=False)
            conn.execute(text("UPDATE batch_jobs SET metadata = '{}'"))
            predict(conn, "next", *self.BANDS)

    def test_counts_outlive_their_batch(self, conn: Connection) -> None:
        predict(conn, "b", *self.BANDS)
        compare_all(conn)
        conn.execute(text("DELETE FROM batch_jobs"))
        assert came(conn) == (3, 2)

    def test_a_batch_that_is_deleted_half_compared_is_forgotten(self, conn: Connection) -> None:
        predict(conn, "b", *self.BANDS)
        compare_some(conn, rows=4)
        conn.execute(text("DELETE FROM batch_jobs"))
        assert compare_some(conn, rows=4) is None
        assert not work_waits(conn)

    def test_no_step_reads_a_whole_table(self, conn: Connection) -> None:
        """Though Postgres takes it to be as small as it was when it last looked."""
        predict(conn, "b", *self.BANDS)
        conn.execute(text("ANALYZE prediction_history"))
        scans = text("SELECT seq_scan FROM pg_stat_xact_all_tables WHERE relname = 'prediction_history'")
        before = conn.execute(scans).scalar_one()
        compare_all(conn, rows=2)
        assert conn.execute(scans).scalar_one() == before


class TestSingles:
    """Single predictions are noted where they are stored, and compared later."""

    def test_only_those_at_risk_are_noted(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        for band in ("low", "medium", "high", "critical"):
            predict_singly(conn, "C-0", band)
        assert conn.execute(text("SELECT count(*) FROM singles_at_risk")).scalar_one() == 2
        assert work_waits(conn)

    def test_each_is_compared_once(self, conn: Connection) -> None:
        for name in ("C-0", "C-1", "C-2"):
            add_customers(conn, name)
            predict_singly(conn, name, "high")
        assert [compare_singles(conn, most=2) for _ in range(3)] == [2, 1, 0]
        assert came(conn) == (3, 0)
        assert not work_waits(conn)

    def test_they_are_their_team_s(self, conn: Connection) -> None:
        ensure_team(conn, "red")
        add_customers(conn, "C-0", "C-1")
        predict_singly(conn, "C-0", "high")
        predict_singly(conn, "C-1", "critical", team="red")
        compare_singles(conn, most=10)
        assert today(conn) == {"high": 1, "critical": 0}
        assert today(conn, "red") == {"high": 0, "critical": 1}
        assert came(conn) == (1, 1)

    def test_one_that_was_lost_to_another_attempt_is_not_noted(self, conn: Connection) -> None:
        request = add_request(conn, customer())
        (held,) = claim_requests(conn, [request], lease_s=60)
        conn.execute(text("UPDATE prediction_requests SET attempt = attempt + 1"))
        assert finish_requests(conn, [ScoredRequest(held, 0.9, 0.9, "critical")]) == set()
        assert not work_waits(conn)


def test_today_is_the_day_of_utc_on_which_the_batch_ended(conn: Connection) -> None:
    predict(conn, "yesterday", "high")
    conn.execute(text("UPDATE batch_insights SET ended_at = date_trunc('day', clock_timestamp(), 'UTC') - interval '1 us'"))
    compare_all(conn)
    predict(conn, "today", "critical")
    predict(conn, "others", "low", "critical", team="other")
    compare_all(conn)
    assert today(conn) == {"high": 0, "critical": 1}
    assert came(conn) == (1, 2)


def test_a_turn_is_taken_once_in_its_time(ledger: Engine) -> None:
    with ledger.connect() as one, ledger.connect() as other:
        assert take_turn(one, "a", every_s=60)
        one.commit()
        assert not take_turn(other, "a", every_s=60)
        assert take_turn(other, "b", every_s=60)
        other.commit()
        one.execute(text("UPDATE insight_turns SET taken_at = taken_at - interval '61 s' WHERE what = 'a'"))
        one.commit()
        assert take_turn(other, "a", every_s=60)
        other.commit()
