"""Case: the product beside what others would take for the job, pandas and Ray Data, on the same rows and tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import Pool
from statistics import median
from typing import Final

from bench import pandas_peer, raw, ray_peer
from bench.agreement import Agreement
from bench.ground import Ground, next_id
from bench.measure import Findings, Samples, Section, in_turn, medians, table_of, tell
from bench.model import engine_name
from bench.reference import score_everyone
from scoring.compiled import EngineChoice

_PRODUCT: Final = "the product"
_PANDAS: Final = "pandas and to_sql"
_RAY: Final = "Ray Data"
_SHARE: Final = 10
"""pandas is given one customer in so many, as it is slow."""

REQUIREMENTS: Final = "bench/requirements-peers.txt"


@dataclass(slots=True)
class _Peers:
    ground: Ground
    pool: Pool
    n: int
    agreement: Agreement
    starts_s: list[float] = field(default_factory=list)

    @property
    def few(self) -> int:
        """How many customers pandas is given."""
        return self.n // _SHARE

    def product(self) -> float:
        rate = score_everyone(self.ground, self.n)
        self.agreement.check(self.n, n=self.n)
        return rate

    def pandas(self) -> float:
        return self._timed(self.few, lambda: pandas_peer.run(self.pool, self.few))

    def ray(self, choice: EngineChoice) -> float:
        ground = self.ground
        ground.forget_batches()
        timing = ray_peer.run(
            raw.key_ranges(self.pool),
            database_url=ground.database_url,
            bundle=ground.bundle,
            choice=choice,
            folder=ground.folder / "ray",
        )
        self.starts_s.append(timing.start_s)
        self.agreement.check(self.n, n=self.n)
        return self.n / timing.work_s

    def agree_on_few(self) -> None:
        """Let the raw script say what the few customers' predictions are."""
        ranges = raw.key_ranges(self.pool, below=next_id(self.few))
        self._timed(self.few, lambda: raw.run(self.pool, ranges))

    def _timed(self, n: int, run: Callable[[], object]) -> float:
        self.ground.forget_batches()
        began = time.perf_counter()
        run()
        seconds = time.perf_counter() - began
        self.agreement.check(n, n=n)
        return n / seconds


def measure(ground: Ground, pool: Pool, *, n: int, rounds: int) -> Findings:
    """Compare customers a second with those peers that are installed; there is no target."""
    ground.store_customers(n)
    tell(f"Beside peers, {n:,} customers, customers a second:")
    peers = _Peers(ground, pool, n, Agreement.over(ground.engine))
    peers.agree_on_few()
    contenders: dict[str, Callable[[], float]] = {_PRODUCT: peers.product, _PANDAS: peers.pandas}
    if ray_peer.is_installed():
        engines = dict.fromkeys((engine_name(ground.bundle), EngineChoice.LIGHTGBM))
        contenders |= {f"{_RAY}, {engine} engine": partial(peers.ray, engine) for engine in engines}
    samples = in_turn(contenders, rounds=rounds, warm_up=False)
    section = Section(
        "Beside pandas and Ray Data",
        f"By reference, {n:,} customers; all store the same predictions. {_on_pandas(peers)} {_on_ray(peers)}",
        ("customers/s", "median", "lowest", "highest", "to the product"),
        rows_of(samples),
        medians(samples),
        "customers/s",
    )
    return Findings([], [section])


def rows_of(samples: Samples) -> tuple[tuple[str, ...], ...]:
    """The rows of the report; a peer that did not run has one too, so that nobody takes it for forgotten."""
    rows = table_of(samples, against=_PRODUCT)
    return rows if any(name.startswith(_RAY) for name in samples) else (*rows, (_RAY, "not installed", "", "", ""))


def _on_pandas(peers: _Peers) -> str:
    return (
        f"pandas scores {peers.few:,} of them in chunks of {raw.RANGE_ROWS:,}, in one process, with LightGBM's predict on all "
        "cores."
    )


def _on_ray(peers: _Peers) -> str:
    if not peers.starts_s:
        return f"Ray Data did not run: it is not installed (`make bench PEERS=1` installs {REQUIREMENTS})."
    return (
        "Ray Data runs the raw script's steps in a stage of two actors, each with a connection and the model; its time begins "
        f"when the first of them is ready, {median(peers.starts_s):.1f} s after its start, which is left out."
    )
