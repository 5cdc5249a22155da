"""Row errors: whatever bytes a client sent, kept as they were and read in input order."""

from __future__ import annotations

import pytest
from psycopg2 import errors as pg
from sqlalchemy import Connection

from db.row_errors import RowError, numbered, row_errors_page, store_row_errors
from scoring.features import Code
from tests.factories import row_error

NASTY = ["a,b", 'a "b"', "a\nb", "a\r\nb", "x\n\\.\ny", "\\.", "\\N", "NULL", "\t", "\N{SNOWMAN}", "'; --", "%s", " padded "]


def error(row: int, value: str | None, fault_no: int = 0) -> RowError:
    return RowError(row, value, "age", Code.OUT_OF_RANGE, f"not {value}", value, fault_no)


def test_errors_are_read_as_they_were_stored(conn: Connection) -> None:
    errors = [RowError(0, None, None, Code.MALFORMED_ROW, "m", None), RowError(1, "C-1", "age", Code.MISSING, "m", "v")]
    store_row_errors(conn, "b", errors)
    assert row_errors_page(conn, "b") == errors


@pytest.mark.parametrize("value", NASTY, ids=repr)
def test_any_value_survives_the_way_there_and_back(conn: Connection, value: str) -> None:
    store_row_errors(conn, "b", [error(0, value), error(1, "next")])
    assert row_errors_page(conn, "b") == [error(0, value), error(1, "next")]


def test_a_nul_is_shown_as_a_symbol(conn: Connection) -> None:
    store_row_errors(conn, "b", [error(0, "a\0b")])
    [stored] = row_errors_page(conn, "b")
    assert stored.value == stored.customer_id == "a\N{SYMBOL FOR NULL}b"


def test_a_batch_id_is_data_too(conn: Connection) -> None:
    store_row_errors(conn, 'b,"1"', [error(0, "v")])
    assert len(row_errors_page(conn, 'b,"1"')) == 1


def test_no_errors_are_no_work(conn: Connection) -> None:
    store_row_errors(conn, "b", [])
    assert row_errors_page(conn, "b") == []


def test_pages_come_in_input_order_and_may_end_within_a_row(conn: Connection) -> None:
    places = [(row, fault) for row in (0, 3, 10) for fault in (0, 1)]
    store_row_errors(conn, "b", [row_error(row, fault_no=fault) for row, fault in reversed(places)])
    store_row_errors(conn, "other", [row_error(1)])
    seen: list[list[tuple[int, int]]] = []
    after = (-1, -1)
    while found := row_errors_page(conn, "b", after=after, limit=3):
        seen.append([(e.row, e.fault_no) for e in found])
        after = seen[-1][-1]
    assert seen == [places[:3], places[3:]]


def test_faults_are_numbered_within_their_row() -> None:
    given = [error(row, "v") for row in (0, 0, 0, 2, 5, 5)]
    assert [(e.row, e.fault_no) for e in numbered(given)] == [(0, 0), (0, 1), (0, 2), (2, 0), (5, 0), (5, 1)]


def test_one_fault_is_never_stored_twice(conn: Connection) -> None:
    store_row_errors(conn, "b", [row_error(0)])
    with pytest.raises(pg.UniqueViolation):
        store_row_errors(conn, "b", [row_error(0)])
