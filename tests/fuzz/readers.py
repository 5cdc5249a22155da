"""Tries hostile input on the readers, in a process of its own that a crash, a hang or too much memory ends.

Run as ``python -m tests.fuzz.readers SEED TRIES SECONDS FOLDER``: it stops after so many tries or seconds (0: no such bound),
says what it has tried, and leaves the input at hand in the folder before each try.
"""

from __future__ import annotations

import faulthandler
import io
import json
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

from api.bodies import _parse, load
from api.errors import ApiError
from intake.read import PARQUET, Limits, read_file, read_ids, read_rows
from intake.streams import GZIP_MAGIC
from schemas.customer import read_customer
from schemas.submit import SubmitSchema
from scoring.errors import DataError
from settings import Settings, load_settings
from tests.fuzz.mutations import JSON, broken, seeds
from workers.memory import bounded_memory

HANG_S: Final = 60
"""What one input may take on a busy machine; most take a millisecond."""

MEMORY: Final = 512 << 20
LIMITS: Final = Limits(max_rows=100_000, max_decompressed_bytes=64 << 20)

# A Parquet file starts a process of its own.
_SHARES: Final = {"text/csv": 40, "application/x-ndjson": 30, PARQUET: 1, JSON: 30}


def try_file(body: bytes, media_type: str, encoding: str | None) -> str:
    """Read a file to its end, or to its refusal."""
    try:
        for piece in read_file(io.BytesIO(body), media_type=media_type, encoding=encoding, limits=LIMITS):
            assert piece.customers.num_rows <= piece.n_rows
            assert all(fault.message and len(fault.value or "") <= 200 for fault in piece.faults)
    except DataError as refused:
        return refused.code
    return "read"


def try_json(body: bytes, settings: Settings) -> str:
    """Read a JSON body as the API does, as a submit and as a single customer."""
    try:
        parsed = _parse(body, settings)
    except ApiError as refused:
        return refused.code
    read_customer(parsed)
    try:
        loaded: dict[str, Any] = load(SubmitSchema(), parsed)
        if "customers" in loaded:
            read_rows(loaded["customers"], limits=LIMITS)
        if "customer_ids" in loaded:
            read_ids(loaded["customer_ids"], limits=LIMITS)
    except (ApiError, DataError) as refused:
        return refused.code
    return "read"


def main(seed: int, tries: int, seconds: float, folder: Path) -> Counter[str]:
    """Try until one of the bounds; returns what came of the inputs."""
    chance, good = Random(seed), seeds()
    everything = [body for bodies in good.values() for body in bodies]
    settings = load_settings({"DATABASE_URL": "postgresql://d/d", "REDIS_URL": "redis://r/0"})
    kinds, weights = list(_SHARES), list(_SHARES.values())
    outcomes: Counter[str] = Counter()
    ends = time.monotonic() + seconds if seconds else float("inf")
    while outcomes.total() < (tries or float("inf")) and time.monotonic() < ends:
        [kind] = chance.choices(kinds, weights)
        body = broken(chance, chance.choice(good[kind]), chance.choice(good[kind] if chance.random() < 0.8 else everything))
        encoding = "gzip" if chance.random() < (0.5 if body.startswith(GZIP_MAGIC) else 0.02) else None
        (folder / "input").write_bytes(body)
        (folder / "kind").write_text(kind)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        with bounded_memory(MEMORY):
            outcome = try_json(body, settings) if kind == JSON else try_file(body, kind, encoding)
        outcomes[f"{kind} {outcome}"] += 1
    faulthandler.cancel_dump_traceback_later()
    return outcomes


if __name__ == "__main__":
    faulthandler.enable()
    seed, tries, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(main(seed, tries, seconds, Path(sys.argv[4])).most_common()))  # noqa: T201
