"""The committed configuration with time running faster, so that a test sees in seconds what takes minutes.

Divided by the factor is everything in the rules that is a length of time: `for:` and `interval:`, ranges and offsets, the ages
in seconds that alerts compare with, and what turns a rate into a number over such a range. Nothing else changes: no name, no
label, no ratio.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from tests.ops.ruleset import PROMETHEUS

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LENGTH: Final = re.compile(r"(?P<before>for: |interval: |\[|offset )(?P<n>\d+)(?P<unit>[smhd])\b")
_AGE: Final = re.compile(r"(?P<before>\(churn_[a-z_]*seconds[a-z_]*(?:\{[^}]*\})?\) > )(?P<n>\d+)")
_COUNT: Final = re.compile(r"(?P<before>\* )(?P<n>\d+)(?P<after> >= )")
_SHORTEST_RANGE_S: Final = 5.0
"""Two scrapes lie in it."""


def quickened(target: Path, *, factor: int, scrape_s: int = 2) -> Path:
    """Copy the configuration and the rules into a folder, `factor` times as fast.

    Parameters
    ----------
    scrape_s : int
        How often is scraped; the rules are evaluated every second.
    """
    shutil.copytree(PROMETHEUS, target)
    config = (target / "prometheus.yml").read_text()
    for name, seconds in (("scrape_interval", scrape_s), ("scrape_timeout", scrape_s), ("evaluation_interval", 1)):
        config, n = re.subn(rf"{name}: \w+", f"{name}: {seconds}s", config)
        assert n, name
    (target / "prometheus.yml").write_text(config)
    for path in (target / "rules").iterdir():
        path.write_text(faster(path.read_text(), factor))
    return target


def faster(rules: str, factor: int) -> str:
    """Rules by which time runs `factor` times as fast."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found["n"]) * _UNITS_S[found["unit"]] / factor
        if found["before"] == "[":
            seconds = max(seconds, _SHORTEST_RANGE_S)
        return f"{found['before']}{max(1, round(seconds * 1000))}ms"

    rules = _LENGTH.sub(shorter, rules)
    rules = _AGE.sub(lambda found: f"{found['before']}{int(found['n']) / factor:g}", rules)
    return _COUNT.sub(lambda found: f"{found['before']}{int(found['n']) / factor:g}{found['after']}", rules)
