"""The raw script by upload: parts of the file to a staging table, an upsert of what changed, predict, COPY in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from bench.raw import COPY_PREDICTIONS, matrix_of, parse_customers, prediction_csv
from bench.rivals import tools
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURE_NAMES

_NAMES: Final = ", ".join(COLUMNS)
_STAGE: Final = "CREATE TEMP TABLE IF NOT EXISTS staged (LIKE customers INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
_COPY: Final = f"COPY staged ({_NAMES}) FROM STDIN (FORMAT csv)"
_UPSERT: Final = f"""
    INSERT INTO customers ({_NAMES}, updated_at)
    SELECT {", ".join(f"s.{name}" for name in COLUMNS)}, now() FROM staged s LEFT JOIN customers old USING (customer_id)
     WHERE old.customer_id IS NULL
        OR ({", ".join(f"old.{name}" for name in FEATURE_NAMES)}) IS DISTINCT FROM
           ({", ".join(f"s.{name}" for name in FEATURE_NAMES)})
        ON CONFLICT (customer_id) DO UPDATE
       SET ({", ".join(FEATURE_NAMES)}, updated_at) = ({", ".join(f"excluded.{name}" for name in FEATURE_NAMES)}, now())
"""


class Part(NamedTuple):
    """Whole lines of a file: where they begin, how many bytes they are, and an estimate of their first row's number."""

    path: Path
    start: int
    length: int
    first_row: int


def run(pool: Pool, path: Path, *, n_rows: int, part_rows: int) -> None:
    """Store and score the customers of a CSV file that has a header and no line break inside a cell."""
    for _ in pool.imap_unordered(_score_part, parts_of(path, n_rows=n_rows, part_rows=part_rows)):
        pass


def parts_of(path: Path, *, n_rows: int, part_rows: int) -> Iterator[Part]:
    """Cut a file of about n_rows into parts of about part_rows whole lines."""
    size = path.stat().st_size
    count = max(1, n_rows // part_rows)
    with path.open("rb") as file:
        file.readline()
        start = file.tell()
        for number in range(1, count + 1):
            end = _line_end(file, size * number // count) if number < count else size
            # An id must only be unique: a part is given twice the numbers that it can need.
            yield Part(path, start, end - start, 2 * (number - 1) * part_rows)
            start = end


def _line_end(file: BinaryIO, near: int) -> int:
    file.seek(near)
    file.readline()
    return file.tell()


def _score_part(part: Part) -> None:
    with part.path.open("rb") as file:
        file.seek(part.start)
        content = file.read(part.length)
    with tools().connection as connection, connection.cursor() as cursor:
        cursor.execute(_STAGE)
        cursor.copy_expert(_COPY, io.BytesIO(content), size=1 << 18)
        cursor.execute(_UPSERT)
        customers = parse_customers(content)
        scores = tools().scorer.score_matrix(matrix_of(customers))
        rows = prediction_csv(customers.column(CUSTOMER_ID), scores, first_row=part.first_row)
        cursor.copy_expert(COPY_PREDICTIONS, rows, size=1 << 18)
