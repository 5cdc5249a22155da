"""Looking: one round asks the API and every metrics port at once, and what is counted becomes a rate by the rounds before it.

It must cost little, for it goes on for hours. GET /stats counts the day's predictions, so it is asked anew only after twenty
times as long as its last answer took; of batches only the states in which there are some are listed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import httpx

from cli.top.frame import Frame, Queue, Singles, Worker
from cli.top.scrape import Samples, Target, read
from client import Batch, ChurnApiError, ChurnClient, ProblemError, Stats, Unauthorised

Clock = Callable[[], float]

OPEN: Final = ("processing", "validating", "cancelling", "paused", "queued")
"""States of batches that have not ended, what moves first."""
SHOWN: Final = 50
PRIORITIES: Final = ("urgent", "high", "normal", "low")

_SHORT_S: Final = 10.0
_LONG_S: Final = 60.0
_STATS_SHARE: Final = 20
_SINGLES: Final = {"endpoint": "/api/v1/predictions", "method": "POST"}
_DURATION: Final = "ml_api_request_duration_seconds"

_AWAY: Final = "{address} does not answer. Numbers below are the last that were known; looking again."
_DATABASE: Final = "Postgres is away for the API: work waits, nothing is lost. Batches below are as last seen."
_REDIS: Final = "Redis is away for the API: submits are taken, and wait until it is back."


class Past:
    """What a port said before, for as long as rates look back."""

    def __init__(self) -> None:
        self._seen: deque[Samples] = deque()

    def add(self, samples: Samples) -> None:
        """Keep a round's samples."""
        while len(self._seen) > 1 and samples.at_s - self._seen[1].at_s >= _LONG_S:
            self._seen.popleft()
        self._seen.append(samples)

    def before(self, seconds: float) -> Samples | None:
        """The samples from about so long before the last; None where there is but one."""
        older = list(self._seen)[:-1]
        last_s = self._seen[-1].at_s if self._seen else 0.0
        return next((samples for samples in older if last_s - samples.at_s <= seconds), older[-1] if older else None)


def rate(now: Samples, before: Samples | None, *names: str, **labels: str) -> float | None:
    """What some counters grew by in a second; None before there are two looks, or where there are none of them."""
    if before is None or now.at_s <= before.at_s:
        return None
    present = [name for name in names if now.total(name, **labels) is not None]
    if not present:
        return None
    grown = sum(_grown(now.total(name, **labels), before.total(name, **labels)) for name in present)
    return grown / (now.at_s - before.at_s)


def quantile(now: Mapping[float, float], before: Mapping[float, float], share: float) -> float | None:
    """A quantile of what a histogram counted between two looks, by linear interpolation as Prometheus does it.

    Returns None where nothing was counted.
    """
    grown = [(bound, _grown(count, before.get(bound))) for bound, count in sorted(now.items())]
    total = grown[-1][1] if grown else 0.0
    if total <= 0:
        return None
    wanted, lower, below = share * total, 0.0, 0.0
    for bound, count in grown:
        if count >= wanted:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * ((wanted - below) / (count - below) if count > below else 1.0)
        lower, below = bound, count
    return lower


def _grown(now: float | None, before: float | None) -> float:
    # A counter that fell belongs to a process that was started anew, and counted from 0.
    if now is None:
        return 0.0
    return now if before is None or before > now else now - before


class Looker:
    """Looks again and again, and remembers what it needs between two rounds.

    Parameters
    ----------
    churn : ChurnClient
        One that does not try again by itself.
    targets : sequence of Target
        The metrics ports.
    """

    def __init__(
        self, churn: ChurnClient, targets: Sequence[Target], http: httpx.Client, *, clock: Clock = time.monotonic
    ) -> None:
        self._churn = churn
        self._clock = clock
        self._targets = targets
        self._http = http
        self._pasts = {target: Past() for target in targets}
        self._stats: Stats | None = None
        self._stats_due_s = 0.0
        self._batches: tuple[Batch, ...] = ()
        self._batches_at: datetime | None = None
        self._n_batches = 0

    def look(self) -> Frame:
        """Look once.

        Raises
        ------
        Unauthorised
            The API refuses the key, which no waiting mends.
        """
        with ThreadPoolExecutor(len(self._targets) + 1) as pool:
            asked = pool.submit(self._ask)
            answers = list(pool.map(lambda target: read(self._http, target), self._targets))
            state, trouble = asked.result()
        known = {}
        for target, answer in zip(self._targets, answers, strict=True):
            if isinstance(answer, Samples):
                self._pasts[target].add(answer)
                known[target] = answer
        apis = [target for target, samples in known.items() if samples.total("churn_redis_up") is not None]
        of_api = known[apis[0]] if apis else None
        if of_api is not None and not trouble:
            trouble += [_REDIS] if of_api.total("churn_redis_up") == 0 else []
        silent = {target: answer for target, answer in zip(self._targets, answers, strict=True) if isinstance(answer, str)}
        lost = [target for target in silent if _is_api(target)]
        trouble += [f"The API's metrics at {target.url}: {silent[target]}. Queues are not known in full." for target in lost]
        return Frame(
            at=datetime.now(UTC),
            address=self._churn.address,
            state=state,
            trouble=tuple(trouble),
            queues=_queues(of_api, None if state == "away" else self._stats),
            workers=tuple(self._workers(known, silent, apis)),
            batches=self._batches,
            batches_at=self._batches_at,
            n_batches=self._n_batches,
            singles=_singles(of_api, self._pasts[apis[0]] if apis else None, self._stats),
            today=self._stats,
        )

    def _ask(self) -> tuple[str, list[str]]:
        """Ask the API for all that it knows; returns its state and what is amiss."""
        try:
            health = self._churn.health()
            trouble = [_REDIS] if health.checks.get("redis") not in (None, "ok") else []
            state = health.status if health.is_ready else "not ready"
            if not health.is_ready:
                return state, [_DATABASE if health.status == "database_unavailable" else health.detail or health.status]
            self._ask_for_numbers()
        except Unauthorised:
            raise
        except ProblemError as exc:
            return "not ready", [_DATABASE if exc.code == "database_unavailable" else exc.detail]
        except ChurnApiError:
            return "away", [_AWAY.format(address=self._churn.address)]
        return state, trouble

    def _ask_for_numbers(self) -> None:
        began_s = self._clock()
        if began_s >= self._stats_due_s:
            self._stats = self._churn.stats()
            took_s = self._clock() - began_s
            self._stats_due_s = began_s + took_s * (1 + _STATS_SHARE)
        found: list[Batch] = []
        for status in OPEN:
            # A state in which there was none is asked for when the stats name one; that of running batches always.
            if status == "processing" or (self._stats is not None and self._stats.batches_by_status.get(status)):
                found += self._churn.batches_page(status=status, limit=SHOWN)
        # One that moved on between two questions is in both answers.
        by_id = {batch.batch_id: batch for batch in found}
        self._batches = tuple(by_id.values())[:SHOWN]
        counted = sum(self._stats.batches_by_status.get(status, 0) for status in OPEN) if self._stats else 0
        self._n_batches = len(by_id) if len(by_id) < SHOWN else max(counted, len(by_id))
        self._batches_at = datetime.now(UTC)

    def _workers(
        self, known: Mapping[Target, Samples], silent: Mapping[Target, str], apis: Sequence[Target]
    ) -> Iterable[Worker]:
        for target in self._targets:
            if target in silent and not _is_api(target):
                yield Worker(target.name, silent[target])
            elif target in known and target not in apis:
                yield self._worker(target, known[target])

    def _worker(self, target: Target, now: Samples) -> Worker:
        short, long = self._pasts[target].before(_SHORT_S), self._pasts[target].before(_LONG_S)
        scores_chunks = bool(now.total("churn_chunk_seconds_count"))
        # A worker of single predictions calls the model once a task; webhooks are counted one by one.
        counters = ["churn_chunk_seconds_count" if scores_chunks else "churn_inference_seconds_count"]
        tasks = rate(now, long, *counters, "churn_webhook_deliveries_total")
        busy = rate(now, short, "churn_chunk_step_seconds_total" if scores_chunks else "churn_inference_seconds_sum")
        rows = rate(now, short, "ml_predictions_total")
        return Worker(target.name, "", busy, None if tasks is None else 60 * tasks, rows)


def _is_api(target: Target) -> bool:
    return target.name == "api"


def _queues(now: Samples | None, stats: Stats | None) -> tuple[Queue, ...]:
    hints = now.by("churn_queue_hints", "queue") if now else {}
    if now is not None and now.total("churn_queue_depth") is not None:
        depth, oldest = now.by("churn_queue_depth", "priority"), now.by("churn_oldest_chunk_age_seconds", "priority")
        singles, webhooks = now.total("churn_predictions_waiting"), now.total("churn_webhooks_waiting")
    else:
        depth = dict(stats.chunks_by_priority) if stats else {}
        oldest, webhooks = {}, None
        singles = stats.waiting_predictions if stats else None
    oldest_single = now.total("churn_oldest_prediction_age_seconds") if now else None
    batches = [
        _queue(f"batches.{name}", hints, depth.get(name), oldest.get(name) if depth.get(name) else None) for name in PRIORITIES
    ]
    return (
        _queue("predictions", hints, singles, oldest_single if singles else None),
        *batches,
        _queue("webhooks", hints, webhooks, None),
    )


def _queue(name: str, hints: Mapping[str, float], waiting: float | None, oldest_s: float | None) -> Queue:
    n_hints = int(hints[name]) if name in hints else None
    return Queue(name, n_hints, None if waiting is None else int(waiting), oldest_s)


def _singles(now: Samples | None, past: Past | None, stats: Stats | None) -> Singles:
    if now is None or past is None:
        return Singles(waiting=stats.waiting_predictions if stats else None)
    before = past.before(_SHORT_S)
    waiting = now.total("churn_predictions_waiting")
    per_second = rate(now, before, f"{_DURATION}_count", **_SINGLES)
    if per_second is None and before is not None:
        per_second = 0.0  # A counter appears with the first request.
    buckets = now.buckets(_DURATION, **_SINGLES), before.buckets(_DURATION, **_SINGLES) if before else {}
    median_s, p95_s = ((quantile(*buckets, share) if before else None) for share in (0.5, 0.95))
    return Singles(
        per_second,
        None if median_s is None else 1000 * median_s,
        None if p95_s is None else 1000 * p95_s,
        None if waiting is None else int(waiting),
    )
