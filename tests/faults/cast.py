"""How a fault is declared: with the guards that stand against it, each of which is left out in a run of its own."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

import pytest

from failpoints import Guard
from tests.faults.ground import Scene

LINES: Final = pytest.StashKey[list[str]]()
"""What pytest's summary says of each fault."""


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


def report(request: pytest.FixtureRequest, scene: Scene) -> None:
    """Put into pytest's summary how a fault was survived, or by what it was noticed that a guard is off."""
    number, *words = request.node.originalname.removeprefix("test_fault_").split("_")
    fault = f"fault {number} {' '.join(words)}"
    line = f"{fault}: recovered in {scene.recovery_s:.1f} s, {scene.rows:,} rows checked, invariants hold"
    if scene.mutant is not None:
        line = f"{fault}: without {scene.mutant} broken: {', '.join(scene.noticed)}"
    request.config.stash.setdefault(LINES, []).append(line)
