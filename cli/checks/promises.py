"""The invariants over a time range, and scores that are computed once more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.checks.findings import Finding, Level, fine
from cli.rescore import I5, PROMISE, rescore
from db.errors import NotFound
from db.invariants import INVARIANTS, Scope, Violation, broken, is_checkable
from scoring.errors import ModelError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_WHY: Final = "This must never be; somebody changed the tables, or there is a bug."
_REMEDY: Final = "Keep a copy of the database, and report it with the output of --json; `churn retry` scores failed rows again."


def invariant_findings(conn: Connection, scope: Scope) -> Iterator[Finding]:
    """Each invariant that the database itself can tell."""
    for invariant in INVARIANTS:
        if not is_checkable(conn, invariant):
            said = f"{invariant.name} was not checked: this database has no table {invariant.needs}."
            yield Finding("invariants", Level.SKIPPED, said, "It came with a later revision.", "Run `churn migrate up`.")
            continue
        yield _finding(invariant.name, invariant.promise, broken(conn, invariant, scope), scope)


def score_finding(conn: Connection, storage: Path, sample: int, scope: Scope) -> Finding:
    """I5, on a sample of predictions."""
    try:
        found = rescore(conn, storage, sample, scope)
    except (ModelError, NotFound) as exc:
        said = f"{I5} was not checked: {exc}."
        return Finding("invariants", Level.SKIPPED, said, "Without its bundle no score can be told.", "Bring the bundle back.")
    if not found.compared:
        said = f"{I5} was not checked: no batch that was completed in this time holds its customers in full."
        return Finding("invariants", Level.SKIPPED, said)
    return _finding(I5, f"{PROMISE} ({found.compared:,} were scored again.)", found.violations, scope)


def _finding(name: str, promise: str, violations: list[Violation], scope: Scope) -> Finding:
    if not violations:
        return fine("invariants", f"{name}: {promise}")
    more = " There may be more." if len(violations) == scope.limit else ""
    said = f"{name} does not hold. {violations[0].sentence}"
    if len(violations) > 1:
        said += f" {len(violations) - 1} others are like it (--json lists them).{more}"
    return Finding("invariants", Level.PROBLEM, said, f"{promise} {_WHY}", _REMEDY, [asdict(each) for each in violations])
