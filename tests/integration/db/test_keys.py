"""Keys in the database: a digest, never a secret; made, rotated with an overlap, revoked; when they were last used."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from db.errors import Conflict, NotFound
from db.keys import add_key, ensure_key, get_key, list_keys, look_up_key, note_use, revoke_key, rotate_key
from db.teams import ensure_team, list_teams
from schemas.key_text import KeyText, new_key
from schemas.scopes import Scope


def make(conn: Connection, key: KeyText | None = None, **more: Any) -> KeyText:
    made = key or new_key()
    add_key(conn, made, **{"team": "growth", "scopes": [Scope.PREDICT], "name": "n", "created_by": "cli", **more})
    return made


def rotate(conn: Connection, key: KeyText, *, overlap_s: float = 60) -> KeyText:
    successor = new_key()
    rotate_key(conn, key.key_id, successor, overlap_s=overlap_s, created_by="cli")
    return successor


def is_live(conn: Connection, key: KeyText) -> bool:
    """Whether a request with it is let in, which the list has to agree with."""
    known = look_up_key(conn, key.key_id)
    assert known is not None
    lives = not known.is_revoked and not known.is_expired
    assert get_key(conn, key.key_id).is_live is lives
    return lives


def let_pass(conn: Connection, key: KeyText, seconds: float) -> None:
    """Move a key's times into the past."""
    conn.execute(
        text("""
            UPDATE api_keys SET created_at = created_at - :by, expires_at = expires_at - :by, last_used_at = last_used_at - :by
             WHERE key_id = :key_id
        """),
        {"by": timedelta(seconds=seconds), "key_id": key.key_id},
    )


def test_a_key_is_found_with_its_digest_team_and_scopes(conn: Connection) -> None:
    key = make(conn, scopes=[Scope.PREDICT, Scope.ADMIN, Scope.PREDICT])
    known = look_up_key(conn, key.key_id)
    assert known is not None
    assert known.secret_sha256 == hashlib.sha256(key.secret.encode()).digest()
    assert (known.team, set(known.scopes)) == ("growth", {"predict", "admin"})
    assert look_up_key(conn, new_key().key_id) is None


def test_a_dump_holds_no_secret(conn: Connection) -> None:
    key = make(conn)
    stored = str(conn.execute(text("SELECT api_keys::text FROM api_keys")).scalar_one())
    assert key.key_id in stored
    assert key.secret not in stored
    assert key.secret.encode().hex() not in stored


def test_a_team_comes_to_be_with_its_first_key(conn: Connection) -> None:
    assert list_teams(conn) == ["default"]
    make(conn)
    make(conn)
    ensure_team(conn, "growth")
    assert list_teams(conn) == ["default", "growth"]
    numbers = conn.execute(text("SELECT team_no FROM teams ORDER BY team")).scalars().all()
    assert numbers[0] == 0 < numbers[1]


def test_a_revoked_key_is_dead_at_once_and_stays_in_the_list(conn: Connection) -> None:
    key, other = make(conn), make(conn)
    assert is_live(conn, key)
    first = revoke_key(conn, key.key_id)
    assert not is_live(conn, key)
    assert is_live(conn, other)
    assert revoke_key(conn, key.key_id).revoked_at == first.revoked_at
    assert {each.key_id: each.status for each in list_keys(conn)} == {key.key_id: "revoked", other.key_id: "live"}


def test_a_key_ends_by_itself_when_its_time_is_over(conn: Connection) -> None:
    key = make(conn, expires_in_s=60)
    let_pass(conn, key, 59)
    assert is_live(conn, key)
    let_pass(conn, key, 2)
    assert not is_live(conn, key)
    assert get_key(conn, key.key_id).status == "expired"


def test_while_a_key_is_rotated_both_work_until_the_overlap_is_over(conn: Connection) -> None:
    old = make(conn, scopes=[Scope.PREDICT, Scope.MODELS_READ])
    new = rotate(conn, old, overlap_s=60)
    assert is_live(conn, old)
    assert is_live(conn, new)
    before, after = get_key(conn, old.key_id), get_key(conn, new.key_id)
    assert (after.team, after.name, after.scopes) == (before.team, before.name, before.scopes)
    assert (before.replaced_by, after.replaces) == (new.key_id, old.key_id)
    let_pass(conn, old, 61)
    assert not is_live(conn, old)
    assert is_live(conn, new)


def test_a_rotation_without_an_overlap_ends_the_old_key_at_once(conn: Connection) -> None:
    old = make(conn)
    new = rotate(conn, old, overlap_s=0)
    assert not is_live(conn, old)
    assert is_live(conn, new)


def test_an_overlap_does_not_prolong_a_life_and_the_new_key_has_a_whole_one(conn: Connection) -> None:
    old = make(conn, expires_in_s=100)
    let_pass(conn, old, 90)
    new = rotate(conn, old, overlap_s=3_600)
    let_pass(conn, old, 11)
    assert not is_live(conn, old)
    let_pass(conn, new, 90)
    assert is_live(conn, new)
    let_pass(conn, new, 11)
    assert not is_live(conn, new)


def test_what_has_ended_or_was_rotated_cannot_be_rotated(conn: Connection) -> None:
    old = make(conn)
    new = rotate(conn, old)
    with pytest.raises(Conflict, match=new.key_id) as caught:
        rotate(conn, old)
    assert caught.value.code == "key_rotated"
    revoke_key(conn, new.key_id)
    with pytest.raises(Conflict, match="revoked") as caught:
        rotate(conn, new)
    assert caught.value.code == "key_ended"


def test_what_is_not_there_is_said_to_be_missing(conn: Connection) -> None:
    missing = new_key()
    for ask in (lambda: get_key(conn, missing.key_id), lambda: revoke_key(conn, missing.key_id), lambda: rotate(conn, missing)):
        with pytest.raises(NotFound, match="there is no key"):
            ask()


def test_a_key_that_is_to_be_there_is_made_once_and_never_revived(conn: Connection) -> None:
    key = new_key()
    given: dict[str, Any] = {"team": "default", "scopes": Scope, "name": "make up", "created_by": "make up"}
    stored, is_new = ensure_key(conn, key, **given)
    assert stored.is_live
    assert is_new
    revoke_key(conn, key.key_id)
    stored, is_new = ensure_key(conn, key, **given)
    assert stored.status == "revoked"
    assert not is_new
    assert len(list_keys(conn)) == 1


def test_a_use_is_noted_at_most_once_a_minute(conn: Connection) -> None:
    key = make(conn)
    known = look_up_key(conn, key.key_id)
    assert known is not None
    assert known.is_stale
    assert note_use(conn, key.key_id)
    first = get_key(conn, key.key_id).last_used_at
    known = look_up_key(conn, key.key_id)
    assert known is not None
    assert not known.is_stale
    assert not note_use(conn, key.key_id)
    assert get_key(conn, key.key_id).last_used_at == first
    let_pass(conn, key, 61)
    assert note_use(conn, key.key_id)


def test_the_list_goes_by_pages_and_by_team(conn: Connection) -> None:
    mine = [make(conn).key_id for _ in range(3)]
    make(conn, team="risk")
    first = list_keys(conn, team="growth", limit=2)
    rest = list_keys(conn, team="growth", limit=2, before=(first[-1].created_at, first[-1].key_id))
    assert [each.key_id for each in (*first, *rest)] == mine[::-1]
    assert len(list_keys(conn)) == 4
