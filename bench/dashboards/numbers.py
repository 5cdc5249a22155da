"""Numbers as a person reads them, by Grafana's ids of units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from bench.charts import short

_SECONDS: Final = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))


def with_unit(value: float, unit: str, decimals: int | None = None) -> str:
    """Write a value as a panel of this unit shows it."""
    if math.isnan(value) or math.isinf(value):
        return "no number"
    if unit == "s":
        return _scaled(value, _SECONDS)
    if unit == "bytes":
        return _scaled(value, _BYTES)
    if unit == "percentunit":
        return f"{value * 100:.{decimals}f} %" if decimals is not None else f"{value * 100:.3g} %"
    if unit == "d":
        return f"{value:.0f} days"
    text = f"{value:,.{decimals}f}" if decimals is not None else short(value)
    return f"{text} req/s" if unit == "reqps" else text


def _scaled(value: float, scale: Sequence[tuple[float, str]]) -> str:
    if value == 0:
        return f"0 {next(name for size, name in scale if size == 1)}"
    size, name = next((found for found in scale if abs(value) >= found[0]), scale[-1])
    return f"{value / size:.3g} {name}"
