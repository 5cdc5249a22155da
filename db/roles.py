"""Who may do what in the database: two roles beside the owner, each with the statements of its processes and nothing else.

The owner migrates, registers models and keeps keys; it is what an operator's commands connect as. The API's role cannot write
a prediction, and the workers' role cannot read a key. Roles belong to the whole server, so their names are the installation's
choice; which ones were given rights here is kept in `database_roles`, and every `churn migrate up` gives them anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from psycopg2 import sql
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a type
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, text

from db.audit import OPERATOR, Act, record
from db.engine import driver_of
from db.errors import RoleRefused


class Process(StrEnum):
    """Whose role it is."""

    API = "api"
    WORKER = "worker"


DEFAULT_NAMES: Final[Mapping[Process, str]] = {Process.API: "churn_api", Process.WORKER: "churn_worker"}

# A batch's model, team, input and times of submission are written once: nobody may change them.
_PROGRESS: Final = (
    "UPDATE (status, total_customers, processed_customers, completed_customers, failed_customers, cancelled_customers,"
    " validated_customers, chunk_count, chunks_closed, error_summary, warning_summary, risk_summary, failure_code,"
    " failure_detail, cancel_reason, started_at, completed_at, planned_at, plan_attempt, plan_lease_until, plan_published_at,"
    " plan_available_at, splits, held_up, promised_at, planned_load)"
)

# Neither when nor under which number: nobody inserts into the past.
_RECORD: Final = "INSERT (actor, team, act, object, request_id, detail)"

# Left by the trigger on a batch's end.
_INSIGHT: Final = "INSERT (batch_id, ended_at, planned_load, seconds, kept)"

_API: Final[Mapping[str, Sequence[str]]] = {
    "alembic_version": ("SELECT",),
    "schema_serves": ("SELECT",),
    "customers": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    # Written by the trigger on deletions.
    "customer_deletions": ("SELECT", "INSERT", "UPDATE (deleted_at)"),
    # A new model comes by the owner alone, with its checksum; a request may choose among those there are.
    "models": ("SELECT", "UPDATE (state, activated_at)"),
    "batch_jobs": ("SELECT", "INSERT", _PROGRESS),
    "chunks": ("SELECT", "INSERT", "UPDATE (state, published_at, finished_at)"),
    "chunk_inputs": ("INSERT",),
    "upload_parts": ("SELECT (batch_id, part_no)", "INSERT"),
    "row_errors": ("SELECT", "INSERT"),
    "idempotency_keys": ("SELECT", "INSERT", "DELETE"),
    # The owner's commands make keys too; what a key may do, and whose it is, is written once.
    "teams": ("SELECT", "INSERT"),
    "api_keys": ("SELECT", "INSERT", "UPDATE (expires_at, revoked_at, last_used_at)"),
    "audit_log": ("SELECT", _RECORD),
    "imported_rows": ("SELECT", "INSERT", "UPDATE (n_rows)"),
    "batch_insights": ("SELECT", _INSIGHT),
    "promise_paces": ("SELECT",),
    "insight_totals": ("SELECT",),
    "newly_at_risk": ("SELECT",),
    # When a worker last gave a sign of life.
    "insight_turns": ("SELECT",),
    "prediction_history": ("SELECT",),
    "prediction_requests": ("SELECT", "INSERT", "UPDATE (published_at)"),
    "webhook_endpoints": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "outbox": ("SELECT", "INSERT"),
    "webhook_deliveries": ("SELECT", "UPDATE (state, attempts_before, available_at, published_at, finished_at)"),
}

_WORKER: Final[Mapping[str, Sequence[str]]] = {
    "alembic_version": ("SELECT",),
    "schema_serves": ("SELECT",),
    "customers": ("SELECT", "INSERT", "UPDATE"),
    "customer_deletions": ("SELECT",),
    "models": ("SELECT",),
    "batch_jobs": ("SELECT", _PROGRESS),
    "chunks": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "chunk_inputs": ("SELECT", "INSERT"),
    "upload_parts": ("SELECT", "DELETE"),
    "row_errors": ("SELECT", "INSERT"),
    "idempotency_keys": ("SELECT (created_at)", "DELETE"),
    "teams": ("SELECT",),
    "audit_log": (_RECORD,),
    "imported_rows": ("SELECT",),
    "batch_insights": ("SELECT", _INSIGHT, "UPDATE (is_kept_added, next_row, newly_high, newly_critical, counted_at)"),
    "promise_paces": ("SELECT", "INSERT", "UPDATE"),
    "insight_totals": ("SELECT", "INSERT", "UPDATE (n)"),
    "newly_at_risk": ("SELECT", "INSERT", "UPDATE (high, critical)"),
    "insight_turns": ("SELECT", "INSERT", "UPDATE (taken_at)"),
    "singles_at_risk": ("SELECT", "INSERT", "DELETE"),
    "prediction_history": ("SELECT", "INSERT"),
    "prediction_requests": ("SELECT", "UPDATE", "DELETE"),
    "webhook_endpoints": ("SELECT", "UPDATE (disabled_at, disabled_reason)"),
    "outbox": ("SELECT", "INSERT", "UPDATE (handed_out_at)"),
    "webhook_deliveries": ("SELECT", "INSERT", "UPDATE"),
}

TABLES: Final[Mapping[Process, Mapping[str, Sequence[str]]]] = {Process.API: _API, Process.WORKER: _WORKER}
"""What each role may do with which table; of a table that is not named, nothing."""

_SEQUENCES: Final = {Process.API: ("single_prediction_ids",), Process.WORKER: ()}
_FUNCTIONS: Final = {Process.API: ("anonymise_predictions(varchar)", "database_sessions()"), Process.WORKER: ()}

_ROLE: Final = text("""
    SELECT r.rolsuper, pg_has_role(r.oid, c.relowner, 'MEMBER') AS owns
      FROM pg_roles r, pg_class c WHERE r.rolname = :name AND c.oid = to_regclass('batch_jobs')
""")
_IS_OWNER: Final = text("SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass('batch_jobs')")

# A row of both for each right in the whole table; in some of its columns at least.
_HAS: Final = text("""
    SELECT c.relname AS table, r.right
      FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) r ("right")
     WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND has_table_privilege(:name, c.oid, r.right)
""")
_HAS_SOME: Final = text("""
    SELECT c.relname AS table, r.right FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r ("right")
     WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
       AND CASE r.right WHEN 'DELETE' THEN has_table_privilege(:name, c.oid, r.right)
                        ELSE has_any_column_privilege(:name, c.oid, r.right) END
""")
_KNOWN: Final = text(
    "SELECT process, role_name FROM database_roles WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = role_name)"
)
_REMEMBER: Final = text("""
    INSERT INTO database_roles (process, role_name) VALUES (:process, :role)
        ON CONFLICT (process) DO UPDATE SET role_name = excluded.role_name, granted_at = clock_timestamp()
     WHERE database_roles.role_name <> excluded.role_name
""")
_FORMER: Final = text("SELECT role_name FROM database_roles WHERE process = :process AND role_name <> :role")
_PLACE: Final = text("SELECT current_database() AS database, current_schema() AS schema")


def missing_roles(conn: Connection, names: Sequence[str]) -> list[str]:
    """Those of the names that no role of this server has."""
    found = set(
        conn.execute(text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names)"), {"names": list(names)}).scalars()
    )
    return [name for name in names if name not in found]


def create_role(conn: Connection, name: str) -> str:
    """Make a role that may log in and nothing else; returns its password, which nobody will be able to read again.

    The server is sent what it keeps (SCRAM), so that the password is in none of its logs.

    Raises
    ------
    RoleRefused
        We may not make roles; says what somebody else has to run.
    """
    password = secrets.token_urlsafe(24)
    if not conn.in_transaction():
        conn.begin()
    driver = driver_of(conn)
    kept = encrypt_password(password, name, driver, "scram-sha-256")
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    try:
        with driver.cursor() as cursor:
            cursor.execute(statement.format(sql.Identifier(name), sql.Literal(kept)))
    except InsufficientPrivilege as exc:
        conn.rollback()
        told = f"CREATE ROLE {sql.Identifier(name).as_string(driver)} LOGIN PASSWORD '...';"
        raise RoleRefused(
            f"there is no role {name!r}, and ours may make none: have an administrator of the server run {told} and try again"
        ) from exc
    return password


def grant(conn: Connection, names: Mapping[Process, str]) -> None:
    """Give the processes' roles what they need here and take away the rest; the same again changes nothing.

    Raises
    ------
    RoleRefused
        A role is missing, is the owner or one of its members, or is a superuser: no grant would bind it. Or we do not own the
        tables.
    """
    if len(set(names.values())) < len(names):
        raise RoleRefused("the API and the workers need a role each")
    is_owner = conn.execute(_IS_OWNER).scalar_one_or_none()
    if is_owner is None:
        raise RoleRefused("there are no tables yet: run `churn migrate up` first")
    if not is_owner:
        raise RoleRefused("only the role that owns the tables may give rights in them: set DATABASE_OWNER_URL")
    for name in names.values():
        _check(conn, name)
    with driver_of(conn).cursor() as cursor:
        for process, name in names.items():
            for former in conn.execute(_FORMER, {"process": process, "role": name}).scalars().all():
                if not missing_roles(conn, [former]) and former not in names.values():
                    _take_all(conn, cursor, former)
            before = standing_of(conn, process, name)
            _take_all(conn, cursor, name)
            _give(conn, cursor, process, name)
            is_new = bool(conn.execute(_REMEMBER, {"process": process, "role": name}).rowcount)
            if is_new or before.beyond or before.lacking:
                record(conn, OPERATOR, Act.ROLES_GRANTED, name, process=process, taken_back=list(before.beyond))


def grant_anew(conn: Connection) -> None:
    """Give the roles that were given rights here before what this version needs."""
    known = {Process(row.process): row.role_name for row in conn.execute(_KNOWN)}
    if known:
        grant(conn, known)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a role may do here, held against what its processes need.

    Attributes
    ----------
    is_owner : bool
        Whether it owns the tables or is a superuser, whom no grant binds.
    beyond, lacking : tuple of str
        Rights that it has and does not need, such as "INSERT on prediction_history"; and those that it needs and has not.
    """

    is_owner: bool
    beyond: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


def standing_of(conn: Connection, process: Process, name: str) -> Standing:
    """Look at a role.

    Raises
    ------
    RoleRefused
        There is none of that name.
    """
    role = conn.execute(_ROLE, {"name": name}).one_or_none()
    if role is None:
        raise RoleRefused(f"there is no role {name!r} on this server")
    if role.rolsuper or role.owns:
        return Standing(is_owner=True)
    has = {(row.table, row.right) for row in conn.execute(_HAS, {"name": name})}
    has_some = {(row.table, row.right) for row in conn.execute(_HAS_SOME, {"name": name})}
    needs = [(table, right) for table, rights in TABLES[process].items() for right in rights]
    whole = {(table, right) for table, right in needs if "(" not in right}
    some = {(table, right.split(" ", 1)[0]) for table, right in needs}
    beyond = sorted((has - whole) | (has_some - some))
    lacking = sorted(some - has_some)
    return Standing(False, *(tuple(f"{right} on {table}" for table, right in rights) for rights in (beyond, lacking)))


def _check(conn: Connection, name: str) -> None:
    if missing_roles(conn, [name]):
        raise RoleRefused(f"there is no role {name!r} on this server")
    role = conn.execute(_ROLE, {"name": name}).one()
    if role.rolsuper or role.owns:
        what = "a superuser" if role.rolsuper else "the owner of the tables, or a member of it"
        raise RoleRefused(f"role {name!r} is {what}, so nothing would keep it from anything: choose another")


def _take_all(conn: Connection, cursor: Cursor, name: str) -> None:
    _run(
        conn,
        cursor,
        "REVOKE ALL ON DATABASE {database} FROM {role}",
        "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}",
        "REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM {role}",
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM {role}",
        "REVOKE ALL ON SCHEMA {schema} FROM {role}",
        role=name,
    )


def _give(conn: Connection, cursor: Cursor, process: Process, name: str) -> None:
    wanted = [
        # Nobody else's role has any business here, and who comes in by PUBLIC could fill the disk with temporary tables.
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role}",
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
    ]
    wanted += [f"GRANT {', '.join(rights)} ON {table} TO {{role}}" for table, rights in TABLES[process].items()]
    wanted += [f"GRANT USAGE ON SEQUENCE {sequence} TO {{role}}" for sequence in _SEQUENCES[process]]
    wanted += [f"GRANT EXECUTE ON FUNCTION {function} TO {{role}}" for function in _FUNCTIONS[process]]
    _run(conn, cursor, *wanted, role=name)


def _run(conn: Connection, cursor: Cursor, *statements: str, role: str) -> None:
    place = conn.execute(_PLACE).one()
    parts = {"role": role, "database": place.database, "schema": place.schema}
    for statement in statements:
        cursor.execute(sql.SQL(statement).format(**{name: sql.Identifier(value) for name, value in parts.items()}))
