"""The work: whether workers are there, whether it moves, and whether anything was left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from broker.workers import UNREACHABLE, consumed_queues, queue_lengths
from cli.checks.findings import Finding, Level, fine
from db.checkup import (
    QuietBatch,
    forgotten_hints,
    lapsed_leases,
    leftovers,
    orphans,
    quiet_batches,
    waiting_requests,
)
from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis
    from sqlalchemy import Connection

    from settings import Settings

QUEUES: Final = (PREDICTIONS_QUEUE, *BATCH_QUEUES)
_ANSWER_S: Final = 2.0
_PATIENCE_S: Final = 30.0
"""Beyond what the settings allow for, before a wait is worth a word."""
QUIET_S: Final = 600.0
_LONG_QUEUE: Final = 1_000


def worker_findings(producer: Celery, client: Redis) -> Iterator[Finding]:
    """Ask the workers, and how many hints wait for them."""
    try:
        workers = consumed_queues(producer, timeout_s=_ANSWER_S)
        lengths = queue_lengths(client, QUEUES)
    except UNREACHABLE as exc:
        yield Finding(
            "workers",
            Level.PROBLEM,
            f"The workers cannot be asked: {exc}.",
            "Redis answers, but takes no message, so no hint reaches a worker either.",
            "See what else is said of Redis.",
        )
        return
    unserved = [queue for queue in QUEUES if not any(queue in consumed for consumed in workers.values())]
    if not workers:
        yield Finding(
            "workers",
            Level.PROBLEM,
            f"No worker has answered within {_ANSWER_S:.0f} s.",
            "Work is accepted and waits.",
            "Start workers, and see their logs for why they ended.",
        )
    elif unserved:
        yield Finding(
            "workers",
            Level.PROBLEM,
            f"Workers answer ({', '.join(sorted(workers))}), but none consumes {', '.join(unserved)}.",
            "What is hinted there waits.",
            "Start a worker with -Q and these queues.",
        )
    else:
        yield fine("workers", f"Workers answer and consume every queue: {', '.join(sorted(workers))}.")
    yield _queue_finding(lengths)


def progress_findings(conn: Connection, settings: Settings) -> Iterator[Finding]:
    """Whether what is due is hinted, claimed, and given back by the rescuer where a worker died."""
    patience_s = _PATIENCE_S + 5 * settings.rescue_interval_seconds
    findings = [*_rescuer_findings(conn, settings, patience_s), *_request_findings(conn, settings)]
    yield from findings or [fine("progress", "Nothing waits for longer than it should.")]
    quiet = quiet_batches(conn, longer_than_s=QUIET_S)
    yield _quiet_finding(quiet) if quiet else fine("stuck-batches", "Every open batch moves.")


def remains_findings(conn: Connection) -> Iterator[Finding]:
    """What belongs to nothing, and what should be gone."""
    lost, left = orphans(conn), leftovers(conn)
    if lost:
        yield Finding(
            "orphans",
            Level.PROBLEM,
            f"There are {_counted(lost)}.",
            "No command of ours leaves such things: rows were removed by hand, or a restore was not complete.",
            "Restore what is missing, or remove the rest; the guide has the statements.",
        )
    if left:
        yield Finding(
            "leftovers",
            Level.WARNING,
            f"There are {_counted(left)}.",
            "They take space. The rescuer of any worker clears them, so none has for a while.",
            "See that a worker runs and what its log says of the rescuer.",
        )
    if not lost and not left:
        yield fine("orphans", "Nothing was left behind.")


def _rescuer_findings(conn: Connection, settings: Settings, patience_s: float) -> Iterator[Finding]:
    lapsed = lapsed_leases(conn, longer_than_s=patience_s)
    if lapsed.n:
        yield Finding(
            "progress",
            Level.PROBLEM,
            f"{lapsed.n} leases lapsed up to {lapsed.seconds:.0f} s ago, and nobody has given the work back.",
            "The rescuer, which every worker runs, is silent: what dead workers held stays undone.",
            "Start a worker, or see its log for why its rescuer fails.",
        )
    forgotten = forgotten_hints(conn, longer_than_s=settings.republish_after_seconds + patience_s)
    if forgotten.n:
        yield Finding(
            "progress",
            Level.PROBLEM,
            f"{forgotten.n} chunks, inputs or predictions are due, and for up to {forgotten.seconds:.0f} s nobody has hinted at"
            " them again.",
            "Neither the API nor a rescuer publishes.",
            "See that a worker runs, that Redis takes writes, and what the logs say of publishing.",
        )


def _request_findings(conn: Connection, settings: Settings) -> Iterator[Finding]:
    requests = waiting_requests(conn, longer_than_s=_PATIENCE_S + settings.prediction_timeout_seconds)
    if requests.n:
        yield Finding(
            "progress",
            Level.PROBLEM,
            f"{requests.n} single predictions wait, the oldest for {requests.seconds:.0f} s.",
            "Their clients were answered 202 and find nothing.",
            f"See that a worker consumes the queue {PREDICTIONS_QUEUE}, and that it can load the model.",
        )


def _quiet_finding(quiet: list[QuietBatch]) -> Finding:
    said = "; ".join(_described(each) for each in quiet[:5])
    more = f"; and {len(quiet) - 5} more" if len(quiet) > 5 else ""
    return Finding(
        "stuck-batches",
        # While others move, those at the end of a long queue may rightly wait.
        Level.WARNING if len(quiet) < quiet[0].n_open else Level.PROBLEM,
        f"Batches are open and do not move: {said}{more}.",
        "Their customers are not scored.",
        "See the other findings first; then the last error, `churn status BATCH_ID`, and the workers' logs.",
        [{"batch_id": each.batch_id, "status": each.status, "seconds": each.seconds} for each in quiet],
    )


def _described(batch: QuietBatch) -> str:
    error = f", last error: {batch.last_error}" if batch.last_error else ""
    return f"{batch.batch_id} ({batch.status}, for {batch.seconds:.0f} s{error})"


def _queue_finding(lengths: Mapping[str, int]) -> Finding:
    waiting = {queue: n for queue, n in lengths.items() if n}
    if max(lengths.values(), default=0) > _LONG_QUEUE:
        return Finding(
            "queues",
            Level.WARNING,
            f"Hints pile up: {_counted(waiting)}.",
            "A few at a time are published, and again only if nobody took them: nobody has, for long.",
            "Start workers for these queues. Hints that are doubled do no harm.",
        )
    return fine("queues", f"Hints that wait: {_counted(waiting)}." if waiting else "No hint waits.")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
