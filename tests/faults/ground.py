"""The ground that faults are tried on: servers and processes of its own that may be frozen, killed and brought back.

Between the processes and the servers stand proxies; tests speak to the servers directly. The processes run under short leases,
so that a recovery takes seconds, and take their failpoints from one file, so that a test breaks them without a restart.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
import redis
from sqlalchemy import Engine, text

from db.engine import clock, make_engine
from db.invariants import Violation, violations
from deploy.local.ports import HOST, Port, free_port
from deploy.local.postgres import DatabaseUrls, Postgres
from deploy.local.prepare import provide_model, provide_schema
from deploy.local.process import Child, Service
from deploy.local.product import Product
from deploy.local.valkey import Valkey
from failpoints import Guard
from schemas.messages import BATCH_QUEUES
from schemas.states import FINAL
from tests.acceptance.http import api, as_csv, customers, submit
from tests.acceptance.stack import API, BATCH_WORKER, INTERACTIVE_WORKER, Stack, running_stack
from tests.faults.proxy import Mode, Proxy, proxy_to
from tests.golden import golden

MODEL: Final = "faults-1"
SECOND_WORKER: Final = "second-worker"
LEASE_S: Final = 4.0
N: Final = 6_000
CHUNK_ROWS: Final = 500

IN_FULL: Final = bool(os.environ.get("FAULTS_IN_FULL"))
"""Whether faults last as long as they do in earnest; `make test` has no such time."""

PATIENCE_S: Final = 60.0
"""How long a batch may take to end, whatever happened; a recovery takes a tenth of it."""
MUTANT_PATIENCE_S: Final = 10.0
"""How long a batch is waited for when a guard is off."""

SETTINGS: Final = {
    "ENVIRONMENT": "testing",
    "CHUNK_ROWS": str(CHUNK_ROWS),
    "INLINE_MAX_BYTES": str(32 << 20),
    "LEASE_SECONDS": str(LEASE_S),
    "REPUBLISH_AFTER_SECONDS": "1.5",
    # So many that some hints wait in Redis and not in a worker.
    "BATCH_WINDOW": "8",
    "DISPATCH_WINDOW": "24",
    "BROKER_TIMEOUT_SECONDS": "3",
    "DATABASE_TIMEOUT_SECONDS": "5",
    "RESCUE_INTERVAL_SECONDS": "0.3",
    "WORKERS": "2",
}


@dataclass
class Ground:
    """Everything that a fault needs.

    Attributes
    ----------
    orders : Path
        The file of the processes' failpoints.
    servers : dict of str to Child
        `postgres` and `valkey`, unless they are away.
    """

    folder: Path
    postgres: Postgres
    valkey: Valkey
    servers: dict[str, Child] = field(default_factory=dict)
    to_postgres: Proxy = field(init=False)
    to_redis: Proxy = field(init=False)
    stack: Stack = field(init=False)

    # -- the servers

    def start_server(self, name: str) -> None:
        server = self.postgres if name == "postgres" else self.valkey
        self.servers[name] = Child(server.service())
        self.servers[name].wait_ready()

    def end_server(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a server: at once, or Postgres by SIGQUIT, its immediate shutdown."""
        child = self.servers.pop(name)
        child.process.send_signal(how)
        child.process.wait(30)
        child.kill()

    @cached_property
    def engine(self) -> Engine:
        """Straight to Postgres."""
        return make_engine(self.postgres.url(), pooled=False)

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """Straight to Redis."""
        with redis.Redis.from_url(self.valkey.url(), socket_timeout=10) as client:
            yield client

    # -- the processes

    @property
    def orders(self) -> Path:
        return self.folder / "failpoints"

    def order(self, *lines: str) -> None:
        """Give the processes these orders and no others."""
        # Whole or not at all, for they may read at any moment.
        new = self.orders.with_suffix(".new")
        new.write_text("\n".join(lines))
        new.replace(self.orders)

    def hits(self, point: str) -> list[dict[str, str]]:
        """What was done at a point since the last `forget`, with the process under `pid`."""
        with suppress(FileNotFoundError):
            lines = [line.split() for line in Path(f"{self.orders}.hits").read_text().splitlines()]
            return [{"pid": pid, **dict(w.split("=", 1) for w in at)} for name, pid, *at in lines if name == point]
        return []

    def forget(self) -> None:
        """Take all orders back and forget what was done."""
        for path in self.folder.glob(f"{self.orders.name}*"):
            path.unlink()

    def client(self) -> httpx.Client:
        """Plain HTTP to the API."""
        return api(self.stack.api_url)

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self.stack.children[name].pid)

    def signal_group(self, name: str, number: signal.Signals) -> None:
        """Signal a process and all its children."""
        os.killpg(self.stack.children[name].pid, number)

    def pool_of(self, name: str) -> list[psutil.Process]:
        """The pool's processes of a worker."""
        return self.process(name).children()

    def restart(self, name: str) -> None:
        """Kill a process, if it runs, and start it anew."""
        if name in self.stack.children:
            self.stack.kill(name)
        self.stack.start(name)

    def make_whole(self) -> None:
        """Undo whatever a test did: everything runs, nothing is ordered, no work is left."""
        self.forget()
        for proxy in (self.to_postgres, self.to_redis):
            proxy.mode, proxy.delay_s, proxy.commits_to_lose = Mode.PASS, 0.0, 0
        for name in {"postgres", "valkey"} - set(self.servers):
            self.start_server(name)
        for name, child in list(self.stack.children.items()):
            with suppress(ProcessLookupError):
                self.signal_group(name, signal.SIGCONT)
            if child.exit_code() is not None:
                self.stack.kill(name)
        if SECOND_WORKER in self.stack.children:
            self.stack.kill(SECOND_WORKER)
        missing = {API, BATCH_WORKER, INTERACTIVE_WORKER} - set(self.stack.children)
        if missing:
            self.stack.start(*missing)

    def forget_work(self) -> None:
        """Empty the ledger and the queues; the batch worker is restarted, for a mutant's tasks may still be at work."""
        self.stack.kill(BATCH_WORKER)
        with self.engine.begin() as conn:
            conn.execute(text("TRUNCATE batch_jobs, prediction_history, prediction_requests, row_errors CASCADE"))
        with self.redis() as client:
            client.flushall()
        self.stack.start(BATCH_WORKER)

    @cached_property
    def population(self) -> list[dict[str, Any]]:
        """The customers that every batch is made of."""
        return customers(20_000)

    @cached_property
    def scores(self) -> np.ndarray:
        """Their scores by LightGBM in this process."""
        return golden(self.folder / "models" / MODEL, self.population)


@contextmanager
def ground_in(folder: Path, *, postgres_in: str = ".") -> Iterator[Ground]:
    """Set it all up for the length of a block; Postgres's data may lie in a folder of its own below the given one."""
    secret = secrets.token_hex(8)
    postgres_port, redis_port = (Port(free_port(), "-", "the faults") for _ in range(2))
    ground = Ground(
        folder,
        Postgres(folder / postgres_in / "postgres", postgres_port, secret, secret, folder / "postgres.log"),
        Valkey(folder / "redis", redis_port, secret, folder / "redis.log"),
    )
    try:
        for name in ("postgres", "valkey"):
            ground.start_server(name)
        ground.postgres.ensure_roles()
        ground.postgres.ensure_database()
        provide_schema(ground.postgres.urls())
        provide_model(ground.engine, folder / "models", MODEL, training_rows=6_000)
        with (
            proxy_to(HOST, postgres_port.number) as ground.to_postgres,
            proxy_to(HOST, redis_port.number) as ground.to_redis,
            running_stack(
                folder,
                databases=_by_way_of(ground.to_postgres, ground.postgres.urls()),
                redis_url=ground.to_redis.url(ground.valkey.user_url()),
                models=folder / "models",
                settings={**SETTINGS, "FAILPOINTS": f"@{ground.orders}"},
            ) as ground.stack,
        ):
            ground.stack.services = {**ground.stack.services, SECOND_WORKER: _second_worker(ground)}
            yield ground
            # Stopped ones hear no request to end.
            ground.make_whole()
    finally:
        for server in ground.servers.values():
            server.stop()


def _by_way_of(proxy: Proxy, urls: DatabaseUrls) -> DatabaseUrls:
    return DatabaseUrls(proxy.url(urls.owner), proxy.url(urls.api), proxy.url(urls.worker))


def _second_worker(ground: Ground) -> Service:
    """Another batch worker, as on another machine; not started by itself."""
    port = Port(free_port(), "-", "the second worker")
    product = Product(ground.stack.env, ground.folder / "second" / "log", ground.folder / "second" / "metrics")
    service = product.batch_worker(port)
    argv = tuple("second@%h" if word == "batch@%h" else word for word in service.argv)
    return replace(service, name=SECOND_WORKER, argv=argv)


@dataclass
class Scene:
    """One fault on the ground, with a guard off or none: what is submitted here is checked at its end.

    Attributes
    ----------
    mutant : Guard or None
        The guard that is off.
    recovery_s : float
        From the last `healed` to the end of the last batch.
    noticed : sequence of str
        By which invariants it was noticed that the guard is off.
    """

    ground: Ground
    mutant: Guard | None
    since: datetime = field(init=False)
    sent: dict[str, Sequence[int]] = field(default_factory=dict)
    recovery_s: float = 0.0
    rows: int = 0
    problems: list[Violation] = field(default_factory=list)
    noticed: Sequence[str] = ()
    _ended: int = 0
    _healed: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        with self.ground.engine.connect() as conn:
            self.since = clock(conn)
        self.order()

    @property
    def patience_s(self) -> float:
        return PATIENCE_S if self.mutant is None else MUTANT_PATIENCE_S

    def order(self, *lines: str) -> None:
        """Give orders beside that of the mutant."""
        self.ground.order(*([f"{self.mutant}=off"] if self.mutant else []), *lines)

    def submit(self, n: int = N, *, first: int = 0, **asked: Any) -> str:
        """Submit n customers of the population; returns the batch's id."""
        answer = self.post(n, first=first, **asked)
        assert answer.status_code == 202, answer.text
        return self.note(answer.json()["batch_id"], range(first, first + n))

    def post(self, n: int = N, *, first: int = 0, **asked: Any) -> httpx.Response:
        """Send n customers of the population; returns the API's answer."""
        with self.ground.client() as client:
            return submit(client, as_csv(self.ground.population[first : first + n]), **asked)

    def note(self, batch_id: str, places: Sequence[int]) -> str:
        """Note which customers of the population a batch was made of."""
        self.sent[batch_id] = places
        return batch_id

    def wait(self, until: Callable[[], object], what: str, *, within_s: float = PATIENCE_S) -> None:
        """Wait until something is so.

        Raises
        ------
        AssertionError
            It was not within the time.
        """
        deadline = time.monotonic() + within_s
        while not until():
            assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
            time.sleep(0.02)

    def wait_hit(self, point: str, n: int = 1) -> list[dict[str, str]]:
        """Wait until orders were carried out at a point."""
        self.wait(lambda: len(self.ground.hits(point)) >= n, f"{n} hits of {point}")
        return self.ground.hits(point)

    def ask(self, question: str, **values: Any) -> Any:
        """One value of the ledger."""
        with self.ground.engine.connect() as conn:
            return conn.execute(text(question), values).scalar()

    def status(self, batch_id: str) -> str:
        return str(self.ask("SELECT status FROM batch_jobs WHERE batch_id = :b", b=batch_id))

    def closed(self, batch_id: str) -> int:
        return int(self.ask("SELECT chunks_closed FROM batch_jobs WHERE batch_id = :b", b=batch_id))

    def published(self, batch_id: str) -> int:
        """How many of a batch's chunks have a hint that counts as sent."""
        return int(self.ask("SELECT count(*) FROM chunks WHERE batch_id = :b AND published_at IS NOT NULL", b=batch_id))

    def hints_in_redis(self) -> int:
        """Hints that no worker has taken yet; looked for when those of the last moment have been sent."""
        time.sleep(0.2)
        with self.ground.redis() as client:
            return sum(int(client.llen(queue)) for queue in BATCH_QUEUES)

    def settle(self) -> None:
        """Give whatever would still go wrong the time to."""
        time.sleep(3)

    def begun(self, batch_id: str, chunks: int = 2) -> None:
        """Wait until a batch is in its midst."""
        self.wait(lambda: self.closed(batch_id) >= chunks, f"{chunks} chunks of {batch_id} closed")

    def healed(self) -> None:
        """Say that the fault is over: the recovery begins."""
        self._healed = time.monotonic()

    def end(self) -> None:
        """Wait for every batch to end, or for the patience to."""
        if self._ended == len(self.sent):
            return
        self._ended = len(self.sent)
        deadline = time.monotonic() + self.patience_s
        open_ids = set(self.sent)
        while open_ids and time.monotonic() < deadline:
            open_ids = {batch_id for batch_id in open_ids if self.status(batch_id) not in FINAL}
            time.sleep(0.02)
        self.recovery_s = time.monotonic() - self._healed

    def violations(self) -> list[Violation]:
        """Whatever does not hold."""
        with self.ground.engine.connect() as conn:
            found = violations(conn, self.since, deadline=clock(conn))
            for batch_id, places in self.sent.items():
                if conn.execute(text("SELECT FROM batch_jobs WHERE batch_id = :b"), {"b": batch_id}).one_or_none() is None:
                    found.append(Violation("lost", "was accepted and is not there", batch_id, {}))
                found += self._wrong_scores(batch_id, places)
            self.rows = sum(map(len, self.sent.values()))
        return found + self.problems

    def expect(self, holds: object, what: str, batch_id: str = "") -> None:
        """Expect something of this very fault beside the invariants."""
        if not holds:
            self.problems.append(Violation("expected", what, batch_id, {}))

    def expect_attempts(self, most: int) -> None:
        """Expect that no chunk took more attempts."""
        query = "SELECT max(attempt) FROM chunks JOIN batch_jobs USING (batch_id) WHERE submitted_at >= :since"
        worst = self.ask(query, since=self.since)
        self.expect(worst <= most, f"a chunk took {worst} attempts")

    def expect_failed(self, batch_id: str, row: int) -> None:
        """Expect that this row failed, and no other."""
        with self.ground.engine.connect() as conn:
            found = conn.execute(text("SELECT row_number FROM row_errors WHERE batch_id = :b"), {"b": batch_id}).scalars()
            rows = set(found)
        self.expect(rows == {row}, f"{len(rows)} rows failed, row {row} being at fault", batch_id)

    def _wrong_scores(self, batch_id: str, places: Sequence[int]) -> list[Violation]:
        query = text("SELECT row_number, customer_id, churn_probability FROM prediction_history WHERE batch_id = :b")
        with self.ground.engine.connect() as conn:
            rows = conn.execute(query, {"b": batch_id}).all()
        wrong = [
            r
            for r in rows
            if r.customer_id != self.ground.population[places[r.row_number]]["customer_id"]
            or not abs(r.churn_probability - self.ground.scores[places[r.row_number]]) <= 1e-12
        ]
        return [Violation("I5", f"row {r.row_number} is scored {r.churn_probability}", batch_id, {}) for r in wrong[:5]]

    def verify(self, *, status: str | None = "completed") -> None:
        """End it: every batch has ended as it should and nothing is wrong, or with a guard off something is."""
        self.end()
        for batch_id in self.sent:
            found_status = self.status(batch_id)
            self.expect(status in (None, found_status), f"{found_status} and not {status}", batch_id)
        found = self.violations()
        if self.mutant is None:
            assert found == []
        else:
            assert found, f"nothing was seen to be wrong without the guard {self.mutant}"
            self.noticed = sorted(
                {f"{v.invariant} ({v.sentence})" if v.invariant == "expected" else v.invariant for v in found}
            )
