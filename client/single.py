"""Scoring one customer: the API waits a few seconds itself, and answers 202 with a place to look when that is not enough."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import httpx

from client.errors import UnexpectedAnswer, WaitTimeout
from client.problems import object_of, retry_after_s
from client.records import Prediction
from client.transport import BASE_PATH, Transport

_LOOK_EVERY_S: Final = 0.5


def predict_one(transport: Transport, body: Mapping[str, Any], *, model_version: str | None, timeout_s: float) -> Prediction:
    """Ask for one score and follow it until it is there."""
    deadline = time.monotonic() + timeout_s
    # Each request is a prediction of its own in the customer's history: one that may have arrived is not sent again.
    response = transport.send(
        "POST", "/predictions", params={"model_version": model_version}, json=body, may_arrive_twice=False
    )
    while response.status_code == httpx.codes.ACCEPTED:
        pause_s = retry_after_s(response) or _LOOK_EVERY_S
        if time.monotonic() + pause_s > deadline:
            raise WaitTimeout(f"No score after {timeout_s:.0f} s; it will be stored when it is done. Are workers running?")
        transport.sleep(pause_s)
        response = _look(transport, response)
    return Prediction.from_json(object_of(response))


def _look(transport: Transport, accepted: httpx.Response) -> httpx.Response:
    location = accepted.headers.get("Location") or str(accepted.request.url)
    _, found, path = location.partition(BASE_PATH)
    if not found:
        raise UnexpectedAnswer(f"The API pointed to {location!r}, which is not a place below {BASE_PATH}.")
    return transport.send("GET", path)
