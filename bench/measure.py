"""Measuring in turn: contenders alternate on one machine, medians are compared, and only ratios within one run are claimed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from bench.charts import Chart

_EXACT: Final = 3


@dataclass(frozen=True, slots=True)
class Target:
    """What one comparison found, beside what it should.

    Attributes
    ----------
    ours, reference : float
        Medians, both in `unit`.
    target : float
        Bound of ours / reference: the least if `higher_is_better`, else the most.
    """

    name: str
    ours: float
    reference: float
    target: float
    unit: str
    higher_is_better: bool = True

    @property
    def ratio(self) -> float:
        """Ours over the reference."""
        return self.ours / self.reference

    @property
    def is_met(self) -> bool:
        """Whether the ratio is on the right side of the target."""
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target

    def to_json(self) -> dict[str, Any]:
        """The entry of results.json."""
        return {
            "ratio": round(self.ratio, _EXACT),
            "target": self.target,
            "higher_is_better": self.higher_is_better,
            "ours": round(self.ours, _EXACT),
            "reference": round(self.reference, _EXACT),
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Section:
    """One case in the report: a table of figures and what to know about them.

    Attributes
    ----------
    header : tuple of str
        Column heads; the first names the contender.
    bars : mapping of str to float
        What the picture shows of this case, by label; all of one unit.
    charts : tuple of Chart
        Pictures of this case alone.
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bars: Mapping[str, float] = field(default_factory=dict)
    bar_unit: str = ""
    charts: tuple[Chart, ...] = ()


@dataclass(slots=True)
class Findings:
    """What a case hands over."""

    targets: list[Target] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Append another case's findings."""
        self.targets += other.targets
        self.sections += other.sections


Samples = dict[str, list[float]]


def in_turn(
    contenders: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    warm_up: bool = True,
    fewer: Mapping[str, int] | None = None,
) -> Samples:
    """Run every contender once a round, in alternating order, so that a slow minute of the machine hits all of them.

    Parameters
    ----------
    contenders : mapping of str to callable
        Each does its work once and returns one figure.
    warm_up : bool
        Whether a round before the first is run and thrown away.
    fewer : mapping of str to int, optional
        Rounds of contenders that take too long for all of them; these take part in the first ones, and in no warm-up.

    Returns
    -------
    dict of str to list of float
        The figures by contender, one a round.
    """
    samples: Samples = {name: [] for name in contenders}
    few = fewer or {}
    if warm_up:
        for name, run in contenders.items():
            if name not in few:
                run()
    for number in range(rounds):
        taking_part = [name for name in contenders if number < few.get(name, rounds)]
        for name in order(taking_part, number):
            samples[name].append(contenders[name]())
            tell(f"  {name}: {samples[name][-1]:,.4g}")
    return samples


def order(names: Iterable[str], number: int) -> list[str]:
    """The order of round `number`: forwards, then backwards, and so on."""
    listed = list(names)
    return listed if number % 2 == 0 else listed[::-1]


def medians(samples: Samples) -> dict[str, float]:
    """The median figure of each contender."""
    return {name: median(values) for name, values in samples.items()}


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of the values lie, by the nearest rank; of at least one value."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def table_of(samples: Samples, *, against: str, digits: int = 0) -> tuple[tuple[str, ...], ...]:
    """Rows of a report: contender, median, lowest, highest, and the median's ratio to that of `against`."""
    middle = medians(samples)
    return tuple(
        (
            name,
            f"{middle[name]:,.{digits}f}",
            f"{min(values):,.{digits}f}",
            f"{max(values):,.{digits}f}",
            f"{middle[name] / middle[against]:.2f}",
        )
        for name, values in samples.items()
    )


def tell(line: str) -> None:
    """Say what is going on, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
