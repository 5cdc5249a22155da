"""`python -m bench`: run the cases and write the report; `make bench` calls it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final

from bench import download, growth, peers, polling, reference, single, upload
from bench.ground import Ground, prepared_ground
from bench.machine import describe_machine
from bench.measure import Findings, tell
from bench.model import engine_name
from bench.report import write_report
from bench.rivals import raw_processes

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured; the slow cases, some seconds a run, have rounds of their own."""

    customers: int
    uploaded: int
    rounds: int
    slow_rounds: int
    requests: int
    seconds: float
    sizes: tuple[int, ...]
    upload_sizes: tuple[int, int]


_FULL: Final = Scale(
    customers=1_000_000,
    uploaded=1_000_000,
    rounds=5,
    slow_rounds=3,
    requests=1_500,
    seconds=6.0,
    sizes=(10_000, 100_000, 1_000_000, 5_000_000),
    upload_sizes=(100_000, 1_000_000),
)
_QUICK: Final = Scale(
    customers=200_000,
    uploaded=100_000,
    rounds=2,
    slow_rounds=2,
    requests=300,
    seconds=2.0,
    sizes=(10_000, 50_000, 200_000),
    upload_sizes=(50_000, 200_000),
)

_Case = Callable[[Ground, Pool, Scale], Findings]

# Those that leave the stored customers as they are come first, so that they need not be stored anew for each; the latencies of
# single requests before the peers, whose processes take some time to be gone.
_CASES: Final[Mapping[str, _Case]] = {
    "reference": lambda ground, pool, scale: reference.measure(ground, pool, n=scale.customers, rounds=scale.rounds),
    "single": lambda ground, _, scale: single.measure(
        ground, n=scale.customers, requests=scale.requests, seconds=scale.seconds, rounds=scale.rounds
    ),
    "download": lambda ground, _, scale: download.measure(ground, n=scale.customers, rounds=scale.rounds),
    "polling": lambda ground, _, scale: polling.measure(
        ground, n=scale.customers, requests=scale.requests, rounds=scale.rounds
    ),
    "peers": lambda ground, pool, scale: peers.measure(ground, pool, n=scale.customers, rounds=scale.slow_rounds),
    "upload": lambda ground, pool, scale: upload.measure(ground, pool, n=scale.uploaded, rounds=scale.slow_rounds),
    "growth": lambda ground, pool, scale: growth.measure(
        ground, pool, sizes=scale.sizes, uploads=scale.upload_sizes, rounds=scale.slow_rounds
    ),
}


def main() -> None:
    """Run the chosen cases on one ground."""
    chosen = _arguments()
    usual = _QUICK if chosen.quick else _FULL
    scale = replace(
        usual,
        customers=chosen.customers or usual.customers,
        uploaded=chosen.customers or usual.uploaded,
        rounds=chosen.rounds or usual.rounds,
        slow_rounds=chosen.rounds or usual.slow_rounds,
        sizes=tuple(sorted(chosen.sizes or usual.sizes)),
    )
    machine, began = dict(describe_machine()), time.monotonic()
    findings = Findings()
    with prepared_ground() as ground, raw_processes(ground.database_url, ground.bundle) as pool:
        if chosen.note:
            machine["note"] = chosen.note
        machine["engine"] = engine_name(ground.bundle)
        for name in chosen.cases:
            case_began = time.monotonic()
            findings.add(_CASES[name](ground, pool, scale))
            tell(f"The case {name} took {time.monotonic() - case_began:.0f} s.")
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_report(chosen.out, findings, machine=machine, command=_command(chosen))
    for target in findings.targets:
        tell(f"{target.name}: {target.ratio:.2f} (wanted {target.target:g}) {'met' if target.is_met else 'NOT met'}")
    tell(f"Wrote {chosen.out / 'report.md'} after {time.monotonic() - began:.0f} s.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the product beside raw scripts.")
    parser.add_argument("--quick", action="store_true", help="fewer customers and rounds: about two minutes")
    parser.add_argument("--customers", type=int, help="customers stored and uploaded, instead of the usual number")
    parser.add_argument("--rounds", type=int, help="rounds of each case, instead of the usual number")
    parser.add_argument("--sizes", type=int, nargs="+", help="batch sizes of the growth, two at least")
    parser.add_argument("--cases", nargs="+", choices=list(_CASES), default=list(_CASES), help="which cases; all by default")
    parser.add_argument("--note", help="what a reader of the report should know about this run")
    parser.add_argument("--out", type=Path, default=_FOLDER, help="folder of results.json, report.md and report.svg")
    chosen = parser.parse_args()
    if chosen.sizes is not None and len(set(chosen.sizes)) < 2:
        parser.error("--sizes needs two different sizes")
    return chosen


def _command(chosen: argparse.Namespace) -> str:
    sizes = "".join(f" --{name} {value}" for name in ("customers", "rounds") if (value := getattr(chosen, name)))
    grown = f" --sizes {' '.join(map(str, chosen.sizes))}" if chosen.sizes else ""
    cases = "" if chosen.cases == list(_CASES) else f" --cases {' '.join(chosen.cases)}"
    return "python -m bench" + (" --quick" if chosen.quick else "") + sizes + grown + cases


if __name__ == "__main__":
    main()
