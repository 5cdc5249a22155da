"""Connections for the tests of the ledger: one that forgets, for what one process sees; a shared ledger, where several meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from tests.factories import add_champion, empty_tables


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """A connection to a ledger that holds a champion and nothing else; what the test writes vanishes with its transaction."""
    with engine.connect() as connection:
        add_champion(connection)
        yield connection


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Engine]:
    """An engine on a ledger that holds a champion and nothing else, emptied again afterwards."""
    with engine.begin() as connection:
        add_champion(connection)
    yield engine
    with engine.begin() as connection:
        empty_tables(connection)
