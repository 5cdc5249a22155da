"""The key that tests open the API with, unless they are about keys: of the default team, with every scope."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from db.keys import ensure_key
from schemas.key_text import KeyText
from schemas.scopes import DEFAULT_TEAM, Scope

TEST_KEY: Final = KeyText("churn_00000000000000ff", "not-a-secret-but-as-long-as-every-secret-is")
KEY_HEADER: Final = {"X-API-Key": TEST_KEY.text}
"""What opens everything."""


def add_test_key(conn: Connection) -> None:
    """Have a database know that key."""
    ensure_key(conn, TEST_KEY, team=DEFAULT_TEAM, scopes=Scope, name="tests", created_by="tests")
