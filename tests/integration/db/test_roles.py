"""The roles of the API and of the workers: what each may not do, and how they come by what they may."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import Connection, Engine, text

from db.engine import make_engine
from db.errors import RoleRefused
from db.models import activate_model
from db.roles import TABLES, Process, create_role, missing_roles, standing_of
from db.schema import give_roles, upgrade
from deploy.local.postgres import API_ROLE, ROLE, WORKER_ROLE, DatabaseUrls, Postgres
from tests.factories import add_batch, add_champion, add_customers, add_model, add_prediction, empty_tables

ROLES = {Process.API: API_ROLE, Process.WORKER: WORKER_ROLE}

# What a break-in into the API, or into a worker, must not reach.
FORBIDDEN_TO_THE_API = [
    "INSERT INTO prediction_history SELECT * FROM prediction_history",
    "UPDATE prediction_history SET churn_probability = 0",
    "UPDATE prediction_history SET customer_id = NULL",
    "DELETE FROM prediction_history",
    "TRUNCATE prediction_history",
    "UPDATE row_errors SET value = NULL",
    "INSERT INTO models (version, location, sha256) VALUES ('x', 'x', 'x')",
    "UPDATE models SET sha256 = 'x'",
    "UPDATE models SET location = 'x'",
    "DELETE FROM models",
    "UPDATE batch_jobs SET team = 'x'",
    "UPDATE batch_jobs SET model_version = 'x'",
    "DELETE FROM batch_jobs",
    "SELECT payload FROM chunk_inputs",
    "SELECT payload FROM upload_parts",
    "INSERT INTO database_roles (process, role_name) VALUES ('api', 'x')",
    "INSERT INTO schema_serves VALUES ('x')",
    "UPDATE api_keys SET scopes = '{admin}'",
    "UPDATE api_keys SET team = 'x'",
    "DELETE FROM api_keys",
    "UPDATE imported_rows SET day = '2000-01-01'",
    "DELETE FROM imported_rows",
    "UPDATE batch_insights SET kept = true",
    "INSERT INTO batch_insights (batch_id, ended_at, newly_high) VALUES ('b', now(), 7)",
    "INSERT INTO promise_paces (load_class, slow_pace, slow_seconds) VALUES (0, 1, 1)",
    "INSERT INTO insight_totals VALUES ('promises kept', 1)",
    "UPDATE insight_totals SET n = 0",
    "UPDATE newly_at_risk SET high = 0",
    "SELECT id FROM singles_at_risk",
    "CREATE TABLE mine (a int)",
    "ALTER TABLE customers DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "COPY customers TO PROGRAM 'cat'",
]
FORBIDDEN_TO_WORKERS = [
    "SELECT key_id FROM api_keys",
    "SELECT n FROM database_sessions()",
    "INSERT INTO teams (team) VALUES ('x')",
    "DELETE FROM customers",
    "INSERT INTO batch_jobs (batch_id, source, status, model_version) VALUES ('x', 'file', 'queued', 'x')",
    "DELETE FROM batch_jobs",
    "UPDATE prediction_history SET churn_probability = 0",
    "DELETE FROM prediction_history",
    "UPDATE models SET state = 'champion'",
    "INSERT INTO models (version, location, sha256) VALUES ('x', 'x', 'x')",
    "UPDATE webhook_endpoints SET url = 'x'",
    "SELECT key FROM idempotency_keys",
    "SELECT nextval('single_prediction_ids')",
    "SELECT anonymise_predictions('x')",
    "INSERT INTO imported_rows (team, day, n_rows) VALUES ('x', '2000-01-01', 1)",
    "UPDATE imported_rows SET n_rows = 0",
    "UPDATE batch_insights SET kept = true",
    "DELETE FROM batch_insights",
    "DELETE FROM insight_totals",
    "UPDATE newly_at_risk SET team = 'x'",
    "CREATE TABLE mine (a int)",
]


@pytest.fixture
def stored(engine: Engine) -> Iterator[Engine]:
    """A ledger with a model, a customer and a batch that has a prediction of her."""
    with engine.begin() as conn:
        add_champion(conn)
        add_customers(conn, "C-1")
        add_batch(conn, "b")
        add_prediction(conn, 1, customer_id="C-1")
    yield engine
    with engine.begin() as conn:
        empty_tables(conn)


def refused(url: str, statement: str) -> bool:
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except InsufficientPrivilege:
            return True
    return False


@pytest.mark.parametrize("statement", FORBIDDEN_TO_THE_API)
def test_the_api_may_not(stored: Engine, databases: DatabaseUrls, statement: str) -> None:
    assert refused(databases.api, statement)


@pytest.mark.parametrize("statement", FORBIDDEN_TO_WORKERS)
def test_the_workers_may_not(stored: Engine, databases: DatabaseUrls, statement: str) -> None:
    assert refused(databases.worker, statement)


def test_only_tables_that_exist_are_named(engine: Engine) -> None:
    with engine.connect() as conn:
        tables = set(
            conn.execute(
                text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
            ).scalars()
        )
    assert {table for rights in TABLES.values() for table in rights} <= tables


def test_the_roles_have_what_their_processes_need_and_nothing_else(engine: Engine) -> None:
    with engine.connect() as conn:
        for process, name in ROLES.items():
            standing = standing_of(conn, process, name)
            assert (standing.is_owner, standing.beyond, standing.lacking) == (False, (), ())


def test_the_api_anonymises_a_customer_who_was_deleted_and_nobody_else(stored: Engine, databases: DatabaseUrls) -> None:
    with make_engine(databases.api, pooled=False).begin() as conn:
        conn.execute(text("SELECT anonymise_predictions('C-1')"))
    assert ids_of_predictions(stored) == ["C-1"]
    with make_engine(databases.api, pooled=False).begin() as conn:
        conn.execute(text("DELETE FROM customers WHERE customer_id = 'C-1'"))
        conn.execute(text("SELECT anonymise_predictions('C-1')"))
    assert ids_of_predictions(stored) == [None]


def test_a_temporary_table_of_the_caller_s_is_not_taken_for_the_owner_s(stored: Engine, databases: DatabaseUrls) -> None:
    with make_engine(databases.api, pooled=False).begin() as conn:
        conn.execute(text("CREATE TEMP TABLE customers (customer_id varchar)"))
        conn.execute(text("SELECT anonymise_predictions('C-1')"))
    assert ids_of_predictions(stored) == ["C-1"]


def test_the_api_activates_a_model(stored: Engine, databases: DatabaseUrls) -> None:
    with stored.begin() as conn:
        add_model(conn, "another")
    with make_engine(databases.api, pooled=False).begin() as conn:
        assert activate_model(conn, "another").new_version == "another"


def ids_of_predictions(engine: Engine) -> list[str | None]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT customer_id FROM prediction_history")).scalars())


def acts(conn: Connection) -> int:
    """How many acts are on record."""
    return int(conn.execute(text("SELECT count(*) FROM audit_log")).scalar_one())


class TestGranting:
    @pytest.fixture
    def fresh(self, empty_postgres_url: str) -> Iterator[Connection]:
        """A migrated database in which nobody but the owner has any right."""
        upgrade(empty_postgres_url)
        engine = make_engine(empty_postgres_url, pooled=False)
        with engine.connect() as conn:
            conn.execute(text("DELETE FROM database_roles"))
            conn.commit()
            yield conn

    def test_the_same_again_changes_nothing(self, fresh: Connection, empty_postgres_url: str) -> None:
        give_roles(empty_postgres_url, ROLES)
        before, recorded = acl(fresh), acts(fresh)
        give_roles(empty_postgres_url, ROLES)
        assert acl(fresh) == before
        assert acts(fresh) == recorded
        assert any(API_ROLE in line for line in before)

    def test_it_takes_away_what_was_given_by_hand(self, fresh: Connection, empty_postgres_url: str) -> None:
        give_roles(empty_postgres_url, ROLES)
        fresh.execute(text(f"GRANT INSERT ON prediction_history TO {API_ROLE}"))
        fresh.execute(text(f"REVOKE SELECT ON models FROM {API_ROLE}"))
        fresh.commit()
        standing = standing_of(fresh, Process.API, API_ROLE)
        assert (standing.beyond, standing.lacking) == (("INSERT on prediction_history",), ("SELECT on models",))
        fresh.commit()
        give_roles(empty_postgres_url, ROLES)
        assert standing_of(fresh, Process.API, API_ROLE).beyond == ()
        last = fresh.execute(text("SELECT object, detail FROM audit_log ORDER BY audit_no DESC LIMIT 1")).one()
        assert (last.object, last.detail["taken_back"]) == (API_ROLE, ["INSERT on prediction_history"])

    def test_a_migration_gives_them_anew(self, fresh: Connection, empty_postgres_url: str) -> None:
        give_roles(empty_postgres_url, ROLES)
        fresh.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {WORKER_ROLE}"))
        fresh.commit()
        upgrade(empty_postgres_url)
        assert standing_of(fresh, Process.WORKER, WORKER_ROLE).lacking == ()

    def test_who_was_the_role_before_has_no_right_left(
        self, fresh: Connection, empty_postgres_url: str, postgres: Postgres
    ) -> None:
        with postgres.as_superuser() as cursor:
            cursor.execute("CREATE ROLE former_api")
        try:
            give_roles(empty_postgres_url, {**ROLES, Process.API: "former_api"})
            give_roles(empty_postgres_url, ROLES)
            assert not any("former_api" in line for line in acl(fresh))
        finally:
            with postgres.as_superuser() as cursor:
                cursor.execute("DROP ROLE former_api")

    @pytest.mark.parametrize("name", [ROLE, "postgres"])
    @pytest.mark.usefixtures("fresh")
    def test_the_owner_and_a_superuser_are_refused(self, empty_postgres_url: str, name: str) -> None:
        with pytest.raises(RoleRefused, match="nothing would keep it from anything"):
            give_roles(empty_postgres_url, {**ROLES, Process.API: name})

    @pytest.mark.usefixtures("fresh")
    def test_one_role_for_both_is_refused(self, empty_postgres_url: str) -> None:
        with pytest.raises(RoleRefused, match="a role each"):
            give_roles(empty_postgres_url, dict.fromkeys(Process, API_ROLE))

    @pytest.mark.usefixtures("fresh")
    def test_a_role_that_nobody_made_is_named(self, empty_postgres_url: str) -> None:
        with pytest.raises(RoleRefused, match="no role 'nobody_made'"):
            give_roles(empty_postgres_url, {**ROLES, Process.API: "nobody_made"})

    def test_whoever_does_not_own_the_tables_gives_nothing(self, databases: DatabaseUrls) -> None:
        with pytest.raises(RoleRefused, match="DATABASE_OWNER_URL"):
            give_roles(databases.api, ROLES)


class TestMaking:
    def test_an_owner_that_may_make_none_says_what_to_run(self, engine: Engine) -> None:
        with engine.connect() as conn, pytest.raises(RoleRefused, match='CREATE ROLE "new_api" LOGIN PASSWORD'):
            create_role(conn, "new_api")

    def test_a_role_may_log_in_with_its_password_and_nothing_else(self, postgres: Postgres) -> None:
        superuser = make_engine(
            postgres.url("postgres").replace(f"{ROLE}:{postgres.role_password}", f"postgres:{postgres.password}")
        )
        try:
            with superuser.begin() as conn:
                assert missing_roles(conn, ["new api"]) == ["new api"]
                password = create_role(conn, "new api")
            url = postgres.url("postgres").replace(f"{ROLE}:{postgres.role_password}", f"new%20api:{password}")
            with make_engine(url, pooled=False).connect() as conn:
                attributes = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
                assert not conn.execute(text(f"{attributes} FROM pg_roles WHERE rolname = current_user")).scalar_one()
            with superuser.begin() as conn:
                kept = conn.execute(text("SELECT rolpassword FROM pg_authid WHERE rolname = 'new api'")).scalar_one()
            assert kept.startswith("SCRAM-SHA-256$")
        finally:
            with postgres.as_superuser() as cursor:
                cursor.execute('DROP ROLE IF EXISTS "new api"')
            superuser.dispose()


def acl(conn: Connection) -> list[str]:
    """Every right in the database's tables, columns, sequences and functions."""
    lines = conn.execute(
        text("""
        SELECT relname || ' ' || coalesce(relacl::text, '') FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT attrelid::regclass || '.' || attname || ' ' || attacl::text FROM pg_attribute WHERE attacl IS NOT NULL
        UNION ALL SELECT proname || ' ' || coalesce(proacl::text, '') FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT datname || ' ' || coalesce(datacl::text, '') FROM pg_database WHERE datname = current_database()
        ORDER BY 1
        """)
    ).scalars()
    found = list(lines)
    conn.commit()
    return found
