"""What a worker process holds: models loaded once and verified, checks before it starts, and numbers for Prometheus."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from db.errors import SchemaMismatch
from db.models import register_model
from schemas.states import OnError
from scoring.errors import BundleCorrupt, ModelError
from scoring.model import ModelBundle
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
