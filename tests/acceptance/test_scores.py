"""The scores that come out of the API are LightGBM's own, to 1e-12, on the public Telco file as on generated customers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest

from datasets.telco import read_telco
from scoring.train import cross_validate
from tests.acceptance.http import assert_exactly_once, customers, ended, finished, results
from tests.acceptance.stack import Stack
from tests.golden import golden

pytestmark = pytest.mark.acceptance

TELCO_ROWS = 7_043
TARGET_AUC = 0.845


@pytest.fixture(scope="module")
def telco_csv() -> Path:
    """The public file; where it lies is told by the environment, as it is not part of the repository."""
    path = os.environ.get("TELCO_CSV", "")
    if not Path(path).is_file():
        pytest.fail("set TELCO_CSV to the path of IBM's public file Telco-Customer-Churn.csv (.ci/run does)")
    return Path(path)


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    return {"CHUNK_ROWS": "2000"}


def churn(stack: Stack, *arguments: str) -> str:
    """Run the command line against this stack; returns what it prints."""
    command = [str(Path(sys.executable).with_name("churn")), *arguments]
    env = {**stack.env, "CHURN_API_URL": stack.api_url, "CHURN_API_KEY": stack.api_key}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_generated_customers(client: httpx.Client, model_storage: Path, active_model: str) -> None:
    sent = customers(5_000, seed=5)
    batch = finished(client, client.post("/batches", json={"customers": sent}))
    scored = [r["churn_probability"] for r in results(client, batch["batch_id"])]
    assert np.abs(golden(model_storage / active_model, sent) - np.array(scored)).max() <= 1e-12


def test_the_telco_file_from_import_to_results(
    stack: Stack, client: httpx.Client, model_storage: Path, telco_csv: Path, tmp_path: Path
) -> None:
    churn(stack, "import-telco", str(telco_csv), "--out", str(tmp_path / "telco"))
    bundle = tmp_path / "telco-1"
    churn(
        stack,
        "train",
        str(tmp_path / "telco" / "labelled.csv"),
        "--out",
        str(bundle),
        "--version",
        "telco-1",
        "--register",
        "--activate",
    )
    submitted = json.loads(churn(stack, "submit", str(tmp_path / "telco" / "customers.csv"), "--wait", "--json"))

    expected = read_telco(telco_csv).customers
    batch = ended(client, submitted["batch_id"])
    assert (batch["model_version"], batch["total_customers"]) == ("telco-1", TELCO_ROWS)
    assert_exactly_once(client, batch, expected.column("customer_id").to_pylist())
    scored = [r["churn_probability"] for r in results(client, batch["batch_id"])]
    assert np.abs(golden(bundle, expected.to_pylist()) - np.array(scored)).max() <= 1e-12


def test_cross_validated_auc_on_the_telco_file(telco_csv: Path) -> None:
    folds = cross_validate(read_telco(telco_csv), folds=5, seed=0)
    assert np.mean([fold.auc for fold in folds]) >= TARGET_AUC
