"""The record of who did what: only ever added to, by the roles' rights and by a trigger that binds the owner too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from db.audit import OPERATOR, Act, Actor, customer_object, forget_entries, list_entries, record
from db.engine import clock, make_engine
from db.sight import seen_by
from deploy.local.postgres import DatabaseUrls
from tests.factories import empty_tables

KEY = Actor("churn_1", "blue", "r-1")


@pytest.fixture
def recorded(engine: Engine) -> Iterator[Engine]:
    """The owner's engine on a record of three acts."""
    with engine.begin() as conn:
        record(conn, OPERATOR, Act.MODEL_REGISTERED, "m", sha256="0" * 64)
        record(conn, KEY, Act.BATCH_SUBMITTED, "b", source="file")
        record(conn, Actor("jwt:eve", "red"), Act.CUSTOMER_DELETED, customer_object("C-1"))
    yield engine
    with engine.begin() as conn:
        empty_tables(conn)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'somebody else'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log (audit_no, actor, act) OVERRIDING SYSTEM VALUE VALUES (1, 'k', 'a.b')",
        "INSERT INTO audit_log (at, actor, act) VALUES (now() - interval '1 year', 'k', 'a.b')",
        "SELECT forget_audit('infinity')",
    ],
)
@pytest.mark.parametrize("role", ["api", "worker"])
def test_the_processes_change_and_remove_nothing(recorded: Engine, databases: DatabaseUrls, role: str, statement: str) -> None:
    with psycopg2.connect(getattr(databases, role)) as connection, connection.cursor() as cursor:
        cursor.execute("SET churn.team = '*'; SET churn.audit_retention = 'on'")
        with pytest.raises(InsufficientPrivilege):
            cursor.execute(statement)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log", "TRUNCATE audit_log CASCADE"],
)
def test_nor_does_the_owner_by_mistake(recorded: Engine, statement: str) -> None:
    with recorded.connect() as conn, pytest.raises(ProgrammingError, match="only ever added to"):
        conn.execute(text(statement))


def test_what_is_older_than_a_time_is_forgotten_and_that_is_recorded(recorded: Engine) -> None:
    with recorded.begin() as conn:
        assert forget_entries(conn, before=clock(conn) - timedelta(days=1), actor=OPERATOR) == 0
        assert forget_entries(conn, before=clock(conn), actor=OPERATOR) == 4
        (entry,) = list_entries(conn)
    assert (entry.actor, entry.act, entry.detail["rows"]) == ("cli", "audit.forgotten", 4)
    with recorded.connect() as conn, pytest.raises(ProgrammingError, match="only ever added to"):
        conn.execute(text("DELETE FROM audit_log"))  # The permission ended with the function.


def test_an_act_that_is_rolled_back_leaves_no_record(recorded: Engine) -> None:
    with recorded.connect() as conn:
        record(conn, KEY, Act.KEY_REVOKED, "gone")
        conn.rollback()
        assert list_entries(conn, target="gone") == []


@pytest.mark.parametrize(
    ("chosen", "acts"),
    [
        ({}, ["customer.deleted", "batch.submitted", "model.registered"]),
        ({"actor": "cli"}, ["model.registered"]),
        ({"team": "blue"}, ["batch.submitted"]),
        ({"act": "customer.deleted"}, ["customer.deleted"]),
        ({"target": "b"}, ["batch.submitted"]),
        ({"target": customer_object("C-1")}, ["customer.deleted"]),
        ({"limit": 1}, ["customer.deleted"]),
    ],
)
def test_it_is_read_by_actor_team_act_and_object(recorded: Engine, chosen: dict[str, str], acts: list[str]) -> None:
    with recorded.connect() as conn:
        assert [entry.act for entry in list_entries(conn, **chosen)] == acts


def test_it_is_read_by_time_and_page(recorded: Engine) -> None:
    with recorded.connect() as conn:
        newest, middle, oldest = list_entries(conn)
        assert list_entries(conn, since=middle.at) == [newest, middle]
        assert list_entries(conn, until=middle.at) == [oldest]
        assert list_entries(conn, before=middle.audit_no) == [oldest]


def test_a_customer_s_id_is_not_in_it(recorded: Engine) -> None:
    with recorded.connect() as conn:
        assert not [row for row in conn.execute(text("SELECT a::text FROM audit_log a")).scalars() if "C-1" in row]


def test_a_team_s_connection_reads_its_own_entries_alone(recorded: Engine, databases: DatabaseUrls) -> None:
    engine = make_engine(databases.api)
    with seen_by(engine)("blue").connect() as conn:
        assert [entry.team for entry in list_entries(conn)] == ["blue"]
    engine.dispose()


def test_workers_add_to_it_and_read_nothing(recorded: Engine, databases: DatabaseUrls) -> None:
    engine = make_engine(databases.worker, team="*")
    with engine.begin() as conn:
        record(conn, Actor("worker"), Act.WEBHOOK_DISABLED, "whe_1")
    with engine.connect() as conn, pytest.raises(ProgrammingError, match="permission denied"):
        list_entries(conn)
    engine.dispose()
