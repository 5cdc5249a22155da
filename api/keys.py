"""API keys of every team, for administrators: made, shown without their secrets, rotated, revoked."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify

from api.answers import key_answer
from api.auditing import audit
from api.bodies import load, read_json
from api.caller import caller
from api.nouns import Noun, headers
from api.paging import after, page_of
from api.resources import resources
from db.audit import Act
from db.engine import each_alone
from db.keys import add_key, get_key, list_keys, revoke_key, rotate_key
from schemas.key import (
    KeyListQuerySchema,
    KeyPageSchema,
    KeyRotationQuerySchema,
    KeySchema,
    KeySecretSchema,
    NewKeySchema,
    RotatedKeySchema,
)
from schemas.key_text import new_key
from schemas.moments import rfc3339
from schemas.paths import key_path

keys = Noun("keys", __name__, description="API keys, for administrators: of every team, and never their secrets.")


@keys.post("/keys")
@keys.doc(requestBody={"required": True, "content": {"application/json": {"schema": NewKeySchema}}})
@keys.response(201, KeySecretSchema, headers=headers(location="The key's description."))
@keys.problems(_400="The body cannot be parsed.", _422="Not valid.")
def post_key() -> Response:
    """Make a key; the answer holds it whole, and nothing will again."""
    given, key = load(NewKeySchema(), read_json(resources().settings)), new_key()
    with resources().engine.begin() as conn:
        made = add_key(
            conn,
            key,
            team=given.get("team", caller().team),
            scopes=given["scopes"],
            name=given["name"],
            created_by=caller().id,
            expires_in_s=given.get("expires_in"),
        )
        audit(conn, Act.KEY_CREATED, made.key_id, team_of_key=made.team, scopes=list(made.scopes))
    return _made(key.text, key_answer(made))


@keys.get("/keys")
@keys.query(KeyListQuerySchema)
@keys.response(200, KeyPageSchema, headers=headers(link="The next page, rel=next."))
def get_keys(query: dict[str, Any]) -> Response:
    """List keys, the newest first, those that ended too."""
    team, limit = query.get("team"), query["limit"]
    with each_alone(resources().engine) as conn:
        found = list_keys(conn, team=team, limit=limit + 1, before=after(query.get("cursor")))
    return page_of("keys", found, key_answer, lambda each: (each.created_at, each.key_id), limit=limit, team=team)


@keys.get("/keys/<key_id>")
@keys.response(200, KeySchema)
@keys.problems(_404="No such key.")
def get_one_key(key_id: str) -> Response:
    """Describe a key."""
    with each_alone(resources().engine) as conn:
        return jsonify(key_answer(get_key(conn, key_id)))


@keys.delete("/keys/<key_id>")
@keys.response(204)
@keys.problems(_404="No such key.")
def delete_key(key_id: str) -> Response:
    """Revoke a key: the next request with it is refused. It stays in the list."""
    with resources().engine.begin() as conn:
        revoke_key(conn, key_id)
        audit(conn, Act.KEY_REVOKED, key_id)
    return Response(status=204)


@keys.post("/keys/<key_id>/rotate")
@keys.query(KeyRotationQuerySchema)
@keys.response(201, RotatedKeySchema, headers=headers(location="The new key's description."))
@keys.problems(_404="No such key.", _409="It has ended, or was rotated before.")
def post_rotation(query: dict[str, Any], key_id: str) -> Response:
    """Make a key in another's place: of the same team, name, scopes and lifetime. Both work until the overlap is over."""
    key = new_key()
    with resources().engine.begin() as conn:
        old, made = rotate_key(conn, key_id, key, overlap_s=query["overlap_seconds"], created_by=caller().id)
        audit(conn, Act.KEY_ROTATED, key_id, successor=made.key_id)
    assert old.expires_at is not None  # noqa: S101 - a rotation sets it
    return _made(key.text, {**key_answer(made), "previous_expires_at": rfc3339(old.expires_at)})


def _made(text: str, described: dict[str, Any]) -> Response:
    answer = jsonify({**described, "key": text})
    answer.status_code = 201
    answer.headers["Location"] = key_path(described["key_id"])
    return answer
