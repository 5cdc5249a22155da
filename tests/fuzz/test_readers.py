"""The readers under hostile input: never a crash, a hang, unbounded memory or an error that is none of ours."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.mutations import JSON

ROOT = Path(__file__).parents[2]
MINUTES = float(os.environ.get("FUZZ_MINUTES") or 0)
SEED = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(1 << 32))
TRIES = 600
"""In `make test`, where the seeds are fixed."""


def tried(seed: int, folder: Path, *, tries: int = 0, seconds: float = 0) -> Counter[str]:
    """What came of the inputs; fails with the input on which the process ended."""
    command = [sys.executable, "-m", "tests.fuzz.readers", str(seed), str(tries), str(seconds), str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        kind, body = (folder / "kind").read_text(), (folder / "input").read_bytes()
        kept = folder / f"finding-{seed}"
        kept.write_bytes(body)
        pytest.fail(f"{kind}, seed {seed}, kept in {kept} ({len(body):,} bytes): {body[:200]!r}...\n{ended.stderr[-4000:]}")
    return Counter(dict(json.loads(ended.stdout)))


@pytest.mark.skipif(MINUTES > 0, reason="the long run tries more")
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_files_and_bodies_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    outcomes = tried(seed, tmp_path, tries=TRIES)
    assert outcomes.total() == TRIES
    # It does get past the door: some are read, and refused for many reasons.
    assert {kind.partition(" ")[0] for kind in outcomes} >= {"text/csv", "application/x-ndjson", JSON}
    assert sum(n for kind, n in outcomes.items() if kind.endswith(" read")) > TRIES / 20
    assert len(outcomes) > 15


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.skipif(not MINUTES, reason="`make fuzz` asks for it")
def test_hostile_files_and_bodies_for_long(tmp_path: Path) -> None:
    print(f"\nreaders: seed {SEED}, {MINUTES:g} minutes")  # noqa: T201
    outcomes = tried(SEED, tmp_path, seconds=MINUTES * 60)
    print(f"readers: {outcomes.total():,} inputs tried; {dict(outcomes.most_common())}")  # noqa: T201
