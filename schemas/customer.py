"""One customer as JSON: the marshmallow schema generated from the feature declaration, and the reader built on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from marshmallow import RAISE, Schema, ValidationError, fields, missing

from schemas.faults import MAX_UNKNOWN_FIELDS, FieldFault, explain, explain_unknown, show
from schemas.values import Value, read_customer_id, read_value
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, MAX_CUSTOMER_ID_LENGTH, Code, Feature, Kind

Customer: TypeAlias = dict[str, Value | None]
"""A valid customer: every name of `COLUMNS`, in that order, money rounded to the cent, None where a value is missing."""

_ERRORS: Final[dict[str, str | list[Any] | dict[Any, Any]]] = {"required": Code.MISSING.value, "null": Code.MISSING.value}


def _checked(value: Value | Code | None) -> Value | None:
    """Turn a code into marshmallow's error, whose only message is the code's name."""
    if isinstance(value, Code):
        raise ValidationError(value.value)
    return value


class CustomerIdField(fields.String):
    """A customer's id."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return _checked(read_customer_id(value))


class _FeatureField(fields.Field[Any]):
    """A feature's value; the subclasses differ only in what OpenAPI calls them."""

    def __init__(self, feature: Feature, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.feature = feature

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return _checked(read_value(self.feature, value))


class IntegerField(_FeatureField, fields.Integer):
    """A whole number."""


class DecimalField(_FeatureField, fields.Float):
    """An amount of money, kept to the cent."""


class BooleanField(_FeatureField, fields.Boolean):
    """True or false."""


class CategoryField(_FeatureField, fields.String):
    """One of a few names."""


_FIELD: Final[Mapping[Kind, type[_FeatureField]]] = {
    Kind.INTEGER: IntegerField,
    Kind.DECIMAL: DecimalField,
    Kind.BOOLEAN: BooleanField,
    Kind.CATEGORY: CategoryField,
}


def _field_of(feature: Feature) -> _FeatureField:
    return _FIELD[feature.kind](
        feature,
        required=not feature.nullable,
        allow_none=feature.nullable,
        load_default=None if feature.nullable else missing,
        error_messages=_ERRORS,
        metadata=_metadata_of(feature),
    )


def _metadata_of(feature: Feature) -> dict[str, Any]:
    """What OpenAPI says of a feature: its meaning, unit, bounds, choices and an example."""
    metadata: dict[str, Any] = {"description": feature.description, "example": feature.example}
    if feature.unit:
        metadata["description"] = f"{feature.description} In {feature.unit}."
        metadata["x-unit"] = feature.unit
    if feature.low is not None and feature.high is not None:
        number = int if feature.kind is Kind.INTEGER else float
        metadata |= {"minimum": number(feature.low), "maximum": number(feature.high)}
    if feature.categories:
        metadata["enum"] = list(feature.categories)
    return metadata


_FIELDS: Final[Mapping[str, fields.Field[Any]]] = {
    CUSTOMER_ID: CustomerIdField(
        required=True,
        error_messages=_ERRORS,
        metadata={
            "description": "The caller's own id of the customer; spaces around it are dropped.",
            "minLength": 1,
            "maxLength": MAX_CUSTOMER_ID_LENGTH,
            "pattern": r"\S",
            "example": "C-000123",
        },
    ),
    **{feature.name: _field_of(feature) for feature in FEATURES},
}


class CustomerSchema(Schema.from_dict(dict(_FIELDS), name="CustomerFields")):  # type: ignore[misc]
    """A customer in full: an id and the 15 features, unknown fields refused.

    The only message of each error is a `Code`'s name; `read_customer` turns them into sentences.
    """

    class Meta:
        unknown = RAISE

    error_messages: Final = {"unknown": Code.UNKNOWN_FIELD.value, "type": Code.WRONG_TYPE.value}


_SCHEMA: Final = CustomerSchema()


def read_customer(given: object) -> Customer | list[FieldFault]:
    """Read one customer from a parsed JSON value.

    Parameters
    ----------
    given : object
        What the JSON decoder returned; anything but an object is a fault of its own.

    Returns
    -------
    Customer or list of FieldFault
        The typed customer, or every field's first fault: the known fields in the order of `COLUMNS`, then up to
        `MAX_UNKNOWN_FIELDS` unknown ones in the order given.
    """
    if not isinstance(given, Mapping):
        return [FieldFault(None, Code.WRONG_TYPE, explain(None, Code.WRONG_TYPE), show(given))]
    try:
        loaded = _SCHEMA.load(given)
    except ValidationError as error:
        return _faults_of(given, error.messages_dict)
    return {name: loaded[name] for name in COLUMNS}


def unknown_faults(given: Mapping[str, object]) -> list[FieldFault]:
    """The faults of fields that a customer does not have, the first `MAX_UNKNOWN_FIELDS` of them."""
    unknown = [name for name in given if name not in _FIELDS][:MAX_UNKNOWN_FIELDS]
    return [FieldFault(show(name), Code.UNKNOWN_FIELD, explain_unknown(name), show(given[name])) for name in unknown]


def _faults_of(given: Mapping[str, object], messages: Mapping[str, list[str]]) -> list[FieldFault]:
    known = [(name, Code(messages[name][0])) for name in COLUMNS if name in messages]
    return [FieldFault(name, code, explain(name, code), show(given.get(name))) for name, code in known] + unknown_faults(given)
