"""`python -m supply locks | licences | audit`: ends with 1 when something is wrong, and with 3 when nobody could tell."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from packaging.markers import default_environment

from supply.audit import Outcome, audit_in_copy, audit_online
from supply.licences import refused
from supply.locks import LOCKS, disagreements, pins_of

ROOT: Final = Path(__file__).resolve().parent.parent
UNKNOWN: Final = 3


def main(argv: list[str] | None = None) -> int:
    """Run one check."""
    parser = argparse.ArgumentParser(prog="python -m supply", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("locks", help="whether the locks hold what the requirements ask for")
    commands.add_parser("licences", help="whether all that is shipped may be")
    audit = commands.add_parser("audit", help="whether a vulnerability is known in what is installed")
    audit.add_argument("--copy", type=Path, help="a copy of the OSV database, instead of asking its server")
    audit.add_argument("--unknown-is-fine", action="store_true", help="end well where no database can be reached")
    given = parser.parse_args(argv)
    match given.command:
        case "locks":
            return _tell(disagreements(ROOT), "Run `make lock`.")
        case "licences":
            return _tell(refused(dict.fromkeys(pin.name for pin in pins_of(ROOT / LOCKS["requirements.txt"]))))
        case _:
            return _audit(given.copy, unknown_is_fine=given.unknown_is_fine)


def _audit(copy: Path | None, *, unknown_is_fine: bool) -> int:
    worst = 0
    for lock in LOCKS.values():
        outcome = audit_online(ROOT / lock) if copy is None else audit_in_copy(_installed(lock), copy)
        worst = max(worst, _tell_outcome(lock, outcome), key=(0, UNKNOWN, 1).index)
    return 0 if worst == UNKNOWN and unknown_is_fine else worst


def _installed(lock: str) -> dict[str, str]:
    """What a lock holds for this platform: versions by package."""
    here = {name: str(value) for name, value in default_environment().items()}
    pins = [pin for pin in pins_of(ROOT / lock) if pin.requirement.marker is None or pin.requirement.marker.evaluate(here)]
    return {pin.name: pin.version for pin in pins if pin.version is not None}


def _tell_outcome(lock: str, outcome: Outcome) -> int:
    if outcome.vulnerable:
        return _tell([f"{lock}: {each}" for each in outcome.vulnerable], "Take a version without it, and run `make lock`.")
    if outcome.unknown:
        _tell([f"{lock}: NOT CHECKED: {each}" for each in outcome.unknown], "See docs/security.md for a copy to check against.")
        return UNKNOWN
    sys.stdout.write(f"{lock}: no known vulnerability in {outcome.checked} packages, says {outcome.source}.\n")
    return 0


def _tell(wrong: list[str], remedy: str = "") -> int:
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    if wrong and remedy:
        sys.stderr.write(f"{remedy}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
