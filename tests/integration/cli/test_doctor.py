"""The doctor on an installation without workers: what it sees, what it says, and how it ends."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from cli.checks.findings import GUIDE
from cli.main import main
from datasets.synthetic import generate
from db.batches import get_batch
from db.customers import put_customer
from db.models import activate_model, register_model
from deploy.local.ports import Port, free_port
from deploy.local.postgres import DatabaseUrls
from deploy.local.process import running
from deploy.local.valkey import Valkey
from schemas.messages import BATCH_QUEUES
from scoring.model import load_bundle, save_bundle
from scoring.train import train
from tests.factories import add_batch, add_request, add_upload, claim, customer, empty_tables, score

Findings = list[dict[str, Any]]
Run = Callable[..., tuple[int, Findings]]

ROOT = Path(__file__).parents[3]
VERSION = "test-1"
"""As `tests.factories` names the model of its batches."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / VERSION
    trained = train(generate(1_000, seed=5), version=VERSION, data="synthetic", synthetic=True, params={"num_leaves": 3})
    save_bundle(path, trained)
    return path


@pytest.fixture
def storage(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / VERSION)
    return tmp_path


@pytest.fixture
def ledger(engine: Engine, bundle: Path) -> Iterator[Engine]:
    """An engine on a ledger that holds a champion and nothing else, emptied again afterwards."""
    with engine.begin() as conn:
        register_model(conn, location=VERSION, **load_bundle(bundle).record())
        activate_model(conn, VERSION)
    yield engine
    with engine.begin() as conn:
        empty_tables(conn)


@pytest.fixture
def environment(
    databases: DatabaseUrls, redis_user_url: str, storage: Path, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The settings of an installation with that ledger and that storage; a test may change them."""
    for name, url in databases.env().items():
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("REDIS_URL", redis_user_url)
    monkeypatch.setenv("MODEL_STORAGE_PATH", str(storage))
    monkeypatch.setenv("MAX_REQUEST_SIZE_MB", "1")
    monkeypatch.setattr("cli.checks.work._ANSWER_S", 0.2)
    return monkeypatch


@pytest.fixture
def doctor(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the doctor; returns its exit code and its findings, but for those that are well."""

    def run(*argv: str) -> tuple[int, Findings]:
        code = main(["--json", "doctor", *argv])
        report = json.loads(capsys.readouterr().out)
        assert report["exit_code"] == code
        assert report["sound"] is (code == 0)
        return code, [each for each in report["findings"] if each["level"] != "ok"]

    return run


def change(ledger: Engine, *statements: str, **values: object) -> None:
    with ledger.begin() as conn:
        for statement in statements:
            conn.execute(text(statement), values)


def add(ledger: Engine, build: Callable[..., Any], *args: Any, **values: Any) -> None:
    with ledger.begin() as conn:
        build(conn, *args, **values)


def of(findings: Findings, check: str) -> dict[str, Any]:
    (found,) = [each for each in findings if each["check"] == check]
    return found


# What is so in every test: no worker runs, and Postgres is set for speed.
ALWAYS = {"durability", "workers"}


def others(findings: Findings) -> Findings:
    return [each for each in findings if each["check"] not in ALWAYS and "no table outbox" not in each["said"]]


def test_an_installation_without_a_worker_lacks_nothing_else(doctor: Run, ledger: Engine) -> None:
    code, findings = doctor()
    assert code == 1
    assert others(findings) == []
    assert of(findings, "workers")["said"].startswith("No worker has answered")
    assert of(findings, "durability")["level"] == "warning"


class TestServers:
    def test_in_production_an_unsafe_postgres_is_a_problem(self, doctor: Run, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("ENVIRONMENT", "production")
        assert of(doctor()[1], "durability")["level"] == "problem"

    def test_without_postgres_the_rest_is_checked(self, doctor: Run, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("DATABASE_OWNER_URL", "postgresql://churn@127.0.0.1:1/churn")
        _, findings = doctor()
        assert {each["check"]: each["level"] for each in findings} == {"postgres": "away", "workers": "problem"}

    def test_without_redis_the_rest_is_checked(self, doctor: Run, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        code, findings = doctor()
        assert code == 4
        assert {each["check"] for each in findings} >= {"durability", "redis"}
        assert of(findings, "redis")["level"] == "away"

    def test_a_redis_that_drops_keys_and_keeps_nothing(
        self, doctor: Run, environment: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        valkey = Valkey(tmp_path / "redis", Port(free_port(), "-", "a test"), "secret", tmp_path / "redis.log")
        service = valkey.service()
        options = ("--maxmemory-policy", "allkeys-lru", "--appendonly", "no", "--maxmemory", "1mb")
        with running(replace(service, argv=(*service.argv, *options))):
            environment.setenv("REDIS_URL", valkey.user_url())
            _, findings = doctor()
        assert of(findings, "workers")["said"].startswith("The workers cannot be asked")
        levels = {each["check"]: each["level"] for each in others(findings)}
        assert levels == {"eviction": "problem", "append-only-file": "warning", "redis-memory": "warning"}

    def test_a_database_of_another_revision(
        self, doctor: Run, environment: pytest.MonkeyPatch, empty_postgres_url: str
    ) -> None:
        environment.setenv("DATABASE_OWNER_URL", empty_postgres_url)
        code, findings = doctor()
        assert code == 1
        assert "churn migrate up" in of(findings, "schema")["said"]

    def test_a_session_that_holds_a_transaction_open(
        self, doctor: Run, ledger: Engine, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setattr("cli.checks.postgres._IDLE_S", 0.0)
        environment.setattr("cli.checks.postgres._BLOCKED_S", 0.0)
        with ledger.connect() as idle:
            idle.execute(text("SELECT 1"))
            assert "do nothing" in of(doctor()[1], "sessions")["said"]

    def test_clocks_that_differ(self, doctor: Run, environment: pytest.MonkeyPatch) -> None:
        true = time.time
        environment.setattr("cli.checks.clocks.time.time", lambda: true() - 3600)
        clocks = [each for each in doctor()[1] if each["check"] == "clocks"]
        assert [each["level"] for each in clocks] == ["warning", "warning"]
        assert "3600 s ahead of" in clocks[0]["said"]

    def test_hints_that_nobody_takes(self, doctor: Run, redis_url: str, environment: pytest.MonkeyPatch) -> None:
        environment.setattr("cli.checks.work._LONG_QUEUE", 2)
        with closing(redis.Redis.from_url(redis_url)) as client:
            client.rpush(BATCH_QUEUES[0], "1", "2", "3")
            assert of(doctor()[1], "queues")["level"] == "warning"
            client.delete(BATCH_QUEUES[0])


class TestModels:
    def test_none_is_active(self, doctor: Run, ledger: Engine) -> None:
        change(ledger, "UPDATE models SET state = 'retired'")
        assert of(doctor()[1], "model")["said"] == "No model is active."

    def test_a_bundle_that_was_edited(self, doctor: Run, storage: Path) -> None:
        model = storage / VERSION / "model.txt"
        model.write_text(model.read_text().replace("1", "2", 1))
        assert "was changed" in of(doctor()[1], "model")["said"]

    def test_a_retired_model_that_a_batch_waits_for(self, doctor: Run, ledger: Engine) -> None:
        with ledger.begin() as conn:
            register_model(conn, version="gone", location="gone", sha256="0" * 64, metrics={}, manifest={})
        assert others(doctor()[1]) == []
        add(ledger, add_batch, model_version="gone")
        assert "Model gone cannot be used" in of(doctor()[1], "model")["said"]

    def test_a_disk_without_room_for_an_upload(self, doctor: Run, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("MAX_REQUEST_SIZE_MB", str(1 << 40))
        assert of(doctor()[1], "disk")["level"] == "warning"


class TestWork:
    @pytest.fixture(autouse=True)
    def _now(self, environment: pytest.MonkeyPatch) -> None:
        # Time passes in the ledger, not in the test.
        environment.setenv("RESCUE_INTERVAL_SECONDS", "0.1")

    def test_work_that_has_just_begun_is_well(self, doctor: Run, ledger: Engine) -> None:
        add(ledger, add_batch)
        add(ledger, add_upload, "upload")
        add(ledger, add_request, customer())
        add(ledger, claim)
        assert others(doctor()[1]) == []

    def test_a_lease_that_nobody_gives_back(self, doctor: Run, ledger: Engine) -> None:
        add(ledger, add_batch)
        add(ledger, claim)
        change(ledger, "UPDATE chunks SET lease_until = lease_until - interval '5 min' WHERE state = 'running'")
        assert "1 leases lapsed" in of(doctor()[1], "progress")["said"]

    @pytest.mark.parametrize("kind", ["chunk", "upload", "prediction"])
    def test_a_hint_that_nobody_sends_again(self, doctor: Run, ledger: Engine, kind: str) -> None:
        if kind == "chunk":
            add(ledger, add_batch)
        elif kind == "upload":
            add(ledger, add_upload)
        else:
            add(ledger, add_request, customer())
        change(
            ledger,
            "UPDATE chunks SET published_at = now() - interval '5 min'",
            "UPDATE batch_jobs SET plan_published_at = now() - interval '5 min'",
            "UPDATE prediction_requests SET published_at = now() - interval '5 min'",
        )
        if kind == "chunk":
            change(ledger, "UPDATE chunks SET published_at = NULL WHERE chunk_no = 1")
        found = of(doctor()[1], "progress")
        assert found["said"].startswith("1 chunks, inputs or predictions are due")

    def test_a_client_who_waits(self, doctor: Run, ledger: Engine) -> None:
        add(ledger, add_request, customer())
        change(ledger, "UPDATE prediction_requests SET submitted_at = now() - interval '5 min', published_at = now()")
        assert "1 single predictions wait" in of(doctor()[1], "progress")["said"]

    def test_a_batch_that_does_not_move(self, doctor: Run, ledger: Engine) -> None:
        an_hour_ago = "submitted_at = now() - interval '1 h', planned_at = now() - interval '1 h'"
        add(ledger, add_batch)
        add(ledger, add_batch, "held")
        change(ledger, f"UPDATE batch_jobs SET {an_hour_ago}", "UPDATE chunks SET last_error = 'it fails'")
        change(ledger, "UPDATE batch_jobs SET status = 'paused' WHERE batch_id = 'held'")
        found = of(doctor()[1], "stuck-batches")
        assert (found["level"], [each["batch_id"] for each in found["details"]]) == ("problem", ["b"])
        assert "last error: it fails" in found["said"]
        add(ledger, add_batch, "moves")
        assert of(doctor()[1], "stuck-batches")["level"] == "warning"

    def test_what_belongs_to_nothing(self, doctor: Run, ledger: Engine) -> None:
        for batch_id in ("b", "c", "d", "kept"):
            add(ledger, add_batch, batch_id, failed=1)
            add(ledger, score, batch_id)
        change(
            ledger,
            "DELETE FROM batch_jobs WHERE batch_id IN ('b', 'c')",
            "DELETE FROM chunk_inputs WHERE batch_id = 'd' AND chunk_no = 1",
            "DELETE FROM chunks WHERE batch_id = 'kept' AND chunk_no = 1",
        )
        assert of(doctor()[1], "orphans")["said"] == (
            "There are 2 batches whose predictions are there without them, 2 batches whose row errors are there without them,"
            " 1 open chunks without an input, 1 open batches without all of their chunks."
        )

    def test_what_should_have_been_cleared_away(self, doctor: Run, ledger: Engine) -> None:
        add(ledger, add_upload)
        change(
            ledger,
            "UPDATE batch_jobs SET status = 'cancelled', completed_at = now() - interval '1 h'",
            "INSERT INTO idempotency_keys VALUES ('k', repeat('0', 64), 'b', now() - interval '3 days')",
        )
        found = of(doctor()[1], "leftovers")
        assert "1 uploads of batches" in found["said"]
        assert "1 idempotency keys" in found["said"]


class TestPromises:
    @pytest.fixture
    def lost_row(self, ledger: Engine) -> datetime:
        """A completed batch that has lost a row; when it was submitted."""
        add(ledger, add_batch, sizes=(3,))
        add(ledger, score)
        with ledger.begin() as conn:
            batch = get_batch(conn, "b")
            conn.execute(text("DELETE FROM prediction_history WHERE id = :id"), {"id": batch.first_prediction_id + 1})
        return batch.submitted_at

    @pytest.mark.usefixtures("lost_row")
    def test_a_broken_one_is_told(self, doctor: Run) -> None:
        code, findings = doctor()
        (found,) = others(findings)
        assert code == 1
        assert found["said"].startswith("I1 does not hold. Batch b ended as completed with 3 rows")
        assert found["details"][0]["details"]["predictions"] == 2

    def test_of_the_time_that_was_asked_for(self, doctor: Run, lost_row: datetime) -> None:
        assert others(doctor("--since", "1h")[1]) != []
        assert others(doctor("--since", (lost_row + timedelta(seconds=1)).isoformat())[1]) == []
        assert others(doctor("--until", f"{lost_row.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")[1]) == []

    @pytest.mark.usefixtures("environment")
    def test_a_time_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--since", "yesterday"]) == 2
        assert "24h or 7d" in capsys.readouterr().err

    def test_scores_that_are_not_the_model_s(self, doctor: Run, ledger: Engine) -> None:
        add(ledger, add_batch, sizes=(3, 4))
        add(ledger, score, "b", 0)
        add(ledger, score, "b", 1)
        code, findings = doctor("--rescore", "5")
        (found,) = others(findings)
        assert code == 1
        assert found["said"].startswith("I5 does not hold.")
        assert len(found["details"]) == 5
        expected = found["details"][0]["details"]["expected"]
        change(ledger, "UPDATE prediction_history SET churn_probability = :p", p=expected)
        assert others(doctor("--rescore", "100")[1]) == []

    def test_scores_of_customers_that_are_only_named(self, doctor: Run, ledger: Engine) -> None:
        add(ledger, add_batch, sizes=(3,), by_reference=True)
        add(ledger, score)
        with ledger.begin() as conn:
            for row in range(3):
                put_customer(conn, customer(f"C-{row}"))
        (found,) = others(doctor("--rescore", "5")[1])
        assert (found["level"], found["said"][:18]) == ("skipped", "I5 was not checked")


class TestTheReport:
    def test_each_finding_has_a_reason_a_remedy_and_a_section(
        self, doctor: Run, environment: pytest.MonkeyPatch, empty_postgres_url: str
    ) -> None:
        environment.setenv("DATABASE_OWNER_URL", empty_postgres_url)
        guide = (ROOT / GUIDE).read_text()
        for each in doctor()[1]:
            assert each["why"]
            assert each["remedy"]
            assert f"\n### {each['check']}\n" in guide

    @pytest.mark.usefixtures("environment")
    def test_in_words(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert f"    More: {GUIDE}#workers" in lines
        assert lines[-1].startswith("Not sound: 1 problems, 1 warnings")

    @pytest.mark.usefixtures("environment")
    def test_quiet_tells_only_what_is_not_well(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--quiet"]) == 1
        out = capsys.readouterr().out
        assert "\N{CHECK MARK}" not in out
        assert "No worker has answered" in out
