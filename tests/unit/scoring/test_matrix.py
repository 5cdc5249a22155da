"""The matrix: columns in the declaration's order, codes by the declaration, NaN for what is missing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from scoring.features import FEATURE_NAMES, FEATURES
from scoring.matrix import matrix_of
from scoring.table import CUSTOMER_SCHEMA
from tests.unit.scoring.factories import customer, table_of


def test_one_customer_by_hand() -> None:
    row = customer(
        age=42,
        gender="other",
        income=54_000.5,
        tenure_months=14,
        monthly_charges=70.35,
        total_charges=990.4,
        phone_service=True,
        internet_service="No",
        streaming_tv=False,
        streaming_movies=True,
        tech_support=False,
        device_protection=True,
        contract_type="One year",
        paperless_billing=False,
        payment_method="Credit card",
    )
    expected = [42, 2, 54_000.5, 14, 70.35, 990.4, 1, 2, 0, 1, 0, 1, 1, 0, 3]
    assert matrix_of(table_of(row)).tolist() == [expected]


def test_what_is_missing_is_nan_and_nothing_else_is() -> None:
    matrix = matrix_of(table_of(customer(age=None), customer(income=None), customer()))
    assert np.isnan(matrix).tolist() == [
        [name == "age" for name in FEATURE_NAMES],
        [name == "income" for name in FEATURE_NAMES],
        [False] * len(FEATURE_NAMES),
    ]


def test_a_column_that_is_missing_altogether() -> None:
    matrix = matrix_of(table_of(customer(age=None), customer(age=None)))
    assert np.isnan(matrix[:, 0]).all()


@pytest.mark.parametrize("feature", [feature for feature in FEATURES if feature.categories], ids=lambda feature: feature.name)
def test_a_category_is_its_place_in_the_declaration(feature) -> None:  # type: ignore[no-untyped-def]
    table = table_of(*(customer(**{feature.name: category}) for category in feature.categories))
    assert matrix_of(table)[:, FEATURE_NAMES.index(feature.name)].tolist() == list(range(len(feature.categories)))


def test_shape_type_and_order() -> None:
    matrix = matrix_of(table_of(customer(), customer()))
    assert (matrix.shape, matrix.dtype, matrix.flags.c_contiguous) == ((2, 15), np.dtype(np.float64), True)


def test_no_customers() -> None:
    assert matrix_of(CUSTOMER_SCHEMA.empty_table()).shape == (0, 15)


def test_a_table_in_several_chunks() -> None:
    first, second = table_of(customer(tenure_months=1), customer(tenure_months=2)), table_of(customer(tenure_months=3))
    both = pa.concat_tables([first, second])
    assert matrix_of(both).tolist() == matrix_of(first).tolist() + matrix_of(second).tolist()


def test_the_order_of_the_tables_columns_does_not_matter() -> None:
    table = table_of(customer())
    assert matrix_of(table.select(table.column_names[::-1])).tolist() == matrix_of(table).tolist()


def with_contracts(*words: str | None) -> pa.Table:
    """Contracts in a dictionary of another tool's making: its words in the order of their first appearance."""
    table = table_of(*(customer() for _ in words))
    place = table.column_names.index("contract_type")
    column = pa.array(words, pa.string()).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
    return table.set_column(place, "contract_type", column)


def test_a_dictionary_in_another_order_still_means_the_same_words() -> None:
    matrix = matrix_of(with_contracts("Two year", "Month-to-month", "Two year"))
    assert matrix[:, FEATURE_NAMES.index("contract_type")].tolist() == [2.0, 0.0, 2.0]


def test_a_null_in_a_foreign_dictionary_is_missing() -> None:
    matrix = matrix_of(with_contracts("Two year", None))
    assert np.isnan(matrix[:, FEATURE_NAMES.index("contract_type")]).tolist() == [False, True]


def test_a_category_outside_the_declaration_is_refused() -> None:
    with pytest.raises(ValueError, match="contract_type holds values outside the declaration: Ten year"):
        matrix_of(with_contracts("Two year", "Ten year"))


def test_an_absent_column_is_refused() -> None:
    with pytest.raises(KeyError, match="income"):
        matrix_of(table_of(customer()).drop_columns(["income"]))
