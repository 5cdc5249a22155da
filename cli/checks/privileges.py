"""Privileges: whether the processes may do more in Postgres and Redis than they need to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from redis.exceptions import NoPermissionError, ResponseError
from sqlalchemy import make_url

from cli.checks.findings import Finding, Level, fine
from db.errors import RoleRefused
from db.roles import Process, Standing, standing_of

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Connection

    from settings import Settings

_WHOSE: Final = {Process.API: "The API", Process.WORKER: "The workers"}
_FORBIDDEN: Final = (("FLUSHALL",), ("CONFIG", "SET", "maxmemory", "1"), ("KEYS", "*"), ("DEBUG", "SLEEP", "0"), ("SHUTDOWN",))
"""What no process of ours asks of Redis; never sent, only asked about."""


def role_findings(conn: Connection, settings: Settings) -> Iterator[Finding]:
    """Whether each process's role of the database may do what its processes do, and nothing else."""
    urls = {Process.API: settings.database_url, Process.WORKER: settings.database_worker_url}
    for process, url in urls.items():
        name = make_url(url).username
        if name is None:
            yield Finding("roles", Level.SKIPPED, f"{_WHOSE[process]}: the URL names no role, so none was looked at.")
            continue
        try:
            yield _role_finding(process, name, standing_of(conn, process, name))
        except RoleRefused as exc:
            yield Finding("roles", Level.PROBLEM, f"{_WHOSE[process]} cannot connect: {exc}.", *_REMEDY)


_REMEDY: Final = ("What it has to do fails.", "Run `churn database grant` as the owner of the tables.")


def _role_finding(process: Process, name: str, standing: Standing) -> Finding:
    who = f"{_WHOSE[process]}, as role {name},"
    if standing.is_owner:
        return Finding(
            "roles",
            Level.WARNING,
            f"{who} may do everything in the database.",
            "A fault or a break-in there reaches every prediction and every key.",
            "Run `churn database grant`, and set DATABASE_URL, DATABASE_WORKER_URL and DATABASE_OWNER_URL.",
        )
    if standing.lacking:
        return Finding("roles", Level.PROBLEM, f"{who} lacks {', '.join(standing.lacking)}.", *_REMEDY)
    if standing.beyond:
        return Finding(
            "roles",
            Level.WARNING,
            f"{who} may do more than it needs: {', '.join(standing.beyond)}.",
            "A fault or a break-in there reaches further than it must.",
            "Run `churn database grant`, which takes it away.",
        )
    return fine("roles", f"{who} may do in the database what its processes do, and nothing else.")


def redis_user_finding(client: Redis) -> Finding:
    """Whether our user of Redis may empty it, or change how it is set; asked without doing either."""
    try:
        name = client.execute_command("ACL WHOAMI")  # type: ignore[no-untyped-call]
        may = [words[0] for words in _FORBIDDEN if _would_be_allowed(client, name, words)]
    except ResponseError:  # Also of a server that knows no users, or a user who may not ask.
        return _by_trying(client)
    return _too_mighty(", ".join(may)) if may else fine("redis-user", "Our user of Redis may use the queues, and nothing else.")


def _would_be_allowed(client: Redis, name: object, words: tuple[str, ...]) -> bool:
    answer = client.execute_command("ACL DRYRUN", name, *words)  # type: ignore[no-untyped-call]
    return answer in (b"OK", "OK", True)


def _by_trying(client: Redis) -> Finding:
    try:
        client.config_get("maxmemory-policy")
    except NoPermissionError:
        return fine("redis-user", "Our user of Redis may not change how it is set.")
    except ResponseError:
        said = "Redis does not tell what our user may do."
        return Finding(
            "redis-user", Level.SKIPPED, said, "It may be able to empty it.", "See docs/security.md for the user it wants."
        )
    return _too_mighty("CONFIG")


def _too_mighty(commands: str) -> Finding:
    return Finding(
        "redis-user",
        Level.WARNING,
        f"Our user of Redis may call {commands}.",
        "A fault or a break-in may empty it, stop it or change how it is set. No row is lost by that, but time is.",
        "Give the product a user of its own: deploy/redis/users.acl says what it needs.",
    )
