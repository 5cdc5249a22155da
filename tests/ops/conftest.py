"""Fixtures: the programs that these tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ops import debian


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own checker of rules and configurations."""
    return debian.program(debian.PROMTOOL)
