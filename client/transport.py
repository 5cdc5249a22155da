"""One HTTP connection pool to one API: addresses, headers, timeouts, and another try where a request may safely be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar

import httpx

from client.errors import ChurnApiError
from client.problems import refusal, speaking_of
from client.retry import RetryPolicy, was_not_acted_upon
from client.uploads import Upload

R = TypeVar("R")
OnRetry = Callable[[ChurnApiError, float], None]
"""Called before each pause with the error that made it necessary and the seconds to the next try."""

BASE_PATH: Final = "/api/v1"
CONNECT_TIMEOUT_S: Final = 5.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Transport:
    """Sends requests below the base path, and again where that is safe.

    It is safe by default: reads, state changes and activations are idempotent by contract, and a submit carries an
    Idempotency-Key.

    Raises
    ------
    ValueError
        The address is not an http(s) URL, or the key could not stand in a header.
    """

    def __init__(
        self,
        api_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retry: RetryPolicy | None = None,
        on_retry: OnRetry | None = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.address = _address(api_url)
        self.timeout_s = timeout_s
        self._retry = retry or RetryPolicy()
        self._on_retry = on_retry
        self.sleep = sleep
        self._http = httpx.Client(
            base_url=self.address + BASE_PATH,
            headers=_headers(api_key),
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            transport=transport,
            # Over plain HTTP there is no certificate to verify, and reading the authorities' takes longer than most requests.
            verify=self.address.startswith("https:"),
            # A proxy set for the internet must not be asked for a server on this very machine.
            trust_env=httpx.URL(self.address).host not in _LOOPBACK,
        )

    def close(self) -> None:
        """Close the pool."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        upload: Upload | None = None,
        timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        also_answers: tuple[int, ...] = (),
        may_arrive_twice: bool = True,
    ) -> httpx.Response:
        """Send a request and read its answer whole.

        Parameters
        ----------
        path : str
            Below the base path, its variable parts already quoted.
        params : mapping, optional
            Query parameters; those that are None are left out.
        upload : Upload, optional
            A body to stream instead of `json`.
        also_answers : tuple of int
            Statuses of 300 and more that are answers, not refusals.
        may_arrive_twice : bool
            False sends again only what cannot have been acted upon.

        Raises
        ------
        ChurnApiError
            As the tree in client/errors.py says, after the last try.
        """

        def attempt() -> httpx.Response:
            with speaking_of(self.address):
                response = self._http.request(
                    method,
                    path,
                    params=_given(params),
                    headers={**(headers or {}), **_length_of(upload)},
                    json=json,
                    content=None if upload is None else upload.pieces(),
                    timeout=self._timeout(timeout_s),
                )
            if response.status_code >= httpx.codes.MULTIPLE_CHOICES and response.status_code not in also_answers:
                raise refusal(response)
            return response

        def may_repeat(error: ChurnApiError) -> bool:
            return (upload is None or upload.can_restart) and (may_arrive_twice or was_not_acted_upon(error))

        return self._repeat(attempt, retry or self._retry, may_repeat)

    @contextmanager
    def stream(self, path: str, *, params: Mapping[str, Any] | None = None, accept: str = "*/*") -> Iterator[httpx.Response]:
        """GET an answer whose body is read piece by piece; only its opening is tried again."""

        def attempt() -> httpx.Response:
            with speaking_of(self.address):
                request = self._http.build_request("GET", path, params=_given(params), headers={"Accept": accept})
                response = self._http.send(request, stream=True)
                if response.status_code >= httpx.codes.MULTIPLE_CHOICES:
                    response.read()
                    raise refusal(response)
            return response

        response = self._repeat(attempt, self._retry)
        try:
            with speaking_of(self.address):
                yield response
        finally:
            response.close()

    def _repeat(
        self, attempt: Callable[[], R], retry: RetryPolicy, may_repeat: Callable[[ChurnApiError], bool] = lambda _: True
    ) -> R:
        tries = 0
        while True:
            tries += 1
            try:
                return attempt()
            except ChurnApiError as error:
                delay_s = retry.delay_s(tries, error) if may_repeat(error) else None
                if delay_s is None:
                    raise
                if self._on_retry is not None:
                    self._on_retry(error, delay_s)
            self.sleep(delay_s)

    def _timeout(self, timeout_s: float | None) -> httpx.Timeout:
        return httpx.Timeout(timeout_s or self.timeout_s, connect=CONNECT_TIMEOUT_S)


def _address(api_url: str) -> str:
    try:
        url = httpx.URL(api_url.strip())
    except httpx.InvalidURL as exc:
        raise ValueError(f"{api_url!r} is not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{api_url!r} is not an address of the form http://host:port.")
    return str(url.copy_with(query=None, fragment=None)).rstrip("/").removesuffix(BASE_PATH)


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"User-Agent": "churn-client", "Accept": "application/json, application/problem+json"}
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("The API key holds characters that no key has; was it copied with a line break?")
        # Not as X-API-Key, which an installation may call otherwise; and a token goes here too.
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _length_of(upload: Upload | None) -> dict[str, str]:
    # A length announced up front lets the API refuse a file that is too large before it is sent.
    return {} if upload is None or upload.size is None else {"Content-Length": str(upload.size)}
