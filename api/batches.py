"""Batches over HTTP: submit, follow, steer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from flask import Response, g, jsonify, request
from sqlalchemy import Connection

from api.answers import RETRY_AFTER_S, batch_answer
from api.auditing import audit
from api.bodies import read_body
from api.caller import caller
from api.errors import NotReady
from api.holding import LEFT_BY_POLLS
from api.media import FORM_BODY, JSON, MULTIPART
from api.nouns import Noun, headers
from api.paging import after, page_of
from api.rehearsal import rehearse
from api.resources import resources
from api.streams import whole
from api.submit import Asking, Submitted, check_key, submit, submit_retry
from api.tracing import about_batch
from api.turns import within_bounds
from api.watching import events, look, wait_for_news
from db.audit import Act
from db.batches import Batch, get_own_batch, list_batches, reconcile
from db.control import cancel_batch, pause_batch, resume_batch, sweep_batch
from db.engine import each_alone
from intake.read import MEDIA_TYPES
from schemas.batch import (
    BatchListQuerySchema,
    BatchPageSchema,
    BatchSchema,
    ReconciliationSchema,
    ValidationSchema,
    WaitQuerySchema,
)
from schemas.paths import batch_path
from schemas.states import BatchStatus
from schemas.submit import OptionsSchema, SubmitSchema

batches = Noun("batches", __name__, description="Score many customers: submit, follow, steer.")

_FILE: Final = {"schema": {"type": "string", "format": "binary"}}
_SUBMIT_BODY: Final = {
    "required": True,
    "description": "One JSON object, or the file itself (gzip by Content-Encoding) with the options as query parameters,"
    " or a form with the part `file` and the options as fields.",
    "content": {
        JSON: {"schema": SubmitSchema},
        **dict.fromkeys(MEDIA_TYPES, _FILE),
        MULTIPART: FORM_BODY,
    },
}
_FILE_OPTIONS: Final = {"in": "query", "schema": OptionsSchema}
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": r"^[!-~]([ -~]*[!-~])?$", "maxLength": 255},
    "description": "The same key with the same request answers with the same batch for 24 hours.",
}


@batches.post("/batches")
@batches.doc(requestBody=_SUBMIT_BODY, parameters=[_FILE_OPTIONS, _KEY])
@batches.response(202, BatchSchema, headers=headers(location="The batch.", retry_after="Seconds until the first look."))
@batches.problems(
    _400="The body cannot be parsed.",
    _409="The batch_id is taken, or no model is active.",
    _413="The body is too large.",
    _415="A content type or encoding that is not read here.",
    _422="The options or the rows are not valid; every bad row is named.",
    _503="Postgres is away, or so much work waits that no more is accepted now.",
)
def post_batch() -> Response:
    """Submit a batch.

    It is stored when 202 is answered. A small body is read at once and every bad row named; a large
    one is validated while it arrives, or by a worker.
    """
    key = check_key(request.headers.get("Idempotency-Key"))
    held = resources()
    schemas = {"json_schema": SubmitSchema(), "option_schema": OptionsSchema()}
    with read_body(held.settings, **schemas, early=held.early) as body:
        submitted = submit(held, body, Asking(caller().team, key, g.request_id))
    return _accepted(submitted)


@batches.post("/batches:validate")
@batches.doc(requestBody=_SUBMIT_BODY, parameters=[_FILE_OPTIONS])
@batches.response(200, ValidationSchema)
@batches.problems(
    _400="The body cannot be parsed.",
    _413="The body is too large, or too large for a dry run: a batch may be larger.",
    _415="Not read here.",
    _422="Not valid.",
    _429="A quota is used up, or a dry run of the team's is under way.",
    _503="Postgres is away, or others' imports and dry runs take all turns.",
)
def post_validation() -> Response:
    """Say what a submit of this body would find, and store nothing."""
    held = resources()
    with (
        held.turns.of(caller().team),
        within_bounds(held.settings) as settings,
        read_body(settings, json_schema=SubmitSchema(), option_schema=OptionsSchema()) as body,
    ):
        return jsonify(rehearse(held, body, settings))


@batches.get("/batches")
@batches.query(BatchListQuerySchema)
@batches.response(200, BatchPageSchema, headers=headers(link="The next page, rel=next."))
def get_batches(query: dict[str, Any]) -> Response:
    """List the team's batches, the newest first."""
    cursor = after(query.get("cursor"))
    status, priority, limit = query.get("status"), query.get("priority"), query["limit"]
    with each_alone(resources().engine) as conn:
        found = list_batches(conn, team=caller().team, status=status, priority=priority, limit=limit + 1, before=cursor)
    return page_of(
        "batches",
        found,
        batch_answer,
        lambda batch: (batch.submitted_at, batch.batch_id),
        limit=limit,
        status=status,
        priority=priority,
    )


@batches.get("/batches/<batch_id>")
@batches.query(WaitQuerySchema)
@batches.response(200, BatchSchema, headers=headers(etag="Of this state.", retry_after="Seconds until the next look."))
@batches.response(304, description="Still in the state of If-None-Match.")
@batches.problems(_404="No such batch.")
def get_one_batch(query: dict[str, Any], batch_id: str) -> Response:
    """Say how a batch stands.

    With `wait`, the answer is held until the state differs from If-None-Match or, without that header, until the batch ends.
    """
    known = request.if_none_match
    with _a_thread_to_hold(query["wait"]) as wait_s:
        is_known = known.contains_weak if known else None
        seen = wait_for_news(resources(), batch_id, team=caller().team, is_known=is_known, wait_s=wait_s)
    answer = Response(status=304) if known.contains_weak(seen.etag) else jsonify(seen.answer)
    answer.set_etag(seen.etag, weak=True)
    answer.headers["Cache-Control"] = "private, no-cache"
    if not seen.is_final:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


@batches.get("/batches/<batch_id>/events")
@batches.doc(responses={200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}}})
@batches.problems(_404="No such batch.", _503="Too many streams are open.")
def get_events(batch_id: str) -> Response:
    """Follow a batch: `progress` at each change, `end` with the last state."""
    team = caller().team
    first = look(resources(), batch_id, team=team)
    if not resources().holding.take(leaving=LEFT_BY_POLLS):
        raise NotReady("Too many event streams are open; poll instead, or try again.", code="too_many_streams")
    answer = Response(whole(events(resources(), batch_id, first, team=team)), mimetype="text/event-stream")
    answer.call_on_close(resources().holding.give_back)
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return answer


@batches.post("/batches/<batch_id>/cancel")
@batches.response(202, BatchSchema)
@batches.response(200, BatchSchema, description="It was cancelled already.")
@batches.problems(_404="No such batch.", _409="It has ended otherwise.")
def post_cancel(batch_id: str) -> Response:
    """Stop a batch; what has been scored is kept."""
    answer = _steer(batch_id, cancel_batch, {BatchStatus.CANCELLING, BatchStatus.CANCELLED})
    with resources().engine.begin() as conn:
        sweep_batch(conn, batch_id)
    return answer(_read(batch_id))


@batches.post("/batches/<batch_id>/pause")
@batches.response(202, BatchSchema)
@batches.response(200, BatchSchema, description="It was paused already.")
@batches.problems(_404="No such batch.", _409="It has ended, or its input is still being read.")
def post_pause(batch_id: str) -> Response:
    """Hold a batch: chunks that are being scored still end, no other is begun."""
    return _steer(batch_id, pause_batch, {BatchStatus.PAUSED})(_read(batch_id))


@batches.post("/batches/<batch_id>/resume")
@batches.response(202, BatchSchema)
@batches.response(200, BatchSchema, description="It was not paused.")
@batches.problems(_404="No such batch.", _409="It has ended.")
def post_resume(batch_id: str) -> Response:
    """Let a paused batch go on."""
    running = {BatchStatus.QUEUED, BatchStatus.VALIDATING, BatchStatus.PROCESSING}
    answer = _steer(batch_id, resume_batch, running)
    resources().publisher.nudge()
    return answer(_read(batch_id))


@batches.post("/batches/<batch_id>/retry")
@batches.doc(parameters=[_KEY])
@batches.response(202, BatchSchema, headers=headers(location="The child batch."))
@batches.problems(
    _404="No such batch.",
    _409="It has not ended, or has no row that another try could score.",
    _503="Postgres is away, or so much work waits that no more is accepted now.",
)
def post_retry(batch_id: str) -> Response:
    """Submit the failed rows of a batch again, as its child and for its model."""
    key = check_key(request.headers.get("Idempotency-Key"))
    return _accepted(submit_retry(resources(), batch_id, Asking(caller().team, key, g.request_id)))


@batches.get("/batches/<batch_id>/reconciliation")
@batches.response(200, ReconciliationSchema)
@batches.problems(_404="No such batch.")
def get_reconciliation(batch_id: str) -> Response:
    """Count where each row of the batch is, in the tables themselves and in one snapshot."""
    with resources().engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        batch, counted = get_own_batch(conn, batch_id, team=caller().team), reconcile(conn, batch_id)
    return jsonify(
        batch_id=batch_id,
        status=batch.status,
        total=counted.total,
        completed=counted.completed,
        failed=counted.failed,
        cancelled=counted.cancelled,
        pending=counted.pending,
        balanced=counted.balanced,
        counters_agree=counted.counters_agree,
    )


_ACTS: Final[Mapping[Callable[[Connection, str], Batch], Act]] = {
    cancel_batch: Act.BATCH_CANCELLED,
    pause_batch: Act.BATCH_PAUSED,
    resume_batch: Act.BATCH_RESUMED,
}


def _accepted(submitted: Submitted) -> Response:
    batch = submitted.batch
    about_batch(batch.batch_id)
    answer = jsonify(batch_answer(batch))
    answer.status_code = 202
    answer.headers["Location"] = batch_path(batch.batch_id)
    answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    if submitted.replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    return answer


def _steer(batch_id: str, change: Callable[[Connection, str], Batch], already: set[BatchStatus]) -> Callable[[Batch], Response]:
    """Change a batch; returns how to answer: 200 if it was in that state before, else 202."""
    with resources().engine.begin() as conn:
        before = get_own_batch(conn, batch_id, team=caller().team).status
        change(conn, batch_id)
        if before not in already:
            audit(conn, _ACTS[change], batch_id)

    def answer(batch: Batch) -> Response:
        response = jsonify(batch_answer(batch))
        response.status_code = 200 if before in already else 202
        return response

    return answer


def _read(batch_id: str) -> Batch:
    with each_alone(resources().engine) as conn:
        return get_own_batch(conn, batch_id, team=caller().team)


@contextlib.contextmanager
def _a_thread_to_hold(wait_s: float) -> Iterator[float]:
    """How long this request may hold its thread; with too many long polls it is answered at once instead."""
    held = wait_s > 0 and resources().holding.take(leaving=LEFT_BY_POLLS)
    try:
        yield wait_s if held else 0
    finally:
        if held:
            resources().holding.give_back()
