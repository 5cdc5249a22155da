"""The Churn Prediction API as a Python object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Self
from urllib.parse import quote

import httpx

from client.downloads import rows, save
from client.options import SubmitOptions
from client.problems import object_of
from client.reading import Json
from client.records import Batch, Page, Prediction, RowError
from client.service import Activation, Health, Model, Reconciliation, Stats, Validation
from client.single import predict_one
from client.submitting import new_key, send_file, send_json
from client.transport import OnRetry, Transport
from client.uploads import OnProgress
from client.waiting import Follower, OnChange, Patience
from client.webhooks import Delivery, Webhook

ResultFormat = Literal["csv", "ndjson", "json", "parquet"]
DEFAULT_API_URL: Final = "http://127.0.0.1:8001"


class ChurnClient:
    """Predicts churn over HTTP.

    Safe to share between threads; close it, or use it in a ``with`` statement.

    Parameters
    ----------
    api_url : str
        Where the API listens, with or without ``/api/v1``.
    api_key : str, optional
        A key, or a token of an identity provider that the installation trusts; sent as Authorization: Bearer.
    **transport
        `timeout_s`, `retry` (a RetryPolicy), `on_retry`, `sleep` and `transport` (an httpx transport, for tests).

    Examples
    --------
    >>> with ChurnClient() as churn:  # doctest: +SKIP
    ...     batch = churn.wait(churn.submit_file("customers.csv").batch_id)
    ...     for prediction in churn.results(batch.batch_id):
    ...         print(prediction.customer_id, prediction.churn_probability)
    """

    def __init__(self, api_url: str = DEFAULT_API_URL, *, api_key: str | None = None, **transport: Any) -> None:
        self._transport = Transport(api_url, api_key=api_key, **transport)

    @property
    def address(self) -> str:
        """Where the API listens, without the base path."""
        return self._transport.address

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # One customer

    def predict(
        self, customer: Mapping[str, Any] | str, *, model_version: str | None = None, timeout_s: float = 60.0
    ) -> Prediction:
        """Score one customer and wait for the score.

        Parameters
        ----------
        customer : mapping or str
            The customer in full, or the id of a stored one.
        model_version : str, optional
            A registered model other than the current one.
        timeout_s : float
            Seconds to wait in all, across the API's own wait and the looks after it.

        Raises
        ------
        ProblemError
            The customer is not valid (its `errors` name the fields) or not stored.
        WaitTimeout
            No score in time.
        """
        body = {"customer_id": customer} if isinstance(customer, str) else dict(customer)
        return predict_one(self._transport, body, model_version=model_version, timeout_s=timeout_s)

    # Submitting

    def submit_file(
        self,
        source: str | Path | BinaryIO,
        options: SubmitOptions | None = None,
        *,
        file_format: str | None = None,
        name: str | None = None,
        on_progress: OnProgress | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Submit a file of customers, streamed in bounded memory.

        Parameters
        ----------
        source : path or binary stream
            A stream is sent from where it stands. One that cannot seek is sent only once, without another try.
        file_format : {"csv", "ndjson", "parquet"}, optional
            Overrides what the name's suffix says.
        name : str, optional
            Name to tell the format by; a stream's own, or the path's, by default.
        idempotency_key : str, optional
            Makes a later call with the same file return the same batch; by default a fresh one for this call and its retries.

        Raises
        ------
        ProblemError
            The API refuses the file; for a small one `errors` names each bad row.
        UnsendableFile
            The format cannot be told, or the file changed while it was sent.
        """
        answer = send_file(
            self._transport,
            "/batches",
            source,
            options,
            file_format=file_format,
            name=name,
            on_progress=on_progress,
            key=idempotency_key,
        )
        return Batch.from_json(answer)

    def validate_file(
        self,
        source: str | Path | BinaryIO,
        options: SubmitOptions | None = None,
        *,
        file_format: str | None = None,
        name: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Validation:
        """Learn what a submit of this file would find; nothing is stored. The parameters are those of `submit_file`."""
        answer = send_file(
            self._transport,
            "/batches:validate",
            source,
            options,
            file_format=file_format,
            name=name,
            on_progress=on_progress,
            key=None,
        )
        return Validation.from_json(answer)

    def submit_customers(
        self,
        customers: Iterable[Mapping[str, Any]],
        options: SubmitOptions | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Submit customers in full as one JSON body; for very many, a file takes less memory."""
        source = {"customers": [dict(customer) for customer in customers]}
        return Batch.from_json(send_json(self._transport, source, options, key=idempotency_key))

    def submit_ids(
        self, customer_ids: Iterable[str], options: SubmitOptions | None = None, *, idempotency_key: str | None = None
    ) -> Batch:
        """Submit stored customers by their ids."""
        source = {"customer_ids": list(customer_ids)}
        return Batch.from_json(send_json(self._transport, source, options, key=idempotency_key))

    def submit_filter(
        self, where: Mapping[str, Any], options: SubmitOptions | None = None, *, idempotency_key: str | None = None
    ) -> Batch:
        """Submit the stored customers that a filter selects.

        Parameters
        ----------
        where : mapping
            ``{"tenure_months": {"lt": 6}, "contract_type": "Month-to-month"}``: all of it must hold. Operators are eq, ne, lt,
            lte, gt, gte, in and is_null.
        """
        source = {"filter": dict(where)}
        return Batch.from_json(send_json(self._transport, source, options, key=idempotency_key))

    # Following

    def batch(self, batch_id: str) -> Batch:
        """The batch as it stands."""
        return Batch.from_json(self._get(_batch(batch_id)))

    def wait(
        self,
        batch_id: str,
        *,
        on_change: OnChange | None = None,
        on_trouble: OnRetry | None = None,
        timeout_s: float | None = None,
        patience_s: float = 600.0,
    ) -> Batch:
        """Wait for a batch to end, whatever its end is.

        Parameters
        ----------
        on_change : callable, optional
            Called with each new state.
        on_trouble : callable, optional
            Called with the error and the seconds to the next try while the API does not answer.
        timeout_s : float, optional
            Seconds after which WaitTimeout is raised; never by default.
        patience_s : float
            Seconds without any answer after which the last error is raised.
        """
        patience = Patience(in_all_s=timeout_s, with_outages_s=patience_s)
        return Follower(self._transport, batch_id, patience=patience, on_change=on_change, on_trouble=on_trouble).to_the_end()

    def batches(self, *, status: str | None = None, priority: str | None = None, page_size: int = 100) -> Iterator[Batch]:
        """Yield batches, the newest first, fetching page after page."""
        cursor: str | None = None
        while True:
            page = self.batches_page(status=status, priority=priority, limit=page_size, cursor=cursor)
            yield from page
            cursor = page.next_cursor
            if cursor is None:
                return

    def batches_page(
        self, *, status: str | None = None, priority: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Batch]:
        """One page of batches; `cursor` is the last page's `next_cursor`."""
        body = self._get("/batches", {"status": status, "priority": priority, "limit": limit, "cursor": cursor})
        return Page(tuple(Batch.from_json(item) for item in body.get("batches") or ()), body.get("next_cursor"))

    # Results

    def results(self, batch_id: str) -> Iterator[Prediction]:
        """Yield the scores in the order of the input; those there are so far while the batch runs."""
        return map(Prediction.from_json, rows(self._transport, f"{_batch(batch_id)}/results"))

    def save_results(
        self,
        batch_id: str,
        target: str | Path | BinaryIO,
        *,
        file_format: ResultFormat = "csv",
        guard: bool = True,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Write the scores to a path (whole or not at all) or into a binary stream; returns the bytes written.

        In CSV, text that a spreadsheet would run as a formula has an apostrophe before it; `guard=False` leaves it as it is.
        """
        params = _form(file_format, guard=guard)
        return save(self._transport, f"{_batch(batch_id)}/results", target, params=params, on_progress=on_progress)

    def errors(self, batch_id: str) -> Iterator[RowError]:
        """Yield the rows that were refused or could not be scored, each with its reason."""
        return map(RowError.from_json, rows(self._transport, f"{_batch(batch_id)}/errors"))

    def save_errors(
        self, batch_id: str, target: str | Path | BinaryIO, *, file_format: ResultFormat = "csv", guard: bool = True
    ) -> int:
        """Write the row errors as `save_results` writes the scores."""
        return save(self._transport, f"{_batch(batch_id)}/errors", target, params=_form(file_format, guard=guard))

    def reconciliation(self, batch_id: str) -> Reconciliation:
        """Count where each row of the batch is."""
        return Reconciliation.from_json(self._get(f"{_batch(batch_id)}/reconciliation"))

    # Steering

    def cancel(self, batch_id: str) -> Batch:
        """Stop the batch; what is scored stays."""
        return self._change(f"{_batch(batch_id)}/cancel")

    def pause(self, batch_id: str) -> Batch:
        """Hold the batch until it is resumed."""
        return self._change(f"{_batch(batch_id)}/pause")

    def resume(self, batch_id: str) -> Batch:
        """Let a paused batch go on."""
        return self._change(f"{_batch(batch_id)}/resume")

    def retry(self, batch_id: str) -> Batch:
        """Submit the failed rows again as a child batch, which is returned."""
        return self._change(f"{_batch(batch_id)}/retry")

    # Webhooks

    def add_webhook(self, url: str, *, events: Iterable[str] | None = None, description: str | None = None) -> Webhook:
        """Register a receiver; the answer is the only one that holds its `secret`.

        Sent again only if it cannot have arrived, since each time makes another one.

        Parameters
        ----------
        events : iterable of str, optional
            Such as ``batch.failed``; all by default.
        """
        given = {"url": url, "events": None if events is None else list(events), "description": description}
        body = {name: value for name, value in given.items() if value is not None}
        return Webhook.from_json(object_of(self._transport.send("POST", "/webhooks", json=body, may_arrive_twice=False)))

    def webhooks(self, *, page_size: int = 100) -> Iterator[Webhook]:
        """Yield the registered receivers, the newest first."""
        return map(Webhook.from_json, self._items("/webhooks", "webhooks", {"limit": page_size}))

    def remove_webhook(self, webhook_id: str) -> None:
        """Forget a receiver and its deliveries."""
        self._transport.send("DELETE", _webhook(webhook_id))

    def rotate_webhook(self, webhook_id: str, *, overlap_s: int | None = None) -> Webhook:
        """Give a receiver a new secret, which is in the answer; the old one signs as well until the overlap is over."""
        params = {"overlap_seconds": overlap_s}
        # A second rotation would make the first one's secret the old one, and forget that which receivers know.
        answer = self._transport.send("POST", f"{_webhook(webhook_id)}/rotate", params=params, may_arrive_twice=False)
        return Webhook.from_json(object_of(answer))

    def enable_webhook(self, webhook_id: str) -> Webhook:
        """Tell a receiver of batches again that was disabled because it answered 410 Gone."""
        return Webhook.from_json(object_of(self._transport.send("POST", f"{_webhook(webhook_id)}/enable")))

    def deliveries(
        self,
        *,
        webhook_id: str | None = None,
        batch_id: str | None = None,
        status: str | None = None,
        page_size: int = 100,
    ) -> Iterator[Delivery]:
        """Yield what was sent to a registered receiver, or about a batch, the newest first.

        Raises
        ------
        ValueError
            Not exactly one of `webhook_id` and `batch_id` is given.
        """
        if webhook_id is not None and batch_id is None:
            path = _webhook(webhook_id)
        elif batch_id is not None and webhook_id is None:
            path = _batch(batch_id)
        else:
            raise ValueError("Give webhook_id or batch_id.")
        params = {"status": status, "limit": page_size}
        return map(Delivery.from_json, self._items(f"{path}/deliveries", "deliveries", params))

    def redeliver(self, delivery_id: str) -> Delivery:
        """Have a delivery sent again, whatever came of it."""
        path = f"/webhook-deliveries/{quote(delivery_id, safe='')}/redeliver"
        return Delivery.from_json(object_of(self._transport.send("POST", path)))

    # The service

    def models(self) -> list[Model]:
        """The registered models."""
        return [Model.from_json(item) for item in self._get("/models").get("models") or ()]

    def model(self, version: str) -> Model:
        """One registered model."""
        return Model.from_json(self._get(f"/models/{quote(version, safe='')}"))

    def activate(self, version: str) -> Activation:
        """Make a model the current one; batches submitted before keep theirs."""
        return Activation.from_json(object_of(self._transport.send("POST", f"/models/{quote(version, safe='')}/activate")))

    def health(self) -> Health:
        """Whether the API can take work; not ready is an answer, not an error."""
        response = self._transport.send("GET", "/health/ready", also_answers=(httpx.codes.SERVICE_UNAVAILABLE,))
        return Health.from_json(object_of(response), is_ready=response.status_code == httpx.codes.OK)

    def stats(self) -> Stats:
        """What was done today, and what waits; it is counted anew each time, so not a question for every second."""
        return Stats.from_json(self._get("/stats"))

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        return object_of(self._transport.send("GET", path, params=params))

    def _items(self, path: str, name: str, params: Mapping[str, Any]) -> Iterator[Json]:
        """Yield what a list holds, fetching page after page."""
        cursor: str | None = None
        while True:
            page = self._get(path, {**params, "cursor": cursor})
            yield from page.get(name) or ()
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def _change(self, path: str) -> Batch:
        headers = {"Idempotency-Key": new_key()}
        return Batch.from_json(object_of(self._transport.send("POST", path, headers=headers)))


def _form(file_format: ResultFormat, *, guard: bool) -> dict[str, str]:
    return {"format": file_format} if guard else {"format": file_format, "guard": "false"}


def _batch(batch_id: str) -> str:
    return f"/batches/{quote(batch_id, safe='')}"


def _webhook(webhook_id: str) -> str:
    return f"/webhooks/{quote(webhook_id, safe='')}"
