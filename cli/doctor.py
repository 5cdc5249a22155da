"""`churn doctor`: looks at a whole deployment and says in plain words what is wrong and what to do."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from cli.admin import read_settings
from cli.exits import Exit
from cli.output import plain, write_json, write_line
from cli.session import LocalCommand, Session, pass_session

# Servers and models are imported where they are used: a command that only speaks HTTP should not wait for them.
if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from cli.checks.findings import Finding
    from db.invariants import Scope
    from settings import Settings

_TIMEOUT_S: Final = 600.0
"""What one look at the ledger may take: an invariant over all of a large history reads all of it."""

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MARKS: Final = {"ok": "\N{CHECK MARK}", "warning": "!", "problem": "\N{BALLOT X}", "away": "\N{BALLOT X}", "skipped": "-"}
_PLAIN_MARKS: Final = {"ok": "ok", "warning": "!", "problem": "X", "away": "X", "skipped": "-"}


class Moment(click.ParamType[datetime]):
    """A time: RFC 3339, without an offset in UTC; or how long ago, such as 90m, 24h or 7d."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        if ago := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 2026-11-24T12:00:00Z, or how long ago, such as 24h or 7d", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command(
    cls=LocalCommand,
    epilog="\n".join(
        [
            "\b",
            "Exit codes, for cron:",
            "  0  sound; there may be warnings, unless --strict",
            "  1  unsound: something is lost, wrong or stands still, or may be lost",
            "  2  the command line or the settings are not usable",
            "  4  Postgres or Redis does not answer, and nothing worse was found",
        ]
    ),
)
@click.option("--since", type=Moment(), help="Check batches submitted since then (RFC 3339, or 24h, 7d). All by default.")
@click.option("--until", type=Moment(), help="Check batches submitted before then.")
@click.option("--rescore", type=click.IntRange(min=1), metavar="N", help="Score N stored predictions again by LightGBM alone.")
@click.option("--quiet", is_flag=True, help="Show only what is not well; nothing at all when all is.")
@click.option("--strict", is_flag=True, help="Let warnings count as unsound.")
@pass_session
def doctor(
    session: Session, *, since: datetime | None, until: datetime | None, rescore: int | None, quiet: bool, strict: bool
) -> Exit:
    """Check this installation: servers, schema, model, workers, stuck work, and the promises that each batch was given.

    Reads the settings of the installation, changes nothing, and needs no running API. docs/doctor.md explains each check.
    """
    from db.invariants import Scope

    settings = read_settings()
    findings = list(examine(settings, Scope(since, until, grace_s=settings.lease_seconds * 2), rescore=rescore))
    code = exit_code(findings, strict=strict)
    if session.as_json:
        described = [{**asdict(each), "section": each.section} for each in findings]
        write_json({"sound": code is Exit.OK, "exit_code": int(code), "findings": described})
    else:
        _show(findings, quiet=quiet)
    return code


def examine(settings: Settings, scope: Scope, *, rescore: int | None = None) -> Iterator[Finding]:
    """All findings, the servers' first; what cannot be asked while one of them is away is left out.

    Parameters
    ----------
    rescore : int, optional
        How many predictions to score again.
    """
    from broker.server import make_redis
    from cli.checks.models import room_finding
    from db.engine import make_engine

    engine = make_engine(
        settings.database_owner_url, pooled=False, application_name="churn-doctor", statement_timeout_s=_TIMEOUT_S
    )
    try:
        yield from _postgres(engine, settings, scope, rescore)
    finally:
        engine.dispose()
    with closing(make_redis(settings.redis_url, timeout_s=settings.broker_timeout_seconds)) as client:
        yield from _redis(client, settings)
    yield room_finding(settings)


def exit_code(findings: Iterable[Finding], *, strict: bool) -> Exit:
    """What a run ends with."""
    levels = {str(each.level) for each in findings}
    if "problem" in levels or (strict and "warning" in levels):
        return Exit.FAILED
    return Exit.UNREACHABLE if "away" in levels else Exit.OK


def _postgres(engine: Engine, settings: Settings, scope: Scope, rescore: int | None) -> Iterator[Finding]:
    from broker.safety import LENIENT
    from cli.checks.findings import Finding, Level
    from cli.checks.models import model_findings
    from cli.checks.postgres import schema_finding, server_findings
    from cli.checks.privileges import role_findings
    from cli.checks.promises import invariant_findings, score_finding
    from cli.checks.work import progress_findings, remains_findings
    from db.engine import each_alone
    from db.errors import DatabaseUnavailable

    try:
        with each_alone(engine) as conn:
            yield from server_findings(conn, tolerates_unsafe=settings.environment in LENIENT)
            schema = schema_finding(engine)
            yield schema
            if schema.level is not Level.OK:
                return
            yield from role_findings(conn, settings)
            yield from model_findings(conn, settings.model_storage_path)
            yield from progress_findings(conn, settings)
            yield from remains_findings(conn)
            yield from invariant_findings(conn, scope)
            if rescore is not None:
                yield score_finding(conn, settings.model_storage_path, rescore, scope)
    except DatabaseUnavailable as exc:
        yield Finding(
            "postgres",
            Level.AWAY,
            f"Postgres does not answer: {exc}.",
            "Nothing is accepted and nothing is scored until it does; what was accepted is kept.",
            "Start it, or set DATABASE_URL. The rest of what it would tell was not checked.",
        )


def _redis(client: Redis, settings: Settings) -> Iterator[Finding]:
    from broker.app import make_producer
    from broker.workers import UNREACHABLE
    from cli.checks.privileges import redis_user_finding
    from cli.checks.redis import away, redis_findings
    from cli.checks.work import worker_findings

    try:
        yield from redis_findings(client)
        yield redis_user_finding(client)
    except UNREACHABLE as exc:
        yield away(f"{type(exc).__name__}: {exc}")
        return
    with make_producer(settings) as producer:
        yield from worker_findings(producer, client)


def _show(findings: Sequence[Finding], *, quiet: bool) -> None:
    marks = _MARKS if (sys.stdout.encoding or "").lower().startswith("utf") else _PLAIN_MARKS
    for each in findings:
        if quiet and each.level == "ok":
            continue
        write_line(f"{marks[each.level]} {plain(each.said)}")
        for name, words in (("Why", each.why), ("Do", each.remedy)):
            if words:
                write_line(f"    {name + ':':<5} {plain(words)}")
        if each.level != "ok":
            write_line(f"    More: {each.section}")
    counts = Counter(str(each.level) for each in findings)
    if quiet and counts.keys() <= {"ok"}:
        return
    write_line(_verdict(counts))


def _verdict(counts: Counter[str]) -> str:
    names = (("problem", "problems"), ("away", "servers away"), ("warning", "warnings"), ("skipped", "not checked"))
    told = ", ".join(f"{counts[level]} {name}" for level, name in names if counts[level])
    total = sum(counts.values())
    if counts["problem"] or counts["away"]:
        return f"Not sound: {told}, of {total} checks."
    return f"Sound: {total} checks, {told}." if told else f"Sound: {total} checks, nothing to do."
