"""Predictions: one a row by primary key, read in input order, and a customer's history by pages."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest
from psycopg2 import errors as pg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from db.batches import Batch, get_batch
from db.errors import NotFound
from db.predictions import (
    RESULT_COLUMNS,
    customer_predictions,
    get_prediction,
    get_predictions,
    is_batch_prediction,
    most_at_risk,
    results_page,
    store_predictions,
    written_results,
)
from schemas.scopes import DEFAULT_TEAM
from tests.factories import MODEL, add_batch, add_prediction, add_request, claim, customer, predictions_csv, score
from tests.integration.db.test_customers import NASTY_IDS


def page(conn: Connection, batch: Batch, *, first_row: int = 0, end_row: int = 100) -> list[dict[str, str]]:
    content = results_page(conn, batch, first_row=first_row, end_row=end_row).decode()
    return [dict(zip(RESULT_COLUMNS, row, strict=True)) for row in csv.reader(io.StringIO(content, newline=""))]


class TestOnce:
    """A row of a batch is scored once; the primary key alone says so."""

    def test_a_row_cannot_be_stored_twice(self, conn: Connection) -> None:
        add_batch(conn)
        held = claim(conn)
        store_predictions(conn, predictions_csv(held, [(0, "C-0"), (1, "C-1")]))
        with pytest.raises(pg.UniqueViolation, match="prediction_history_pkey"):
            store_predictions(conn, predictions_csv(held, [(1, "C-9")]))

    def test_neither_within_one_set(self, conn: Connection) -> None:
        add_batch(conn)
        with pytest.raises(pg.UniqueViolation):
            store_predictions(conn, predictions_csv(claim(conn), [(0, "C-0"), (0, "C-0")]))

    def test_the_same_row_of_another_batch_is_another_prediction(self, conn: Connection) -> None:
        for name in ("one", "two"):
            add_batch(conn, name)
            score(conn, name)
        assert [r["row"] for name in ("one", "two") for r in page(conn, get_batch(conn, name))] == ["0", "1"] * 2

    def test_single_predictions_and_batches_share_no_id(self, conn: Connection) -> None:
        batch = add_batch(conn)
        conn.execute(text("INSERT INTO teams (team, team_no) VALUES ('last', 4194303)"))
        last = conn.execute(text("SELECT seqmax FROM pg_sequence WHERE seqrelid = 'single_prediction_ids'::regclass"))
        conn.execute(text("SELECT setval('single_prediction_ids', :last, false)"), {"last": last.scalar_one()})
        top = add_request(conn, customer(), team="last")
        assert top == (1 << 62) - 1
        assert top < batch.first_prediction_id
        assert is_batch_prediction(batch.first_prediction_id)
        assert not is_batch_prediction(top)
        conn.execute(text("SELECT setval('single_prediction_ids', 1, false)"))  # no rollback takes that back
        with pytest.raises(IntegrityError, match="teams_team_no_check"):
            conn.execute(text("INSERT INTO teams (team, team_no) VALUES ('beyond', 4194304)"))


class TestResults:
    """Pages of a batch's results."""

    def test_they_come_in_input_order_whatever_ended_first(self, conn: Connection) -> None:
        batch = add_batch(conn, sizes=(2, 2, 2), failed=1)
        for chunk_no in (2, 0, 1):
            score(conn, chunk_no=chunk_no)
        assert [r["row"] for r in page(conn, batch)] == ["1", "2", "3", "4", "5", "6"]

    def test_pages_hold_each_row_once(self, conn: Connection) -> None:
        batch = add_batch(conn, sizes=(4, 3))
        score(conn, chunk_no=0, failed=1)
        score(conn, chunk_no=1)
        pages = [page(conn, batch, first_row=first_row, end_row=first_row + 2) for first_row in range(0, 8, 2)]
        assert [[int(r["row"]) for r in rows] for rows in pages] == [[0, 1], [2], [4, 5], [6]]

    def test_partial_results_are_there_while_the_batch_runs(self, conn: Connection) -> None:
        batch = add_batch(conn, sizes=(2, 2))
        score(conn, chunk_no=1)
        assert [r["row"] for r in page(conn, batch)] == ["2", "3"]

    def test_a_result_is_complete(self, conn: Connection) -> None:
        batch = add_batch(conn)
        score(conn)
        [result] = page(conn, batch, end_row=1)
        predicted_at = datetime.fromisoformat(result.pop("predicted_at"))
        assert result == {
            "row": "0",
            "customer_id": "C-0",
            "churn_probability": "0.25",
            "risk_category": "low",
            "confidence_score": "0.75",
            "model_version": MODEL,
            "prediction_id": str(batch.first_prediction_id),
        }
        assert predicted_at == get_prediction(conn, batch.first_prediction_id, team=DEFAULT_TEAM).predicted_at

    def test_a_time_is_written_in_full_wherever_a_chunk_ends(self, conn: Connection) -> None:
        batch = add_batch(conn, sizes=(6,))
        score(conn)
        moments = [
            "00:00:00.000000",
            "00:00:00.000000",
            "10:11:12.123400",
            "10:11:12.123456",
            "23:59:59.900000",
            "23:59:59.900000",
        ]
        for row, moment in enumerate(moments):
            conn.execute(
                text("UPDATE prediction_history SET predicted_at = CAST(:t AS timestamptz) WHERE row_number = :r"),
                {"t": f"2026-02-03T{moment}Z", "r": row},
            )
        written = [f"2026-02-03T{moment}Z" for moment in moments]
        actions = dict.fromkeys(("low", "medium", "high", "critical"), "A")
        for first_row, end_row in [(0, 6), (0, 3), (1, 5), (2, 4), (3, 6), (5, 6)]:
            expected = written[first_row:end_row]
            assert [r["predicted_at"] for r in page(conn, batch, first_row=first_row, end_row=end_row)] == expected
            lines = written_results(conn, batch, first_row=first_row, end_row=end_row, actions=actions).decode().splitlines()
            assert [line.rpartition(",")[2] for line in lines] == expected

    def test_a_page_is_read_by_its_index_before_the_table_is_analysed(self, conn: Connection) -> None:
        batch = add_batch(conn, sizes=(400,) * 5)
        for chunk_no in range(5):
            score(conn, chunk_no=chunk_no)
        # Rows that came by a bitmap are not among those that an index fetched.
        fetched = text("SELECT pg_stat_get_xact_tuples_fetched('prediction_history_pkey'::regclass)")
        before = conn.execute(fetched).scalar_one()
        assert len(page(conn, batch, first_row=500, end_row=1_500)) == 1_000
        assert conn.execute(fetched).scalar_one() - before >= 1_000

    def test_a_probability_keeps_every_bit(self, conn: Connection) -> None:
        batch = add_batch(conn, sizes=(1,))
        churn_probability = 0.1 + 0.2 - 1e-16
        store_predictions(conn, predictions_csv(claim(conn), [(0, "C-0")], churn_probability=churn_probability))
        assert float(page(conn, batch)[0]["churn_probability"]) == churn_probability
        assert get_prediction(conn, batch.first_prediction_id, team=DEFAULT_TEAM).churn_probability == churn_probability

    def test_any_customer_id_survives_the_way_there_and_back(self, conn: Connection) -> None:
        batch = add_batch(conn)
        store_predictions(conn, predictions_csv(claim(conn), list(enumerate(NASTY_IDS))))
        assert [r["customer_id"] for r in page(conn, batch)] == NASTY_IDS

    def test_the_customers_most_at_risk_come_first(self, conn: Connection) -> None:
        batch, other = add_batch(conn), add_batch(conn, "other")
        held = claim(conn)
        for row, churn_probability in enumerate([0.2, 0.9, 0.5, 0.9]):
            store_predictions(conn, predictions_csv(held, [(row, f"C-{row}")], churn_probability=churn_probability))
        store_predictions(conn, predictions_csv(claim(conn, "other"), [(0, "C-0")], churn_probability=0.99))
        assert [p.row_number for p in most_at_risk(conn, batch, limit=3)] == [1, 3, 2]
        assert len(most_at_risk(conn, other, limit=3)) == 1


class TestSingle:
    """One prediction by its id."""

    def test_it_is_read_as_it_was_stored(self, conn: Connection) -> None:
        new = add_prediction(conn, 42)
        stored = get_prediction(conn, 42, team=DEFAULT_TEAM)
        assert {name: getattr(stored, name) for name in new} == new
        assert (stored.batch_id, stored.row_number) == (None, None)
        assert stored.predicted_at.tzinfo is not None

    def test_a_batch_row_knows_where_it_came_from(self, conn: Connection) -> None:
        batch = add_batch(conn)
        score(conn, chunk_no=1)
        stored = get_prediction(conn, batch.first_prediction_id + 3, team=DEFAULT_TEAM)
        assert (stored.batch_id, stored.row_number, stored.customer_id, stored.attempt) == ("b", 3, "C-3", 1)

    def test_an_unknown_one_is_not_found(self, conn: Connection) -> None:
        with pytest.raises(NotFound, match="there is no prediction '7'"):
            get_prediction(conn, 7, team=DEFAULT_TEAM)

    def test_many_are_read_at_once_and_unknown_ones_left_out(self, conn: Connection) -> None:
        stored = [add_prediction(conn, number, customer_id=f"C-{number}") for number in (3, 1, 2)]
        found = get_predictions(conn, [1, 2, 3, 7], team=DEFAULT_TEAM)
        assert {number: found[number].customer_id for number in found} == {row["id"]: row["customer_id"] for row in stored}
        assert found[2] == get_prediction(conn, 2, team=DEFAULT_TEAM)
        assert get_predictions(conn, [], team=DEFAULT_TEAM) == {}

    def test_one_of_a_batch_is_whose_the_batch_is(self, conn: Connection) -> None:
        ids = []
        for team in (DEFAULT_TEAM, "growth"):
            batch = add_batch(conn, team, sizes=(1,), team=team)
            score(conn, team)
            ids.append(batch.first_prediction_id)
        assert list(get_predictions(conn, ids, team=DEFAULT_TEAM)) == ids[:1]
        assert list(get_predictions(conn, ids, team="growth")) == ids[1:]


class TestHistory:
    """A customer's predictions, the newest first."""

    def test_pages_hold_each_prediction_once(self, ledger: Engine) -> None:
        for number in range(1, 8):
            with ledger.begin() as conn:
                add_prediction(conn, number)
                add_prediction(conn, 100 + number, customer_id="C-1")
        with ledger.connect() as conn:
            assert _pages(conn, limit=3) == [[7, 6, 5], [4, 3, 2], [1]]

    def test_predictions_of_one_moment_are_told_apart_by_id(self, conn: Connection) -> None:
        for number in (3, 1, 2):
            add_prediction(conn, number)
        conn.execute(text("UPDATE prediction_history SET predicted_at = :t"), {"t": datetime(2026, 1, 1, tzinfo=UTC)})
        assert _pages(conn, limit=1) == [[3], [2], [1]]

    def test_singles_and_batches_stand_together(self, conn: Connection) -> None:
        batch = add_batch(conn, sizes=(1,))
        score(conn)
        add_prediction(conn, 5)
        assert {p.id for p in customer_predictions(conn, "C-0", team=DEFAULT_TEAM)} == {5, batch.first_prediction_id}

    def test_a_customer_without_predictions_has_none(self, conn: Connection) -> None:
        assert customer_predictions(conn, "x", team=DEFAULT_TEAM) == []


def _pages(conn: Connection, *, limit: int) -> list[list[int]]:
    pages, found = [], customer_predictions(conn, "C-0", limit=limit, team=DEFAULT_TEAM)
    while found:
        pages.append([prediction.id for prediction in found])
        found = customer_predictions(conn, "C-0", limit=limit, before=(found[-1].predicted_at, found[-1].id), team=DEFAULT_TEAM)
    return pages


def test_a_spreadsheet_gets_the_same_results(conn: Connection) -> None:
    batch = add_batch(conn, sizes=(4,))
    score(conn, failed=1)
    actions = {"low": "L", "medium": "M", "high": "H", "critical": "C"}
    written = written_results(conn, batch, first_row=0, end_row=4, actions=actions).decode()
    lines = list(csv.reader(io.StringIO(written, newline="")))
    plain = [list(row.values()) for row in page(conn, batch)]
    assert [line[:6] + line[7:] for line in lines] == plain
    assert [line[6] for line in lines] == [actions[row["risk_category"]] for row in page(conn, batch)]
