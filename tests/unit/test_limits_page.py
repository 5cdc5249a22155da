"""The page of limits says what the settings say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import settings
from settings import load_settings

PAGE = (Path(settings.__file__).parent / "docs" / "limits.md").read_text()
STATED = dict(re.findall(r"^\| .+? \| `([A-Z_]+)` \| ([\d.]+) \|", PAGE, re.MULTILINE))
LIMITS = re.compile(r"^max_(?!attempts)|_limit_.*minute|_per_minute|client_|team_window")


@pytest.mark.parametrize("name", STATED)
def test_a_default_is_the_one_of_the_settings(name: str) -> None:
    values = load_settings({"DATABASE_URL": "postgresql://d/d", "REDIS_URL": "redis://r/0"})
    assert STATED[name] == str(getattr(values, name.lower()))


def test_every_limit_is_on_the_page() -> None:
    limits = {name.upper() for name in settings.Settings.__dataclass_fields__ if LIMITS.search(name)}
    assert limits == set(STATED)
