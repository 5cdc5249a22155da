"""The running API against its own description: schemathesis asks whatever /openapi.json allows, and more.

No answer may be a 5xx, of a status or content that is not described, or against its schema; what breaks a rule must be refused,
what follows all of them accepted. `make fuzz MINUTES=30 SEED=...` does it for longer.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.acceptance.http import as_csv, customers, finished, submit
from tests.acceptance.stack import Stack

ROOT: Final = Path(__file__).parents[2]
MINUTES: Final = float(os.environ.get("FUZZ_MINUTES") or 0)
SEED: Final = os.environ.get("FUZZ_SEED") or (str(secrets.randbelow(1 << 32)) if MINUTES else "1")
BRIEFLY: Final = ("--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--max-time", "40")
HOW_MUCH: Final = ("--max-time", str(round(MINUTES * 60))) if MINUTES else BRIEFLY
"""Without a time the same again each time, and none of the chains of requests, for some of them wait for batches."""

pytestmark = [pytest.mark.acceptance, pytest.mark.fuzz, pytest.mark.timeout(MINUTES * 60 + 240)]


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """No quota, for the fuzzer is one client that never pauses; waits as short as they may be."""
    quotas = ("RATE_LIMIT_REQUESTS_PER_MINUTE", "BATCH_RATE_LIMIT_PER_MINUTE", "UNAUTHORISED_REQUESTS_PER_MINUTE")
    return {"PREDICTION_TIMEOUT_SECONDS": "3", "CHUNK_ROWS": "100", **dict.fromkeys(quotas, "0")}


def test_every_answer_is_as_described(
    stack: Stack, client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(client, submit(client, as_csv(customers(20))))
    report = tmp_path / "report.json"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        f"{ROOT}/tests/acceptance/schemathesis.toml",
    ]
    command += ["run", f"{stack.api_url}/openapi.json", "--seed", SEED, *HOW_MUCH, "--no-color"]
    command += ["--request-timeout", "45", "--report-json-path", str(report)]
    if key := client.headers.get("X-API-Key"):
        command += ["--header", f"X-API-Key: {key}"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    told = json.loads(report.read_text()) if report.exists() else {}
    with capsys.disabled():
        print(f"\nschemathesis: SEED={SEED} MINUTES={MINUTES:g}: {told.get('test_cases')}")  # noqa: T201 - to run it again by
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert told["operations"]["tested"] == told["operations"]["selected"] > 30
    assert told["test_cases"]["generated"] > 300
