"""Passwords are made once, kept to ourselves, and never shown by accident."""

from __future__ import annotations

import json
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from deploy.local.credentials import Credentials, load_credentials
from deploy.local.errors import LocalError
from schemas.key_text import read_key
from settings import load_settings


def test_passwords_are_made_once_and_only_we_may_read_them(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = load_credentials(path)
    assert load_credentials(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(asdict(made).values())) == len(asdict(made)) == 10


@pytest.mark.parametrize(
    "lacking", ["webhook", "api_key", "postgres_api", "postgres_worker", "redis_user", "webhook_encryption"]
)
def test_a_file_of_an_earlier_version_keeps_its_passwords_and_gets_what_it_lacks(tmp_path: Path, lacking: str) -> None:
    path = tmp_path / "credentials.json"
    before = asdict(load_credentials(path))
    path.write_text(json.dumps({name: value for name, value in before.items() if name != lacking}))
    after = asdict(load_credentials(path))
    assert after == {**before, lacking: after[lacking]}
    assert after[lacking] != before[lacking]
    assert asdict(load_credentials(path)) == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_key_is_one_that_the_api_takes() -> None:
    key = read_key(Credentials().api_key)
    assert key is not None
    assert key.text == f"{key.key_id}.{key.secret}"


def test_the_secret_of_webhooks_is_one_that_the_settings_take() -> None:
    made = Credentials()
    servers = {"DATABASE_URL": "postgresql://d/d", "REDIS_URL": "redis://r/0"}
    read = load_settings(servers | {"WEBHOOK_SECRET": made.webhook, "WEBHOOK_ENCRYPTION_KEY": made.webhook_encryption})
    assert (read.webhook_secret, read.webhook_encryption_key) == ((made.webhook,), (made.webhook_encryption,))


def test_a_representation_shows_no_password() -> None:
    assert repr(Credentials()) == "Credentials()"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"redis": '])
def test_a_damaged_file_is_named_rather_than_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises(LocalError, match=r"credentials\.json cannot be read"):
        load_credentials(path)
    assert path.read_text() == content
