"""`churn database grant` and `churn audit`, on a real Postgres and through the command itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from cli.main import main
from db.audit import Act, Actor, customer_object, record
from deploy.local.postgres import API_ROLE, WORKER_ROLE
from tests.factories import empty_tables

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def churn(
    engine: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run `churn --json` as the owner of a database; returns its exit code and what it wrote."""
    monkeypatch.setenv("DATABASE_OWNER_URL", postgres_url)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")

    def run(*argv: str) -> tuple[int, dict[str, Any]]:
        code = main(["--json", *argv])
        written = capsys.readouterr()
        return code, json.loads(written.out or written.err)

    yield run
    with engine.begin() as conn:
        empty_tables(conn)
        conn.execute(text("DELETE FROM api_keys"))


def acts(found: dict[str, Any]) -> list[str]:
    return [entry["act"] for entry in found["entries"]]


class TestGrant:
    def test_roles_that_are_there_get_their_rights(self, churn: Run) -> None:
        code, said = churn("database", "grant")
        assert (code, said) == (0, {"api_role": API_ROLE, "worker_role": WORKER_ROLE, "made": {}})

    def test_an_owner_that_may_make_none_is_told_what_to_run(self, churn: Run) -> None:
        code, said = churn("database", "grant", "--api-role", "another_api")
        assert code != 0
        assert 'CREATE ROLE "another_api" LOGIN PASSWORD' in str(said)

    def test_a_role_that_is_missing_is_made_and_recorded(self, churn: Run, postgres: Any) -> None:
        with postgres.as_superuser() as cursor:
            cursor.execute("ALTER ROLE churn CREATEROLE")
        try:
            code, said = churn("database", "grant", "--worker-role", "another_worker")
            assert code == 0
            assert said["made"].keys() == {"another_worker"}
            assert said["made"]["another_worker"].startswith("postgresql://another_worker:")
            assert [entry["object"] for entry in churn("audit", "list")[1]["entries"]] == ["another_worker"]
            assert churn("database", "grant")[0] == 0
        finally:
            with postgres.as_superuser() as cursor:
                cursor.execute("ALTER ROLE churn NOCREATEROLE")
                cursor.execute("DROP ROLE IF EXISTS another_worker")


class TestAudit:
    def test_what_an_operator_does_is_recorded(self, churn: Run) -> None:
        _, key = churn("keys", "create", "nightly", "--scope", "predict")
        churn("keys", "rotate", key["key_id"])
        churn("keys", "revoke", key["key_id"])
        code, found = churn("audit", "list", "--object", key["key_id"])
        assert (code, acts(found)) == (0, ["key.revoked", "key.rotated", "key.created"])
        assert {entry["actor"] for entry in found["entries"]} == {"cli"}
        assert key["key"].partition(".")[2] not in json.dumps(found)

    def test_it_is_filtered_and_forgotten(self, churn: Run, engine: Engine) -> None:
        with engine.begin() as conn:
            record(conn, Actor("k", "default", "r"), Act.BATCH_SUBMITTED, "b")
            record(conn, Actor("k", "default", "r"), Act.CUSTOMER_DELETED, customer_object("C-1"))
        assert acts(churn("audit", "list", "--customer", "C-1")[1]) == ["customer.deleted"]
        assert acts(churn("audit", "list", "--act", "batch.submitted", "--team", "default", "--since", "1h")[1]) == [
            "batch.submitted"
        ]
        assert acts(churn("audit", "list", "--actor", "nobody")[1]) == []
        assert churn("audit", "forget", "--before", "0s", "--yes")[1]["forgotten"] == 2
        assert acts(churn("audit", "list")[1]) == ["audit.forgotten"]
