"""Submitting a batch: its row and its input in one transaction, once an Idempotency-Key, whatever form the input has."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from api.allowance import check_batch, check_upload
from api.auditing import audit
from api.bodies import Body
from api.early import GaveUp
from api.errors import BacklogFull, MalformedRequest, Unprocessable
from api.inputs import EarlyInput, Input, LaterInput, UnreadInput, input_of
from api.resources import Resources
from api.targets import check_target
from db.allowance import lock_use_of_team, use_of_team
from db.audit import Act
from db.backlog import Backlog, measure_backlog
from db.batches import Batch, NewBatch, get_own_batch, submit_batch
from db.engine import do_not_wait_for_disk, each_alone
from db.errors import Conflict, DatabaseUnavailable, NotFound
from db.idempotency import keep_key, replayed_batch
from db.models import current_version, get_model
from db.promises import Line
from db.retry import count_retryable
from failpoints import Guard, Point, is_off, reach
from schemas.states import Priority, Source
from traces import spans

MAX_KEY_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch that was made, now or by an earlier request with the same Idempotency-Key."""

    batch: Batch
    replayed: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """Whose submit it is, and by what its repetition is told."""

    team: str
    key: str | None
    request_id: str


def submit(resources: Resources, body: Body, asking: Asking) -> Submitted:
    """Store a batch; workers hear of it in the background.

    Raises
    ------
    Unprocessable, DataError
        The input or the options are not valid; nothing was stored.
    Conflict
        The batch_id is taken, or no model is active.
    BacklogFull
        More is waiting than the settings allow; what was accepted before is still answered with its batch.
    """
    with ExitStack() as stack:
        earlier = _replayed(resources, asking, body.sha256)
        if earlier is not None:
            return earlier
        waiting = _check_backlog(resources, asking.team)
        check_callback(resources, body.options)
        with spans.span("read input"):
            what = input_of(resources, body, stack)
        try:
            return _store(resources, what, body.options, body.sha256, asking, waiting)
        except GaveUp:
            assert isinstance(what, EarlyInput)  # noqa: S101 - no other gives up
            return _store(resources, what.unread, body.options, body.sha256, asking, waiting)


def submit_retry(resources: Resources, parent_id: str, asking: Asking) -> Submitted:
    """Submit the failed rows of an ended batch as its child, for its own model.

    Raises
    ------
    NotFound
        The team has no such batch.
    Conflict
        It has not ended, or has no row that another try could score.
    BacklogFull
        As for a submit.
    """
    fingerprint = hashlib.sha256(f"retry {parent_id}".encode()).hexdigest()
    earlier = _replayed(resources, asking, fingerprint)
    if earlier is not None:
        return earlier
    waiting = _check_backlog(resources, asking.team)
    with resources.engine.connect() as conn:
        parent = get_own_batch(conn, parent_id, team=asking.team)
        if not parent.is_final:
            raise Conflict(
                f"batch {parent_id!r} is {parent.status}; its failed rows can be retried once it has ended", code="batch_open"
            )
        total = count_retryable(conn, parent_id)
    if not total:
        raise Conflict(
            f"batch {parent_id!r} has no failed row that another try could score; rows that were refused for their values"
            " must be corrected and submitted anew",
            code="nothing_to_retry",
        )
    options = {
        "priority": parent.priority,
        "metadata": parent.metadata,
        "model_version": parent.model_version,
        "callback_url": parent.callback_url,
    }
    said = {"total_customers": total, "parent_batch_id": parent_id}
    return _store(resources, LaterInput(Source.RETRY, said), options, fingerprint, asking, waiting)


def check_key(key: str | None) -> str | None:
    """The Idempotency-Key if it is sane.

    Raises
    ------
    MalformedRequest
        It is blank, too long or not printable ASCII.
    """
    if key is None:
        return None
    if not key.strip() or len(key) > MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise MalformedRequest(
            f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters.", code="invalid_idempotency_key"
        )
    return key


def check_callback(resources: Resources, options: Mapping[str, Any]) -> None:
    """Refuse a callback_url that nothing could sign for, or that nothing may be sent to.

    Raises
    ------
    Unprocessable
    """
    if "callback_url" not in options:
        return
    if not resources.settings.webhook_secret:
        said = "callback_url needs WEBHOOK_SECRET, which signs what is sent to it, and which is not set on this server."
        fault = {"parameter": "callback_url", "code": "callback_unsigned", "message": said}
        raise Unprocessable(
            f"{said} Set it, or register a receiver with POST /webhooks.", code="callback_unsigned", errors=[fault]
        )
    check_target(resources.settings, options["callback_url"], named="callback_url")


def _replayed(resources: Resources, asking: Asking, sha256: str) -> Submitted | None:
    if asking.key is None or is_off(Guard.IDEMPOTENCY):
        return None
    with resources.engine.connect() as conn:
        batch_id = replayed_batch(conn, asking.key, sha256, team=asking.team)
        return None if batch_id is None else Submitted(get_own_batch(conn, batch_id, team=asking.team), replayed=True)


def _check_backlog(resources: Resources, team: str) -> Backlog:
    """Refuse a batch while too much waits, whatever its own size, or a large one could never be accepted; returns what waits.

    Submits that look at the same moment may all pass, no more of them than the API has threads: a bound that were exact would
    have each wait for the others' uploads.
    """
    most = resources.settings
    with each_alone(resources.overseer) as conn:
        waiting = measure_backlog(conn)
        use = use_of_team(conn, team)
    check_batch(resources.settings, use, one_more=1)
    if waiting.customers < most.max_backlog_customers and waiting.batches < most.max_open_batches:
        return waiting
    raise BacklogFull(
        f"{waiting.customers:,} customers of {waiting.batches:,} batches wait to be scored; no further batch is accepted"
        f" from {most.max_backlog_customers:,} customers or {most.max_open_batches:,} batches on. What was accepted goes on;"
        " try again later."
    )


def _store(
    resources: Resources, what: Input, options: Mapping[str, Any], sha256: str, asking: Asking, waiting: Backlog
) -> Submitted:
    batch_id = options.get("batch_id") or uuid.uuid4().hex
    try:
        with spans.span("store batch"), resources.engine.begin() as conn:
            submit_batch(conn, _new_batch(conn, batch_id, what, options, asking))
            if asking.key is not None and not is_off(Guard.IDEMPOTENCY):
                keep_key(conn, asking.key, sha256, batch_id, team=asking.team)
            if isinstance(what, UnreadInput):
                check_upload(resources.settings, use_of_team(conn, asking.team), more_bytes=what.upload.size)
            what.store(conn, batch_id, Line(waiting, Priority(options["priority"])))
            act = Act.BATCH_RETRIED if what.source is Source.RETRY else Act.BATCH_SUBMITTED
            audit(conn, act, batch_id, source=what.source)
            use = lock_use_of_team(conn, asking.team, batch_id)
            check_batch(resources.settings, use, one_more=0)
            if isinstance(what, UnreadInput):
                check_upload(resources.settings, use, more_bytes=0)
            batch = get_own_batch(conn, batch_id, team=asking.team)
            if is_off(Guard.DURABLE_SUBMIT):
                do_not_wait_for_disk(conn)
    except Conflict:
        # The same request may have come twice at once, and the other one has won: then this one is its repetition.
        earlier = _replayed(resources, asking, sha256)
        if earlier is None:
            raise
        return earlier
    except DatabaseUnavailable:
        # The connection may have broken after Postgres committed; only Postgres knows.
        committed = _committed(resources, batch_id, asking)
        if committed is None:
            raise
        batch = committed
    reach(Point.SUBMITTED)
    resources.publisher.nudge(chunks_only=batch.planned_at is not None)
    return Submitted(batch, replayed=False)


def _committed(resources: Resources, batch_id: str, asking: Asking) -> Batch | None:
    """The batch of this very request, if it was stored; another request may have taken a batch_id of the client's choice."""
    try:
        with resources.engine.connect() as conn:
            batch = get_own_batch(conn, batch_id, team=asking.team)
    except (NotFound, DatabaseUnavailable):
        return None
    return batch if batch.request_id == asking.request_id else None


def _new_batch(conn: Connection, batch_id: str, what: Input, options: Mapping[str, Any], asking: Asking) -> NewBatch:
    return NewBatch(
        batch_id=batch_id,
        source=what.source,
        model_version=model_version(conn, options.get("model_version")),
        priority=options["priority"],
        **({"on_error": options["on_error"]} if "on_error" in options else {}),
        max_error_rate=options.get("max_error_rate"),
        metadata=options["metadata"],
        request_id=asking.request_id,
        team=asking.team,
        expires_in_s=options.get("expires_in"),
        callback_url=options.get("callback_url"),
        trace_context=spans.context(),
        **what.columns(),
    )


def model_version(conn: Connection, asked: str | None) -> str:
    """The version to score with: the one that was asked for, else the champion.

    Raises
    ------
    Unprocessable
        None of that version is registered.
    Conflict
        No model is active.
    """
    if asked is None:
        return current_version(conn)
    try:
        return get_model(conn, asked).version
    except NotFound as exc:
        raise Unprocessable(str(exc), code="unknown_model") from exc
