"""The workers' numbers for Prometheus: what is counted, and under which names; docs/metrics.md says what each tells."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from db.chunks import ChunkClaim, EndedBatch
from schemas.states import ChunkState
from scoring.compiled import EngineChoice
from scoring.features import Code
from traces import spans
from workers.segments import Segment


class Failure(StrEnum):
    """Why an attempt at a chunk ended otherwise than by closing it."""

    DATA = "data"
    """Its input cannot be read."""
    TRANSIENT = "transient"
    """Postgres, mostly, was away; it costs no attempt."""
    MODEL = "model"
    """Its model cannot be used; it costs no attempt either."""
    MEMORY = "memory"
    TIME_LIMIT = "time_limit"
    """Nearly the whole of its lease was over."""
    BUG = "bug"
    """Anything else that was raised."""
    LEASE = "lease"
    """Its worker died or hung, and the rescuer took it back."""


class Lease(StrEnum):
    """What can be held for a time."""

    CHUNK = "chunk"
    PLAN = "plan"
    PREDICTION = "prediction"
    DELIVERY = "delivery"


class Copy(StrEnum):
    """Which way rows went: out of Postgres, or into it."""

    OUT = "out"
    IN = "in"


_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_BATCH_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400)
_SIZES: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_MOST_BEFORE: Final = 3

_PREDICTIONS: Final = Counter("ml_predictions", "Customers scored and stored.", ["model_version", "risk_category", "source"])
_INFERENCE: Final = Histogram("churn_inference_seconds", "One call of the model.", buckets=(0.0001, 0.0005, 0.001, *_SECONDS))
_CHUNK: Final = Histogram("churn_chunk_seconds", "A chunk from claim to commit.", buckets=_SECONDS)
_STEPS: Final = Counter("churn_chunk_step_seconds", "Where the seconds of chunks go.", ["step"])
_BATCHES: Final = Counter("churn_batches_ended", "Batches that a chunk of this worker ended.")
_BATCH: Final = Histogram(
    "churn_batch_seconds",
    "From a batch's submit to its end, by its customers: up to so many.",
    ["customers"],
    buckets=_BATCH_SECONDS,
)
_QUEUED: Final = Histogram(
    "churn_batch_queued_seconds", "From a batch's submit to the claim of its first chunk.", buckets=_BATCH_SECONDS
)
_ATTEMPTS: Final = Counter("churn_chunk_attempts", "Claims of chunks, by how many attempts there were before.", ["before"])
_ROUNDS: Final = Counter("churn_rescue_rounds", "Rounds that this process did as the elected rescuer.")
_LOADING: Final = Histogram(
    "churn_model_load_seconds",
    "A model read, verified and held to LightGBM, until it can score or is found not to be usable.",
    buckets=_SECONDS,
)
_ROW_ERRORS: Final = Counter("churn_rows_failed", "Rows refused or not scored.", ["code"])
_RESCUED: Final = Counter("churn_chunks_rescued", "Chunks taken from an attempt whose lease lapsed.", ["outcome"])

_SPLIT: Final = Counter("churn_chunks_split", "Chunks taken apart because they failed, to find the row that fails them.")
_WEBHOOKS: Final = Counter(
    "churn_webhook_deliveries",
    "Attempts to deliver a webhook: delivered, put_off (tried again later), given_up, gone (410), lost (the fence forbade it).",
    ["outcome"],
)

_LOADED: Final = Counter(
    "churn_models_loaded",
    "Models that a process loaded, by the engine that scores with them; fallback says why it is not the compiled one.",
    ["model_version", "engine", "fallback"],
)

_USABLE: Final = Gauge(
    "churn_model_usable",
    "1 where every process of this worker that has tried can score with the model; 0: not ready, what needs it waits.",
    ["model_version"],
    multiprocess_mode="livemin",
)

_CACHE: Final = Counter("churn_prediction_cache", "Single predictions whose score was kept (hit) or not (miss).", ["outcome"])

_PARITY: Final = Histogram(
    "churn_model_parity_seconds", "A compiled model held to LightGBM before it may score.", buckets=(0.001, 0.0025, *_SECONDS)
)
_PARITY_CHECKS: Final = Counter(
    "churn_model_parity_checks",
    "Loads of models by what that check said; none: there was no compiled model to check.",
    ["outcome"],
)
_ENGINE: Final = Gauge(
    "churn_engine_in_use",
    "Processes of this worker that hold a model which this engine scores.",
    ["engine"],
    multiprocess_mode="livesum",
)

_FAILURES: Final = Counter("churn_chunk_failures", "Attempts at chunks that ended otherwise than by closing them.", ["reason"])
_LAPSED: Final = Counter("churn_leases_lapsed", "Leases that lapsed, for who held them died or hung.", ["kind"])
_COPY: Final = Histogram(
    "churn_copy_seconds",
    "One COPY of a chunk: stored customers out of Postgres, or predictions into it.",
    ["direction"],
    buckets=_SECONDS,
)
_PREDICTION_QUEUED: Final = Histogram(
    "churn_prediction_queued_seconds",
    "From the request for a single prediction to its first claim.",
    buckets=(0.001, 0.0025, *_SECONDS),
)
_SEGMENT_CUSTOMERS: Final = Counter("churn_segment_customers", "Customers scored in batches, by segment.", ["feature", "value"])
_SEGMENT_PROBABILITY: Final = Counter(
    "churn_segment_probability_sum", "The sum of their churn probabilities.", ["feature", "value"]
)

_ENGINES: Final = (EngineChoice.COMPILED, EngineChoice.LIGHTGBM)

# A counter that comes to be with its first event has no increase that Prometheus could see. So those whose values are known
# stand at 0 from the start.
for _counter, _values in (
    (_ATTEMPTS, ("0", "1", "2", f"{_MOST_BEFORE} or more")),
    (_CACHE, ("hit", "miss")),
    (_FAILURES, Failure),
    (_LAPSED, Lease),
    (_PARITY_CHECKS, ("passed", "failed", "none")),
    (_RESCUED, (ChunkState.PENDING, ChunkState.QUARANTINED)),
    (_ROW_ERRORS, Code),
    (_WEBHOOKS, ("delivered", "put_off", "given_up", "gone", "lost")),
):
    for _value in _values:
        _counter.labels(str(_value))
for _direction in Copy:
    _COPY.labels(_direction.value)

_inside: ContextVar[float] = ContextVar("inside", default=0.0)
"""Seconds that the steps inside the one that is open have taken."""


def model_loaded(model_version: str, engine: str, *, fallback: str) -> None:
    """Count a model made ready to score; `fallback` is blank where nothing stood in the compiled engine's way."""
    _LOADED.labels(model_version, engine, fallback).inc()
    _USABLE.labels(model_version).set(1)


def model_unusable(model_version: str) -> None:
    """Say that a model could not be made ready."""
    _USABLE.labels(model_version).set(0)


def engines_in_use(names: Collection[str]) -> None:
    """Say which engines score the models that this process holds."""
    for engine in _ENGINES:
        _ENGINE.labels(engine.value).set(engine in names)


@contextmanager
def parity_check() -> Iterator[None]:
    """Time the check of a compiled model, and count whether it was passed."""
    try:
        with _PARITY.time():
            yield
    except Exception:
        _PARITY_CHECKS.labels("failed").inc()
        raise
    _PARITY_CHECKS.labels("passed").inc()


def parity_not_checked() -> None:
    """Count a model that is scored by LightGBM because there is no compiled one, or none was asked for."""
    _PARITY_CHECKS.labels("none").inc()


def cache_looked_up(*, hits: int, misses: int) -> None:
    """Count the single predictions of one look into the cache of scores."""
    _CACHE.labels("hit").inc(hits)
    _CACHE.labels("miss").inc(misses)


def inference_seconds() -> AbstractContextManager[object]:
    """Time one call of the model."""
    return _INFERENCE.time()


def chunk_seconds() -> AbstractContextManager[object]:
    """Time a chunk."""
    return _CHUNK.time()


@contextmanager
def step_seconds(step: str) -> Iterator[None]:
    """Count the time of a block as a step of a chunk; a step inside another is taken out of it, so that no second counts twice.

    It is also a span, where traces are recorded.

    Parameters
    ----------
    step : str
        ``claim``, ``read``, ``parse``, ``predict``, ``encode``, ``write`` or ``publish``.
    """
    around = _inside.get()
    _inside.set(0.0)
    began = time.perf_counter()
    try:
        with spans.span(step):
            yield
    finally:
        spent = time.perf_counter() - began
        _STEPS.labels(step).inc(max(0.0, spent - _inside.get()))
        _inside.set(around + spent)


def chunk_claimed(claim: ChunkClaim) -> None:
    """Count an attempt; from the fourth one on they are counted together."""
    before = claim.attempt - 1
    _ATTEMPTS.labels(str(before) if before < _MOST_BEFORE else f"{_MOST_BEFORE} or more").inc()


def chunk_closed(claim: ChunkClaim, risk: Mapping[str, int], *, ended: EndedBatch | None) -> None:
    """Count a chunk's predictions once they are committed."""
    for category, n in risk.items():
        _PREDICTIONS.labels(claim.model_version, category, "batch").inc(n)
    if ended is not None:
        _BATCHES.inc()
        _BATCH.labels(_size(ended.customers)).observe(ended.seconds)
        _QUEUED.observe(ended.queued_s)


def chunk_failed(reason: Failure) -> None:
    """Count an attempt at a chunk that ended otherwise than by closing it."""
    _FAILURES.labels(reason.value).inc()


def leases_lapsed(kind: Lease, n: int = 1) -> None:
    """Count leases that lapsed."""
    _LAPSED.labels(kind.value).inc(n)


def copy_seconds(direction: Copy) -> AbstractContextManager[object]:
    """Time a COPY of a chunk."""
    return _COPY.labels(direction.value).time()


def segments_scored(segments: Iterable[Segment]) -> None:
    """Count a chunk's scores by segment once they are committed."""
    for segment in segments:
        _SEGMENT_CUSTOMERS.labels(segment.feature, segment.value).inc(segment.customers)
        _SEGMENT_PROBABILITY.labels(segment.feature, segment.value).inc(segment.probability_sum)


def predictions_claimed(queued_s: Iterable[float]) -> None:
    """Time how long single predictions waited for their first claim, by the database's clock."""
    for seconds in queued_s:
        _PREDICTION_QUEUED.observe(seconds)


def _size(customers: int) -> str:
    return next((str(most) for most in _SIZES if customers <= most), "more")


def predicted(model_version: str, risk_category: str, *, source: str) -> None:
    """Count one prediction."""
    _PREDICTIONS.labels(model_version, risk_category, source).inc()


def rows_failed(by_code: Mapping[str, int]) -> None:
    """Count failed rows by code."""
    for code, n in by_code.items():
        _ROW_ERRORS.labels(code).inc(n)


def rescue_round() -> None:
    """Count a round of the rescuer; where none is counted anywhere, nobody rescues."""
    _ROUNDS.inc()


def model_load_seconds() -> AbstractContextManager[object]:
    """Time the loading of a model."""
    return _LOADING.time()


def rescued(outcome: str) -> None:
    """Count a rescued chunk; `outcome` is the state it was put into."""
    _RESCUED.labels(outcome).inc()


def chunk_split() -> None:
    """Count a chunk that was taken apart."""
    _SPLIT.inc()


def webhook_sent(outcome: str) -> None:
    """Count an attempt to deliver a webhook."""
    _WEBHOOKS.labels(outcome).inc()
