"""The committed rules and the cases of promtool, as data for the tests."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

PROJECT: Final = Path(__file__).parents[2]
PROMETHEUS: Final = PROJECT / "deploy" / "prometheus"
RULES: Final = PROMETHEUS / "rules"
CASES: Final = Path(__file__).parent / "rules"
RUNBOOK: Final = PROJECT / "docs" / "runbook.md"

NOT_YET: Final[frozenset[str]] = frozenset()
"""Metrics that the rules name before the product exports them. A test fails when one of them is exported: take it off then."""

_PRODUCT: Final = ("api", "broker", "workers", "scoring", "db")
_FUNCTIONS: Final = frozenset(
    {
        *("absent", "clamp_max", "histogram_quantile", "increase", "label_replace", "predict_linear", "rate", "time", "vector"),
        *("and", "avg", "bool", "by", "group_left", "ignoring", "max", "min", "offset", "on", "or", "sum", "unless", "without"),
    }
)
_TEXT: Final = re.compile(r'"[^"]*"|\'[^\']*\'')
_SELECTOR: Final = re.compile(r"\{[^}]*\}")
_RANGE: Final = re.compile(r"\[[^\]]*\]|\boffset \w+")
_LABELS: Final = re.compile(r"\b(?:by|on|ignoring|without|group_left)\s*\([^)]*\)")
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_OWN: Final = re.compile(r"(?:churn|ml)_[a-z_]+")
_SUFFIX: Final = re.compile(r"_(?:total|bucket|sum|count|created)$")


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert rule; one name may have a critical and a warning one."""

    name: str
    severity: str
    expr: str
    annotations: dict[str, str]
    rule: dict[str, Any]


@cache
def groups() -> tuple[dict[str, Any], ...]:
    """Every group of every file."""
    return tuple(group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"])


def rules() -> list[dict[str, Any]]:
    """Every rule as it is written."""
    return [rule for group in groups() for rule in group["rules"]]


def alerts() -> list[Alert]:
    """Every alert rule."""
    found = [rule for rule in rules() if "alert" in rule]
    return [Alert(rule["alert"], rule["labels"]["severity"], rule["expr"], rule["annotations"], rule) for rule in found]


def recorded() -> dict[str, str]:
    """The expression of each recording rule."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def names_in(expr: str) -> set[str]:
    """The metrics that an expression names."""
    bare = _TEXT.sub("", expr)
    for pattern in (_SELECTOR, _RANGE, _LABELS):
        bare = pattern.sub(" ", bare)
    return {name for name in _NAME.findall(bare) if name not in _FUNCTIONS}


def names_beneath(expr: str) -> set[str]:
    """The metrics that an expression comes down to, through the recording rules that it names."""
    found: set[str] = set()
    for name in names_in(expr):
        found |= names_beneath(recorded()[name]) if name in recorded() else {name}
    return found


def is_exported(name: str) -> bool:
    """Whether the product exports a metric of its own, with or without an ending that the client library gives it."""
    return bool({name, _SUFFIX.sub("", name)} & _named_in_the_source())


@cache
def _named_in_the_source() -> frozenset[str]:
    found: set[str] = set()
    for folder in _PRODUCT:
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and _OWN.fullmatch(node.value):
                    found.add(node.value)
    return frozenset(found)
