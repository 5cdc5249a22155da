"""API keys over HTTP: what is asked of a new one, and what is shown of those there are."""

from __future__ import annotations

from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields
from marshmallow.validate import Length, Range

from schemas.batch import CURSOR, MAX_PAGE
from schemas.scopes import MAX_NAME, TEAM_PATTERN, Scope, is_team

DEFAULT_OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 30 * 86_400
MAX_LIFETIME_S: Final = 10 * 366 * 86_400


def check_team(name: str) -> None:
    """Refuse what can be no team's name.

    Raises
    ------
    ValidationError
    """
    if not is_team(name):
        raise ValidationError(
            f"Must be 1 to {MAX_NAME} letters, digits, dots, hyphens or underscores, the first one of the former."
        )


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise ValidationError("Must be printable text on one line.")


def _check_scopes(scopes: list[Scope]) -> None:
    if len(set(scopes)) != len(scopes):
        raise ValidationError("Each scope may be named once.")


class NewKeySchema(Schema):
    """A key to make."""

    class Meta:
        unknown = RAISE

    name = fields.String(
        required=True,
        validate=[Length(1, 100), _check_printable],
        metadata={"description": "Who or what uses it, for people.", "example": "nightly export"},
    )
    scopes = fields.List(
        fields.Enum(Scope, by_value=True),
        required=True,
        validate=[Length(min=1), _check_scopes],
        metadata={"uniqueItems": True},
    )
    team = fields.String(
        validate=check_team, metadata={"description": "Whose key it is; the caller's team by default.", "pattern": TEAM_PATTERN}
    )
    expires_in = fields.Integer(
        validate=Range(1, MAX_LIFETIME_S), metadata={"description": "Seconds until it ends by itself; never by default."}
    )


class KeySchema(Schema):
    """A key without its secret, which nobody can show again."""

    key_id = fields.String(required=True, metadata={"example": "churn_0123456789abcdef"})
    team = fields.String(required=True)
    name = fields.String(required=True)
    scopes = fields.List(fields.String(), required=True)
    status = fields.String(required=True, metadata={"enum": ["live", "expired", "revoked"]})
    created_at = fields.String(required=True, metadata={"format": "date-time"})
    created_by = fields.String(required=True, metadata={"description": "The key that made it, or `cli`."})
    expires_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    revoked_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    last_used_at = fields.String(
        required=True, allow_none=True, metadata={"format": "date-time", "description": "To within a minute or so."}
    )
    replaces = fields.String(required=True, allow_none=True, metadata={"description": "The key that it was made to replace."})
    replaced_by = fields.String(
        required=True, allow_none=True, metadata={"description": "The key that was made to replace it."}
    )
    links: fields.Field[Any] = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class KeySecretSchema(KeySchema):
    """A key that was just made."""

    key = fields.String(required=True, metadata={"description": "Shown this once.", "example": "churn_0123456789abcdef.SECRET"})


class RotatedKeySchema(KeySecretSchema):
    """A key that was just made in another's place."""

    previous_expires_at = fields.String(
        required=True, metadata={"format": "date-time", "description": "Until then the key before works as well."}
    )


class KeyPageSchema(Schema):
    """A page of keys, the newest first."""

    keys = fields.List(fields.Nested(KeySchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True, metadata={"description": "Also as Link rel=next."})


class KeyListQuerySchema(Schema):
    """Which keys, and which page of them."""

    team = fields.String(
        validate=check_team, metadata={"description": "Only this team's; all teams' by default.", "pattern": TEAM_PATTERN}
    )
    limit = fields.Integer(load_default=50, validate=Range(1, MAX_PAGE))
    cursor = fields.String(metadata=CURSOR)


class KeyRotationQuerySchema(Schema):
    """How long the key before goes on working."""

    overlap_seconds = fields.Integer(
        load_default=DEFAULT_OVERLAP_S,
        validate=Range(0, MAX_OVERLAP_S),
        metadata={
            "description": "Both keys work for so long, so that those who use it can change over; 0 ends the old one at once."
        },
    )
