"""Row-level security: each role sees the rows of the team that its session names, and none without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from db import sight
from db.allowance import count_import
from db.engine import make_engine
from db.idempotency import keep_key
from db.sight import EVERY_TEAM, seen_by
from db.webhooks import add_endpoint, hand_out
from deploy.local.postgres import DatabaseUrls
from schemas.secrets import new_secret
from tests.factories import add_batch, add_champion, add_customers, add_request, customer, empty_tables, score

TEAMS = ("blue", "red")
TABLES = (
    "batch_jobs",
    "idempotency_keys",
    "webhook_endpoints",
    "outbox",
    "webhook_deliveries",
    "prediction_requests",
    "audit_log",
    "imported_rows",
    "batch_insights",
    "newly_at_risk",
)


@pytest.fixture(scope="module")
def ledger(engine: Engine) -> Iterator[Engine]:
    """The owner's engine on a ledger that holds for each of two teams one row of every table that is a team's."""
    with engine.begin() as conn:
        add_champion(conn)
        add_customers(conn, "C-0")
        for team in TEAMS:
            conn.execute(text("INSERT INTO teams (team) VALUES (:team)"), {"team": team})
            add_endpoint(conn, "https://hook.test/a", team=team, secret=new_secret())
            add_batch(conn, team, sizes=(1,), team=team)
            keep_key(conn, "k", "0" * 64, team, team=team)
            score(conn, team)
            add_request(conn, customer("C-0"), team=team)
            conn.execute(text("INSERT INTO audit_log (actor, team, act) VALUES ('k', :team, 'a.b')"), {"team": team})
            count_import(conn, team, 1)
            conn.execute(text("INSERT INTO newly_at_risk VALUES (:team, '2000-01-01', 1, 1)"), {"team": team})
        hand_out(conn)
    yield engine
    with engine.begin() as conn:
        empty_tables(conn)


@pytest.fixture
def pool(databases: DatabaseUrls) -> Iterator[Engine]:
    """A pool of one connection, as the API's role."""
    made = make_engine(databases.api, pool_size=1, max_overflow=0)
    yield made
    made.dispose()


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as conn:
        return {table: conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in TABLES}


def teams_seen(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT team FROM batch_jobs ORDER BY 1")).scalars())


def test_every_table_that_names_a_team_is_guarded(ledger: Engine) -> None:
    with ledger.connect() as conn:
        owned = conn.execute(
            text(
                "SELECT c.relname, c.relrowsecurity FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
                " WHERE a.attname = 'team' AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
            )
        ).all()
    # Keys are looked up before there is a team, and administrators see those of every team.
    assert {table for table, is_guarded in owned if not is_guarded} == {"teams", "api_keys"}
    assert {table for table, is_guarded in owned if is_guarded} <= set(TABLES)


@pytest.mark.parametrize("team", TEAMS)
def test_a_team_sees_its_own_rows(ledger: Engine, pool: Engine, team: str) -> None:
    engine = seen_by(pool)(team)
    assert counts(engine) == dict.fromkeys(TABLES, 1)
    assert teams_seen(engine) == [team]


def test_nobody_sees_none_and_the_overseer_all(ledger: Engine, pool: Engine, databases: DatabaseUrls) -> None:
    assert counts(seen_by(pool)("")) == dict.fromkeys(TABLES, 0)
    assert counts(pool) == dict.fromkeys(TABLES, 0)
    overseer = make_engine(databases.api, team=EVERY_TEAM)
    assert counts(overseer) == dict.fromkeys(TABLES, 2)
    overseer.dispose()


def test_the_same_connection_never_keeps_a_team_for_the_next_caller(ledger: Engine, pool: Engine) -> None:
    engine_of = seen_by(pool)
    assert [teams_seen(engine_of(team)) for team in ("blue", "red", "", "blue")] == [["blue"], ["red"], [], ["blue"]]
    assert teams_seen(pool) == []


def test_a_rollback_does_not_bring_the_team_before_back(ledger: Engine, pool: Engine) -> None:
    engine_of = seen_by(pool)
    teams_seen(engine_of("blue"))
    with engine_of("red").connect() as conn:
        conn.execute(text("SELECT 1"))
        conn.rollback()
        assert conn.execute(text("SELECT team FROM batch_jobs")).scalars().all() == ["red"]
    assert teams_seen(engine_of("red")) == ["red"]


def test_one_team_costs_one_round_trip_a_connection(ledger: Engine, pool: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    driver_of = sight.driver_of
    monkeypatch.setattr(sight, "driver_of", lambda conn: sent.append(conn) or driver_of(conn))
    engine_of = seen_by(pool)
    for _ in range(5):
        teams_seen(engine_of("blue"))
        with engine_of(None).connect() as conn:
            conn.execute(text("SELECT count(*) FROM api_keys"))
    assert len(sent) == 1


def test_a_connection_that_is_lost_starts_without_a_team(ledger: Engine, pool: Engine) -> None:
    engine_of = seen_by(pool)
    with engine_of("blue").connect() as conn:
        conn.invalidate()
        assert conn.rollback() is None
    assert teams_seen(pool) == []
    assert teams_seen(engine_of("blue")) == ["blue"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO batch_jobs (batch_id, source, status, model_version, team) VALUES ('x', 'file', 'queued', 'm', 'red')",
        "INSERT INTO webhook_endpoints (url, events, secret, team) VALUES ('u', '{}', 's', 'red')",
        "INSERT INTO idempotency_keys (team, key, request_sha256, batch_id) VALUES ('red', 'x', 'x', 'red')",
        "INSERT INTO audit_log (actor, team, act) VALUES ('k', 'red', 'a.b')",
        "INSERT INTO imported_rows (team, day, n_rows) VALUES ('red', '2000-01-01', 1)",
        "INSERT INTO prediction_requests (id, customer_id, model_version)"
        " SELECT (team_no::bigint << 40) + 7, 'C-0', 'm' FROM teams WHERE team = 'red'",
    ],
)
def test_no_row_is_written_in_another_team_s_name(ledger: Engine, pool: Engine, statement: str) -> None:
    with seen_by(pool)("blue").connect() as conn, pytest.raises(ProgrammingError, match="row-level security") as caught:
        conn.execute(text(statement))
    assert isinstance(caught.value.orig, InsufficientPrivilege)


def test_another_team_s_rows_are_neither_changed_nor_removed(ledger: Engine, pool: Engine) -> None:
    with seen_by(pool)("blue").begin() as conn:
        assert conn.execute(text("UPDATE batch_jobs SET status = 'paused' WHERE team = 'red'")).rowcount == 0
        assert conn.execute(text("DELETE FROM webhook_endpoints WHERE team = 'red'")).rowcount == 0
        assert conn.execute(text("DELETE FROM idempotency_keys WHERE team = 'red'")).rowcount == 0


def test_workers_see_every_team_once_they_say_so(ledger: Engine, databases: DatabaseUrls) -> None:
    for team, seen in (("", []), (EVERY_TEAM, ["blue", "red"])):
        engine = make_engine(databases.worker, team=team)
        assert teams_seen(engine) == seen
        engine.dispose()
