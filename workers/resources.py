"""What one worker process holds: its pool, its publisher, its models. Built after the fork, never inherited (LightGBM#6137)."""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from celery import Celery
from sqlalchemy import Engine

from broker.app import make_producer
from broker.hints import Window, publish_due
from db.engine import make_engine
from db.errors import DatabaseUnavailable, NotFound
from db.models import Model, get_model
from db.sight import EVERY_TEAM
from scoring.compiled import DIFFERS, EngineChoice, choose_engine
from scoring.errors import ModelError
from scoring.model import load_bundle
from scoring.native import FOLDER
from scoring.risk import RiskThresholds
from scoring.score import Scorer
from settings import Settings
from workers import metrics
from workers.cache import ScoreCache

_MODELS_KEPT: Final = 3

_log: Final = structlog.get_logger(__name__)


class _Loaded(NamedTuple):
    """A model that is ready, and the engine that scores with it."""

    scorer: Scorer
    engine: EngineChoice


@dataclass(slots=True)
class Resources:
    """One process's connections and models.

    Attributes
    ----------
    worker : str
        This process's name in the ledger.
    cache : ScoreCache or None
        Scores of single predictions; None where the settings leave them to the model.
    """

    settings: Settings
    engine: Engine
    producer: Celery
    window: Window
    worker: str
    cache: ScoreCache | None = None
    _scorers: OrderedDict[str, _Loaded] = field(default_factory=OrderedDict)
    _made_in: int = field(default_factory=os.getpid)

    def scorer(self, version: str) -> Scorer:
        """The model of that version, loaded and verified at its first use.

        Raises
        ------
        ModelError
            It is not registered, its bundle is missing or altered, or it lacks the compiled engine that the settings demand:
            nothing can be scored with it. Nor with any in a process that was forked from the one that made these resources:
            LightGBM would wait for threads that no fork takes along (LightGBM#6137).
        """
        if os.getpid() != self._made_in:
            raise ModelError(f"models of process {self._made_in} cannot be used after a fork, in process {os.getpid()}")
        if version not in self._scorers:
            try:
                with metrics.model_load_seconds():
                    self._scorers[version] = self._load(version)
            except ModelError:
                metrics.model_unusable(version)
                raise
            while len(self._scorers) > _MODELS_KEPT:
                self._scorers.popitem(last=False)
            metrics.engines_in_use({loaded.engine for loaded in self._scorers.values()})
        self._scorers.move_to_end(version)
        return self._scorers[version].scorer

    def _load(self, version: str) -> _Loaded:
        model = self._registered(version)
        storage = Path(self.settings.model_storage_path)
        bundle = load_bundle(storage / model.location, expected_sha256=model.sha256)
        chosen = choose_engine(
            bundle,
            choice=EngineChoice(self.settings.scoring_engine),
            native_folder=storage / FOLDER,
            watch=metrics.parity_check,
        )
        if chosen.name is EngineChoice.LIGHTGBM and (chosen.fallback is None or chosen.fallback.code != DIFFERS):
            metrics.parity_not_checked()
        scorer = Scorer(bundle, thresholds=thresholds_of(self.settings), engine=chosen.engine)
        if chosen.fallback is not None:
            _log.warning(
                "scoring with LightGBM", model_version=version, cause=chosen.fallback.code, reason=str(chosen.fallback)
            )
        metrics.model_loaded(version, chosen.name, fallback=chosen.fallback.code if chosen.fallback else "")
        return _Loaded(scorer, chosen.name)

    def _registered(self, version: str) -> Model:
        try:
            with self.engine.connect() as conn:
                return get_model(conn, version)
        except NotFound as exc:
            raise ModelError(str(exc)) from exc

    def publish_chunks(self) -> None:
        """Fill the window of chunks; if the database is away, the next rescuer's round does."""
        try:
            publish_due(self.engine, self.producer, self.window, chunks_only=True)
        except DatabaseUnavailable as exc:
            _log.warning("nothing published: the database is away", reason=str(exc))

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        self.producer.close()


def make_resources(settings: Settings, *, process: int) -> Resources:
    """Build a process's resources; nothing connects yet.

    Parameters
    ----------
    process : int
        The process's id, for operators.
    """
    return Resources(
        settings=settings,
        engine=make_engine(
            settings.database_url,
            pool_size=2,
            max_overflow=1,
            application_name="churn-worker",
            team=EVERY_TEAM,
            # Well within the lease and the task's limits: a Postgres that hangs must not look like a chunk that does.
            statement_timeout_s=settings.lease_seconds / 2,
        ),
        producer=make_producer(settings),
        window=Window.of(settings),
        worker=f"{socket.gethostname()}:{process}",
        cache=ScoreCache(ttl_s=settings.cache_ttl_seconds) if settings.prediction_cache_enabled else None,
    )


def thresholds_of(settings: Settings) -> RiskThresholds | None:
    """The installation's risk bands; None where it leaves them to each model."""
    low, medium, high = settings.low_risk_threshold, settings.medium_risk_threshold, settings.high_risk_threshold
    if low is None or medium is None or high is None:
        return None
    return RiskThresholds(low, medium, high)
