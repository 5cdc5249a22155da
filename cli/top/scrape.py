"""The metrics ports, read as Prometheus reads them: where they are, and what one of them says at a moment."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S: Final = 3.0
_LARGEST_BYTES: Final = 8 * 1024 * 1024
_BUCKET: Final = "_bucket"

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """A metrics port.

    Attributes
    ----------
    name : str
        What it is called on the screen.
    token : str
        Sent as Authorization: Bearer; blank sends nothing.
    """

    name: str
    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Samples:
    """What one port said.

    Attributes
    ----------
    at_s : float
        When, by a clock that never goes back.
    values : mapping
        Values by name and labels.
    """

    at_s: float
    values: Mapping[str, Mapping[Labels, float]]

    def total(self, name: str, **labels: str) -> float | None:
        """The sum over all series of a name with these labels; None where there is none."""
        wanted = labels.items()
        found = [value for series, value in self.values.get(name, {}).items() if wanted <= dict(series).items()]
        return sum(found) if found else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """Values of a name by one of its labels."""
        sums: dict[str, float] = defaultdict(float)
        for series, value in self.values.get(name, {}).items():
            sums[dict(series).get(label, "")] += value
        return dict(sums)

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """A histogram's cumulative counts by upper bound, over all series with these labels."""
        sums: dict[float, float] = defaultdict(float)
        for series, value in self.values.get(name + _BUCKET, {}).items():
            given = dict(series)
            if labels.items() <= given.items():
                sums[float(given["le"])] += value
        return dict(sorted(sums.items()))


def targets_of(given: str, *, token: str, api: Target) -> list[Target]:
    """Read CHURN_METRICS_URLS: ``name=url`` or ``url``, with commas between.

    Parameters
    ----------
    api : Target
        What is read where none is given: the API's own /metrics, which an admin's key opens.

    Raises
    ------
    ValueError
        One of them is no address.
    """
    found = []
    for part in filter(None, (part.strip() for part in given.split(","))):
        name, equals, url = part.partition("=")
        if not equals or "/" in name:
            name, url = "", part
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"CHURN_METRICS_URLS: {part!r} is not name=http://host:port/metrics.")
        found.append(Target(name or parts.netloc, url, token))
    return found or [api]


def read(http: httpx.Client, target: Target) -> Samples | str:
    """Read a port, or say in words why not."""
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    try:
        answer = http.get(target.url, headers=headers, timeout=PATIENCE_S)
    except httpx.HTTPError as exc:
        return "no answer in time" if isinstance(exc, httpx.TimeoutException) else "no answer"
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return "wants METRICS_TOKEN, or a key of the scope admin"
    if not answer.is_success or len(answer.content) > _LARGEST_BYTES:
        return f"answers {answer.status_code}" if not answer.is_success else "answers too much"
    try:
        return Samples(time.monotonic(), _values(answer.text))
    except ValueError:
        return "shows no metrics"


def _values(text: str) -> Mapping[str, Mapping[Labels, float]]:
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][frozenset(sample.labels.items())] = sample.value
    return found
