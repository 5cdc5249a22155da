"""Fixtures that every test may use: real servers, one a session; a database of its own for each test module."""

from __future__ import annotations

import re
import signal
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import redis
from sqlalchemy import Engine

from db.engine import make_engine
from deploy.local.postgres import ROLE, DatabaseUrls, Postgres
from deploy.local.prepare import provide_schema
from deploy.local.temporary import temporary_folder, temporary_postgres, temporary_redis
from deploy.local.valkey import USER, Valkey
from tests.factories import empty_tables
from tests.security import mutants
from tests.security.table import MUTANTS
from tests.sharing import FromBothEnds, faults_first

if TYPE_CHECKING:
    from xdist.remote import Producer

TEMPLATE: Final = "churn_template"
"""The migrated database that each test module gets a copy of."""

_numbers = count(1)

# A shell has what it starts in the background ignore SIGINT, and so would the processes that tests end by Ctrl-C: for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the security table without their guards, too."""
    mutants.offer(metafunc, MUTANTS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take out the guard that this run of a test goes without."""
    mutants.take_out(item)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Put it back."""
    mutants.put_back(item)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Take a test's failure for what it should say without its guard."""
    return (yield from mutants.run(pyfuncitem))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    unmeant = [item for item in items if not mutants.is_meant(item)]
    if unmeant:
        config.hook.pytest_deselected(items=unmeant)
        items[:] = [item for item in items if mutants.is_meant(item)]
    faults_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FromBothEnds:
    """Share the tests among the processes of `-n`."""
    return FromBothEnds(config, log)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """The folder of the session's servers and their logs."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    """The session's Postgres."""
    with temporary_postgres(server_folder) as server:
        with server.as_superuser() as cursor:
            # Tests end the sessions of the API's and the workers' role.
            cursor.execute(f"GRANT pg_signal_backend TO {ROLE}")
        yield server


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[Valkey]:
    """The session's Redis-compatible server."""
    with temporary_redis(server_folder) as server:
        yield server
        with redis.Redis.from_url(server.url(), decode_responses=True) as client:
            refused = [entry for entry in client.acl_log() if entry["username"] == USER]
        assert not refused, f"the product was refused what it needs of Redis: {refused}"


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """The migrated database that modules get copies of; migrating once costs what copying costs a hundred times."""
    postgres.ensure_database(TEMPLATE)
    provide_schema(postgres.urls(TEMPLATE))
    with make_engine(postgres.url(TEMPLATE), pooled=False).begin() as conn:
        empty_tables(conn)  # What was granted was recorded.
    return TEMPLATE


@pytest.fixture(scope="module")
def databases(postgres: Postgres, template: str, request: pytest.FixtureRequest) -> Iterator[DatabaseUrls]:
    """A migrated, empty database for this module, as the owner, the API and the workers reach it."""
    name = f"{_slug(request.node.name)}_{next(_numbers)}"
    postgres.clone_database(name, template=template)
    yield postgres.urls(name)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def postgres_url(databases: DatabaseUrls) -> str:
    """This module's database as its owner reaches it, who may do everything in it."""
    return databases.owner


@pytest.fixture(scope="module")
def empty_postgres_url(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without a table, for this module."""
    name = f"{_slug(request.node.name)}_{next(_numbers)}_empty"
    postgres.ensure_database(name)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def engine(postgres_url: str) -> Iterator[Engine]:
    """An engine on this module's database."""
    made = make_engine(postgres_url)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def redis_number(valkey: Valkey) -> Iterator[int]:
    """A numbered Redis database for this module, emptied when it ends."""
    number = next(_numbers)
    yield number
    with redis.Redis.from_url(valkey.url(number)) as client:
        client.flushdb()


@pytest.fixture(scope="module")
def redis_url(valkey: Valkey, redis_number: int) -> str:
    """This module's Redis as its administrator reaches it."""
    return valkey.url(redis_number)


@pytest.fixture(scope="module")
def redis_user_url(valkey: Valkey, redis_number: int) -> str:
    """This module's Redis as the product reaches it."""
    return valkey.user_url(redis_number)


def _slug(node: str) -> str:
    """Make a database name of a module's path."""
    return re.sub(r"\W+", "_", Path(node).stem)[:40].lower()
