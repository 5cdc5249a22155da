"""How a fault is declared: with the guards that stand against it, each of which is left out in a run of its own."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import pytest

from failpoints import Guard


class Quick(Enum):
    """What of a fault `make test` runs too."""

    NOTHING = auto()
    GUARDED = auto()
    ALL = auto()


def against(*guards: Guard, quick: Quick = Quick.NOTHING) -> Callable[[Any], Any]:
    """Run a fault with every guard in its place, and once without each of the given ones."""
    is_quick = {None: quick is not Quick.NOTHING, **dict.fromkeys(guards, quick is Quick.ALL)}
    runs = [
        pytest.param(
            guard,
            id=f"without-{guard}" if guard else "guarded",
            marks=[pytest.mark.faults_quick] if is_quick[guard] else [],
        )
        for guard in (None, *guards)
    ]

    def declare(function: Any) -> Any:
        return pytest.mark.parametrize("scene", runs, indirect=True)(pytest.mark.faults(pytest.mark.timeout(240)(function)))

    return declare
