"""Which failed rows another try may score: those whose circumstances were at fault, not their values."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from db.retry import RETRYABLE_CODES, count_retryable, failed_customer_ids, retryable_chunks
from db.row_errors import store_row_errors
from intake.chunks import decode
from scoring.features import CUSTOMER_ID, Code
from scoring.table import ROW
from tests.factories import add_batch, row_error, score


@pytest.mark.parametrize("code", list(Code))
def test_circumstances_can_be_retried_and_values_cannot(conn: Connection, code: Code) -> None:
    add_batch(conn)
    store_row_errors(conn, "b", [row_error(0, code=code)])
    is_retryable = code in {Code.CUSTOMER_NOT_FOUND, Code.CUSTOMER_DELETED, Code.SCORING_FAILED}
    assert (code in RETRYABLE_CODES) == is_retryable
    assert count_retryable(conn, "b") == is_retryable
    assert len(list(retryable_chunks(conn, "b"))) == is_retryable
    assert failed_customer_ids(conn, "b") == (["C-0"] if is_retryable else [])


def test_the_failed_rows_come_with_their_chunks_in_input_order(conn: Connection) -> None:
    add_batch(conn, sizes=(3, 3, 3, 3), failed=2)
    for chunk_no, failed in enumerate((0, 2, 0, 1)):
        score(conn, chunk_no=chunk_no, failed=failed)
    chunks = [(decode(payload)[ROW].to_pylist(), rows) for payload, rows in retryable_chunks(conn, "b")]
    assert chunks == [([5, 6, 7], [6, 7]), ([11, 12, 13], [13])]
    assert count_retryable(conn, "b") == 3


def test_a_chunk_carries_the_customers_of_its_rows(conn: Connection) -> None:
    add_batch(conn, sizes=(2, 2))
    score(conn, chunk_no=1, failed=1)
    [(payload, rows)] = retryable_chunks(conn, "b")
    by_row = dict(zip(decode(payload)[ROW].to_pylist(), decode(payload)[CUSTOMER_ID].to_pylist(), strict=True))
    assert [by_row[row] for row in rows] == ["C-3"]


def test_a_row_with_several_faults_is_one_row(conn: Connection) -> None:
    add_batch(conn)
    store_row_errors(conn, "b", [row_error(1, code=Code.SCORING_FAILED, fault_no=n) for n in range(3)])
    assert count_retryable(conn, "b") == 1
    assert [rows for _, rows in retryable_chunks(conn, "b")] == [[1]]


def test_an_id_that_was_unknown_at_the_submit_is_told_by_its_error_alone(conn: Connection) -> None:
    add_batch(conn, sizes=(2,), failed=0)
    store_row_errors(conn, "b", [row_error(9), row_error(7), row_error(8, customer_id="C-9")])
    assert failed_customer_ids(conn, "b") == ["C-7", "C-9"]


def test_a_batch_without_failures_has_nothing_to_retry(conn: Connection) -> None:
    add_batch(conn, sizes=(2,))
    add_batch(conn, "other", sizes=(2,))
    score(conn)
    score(conn, "other", failed=2)
    assert (count_retryable(conn, "b"), list(retryable_chunks(conn, "b")), failed_customer_ids(conn, "b")) == (0, [], [])
