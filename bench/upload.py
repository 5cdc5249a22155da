"""Case: customers uploaded as CSV, all new, unchanged, and a tenth of them changed, beside the raw script."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final

import pyarrow as pa
from sqlalchemy import text

from bench import raw_upload
from bench.agreement import Agreement
from bench.ground import Ground, ended_at
from bench.measure import Findings, Section, Target, in_turn, medians, table_of, tell
from bench.raw import RANGE_ROWS
from datasets.files import write_customers
from datasets.synthetic import slices
from scoring.table import ROW, to_cents

_PRODUCT: Final = "the product"
_RAW: Final = "raw script"
_TARGET: Final = 0.8
_SEED: Final = 17
_CHANGED_ONE_IN: Final = 10


@dataclass(slots=True)
class _Upload:
    """Two files of the same customers, of which a tenth differ; each run of `changed` sends the one that is not stored."""

    ground: Ground
    pool: Pool
    n: int
    stored: Path
    other: Path
    agreement: Agreement

    def new(self, send: Callable[[Path], float]) -> float:
        """Send customers that nobody knows."""
        self.ground.forget_batches()
        self.ground.forget_customers()
        return self._timed(send, self.stored)

    def unchanged(self, send: Callable[[Path], float]) -> float:
        """Send what is stored."""
        self._settle()
        return self._timed(send, self.stored)

    def changed(self, send: Callable[[Path], float]) -> float:
        """Send what differs in a tenth of the customers."""
        self.stored, self.other = self.other, self.stored
        self._settle()
        return self._timed(send, self.stored)

    def product(self, path: Path) -> float:
        """Upload a file to the API; seconds from the first byte to completed."""
        began = time.time()
        with path.open("rb") as body:
            answer = self.ground.client.post("/batches", content=body, headers={"Content-Type": "text/csv"})
        batch = self.ground.finished(answer)
        if batch["completed_customers"] != self.n:
            raise RuntimeError(f"{batch['completed_customers']} of {self.n} customers were scored")
        return ended_at(batch) - began

    def raw(self, path: Path) -> float:
        """Store and score a file by the raw script; its seconds."""
        began = time.perf_counter()
        raw_upload.run(self.pool, path, n_rows=self.n, part_rows=RANGE_ROWS)
        return time.perf_counter() - began

    def _timed(self, send: Callable[[Path], float], path: Path) -> float:
        rate = self.n / send(path)
        self.agreement.check(path, n=self.n)
        return rate

    def _settle(self) -> None:
        """No dead rows of the run before, and no writing of its pages during the next."""
        self.ground.forget_batches()
        with self.ground.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("VACUUM (ANALYZE) customers"))
        self.ground.checkpoint()


def measure(ground: Ground, pool: Pool, *, n: int, rounds: int) -> Findings:
    """Compare customers a second from the first byte to completed, in the three states that the stored customers can be in."""
    files = ground.folder / "customers.csv", ground.folder / "a-tenth-changed.csv"
    upload = _Upload(ground, pool, n, *files, Agreement.over(ground.engine))
    write_customers(upload.stored, (part.customers for part in slices(n, seed=_SEED)))
    write_customers(upload.other, (_changed(part.customers) for part in slices(n, seed=_SEED)))
    findings = Findings()
    for title, state in (("new", upload.new), ("unchanged", upload.unchanged), ("changed", upload.changed)):
        tell(f"By upload, {n:,} customers, {title}, customers a second:")
        findings.add(_compare(upload, title, state, n=n, rounds=rounds))
    return findings


def _compare(
    upload: _Upload, title: str, state: Callable[[Callable[[Path], float]], float], *, n: int, rounds: int
) -> Findings:
    contenders = {_PRODUCT: lambda: state(upload.product), _RAW: lambda: state(upload.raw)}
    samples = in_turn(contenders, rounds=rounds, warm_up=title == "new")
    rate = medians(samples)
    section = Section(
        f"By upload, customers {title}",
        f"CSV of {n:,} customers, from the first byte to `completed`; {rounds} rounds. The raw script reads the file, "
        "copies its parts to a staging table, upserts what changed, predicts and copies in; it checks no row.",
        ("customers/s", "median", "lowest", "highest", "to the raw script"),
        table_of(samples, against=_RAW),
        rate,
        "customers/s",
    )
    return Findings([Target(f"upload_{title}_vs_raw", rate[_PRODUCT], rate[_RAW], _TARGET, "customers/s")], [section])


def _changed(customers: pa.Table) -> pa.Table:
    """The same customers, one in ten of whom pays a little more."""
    place = customers.schema.get_field_index("monthly_charges")
    rows = customers.column(ROW).to_numpy()
    charges = customers.column(place).to_numpy()
    raised = to_cents(charges + (rows % _CHANGED_ONE_IN == 0))
    return customers.set_column(place, customers.schema.field(place), pa.array(raised))
