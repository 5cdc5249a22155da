"""The product's promise: a batch's results are those of one Booster.predict over its rows, however the work is divided."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, cycle, repeat
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from db.customers import copy_customers
from scoring.compiling import ensure_compiled
from scoring.model import ModelBundle
from scoring.native import FOLDER
from scoring.table import IDS_SCHEMA
from settings import Settings
from tests.integration.workers import builders as b
from workers import chunk as chunk_module
from workers.chunk import score_chunk
from workers.plan import validate_batch
from workers.resources import Resources, make_resources
from workers.stored import select_stored

ROWS: Final = 60
# By version and not by what is installed: where there is a compiler, a missing one is a fault.
ENGINES: Final = ("lightgbm",) if sys.version_info >= (3, 14) else ("lightgbm", "compiled")
SOURCES: Final = ("customers", "file", "customer_ids", "filter", "filter planned at once")

CUSTOMERS: Final = b.customers_of(ROWS)
EARLIER: Final = b.customers_of(ROWS, seed=12)
"""Other values of the same customers."""

_numbers = count()


@dataclass(frozen=True)
class Division:
    """How a batch is divided among workers.

    Attributes
    ----------
    unchanged : float
        The share of an upload's customers that are stored already, as they are; the next share has other values.
    hints : sequence of float
        In which order the chunks are hinted at: each is the place of one among those that are left.
    workers : sequence of str
        By their engines; they take the hints in turn.
    """

    source: str
    n_rows: int
    chunk_rows: int
    slice_rows: int
    unchanged: float
    hints: Sequence[float]
    workers: Sequence[str]


@st.composite
def divisions(draw: st.DrawFn) -> Division:
    n_rows = draw(st.integers(1, ROWS))
    return Division(
        source=draw(st.sampled_from(SOURCES)),
        n_rows=n_rows,
        chunk_rows=draw(st.integers(1, n_rows)),
        slice_rows=draw(st.sampled_from([1, 7, 5_000])),
        unchanged=draw(st.sampled_from([0.0, 0.3, 1.0])),
        hints=draw(st.lists(st.floats(0, 1, exclude_max=True), max_size=6)),
        workers=draw(st.lists(st.sampled_from(ENGINES), min_size=1, max_size=3)),
    )


@pytest.fixture(scope="module")
def compiled_folder(bundles: Mapping[str, ModelBundle], model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles with the model's machine code beside it, where there is a compiler."""
    folder = tmp_path_factory.mktemp("compiled")
    shutil.copytree(model_folder / b.MODEL, folder / b.MODEL)
    if "compiled" in ENGINES:
        assert ensure_compiled(folder / b.MODEL, folder / FOLDER, sha256=bundles[b.MODEL].sha256) is None
    return folder


@pytest.fixture
def workers(settings: Settings, ledger: Engine, compiled_folder: Path) -> Iterator[dict[str, Resources]]:
    """A worker for each engine."""
    made = {
        engine: make_resources(
            dataclasses.replace(settings, model_storage_path=compiled_folder, scoring_engine=engine), process=process
        )
        for process, engine in enumerate(ENGINES)
    }
    yield made
    for worker in made.values():
        worker.close()


@examples(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(division=divisions())
def test_results_do_not_depend_on_how_the_work_is_divided(
    workers: Mapping[str, Resources], ledger: Engine, bundles: Mapping[str, ModelBundle], division: Division
) -> None:
    batch_id = f"b{next(_numbers)}"
    rows = rows_of(division)

    submit(ledger, batch_id, division)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_module, "_SLICE_ROWS", division.slice_rows)
        work_off(workers, batch_id, division)

    expected = b.booster_predictions(bundles[b.MODEL].model_text, rows)
    found = b.predictions_of(ledger, batch_id)
    assert [(row.row_number, row.customer_id) for row in found] == list(enumerate(b.ids_of(rows)))
    tolerance = 1e-12 if "compiled" in division.workers else 0.0
    np.testing.assert_allclose([row.churn_probability for row in found], expected, rtol=0, atol=tolerance)
    assert [row.confidence_score for row in found] == [max(p, 1 - p) for p in (row.churn_probability for row in found)]
    assert [row.risk_category for row in found] == b.bands_of(expected, workers["lightgbm"])
    b.assert_reconciled(ledger, batch_id)
    assert stored(ledger, rows).to_pylist() == rows.to_pylist()


def rows_of(division: Division) -> pa.Table:
    """The batch's rows; references come in another order than that of the key."""
    chosen = CUSTOMERS.slice(0, division.n_rows)
    if division.source == "customer_ids":
        chosen = chosen.take(list(range(division.n_rows))[::-1])
    return chosen.set_column(0, chosen.schema.field(0), pa.array(range(division.n_rows), pa.int32()))


def submit(engine: Engine, batch_id: str, division: Division) -> None:
    """Submit the batch beside the customers that are stored before."""
    rows = rows_of(division)
    ids = b.ids_of(rows)
    chosen = {"customer_id": {"lte": max(ids)}}
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM customers"))
        same = round(division.unchanged * division.n_rows) if division.source in ("customers", "file") else ROWS
        b.store_customers(conn, pa.concat_tables([CUSTOMERS.slice(0, same), EARLIER.slice(same, same)]))
    with engine.begin() as conn:
        match division.source:
            case "customers":
                b.submit_customers(conn, batch_id, rows, chunk_rows=division.chunk_rows)
            case "file":
                b.submit_file(conn, batch_id, b.csv_of(rows.drop_columns(["row"]).to_pylist()))
            case "customer_ids":
                b.submit_ids(conn, batch_id, ids, chunk_rows=division.chunk_rows)
            case "filter":
                b.submit_filter(conn, batch_id, chosen)
            case _:
                b.submit_matching(conn, batch_id, chosen, chunk_rows=division.chunk_rows)


def work_off(workers: Mapping[str, Resources], batch_id: str, division: Division) -> None:
    """Validate the batch where that is still to do, and score its chunks; the first hint comes twice."""
    takers = cycle(workers[engine] for engine in division.workers)
    validate_batch(b.with_settings(next(takers), chunk_rows=division.chunk_rows), batch_id)
    left = [chunk.chunk_no for chunk in b.chunks_of(workers["lightgbm"].engine, batch_id)]
    assert len(left) == -(-division.n_rows // division.chunk_rows)
    places = chain(division.hints, repeat(0.0))
    hints = [left.pop(int(next(places) * len(left))) for _ in range(len(left))]
    for chunk_no in [*hints, hints[0]]:
        score_chunk(next(takers), batch_id, chunk_no)


def stored(engine: Engine, rows: pa.Table) -> pa.Table:
    """The same customers as they are stored."""
    with engine.connect() as conn:
        return select_stored(copy_customers(conn, b.ids_of(rows)), rows.select(IDS_SCHEMA.names))
