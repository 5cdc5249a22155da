"""docs/metrics.md as data: every metric with its type, its labels and their values, and how many series that makes at most."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

import settings

PAGE: Final = Path(settings.__file__).parent / "docs" / "metrics.md"

_LINE: Final = re.compile(r"^- `([a-z_]+)` \((counter|gauge|histogram), ([^;)]+)((?:; `\w+`: [^;]*?)*)\): ", re.MULTILINE)
_LABEL: Final = re.compile(r"; `(\w+)`: ([^;]*)")
_WORKERS: Final = "\n## From each worker\n"


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as the page has it.

    Attributes
    ----------
    labels : mapping of str to tuple of str
        The values of each; one in asterisks is a kind of values, see the page's head.
    """

    name: str
    kind: str
    unit: str
    labels: Mapping[str, tuple[str, ...]]


def described(text: str) -> dict[str, Described]:
    """The metrics of a part of the page, by name."""
    # A metric's line may go on in the next.
    joined = re.sub(r"\n  (?=\S)", " ", text)
    found: dict[str, Described] = {}
    for name, kind, unit, labels in _LINE.findall(joined):
        assert name not in found, f"{name} stands on the page twice"
        found[name] = Described(name, kind, unit, {label: tuple(v.split(", ")) for label, v in _LABEL.findall(labels)})
    bullets = re.findall(r"^- `([^`]+)`", joined, re.MULTILINE)
    assert bullets == list(found), f"not written as the others: {set(bullets) - set(found)}"
    return found


def of_api() -> dict[str, Described]:
    """What the page says of the API's port."""
    return described(PAGE.read_text().partition(_WORKERS)[0])


def of_workers() -> dict[str, Described]:
    """What it says of the workers' ports."""
    return described(PAGE.read_text().partition(_WORKERS)[2])


@dataclass(frozen=True, slots=True)
class Exported:
    """A metric as a scrape shows it.

    Attributes
    ----------
    series : set of (name, labels)
        Labels are sorted pairs; a histogram's have `le` among them.
    """

    name: str
    kind: str
    series: frozenset[tuple[str, tuple[tuple[str, str], ...]]]

    @property
    def labels(self) -> set[frozenset[str]]:
        """The names of labels that its series have, `le` aside."""
        return {frozenset(label for label, _ in labels) - {"le"} for _, labels in self.series}

    def values(self) -> Iterator[tuple[str, str]]:
        """Each label with each of its values."""
        return iter({pair for _, labels in self.series for pair in labels if pair[0] != "le"})

    @property
    def series_a_set(self) -> int:
        """How many series each set of label values has: of a histogram its buckets, its sum and its count."""
        return len({(name, dict(labels).get("le")) for name, labels in self.series})


def exported(*scrapes: str) -> dict[str, Exported]:
    """What some scrapes show together, by name."""
    found: dict[str, Exported] = {}
    for metric in (each for scrape in scrapes for each in text_string_to_metric_families(scrape)):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        before = found[name].series if name in found else frozenset()
        found[name] = Exported(name, metric.type, before | _series(metric))
    return found


def _series(metric: Metric) -> frozenset[tuple[str, tuple[tuple[str, str], ...]]]:
    return frozenset((sample.name, tuple(sorted(sample.labels.items()))) for sample in metric.samples)


def most_series(metric: Described, shown: Exported, kinds: Mapping[str, int]) -> int:
    """How many series a metric can have at most.

    Parameters
    ----------
    kinds : mapping of str to int
        How many values each kind of the page has.
    """
    sizes = [sum(kinds.get(value, 1) for value in values) for values in metric.labels.values()]
    return prod(sizes) * shown.series_a_set
