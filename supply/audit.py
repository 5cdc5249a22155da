"""The audit: whether a vulnerability is known in anything that a lock holds, and whether that could be found out at all.

pip-audit takes a package that its source does not know for one without vulnerabilities, and an index that serves no advisories
knows none. So a package that was passed over is not clear, and neither is the audit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from supply.advisories import findings, records_in

SOURCES: Final = ("osv", "pypi")
"""Where pip-audit asks, in this order, until one answers for every package."""

ACCEPTED: Final[Mapping[str, str]] = {}
"""Advisories that do not concern the product, by id, each with the reason."""

_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an audit found out.

    Attributes
    ----------
    vulnerable : sequence of str
        What is wrong, a line each.
    unknown : sequence of str
        What could not be found out.
    """

    checked: int
    source: str
    vulnerable: Sequence[str] = field(default=())
    unknown: Sequence[str] = field(default=())


def audit_in_copy(pins: Mapping[str, str], copy: Path) -> Outcome:
    """Look every package up in a copy of the OSV database."""
    found = [each for each in findings(pins, records_in(copy)) if not {each.advisory, *each.aliases} & ACCEPTED.keys()]
    return Outcome(len(pins), str(copy), vulnerable=[str(each) for each in found])


def audit_online(lock: Path) -> Outcome:
    """Have pip-audit ask the known sources; the first that answers for all packages decides, and any finding does."""
    said = []
    for source in SOURCES:
        outcome = _ask(lock, source)
        if outcome.vulnerable or not outcome.unknown:
            return outcome
        said += [f"{source}: {each}" for each in outcome.unknown]
    return Outcome(0, " and ".join(SOURCES), unknown=said)


def read_report(report: Mapping[str, Any], source: str) -> Outcome:
    """Read what pip-audit reports as JSON."""
    packages = report["dependencies"]
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    vulnerable = [
        f"{each['name']} {each['version']}: {', '.join([flaw['id'], *flaw['aliases']])}: fixed in "
        f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        for each in packages
        for flaw in each.get("vulns", ())
        if not {flaw["id"], *flaw["aliases"]} & ACCEPTED.keys()
    ]
    unknown = [f"it knows nothing of {len(skipped)} of {len(packages)} packages, {skipped[0]} among them"] if skipped else []
    return Outcome(len(packages) - len(skipped), source, vulnerable, unknown)


def _ask(lock: Path, source: str) -> Outcome:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--no-deps"]
    try:
        done = subprocess.run(
            [*command, "--vulnerability-service", source, "--format", "json", "--progress-spinner", "off", "--timeout", "15"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        return read_report(json.loads(done.stdout), source)
    except subprocess.TimeoutExpired:
        return Outcome(0, source, unknown=[f"it did not answer within {_TIMEOUT_S:.0f} s"])
    except (ValueError, KeyError):
        # It ended before it had a report; the last line of its trace says why.
        return Outcome(0, source, unknown=[done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else "no report"])
