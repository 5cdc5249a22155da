"""What a picture shows, apart from how it is drawn: curves over an axis, or bars cut into their parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_STEPS: Final = (1.0, 2.0, 5.0)
_FEWEST_TICKS: Final = 4
_POINTS_A_NINE: Final = 40

Tick = tuple[float, str]
"""Where on the axis, and what is written there."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a plot; it reaches from its first tick to its last."""

    label: str
    ticks: tuple[Tick, ...]
    is_logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies: 0 at the first tick, 1 at the last."""
        first, last, at = (self._scaled(v) for v in (self.ticks[0][0], self.ticks[-1][0], value))
        return (at - first) / (last - first) if last > first else 0.0

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.is_logarithmic else value


@dataclass(frozen=True, slots=True)
class Curve:
    """One contender's line; those of one colour belong together and differ by their dashes."""

    label: str
    points: tuple[tuple[float, float], ...]
    colour: int
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Curves:
    """A plot of curves; `name` makes the file's name."""

    name: str
    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Stacked:
    """Bars cut into parts, by bar and by part; `name` makes the file's name."""

    name: str
    title: str
    unit: str
    bars: Mapping[str, Mapping[str, float]]

    def parts(self) -> list[str]:
        """All parts that some bar has, in the order of the fullest bar and then of the others."""
        fullest_first = sorted(self.bars.values(), key=len, reverse=True)
        return list(dict.fromkeys(part for bar in fullest_first for part in bar))


Chart = Curves | Stacked


def logarithmic_ticks(values: Iterable[float]) -> tuple[Tick, ...]:
    """Ticks at 1, 2 and 5 times the powers of ten, from the one below all values to the one above; values above zero."""
    found = list(values)
    low, high = min(found), max(found)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [step * 10.0**power for power in powers for step in _STEPS]
    below = [place for place in places if place <= low]
    above = [place for place in places if place >= high]
    return tuple((place, short(place)) for place in places if below[-1] <= place <= above[0])


def ticks_from_zero(highest: float) -> tuple[Tick, ...]:
    """Evenly spaced round ticks from 0 to above a value, at least four."""
    rough = max(highest, 1e-9) / _FEWEST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = max((s * power for s in _STEPS if s * power <= rough), default=power)
    return tuple((step * n, short(step * n)) for n in range(math.ceil(highest / step - 1e-9) + 1))


def short(value: float) -> str:
    """A figure as a person says it: 5M, 250k, 40, 0.25."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def percentile_curve(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Points of a percentile plot: x is 1 / (1 - share), so that on a logarithmic axis each nine takes the same room.

    Ends where the values are too few to say more.
    """
    ordered = sorted(values)
    n = len(ordered)
    # p50 is x = 2 and p99 is x = 100; the last value stands for all beyond it.
    wanted = (2.0 * 10.0 ** (place / _POINTS_A_NINE) for place in range(10 * _POINTS_A_NINE))
    ranks = sorted({n - max(1, round(n / x)) for x in wanted if x <= 2 * n})
    return tuple((n / (n - rank), ordered[rank]) for rank in ranks)
