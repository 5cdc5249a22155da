"""One worker process's resources over real servers, with two real bundles: as trained, and calibrated by Platt's method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine
from structlog.testing import capture_logs
from structlog.typing import EventDict

from datasets.synthetic import DESCRIPTION, generate
from db.models import activate_model, register_model
from deploy.local.postgres import DatabaseUrls
from scoring.calibrate import Calibration, Method
from scoring.model import ModelBundle, save_bundle
from scoring.train import train
from settings import Settings, load_settings
from tests.factories import empty_tables
from tests.integration.workers.builders import CALIBRATED, MODEL
from tests.unit.scoring.factories import trained_model
from workers.resources import Resources, make_resources


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    """What the worker logs during a test."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's bundles."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def bundles(model_folder: Path) -> dict[str, ModelBundle]:
    """Bundles by version; the calibrated one has the trees of the other."""
    model = train(generate(3_000, seed=1), version=MODEL, data=DESCRIPTION, synthetic=True, seed=1)
    platt = Calibration(Method.PLATT, slope=1.4, intercept=-0.3)
    calibrated = trained_model(CALIBRATED, platt, model.model_text)
    return {m.version: save_bundle(model_folder / m.version, m) for m in (model, calibrated)}


@pytest.fixture(scope="module")
def settings(databases: DatabaseUrls, redis_user_url: str, model_folder: Path) -> Settings:
    """Settings of an installation over this module's servers."""
    return load_settings(
        {
            "DATABASE_URL": databases.worker,
            "REDIS_URL": redis_user_url,
            "MODEL_STORAGE_PATH": str(model_folder),
            "ENVIRONMENT": "testing",
            "BROKER_TIMEOUT_SECONDS": "0.5",
        }
    )


@pytest.fixture
def ledger(engine: Engine, redis_url: str, bundles: dict[str, ModelBundle]) -> Engine:
    """An engine on an empty ledger with both models registered, beside an empty queue."""
    with engine.begin() as conn:
        empty_tables(conn)
        for version, bundle in bundles.items():
            register_model(conn, version=version, location=version, sha256=bundle.sha256, metrics={}, manifest={})
        activate_model(conn, MODEL)
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.flushdb()
    return engine


@pytest.fixture
def resources(settings: Settings, ledger: Engine) -> Iterator[Resources]:
    """What one worker process holds."""
    made = make_resources(settings, process=1)
    yield made
    made.close()
