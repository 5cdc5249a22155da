"""The one declaration of a customer: each feature's name, kind, unit, bounds, categories and whether it may be missing.

The marshmallow schema, the columnar reader, the feature matrix, the check of the tables and OpenAPI all read this module, so a
feature is added or changed here and nowhere else. The order of `FEATURES` is the order of the matrix's columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

MAX_CUSTOMER_ID_LENGTH: Final = 50
MAX_CELL_LENGTH: Final = 1_000
"""Characters that any one text cell may have; no valid value comes near it."""

TRUE_WORDS: Final = frozenset({"true", "yes", "1", "t", "y"})
FALSE_WORDS: Final = frozenset({"false", "no", "0", "f", "n"})
MISSING_WORDS: Final = frozenset({"", "null", "na", "n/a", "none"})
"""Text cells of a file that mean "missing"; compared without regard to case."""


class Kind(StrEnum):
    """How a feature is read and what its column in the matrix holds."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    CATEGORY = "category"


class Code(StrEnum):
    """Why a row is refused or could not be scored; stable names that clients may switch on."""

    MISSING = "missing"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    NOT_ALLOWED = "not_allowed"
    TOO_LONG = "too_long"
    MALFORMED_ROW = "malformed_row"
    DUPLICATE_CUSTOMER = "duplicate_customer"
    CUSTOMER_NOT_FOUND = "customer_not_found"
    CUSTOMER_DELETED = "customer_deleted"
    SCORING_FAILED = "scoring_failed"


class Finding(StrEnum):
    """Data-quality findings that do not stop a row."""

    TOTAL_BELOW_TENURE = "total_charges_below_tenure"


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a customer.

    Attributes
    ----------
    low, high : Decimal or None
        Inclusive bounds in the feature's unit; None for booleans and categories. A decimal is kept to the cent, and its bounds
        apply to the rounded value.
    categories : tuple of str
        The allowed values as they are stored; a category's code in the matrix is its place in this tuple.
    nullable : bool
        Whether the value may be missing; a missing value is NaN in the matrix, which LightGBM scores natively.
    fold_case : bool
        Whether a category is compared without regard to case.
    ignored_suffix : str
        A suffix of a category that is accepted and dropped.
    precision : int
        Digits of a decimal in the tables, two of them after the point.
    """

    name: str
    kind: Kind
    description: str
    unit: str = ""
    low: Decimal | None = None
    high: Decimal | None = None
    categories: tuple[str, ...] = ()
    nullable: bool = False
    fold_case: bool = False
    ignored_suffix: str = ""
    precision: int = 0
    example: str | int | float | bool = ""


def _integer(name: str, description: str, unit: str, low: int, high: int, example: int, *, nullable: bool = False) -> Feature:
    return Feature(name, Kind.INTEGER, description, unit, Decimal(low), Decimal(high), nullable=nullable, example=example)


def _decimal(
    name: str, description: str, unit: str, precision: int, high: str, example: float, *, nullable: bool = False
) -> Feature:
    return Feature(
        name,
        Kind.DECIMAL,
        description,
        unit,
        Decimal(0),
        Decimal(high),
        nullable=nullable,
        precision=precision,
        example=example,
    )


def _boolean(name: str, description: str, example: bool) -> Feature:
    return Feature(name, Kind.BOOLEAN, description, example=example)


FEATURES: Final[tuple[Feature, ...]] = (
    _integer("age", "Age of the customer.", "years", 18, 100, 42, nullable=True),
    Feature(
        "gender",
        Kind.CATEGORY,
        "Gender as recorded; case does not matter.",
        categories=("male", "female", "other"),
        fold_case=True,
        example="female",
    ),
    _decimal("income", "Income a year.", "currency a year", 10, "1000000", 54_000.0, nullable=True),
    _integer("tenure_months", "Months since the customer joined.", "months", 0, 600, 14),
    _decimal("monthly_charges", "Charges of the current month.", "currency a month", 8, "10000", 70.35),
    _decimal("total_charges", "Charges since the customer joined.", "currency", 10, "99999999.99", 990.4),
    _boolean("phone_service", "Has a phone line.", True),
    Feature(
        "internet_service",
        Kind.CATEGORY,
        "Kind of internet access.",
        categories=("DSL", "Fiber optic", "No"),
        example="Fiber optic",
    ),
    _boolean("streaming_tv", "Streams television.", False),
    _boolean("streaming_movies", "Streams movies.", True),
    _boolean("tech_support", "Subscribes to technical support.", False),
    _boolean("device_protection", "Subscribes to device protection.", False),
    Feature(
        "contract_type",
        Kind.CATEGORY,
        "Length of the contract.",
        categories=("Month-to-month", "One year", "Two year"),
        example="Month-to-month",
    ),
    _boolean("paperless_billing", "Receives bills electronically.", True),
    Feature(
        "payment_method",
        Kind.CATEGORY,
        "How the customer pays.",
        categories=("Electronic check", "Mailed check", "Bank transfer", "Credit card"),
        ignored_suffix=" (automatic)",
        example="Electronic check",
    ),
)

FEATURE_NAMES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES)
CUSTOMER_ID: Final = "customer_id"
COLUMNS: Final[tuple[str, ...]] = (CUSTOMER_ID, *FEATURE_NAMES)
"""A customer's columns in the order of files that we write."""

LOW_TOTAL_RATIO: Final = 0.7
"""total_charges below this share of monthly_charges x tenure_months is a data-quality warning."""
