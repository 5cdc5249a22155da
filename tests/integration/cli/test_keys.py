"""`churn keys`, through the command itself and on a real Postgres: by its database alone, before any key is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

from cli.main import main
from db.keys import look_up_key
from schemas.key_text import read_key
from schemas.scopes import Scope

Run = Callable[..., int]


@pytest.fixture
def churn(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `churn` with nothing but a database."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    return lambda *argv: main(argv)


@pytest.fixture(autouse=True)
def _no_keys(engine: Engine) -> Iterator[None]:
    yield
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM api_keys"))


@pytest.fixture
def made(churn: Run, capsys: pytest.CaptureFixture[str]) -> str:
    """The id of a key that the command made."""
    assert churn("keys", "create", "ci", "--scope", "predict", "--team", "growth", "--json") == 0
    return str(json.loads(capsys.readouterr().out)["key_id"])


def test_a_key_is_shown_once_and_opens_what_was_asked(churn: Run, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert churn("keys", "create", "first", "--scope", "all") == 0
    shown = capsys.readouterr()
    key = read_key(next(word for word in shown.out.split() if word.startswith("churn_") and "." in word))
    assert key is not None
    with engine.connect() as conn:
        known = look_up_key(conn, key.key_id)
    assert known is not None
    assert (known.secret_sha256, known.team, set(known.scopes)) == (key.sha256, "default", set(Scope))
    assert "not shown again" in shown.err
    assert churn("keys", "list") == 0
    listed = capsys.readouterr().out
    assert key.key_id in listed
    assert key.secret not in listed


def test_the_list_shows_how_each_stands(churn: Run, made: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert churn("keys", "create", "other", "--scope", "predict", "--days", "1.5") == 0
    assert churn("keys", "revoke", made) == 0
    capsys.readouterr()
    assert churn("keys", "list", "--json") == 0
    listed = {key["name"]: key for key in json.loads(capsys.readouterr().out)["keys"]}
    assert (listed["ci"]["status"], listed["ci"]["team"]) == ("revoked", "growth")
    assert (listed["other"]["status"], listed["other"]["expires_at"] is None) == ("live", False)
    assert churn("keys", "list", "--team", "growth") == 0
    assert "other" not in capsys.readouterr().out


def test_a_rotation_shows_the_new_key_and_how_long_the_old_one_works(
    churn: Run, made: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert churn("keys", "rotate", made, "--overlap", "60", "--json") == 0
    new = json.loads(capsys.readouterr().out)
    assert (new["replaces"], new["team"], new["scopes"]) == (made, "growth", ["predict"])
    assert read_key(new["key"]) is not None
    assert churn("keys", "rotate", made) == 6
    assert new["key_id"] in capsys.readouterr().err
    assert churn("keys", "rotate", new["key_id"]) == 0
    assert f"{new['key_id']} works until" in capsys.readouterr().err


def test_a_key_that_was_pasted_whole_is_revoked_and_not_repeated(churn: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert churn("keys", "create", "ci", "--scope", "predict", "--json") == 0
    key = read_key(json.loads(capsys.readouterr().out)["key"])
    assert key is not None
    assert churn("keys", "revoke", key.text) == 0
    assert churn("keys", "revoke", "churn_nobody.secret") == 5
    shown = capsys.readouterr()
    assert key.secret not in shown.out + shown.err
    assert "secret" not in shown.err.replace(key.secret, "")


@pytest.mark.parametrize(
    "argv",
    [
        ("create", "x"),
        ("create", "x", "--scope", "everything"),
        ("create", "x", "--scope", "predict", "--team", "no/team"),
        ("create", "x", "--scope", "predict", "--days", "0"),
    ],
)
def test_what_cannot_be_a_key_is_refused(churn: Run, argv: tuple[str, ...]) -> None:
    assert churn("keys", *argv) == 2
