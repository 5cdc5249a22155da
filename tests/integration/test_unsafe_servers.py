"""Servers that may lose work are told from safe ones by a look at real ones, and refused where that matters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import redis
from sqlalchemy import text

from broker.safety import check_servers
from broker.server import Memory, memory_of, persistence_of, unsafe_eviction
from db.durability import unsafe_durability
from db.engine import make_engine
from db.errors import UnsafeServer
from db.schema import upgrade
from deploy.local.ports import Port, free_port
from deploy.local.postgres import ROLE, Postgres
from deploy.local.process import running
from deploy.local.temporary import temporary_postgres
from deploy.local.valkey import Valkey
from settings import Settings, load_settings
from tests.apps import application

NOWHERE_REDIS = "redis://127.0.0.1:1/0"
NOWHERE_POSTGRES = "postgresql://churn@127.0.0.1:1/churn"


@pytest.fixture(scope="module")
def evicting_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that drops any key once its memory is full."""
    folder = tmp_path_factory.mktemp("evicting")
    valkey = Valkey(folder / "redis", Port(free_port(), "-", "a test"), "secret", folder / "redis.log")
    service = valkey.service()
    with running(replace(service, argv=(*service.argv, "--maxmemory-policy", "allkeys-lru", "--appendonly", "no"))):
        yield valkey.url()


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres that keeps what it has committed, unlike that of the other tests."""
    with temporary_postgres(tmp_path_factory.mktemp("durable"), durable=True) as server:
        server.ensure_database()
        upgrade(server.url())
        yield server


@pytest.fixture
def production(durable: Postgres, redis_url: str) -> Settings:
    """The settings of a production on safe servers."""
    return load_settings({"DATABASE_URL": durable.url(), "REDIS_URL": redis_url, "ENVIRONMENT": "production"})


def durability_of(url: str) -> UnsafeServer | None:
    engine = make_engine(url, pooled=False)
    with engine.connect() as conn:
        return unsafe_durability(conn)


class TestPostgres:
    def test_one_that_keeps_what_it_has_committed(self, durable: Postgres) -> None:
        assert durability_of(durable.url()) is None

    def test_one_without_fsync(self, postgres_url: str) -> None:
        danger = durability_of(postgres_url)
        assert danger is not None
        assert danger.said == "Postgres runs with fsync=off, full_page_writes=off, synchronous_commit=off."
        assert "postgresql.conf" in danger.remedy

    def test_a_role_that_does_not_wait_for_the_disk(self, durable: Postgres) -> None:
        with durable.as_superuser() as cursor:
            cursor.execute(f"ALTER ROLE {ROLE} SET synchronous_commit = off")
            try:
                danger = durability_of(durable.url())
            finally:
                cursor.execute(f"ALTER ROLE {ROLE} RESET synchronous_commit")
        assert danger is not None
        assert danger.said == "Postgres runs with synchronous_commit=off."


class TestRedis:
    def test_ours_drops_nothing_and_keeps_its_queue(self, redis_url: str) -> None:
        with closing(redis.Redis.from_url(redis_url)) as client:
            memory = memory_of(client)
            assert unsafe_eviction(memory) is None
            assert (memory.policy, memory.limit) == ("noeviction", 512 << 20)
            assert 0 < memory.used < memory.limit
            assert persistence_of(client).has_append_only_file

    def test_one_that_drops_any_key(self, evicting_url: str) -> None:
        with closing(redis.Redis.from_url(evicting_url)) as client:
            danger = unsafe_eviction(memory_of(client))
            assert danger is not None
            assert danger.said == "Redis runs with maxmemory-policy allkeys-lru."
            assert not persistence_of(client).has_append_only_file

    @pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl", "unknown"])
    def test_policies_that_spare_a_queue(self, policy: str) -> None:
        assert unsafe_eviction(Memory(policy, 0, 0)) is None


class TestTheStart:
    def test_safe_servers_are_not_worth_a_word(self, production: Settings) -> None:
        assert check_servers(production) == []

    @pytest.mark.parametrize("environment", ["development", "testing", "production"])
    def test_a_redis_that_drops_keys_is_refused_anywhere(
        self, production: Settings, evicting_url: str, environment: str
    ) -> None:
        with pytest.raises(UnsafeServer, match="allkeys-lru"):
            check_servers(replace(production, redis_url=evicting_url, environment=environment))

    @pytest.mark.parametrize("environment", ["staging", "production"])
    def test_a_postgres_without_fsync_is_refused(self, production: Settings, postgres_url: str, environment: str) -> None:
        with pytest.raises(UnsafeServer, match="fsync=off"):
            check_servers(replace(production, database_url=postgres_url, environment=environment))

    @pytest.mark.parametrize("environment", ["development", "testing"])
    def test_it_is_worth_a_warning_where_all_can_be_made_again(
        self, production: Settings, postgres_url: str, environment: str
    ) -> None:
        (warning,) = check_servers(replace(production, database_url=postgres_url, environment=environment))
        assert "fsync=off" in warning

    def test_servers_that_are_away_are_no_reason_to_refuse(self, production: Settings) -> None:
        away = replace(production, database_url=NOWHERE_POSTGRES, redis_url=NOWHERE_REDIS)
        assert [warning.split()[0] for warning in check_servers(away)] == ["Redis", "Postgres"]

    def test_a_redis_that_keeps_its_settings_to_itself_is_no_reason_either(
        self, production: Settings, valkey: Valkey, redis_url: str
    ) -> None:
        with closing(redis.Redis.from_url(redis_url)) as client:
            client.acl_setuser("mute", enabled=True, passwords=["+mute"], categories=["+@all"], commands=["-info"], keys="*")
            try:
                url = f"redis://mute:mute@{valkey.url().rpartition('@')[2]}"
                (warning,) = check_servers(replace(production, redis_url=url))
                with application(replace(production, redis_url=url)) as app:
                    assert app.test_client().get("/health/ready").get_json()["checks"]["redis"] == "ok"
            finally:
                client.acl_deluser("mute")
        assert "NoPermissionError" in warning


class TestReadiness:
    """What is asked at the start is asked again at each probe, for a server may have been away, or be set otherwise since."""

    def test_of_safe_servers(self, production: Settings) -> None:
        with application(production) as app:
            assert app.test_client().get("/health/ready").status_code == 200

    def test_of_a_redis_that_drops_keys(self, production: Settings, evicting_url: str) -> None:
        with application(replace(production, redis_url=evicting_url)) as app:
            answer = app.test_client().get("/health/ready")
        assert (answer.status_code, answer.get_json()["code"]) == (503, "unsafe_redis")
        assert "churn doctor" in answer.get_json()["detail"]
        assert "lru" not in answer.text  # how it is set is not for everybody

    def test_of_a_postgres_without_fsync(self, production: Settings, postgres_url: str) -> None:
        with application(replace(production, database_url=postgres_url)) as app:
            answer = app.test_client().get("/health/ready")
        assert (answer.status_code, answer.get_json()["code"]) == (503, "unsafe_postgres")
        with application(replace(production, database_url=postgres_url, environment="testing")) as app:
            assert app.test_client().get("/health/ready").status_code == 200


def test_the_setting_is_that_of_the_session(durable: Postgres) -> None:
    engine = make_engine(durable.url(), pooled=False)
    with engine.connect() as conn:
        conn.execute(text("SET synchronous_commit = off"))
        assert unsafe_durability(conn) is not None
