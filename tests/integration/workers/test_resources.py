"""What a worker process holds: models loaded once and verified, checks before it starts, and numbers for Prometheus."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from datasets.synthetic import generate
from db.errors import SchemaMismatch
from db.models import register_model
from schemas.states import OnError
from scoring.compiling import ensure_compiled
from scoring.errors import BundleCorrupt, ModelError
from scoring.model import ModelBundle
from scoring.native import FOLDER
from settings import Settings
from tests.integration.workers import builders as b
from workers import lifecycle
from workers import resources as resources_module
from workers.chunk import score_chunk
from workers.resources import Resources


def count(name: str, **labels: str) -> float:
    """A counter's value so far."""
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


# -- models


def test_a_model_is_loaded_once(resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resources.scorer(b.MODEL)
    monkeypatch.setattr(resources_module, "load_bundle", b.raising(AssertionError("loaded again")))
    assert resources.scorer(b.MODEL) is first


def test_the_models_least_recently_used_are_let_go(
    resources: Resources, ledger: Engine, bundles: dict[str, ModelBundle]
) -> None:
    versions = [f"m{n}" for n in range(4)]
    with ledger.begin() as conn:
        for version in versions:
            register_model(conn, version=version, location=b.MODEL, sha256=bundles[b.MODEL].sha256, metrics={}, manifest={})
    first, second = (resources.scorer(version) for version in versions[:2])
    resources.scorer(versions[2])
    assert resources.scorer(versions[0]) is first
    resources.scorer(versions[3])
    assert resources.scorer(versions[0]) is first
    assert resources.scorer(versions[1]) is not second


def test_an_unregistered_model_is_an_error_of_the_model(resources: Resources, ledger: Engine) -> None:
    with pytest.raises(ModelError, match="never"):
        resources.scorer("never")


def test_a_bundle_other_than_the_registered_one_is_refused(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        conn.execute(text("UPDATE models SET location = :c WHERE version = :m"), {"c": b.CALIBRATED, "m": b.MODEL})
    with pytest.raises(BundleCorrupt, match="differs from the registered bundle"):
        resources.scorer(b.MODEL)


def test_a_missing_bundle_is_an_error_of_the_model(
    resources: Resources, ledger: Engine, model_folder: Path, tmp_path: Path
) -> None:
    elsewhere = b.with_settings(resources, model_storage_path=tmp_path)
    with pytest.raises(BundleCorrupt):
        elsewhere.scorer(b.MODEL)
    shutil.copytree(model_folder / b.MODEL, tmp_path / b.MODEL)
    assert elsewhere.scorer(b.MODEL).version == b.MODEL


def test_batches_keep_the_model_of_their_submit(resources: Resources, ledger: Engine) -> None:
    for batch_id, version in (("one", b.MODEL), ("two", b.CALIBRATED)):
        with ledger.begin() as conn:
            b.submit_customers(conn, batch_id, b.customers_of(20), chunk_rows=10, model_version=version)
    b.work_off(resources)
    assert {row.model_version for row in b.predictions_of(ledger, "one")} == {b.MODEL}
    assert {row.model_version for row in b.predictions_of(ledger, "two")} == {b.CALIBRATED}


# -- the start of a worker


def test_a_worker_refuses_a_database_of_another_revision(settings: Settings, empty_postgres_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="churn migrate up"):
        lifecycle._check(dataclasses.replace(settings, database_url=empty_postgres_url))


def test_a_worker_starts_on_its_own_revision(settings: Settings, ledger: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    lifecycle._check(dataclasses.replace(settings, prometheus_multiproc_dir=str(folder)))
    assert folder.is_dir()


def test_the_champion_is_loaded_at_the_start(resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    lifecycle._warm(resources)
    monkeypatch.setattr(resources_module, "load_bundle", b.raising(AssertionError("loaded late")))
    resources.scorer(b.MODEL)


def test_a_worker_without_a_champion_starts_and_says_so(resources: Resources, ledger: Engine, logged: list[EventDict]) -> None:
    with ledger.begin() as conn:
        conn.execute(text("UPDATE models SET state = 'retired'"))
    lifecycle._warm(resources)
    assert logged[-1]["event"] == "no model loaded at start"
    assert "no model is active" in logged[-1]["reason"]


# -- engines

# By version and not by what is installed: where there is a compiler, a missing one is a fault.
compiles = pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")


def resources_with(resources: Resources, folder: Path, choice: str) -> Resources:
    """Another process's resources, over its own folder of bundles and with its own engine."""
    changed = dataclasses.replace(resources.settings, model_storage_path=folder, scoring_engine=choice)
    return dataclasses.replace(resources, settings=changed, _scorers=OrderedDict())


@pytest.fixture
def compiled_folder(bundles: dict[str, ModelBundle], model_folder: Path, tmp_path: Path) -> Path:
    """A folder of bundles in which one model is compiled."""
    shutil.copytree(model_folder / b.MODEL, tmp_path / b.MODEL)
    assert ensure_compiled(tmp_path / b.MODEL, tmp_path / FOLDER, sha256=bundles[b.MODEL].sha256) is None
    return tmp_path


@compiles
def test_a_compiled_model_scores_the_same_and_is_counted(
    resources: Resources, ledger: Engine, compiled_folder: Path, logged: list[EventDict]
) -> None:
    labels = {"model_version": b.MODEL, "engine": "compiled", "fallback": ""}
    before = count("churn_models_loaded", **labels)
    customers = generate(500, seed=8).customers
    found = resources_with(resources, compiled_folder, "compiled").scorer(b.MODEL).score(customers)
    expected = resources_with(resources, compiled_folder, "lightgbm").scorer(b.MODEL).score(customers)
    np.testing.assert_allclose(found.churn_probability, expected.churn_probability, rtol=0, atol=1e-12)
    assert found.risk.tolist() == expected.risk.tolist()
    assert count("churn_models_loaded", **labels) == before + 1
    assert logged == []


@compiles
def test_a_model_that_is_not_compiled_is_scored_by_lightgbm_which_is_logged_and_counted(
    resources: Resources, ledger: Engine, model_folder: Path, logged: list[EventDict]
) -> None:
    labels = {"model_version": b.MODEL, "engine": "lightgbm", "fallback": "not_compiled"}
    before = count("churn_models_loaded", **labels)
    resources_with(resources, model_folder, "auto").scorer(b.MODEL)
    assert count("churn_models_loaded", **labels) == before + 1
    assert (logged[-1]["event"], logged[-1]["cause"], logged[-1]["log_level"]) == (
        "scoring with LightGBM",
        "not_compiled",
        "warning",
    )


def test_a_model_without_the_engine_that_is_demanded_is_not_usable(
    resources: Resources, ledger: Engine, model_folder: Path
) -> None:
    with pytest.raises(ModelError, match=r"not compiled|not installed"):
        resources_with(resources, model_folder, "compiled").scorer(b.MODEL)


# -- numbers


def test_predictions_are_counted_by_band_once_they_are_stored(resources: Resources, ledger: Engine) -> None:
    labels = {"model_version": b.MODEL, "source": "batch"}
    before = {band: count("ml_predictions", risk_category=band, **labels) for band in ("low", "medium", "high", "critical")}
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(200))
    with b.during_score(resources, b.failing(ValueError("boom"))):
        score_chunk(resources, "b", 0)
    b.wait_out_backoff(ledger, "b")
    score_chunk(resources, "b", 0)

    counted = {band: count("ml_predictions", risk_category=band, **labels) - n for band, n in before.items()}
    assert {band: n for band, n in counted.items() if n} == b.batch_of(ledger, "b").risk_summary


@pytest.mark.parametrize("code", ["customer_not_found", "out_of_range", "scoring_failed"])
def test_failed_rows_are_counted_by_code(resources: Resources, ledger: Engine, code: str) -> None:
    before = count("churn_rows_failed", code=code)
    hasty = b.with_settings(resources, max_attempts=1)
    with ledger.begin() as conn:
        match code:
            case "customer_not_found":
                b.submit_ids(conn, "b", ["x", "y"])
            case "out_of_range":
                b.submit_file(conn, "b", b.csv_of([{**row, "age": 7} for row in b.rows_of(2)]), on_error=OnError.SKIP)
            case _:
                b.submit_customers(conn, "b", b.customers_of(2))
                conn.execute(text("UPDATE chunk_inputs SET payload = 'no arrow'"))
    b.work_off(hasty)
    assert count("churn_rows_failed", code=code) == before + 2
