"""The ground that every case stands on: fresh servers, a database, a model, and the product's processes with usual settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import Engine, text

from bench.key import KEY_HEADER, RUN_KEY
from bench.measure import tell
from bench.model import VERSION, activate, build_bundle
from datasets.synthetic import slices
from db.engine import copy_in, make_engine
from db.errors import DatabaseUnavailable
from deploy.local.postgres import Postgres
from deploy.local.prepare import provide_schema
from deploy.local.stack import Stack, running_stack
from deploy.local.temporary import temporary_folder, temporary_postgres, temporary_redis
from intake.copying import customer_rows
from scoring.features import COLUMNS

_DATABASE: Final = "bench"
_STATEMENT_TIMEOUT_S: Final = 600.0
CUSTOMERS_SEED: Final = 7
_TRUNCATIONS: Final = 5
_ENDED: Final = frozenset({"completed", "partial", "failed", "cancelled", "expired"})
_COPY_CUSTOMERS: Final = f"COPY customers ({', '.join(COLUMNS)}) FROM STDIN (FORMAT csv)"


@dataclass(slots=True)
class Ground:
    """Where the cases run.

    Attributes
    ----------
    bundle : Path
        The folder of the active model.
    engine : Engine
        For the benchmark's own statements.
    client : httpx.Client
        Speaks to the running API, below /api/v1.
    folder : Path
        For files of the cases; vanishes at the end.
    n_stored : int
        Customers that `store_customers` left and that nobody has changed since.
    """

    postgres: Postgres
    database_url: str
    bundle: Path
    engine: Engine
    stack: Stack
    client: httpx.Client
    folder: Path
    n_stored: int = 0

    def forget_batches(self) -> None:
        """Bring the tables back to where every run begins, and keep the last run's pages from being written during the next."""
        for is_last in (*[False] * (_TRUNCATIONS - 1), True):
            try:
                with self.engine.begin() as conn:
                    conn.execute(text("TRUNCATE prediction_history, batch_jobs, row_errors, prediction_requests CASCADE"))
                break
            except DatabaseUnavailable:  # A deadlock with the rescuer, which reads the same tables in another order.
                if is_last:
                    raise
        self.checkpoint()

    def checkpoint(self) -> None:
        """Write everything to disk now."""
        with self.postgres.as_superuser() as cursor:
            cursor.execute("CHECKPOINT")

    def store_customers(self, n: int) -> None:
        """Make the first n synthetic customers the stored ones, as a long running installation holds them: vacuumed."""
        if self.n_stored == n:
            return
        tell(f"Storing {n:,} customers.")
        self.forget_customers()
        with self.engine.begin() as conn:
            for part in slices(n, seed=CUSTOMERS_SEED):
                copy_in(conn, _COPY_CUSTOMERS, customer_rows(part.customers))
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("VACUUM (ANALYZE) customers"))
        self.checkpoint()
        self.n_stored = n

    def forget_customers(self) -> None:
        """Leave no customer; the trigger that protects predictions refuses a TRUNCATE, so there are none of those either."""
        self.n_stored = 0
        with self.engine.begin() as conn:
            conn.execute(text("TRUNCATE prediction_history"))
            conn.execute(text("ALTER TABLE customers DISABLE TRIGGER customers_refuse_truncate"))
            conn.execute(text("TRUNCATE customers, customer_deletions"))
            conn.execute(text("ALTER TABLE customers ENABLE TRIGGER customers_refuse_truncate"))

    def finished(self, answer: httpx.Response) -> dict[str, Any]:
        """Follow an accepted batch by long polls until it is completed; any other end is an error."""
        answer.raise_for_status()
        path = f"/batches/{answer.json()['batch_id']}"
        while True:
            batch: dict[str, Any] = self.client.get(path, params={"wait": 30}).raise_for_status().json()
            if batch["status"] in _ENDED:
                break
        if batch["status"] != "completed":
            raise RuntimeError(f"the batch ended as {batch['status']}: {batch}")
        return batch


def next_id(n: int) -> str:
    """The id below which the first n stored customers lie: ids are numbered."""
    return f"SYN-{n:07}"


def first_customers(n: int) -> dict[str, Any]:
    """A request body for the first n stored customers."""
    return {"filter": {"customer_id": {"lt": next_id(n)}}}


def ended_at(batch: Mapping[str, Any]) -> float:
    """When a batch was completed, as `time.time` counts: by its own clock, for a poll sees the end only a moment later."""
    return datetime.fromisoformat(batch["completed_at"]).timestamp()


@contextmanager
def prepared_ground() -> Iterator[Ground]:
    """Start everything for the length of a block, with durable writes and the settings' defaults."""
    with (
        temporary_folder() as folder,
        temporary_postgres(folder, durable=True) as postgres,
        temporary_redis(folder) as valkey,
    ):
        postgres.ensure_database(_DATABASE)
        databases = postgres.urls(_DATABASE)
        url = databases.owner
        provide_schema(databases)
        tell("Training the model: 300 trees of 31 leaves.")
        bundle = build_bundle(folder / "models")
        engine = make_engine(url, application_name="bench", statement_timeout_s=_STATEMENT_TIMEOUT_S)
        activate(engine, bundle)
        with (
            running_stack(
                folder, databases=databases, redis_url=valkey.user_url(), models=folder / "models", api_key=RUN_KEY
            ) as stack,
            httpx.Client(
                base_url=f"{stack.api_url}/api/v1", timeout=_STATEMENT_TIMEOUT_S, trust_env=False, headers=KEY_HEADER
            ) as client,
        ):
            yield Ground(postgres, url, folder / "models" / VERSION, engine, stack, client, folder)
        engine.dispose()
