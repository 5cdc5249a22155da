"""A generator of SYNTHETIC customers for demonstrations, load tests and a first model. None of them exists.

The shares and prices are made up after the habits of public telco data: month-to-month contracts, fiber, electronic checks and
a short tenure raise churn, support and long contracts lower it, and about 26 % leave. A model trained on these rows knows this
module's formula and nothing about anybody's customers.

Customer number i of a seed is always the same one: rows are drawn in blocks of fixed size, each from its own random stream, so
a file can be written in slices, or from the middle, without changing a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datasets.files import write_customers, write_labelled
from scoring.features import CUSTOMER_ID, FEATURES, Feature, Kind
from scoring.labelled import Labelled
from scoring.table import CUSTOMER_SCHEMA, ROW, to_cents

DESCRIPTION: Final = "synthetic customers, drawn by datasets.synthetic; none of them exists"
"""What to say of these rows in the manifest of a model that is trained on them."""

BLOCK_ROWS: Final = 16_384
MAX_TENURE_MONTHS: Final = 72
MISSING_SHARE: Final = 0.04
"""Share of customers who never told their age, and of those who never told their income."""

# Categories are drawn as codes of the declaration's order. One row a contract (month-to-month, one year, two year):
_CONTRACT_SHARES: Final = np.array([0.55, 0.21, 0.24])
_INTERNET_BY_CONTRACT: Final = np.array([[0.32, 0.55, 0.13], [0.39, 0.36, 0.25], [0.37, 0.25, 0.38]])  # DSL, fiber, no
_PAYMENT_BY_CONTRACT: Final = np.array(  # electronic check, mailed check, bank transfer, credit card
    [[0.48, 0.22, 0.15, 0.15], [0.24, 0.22, 0.27, 0.27], [0.10, 0.22, 0.34, 0.34]]
)
_SUPPORT_BY_CONTRACT: Final = np.array([0.23, 0.46, 0.64])
_PROTECTION_BY_CONTRACT: Final = np.array([0.32, 0.50, 0.62])
_PAPERLESS_BY_INTERNET: Final = np.array([0.55, 0.77, 0.29])
_GENDER_SHARES: Final = np.array([0.495, 0.495, 0.01])  # male, female, other
_INTERNET_CHARGE: Final = np.array([25.0, 50.0, 0.0])

_MONTH_TO_MONTH: Final = 0
_FIBER: Final = 1
_NO_INTERNET: Final = 2
_ELECTRONIC_CHECK: Final = 0

_Columns = dict[str, NDArray[Any]]


def generate(n: int, *, seed: int, first_id: int = 0) -> Labelled:
    """Make synthetic customers and whether each of them left.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Not negative; another seed gives other customers under the same ids.
    first_id : int
        Number of the first customer; ids run from ``SYN-0000000``.

    Returns
    -------
    Labelled
        With `row` counted from 0 whatever `first_id` is.
    """
    first_block, last_block = first_id // BLOCK_ROWS, (first_id + max(n, 1) - 1) // BLOCK_ROWS
    blocks = [_block(seed, block) for block in range(first_block, last_block + 1)]
    start = first_id - first_block * BLOCK_ROWS
    columns = {name: np.concatenate([block[name] for block in blocks])[start : start + n] for name in blocks[0]}
    return Labelled(_table(columns, first_id), columns["churned"])


def slices(n: int, *, seed: int, slice_rows: int = 8 * BLOCK_ROWS) -> Iterator[Labelled]:
    """The same n customers as `generate`, a slice at a time, so that memory stays flat however many there are."""
    for first in range(0, n, slice_rows):
        yield generate(min(slice_rows, n - first), seed=seed, first_id=first)


def write_csv(path: Path, n: int, *, seed: int, labelled: bool = False) -> None:
    """Write n synthetic customers as CSV, with a `churned` column if `labelled`; see `datasets.files` for the shape."""
    if labelled:
        write_labelled(path, slices(n, seed=seed))
    else:
        write_customers(path, (part.customers for part in slices(n, seed=seed)))


def _block(seed: int, block: int) -> _Columns:
    """Draw one block of customers in full; the order of the draws is part of what a seed means."""
    rng = np.random.default_rng([seed, block])
    columns = _subscriptions(rng)
    columns |= _person(rng)
    columns |= _charges(rng, columns)
    columns["churned"] = rng.random(BLOCK_ROWS) < _churn_probability(rng, columns)
    return columns


def _subscriptions(rng: np.random.Generator) -> _Columns:
    contract = _draw(rng, np.broadcast_to(_CONTRACT_SHARES, (BLOCK_ROWS, 3)))
    internet = _draw(rng, _INTERNET_BY_CONTRACT[contract])
    online = internet != _NO_INTERNET
    streams_tv = online & _chance(rng, 0.5)
    # Whoever streams television mostly streams movies too.
    streams_movies = online & _chance(rng, np.where(streams_tv, 0.7, 0.3))
    return {
        "contract_type": contract,
        "internet_service": internet,
        "payment_method": _draw(rng, _PAYMENT_BY_CONTRACT[contract]),
        "phone_service": ~online | _chance(rng, 0.88),
        "streaming_tv": streams_tv,
        "streaming_movies": streams_movies,
        "tech_support": online & _chance(rng, _SUPPORT_BY_CONTRACT[contract]),
        "device_protection": online & _chance(rng, _PROTECTION_BY_CONTRACT[contract]),
        "paperless_billing": _chance(rng, _PAPERLESS_BY_INTERNET[internet]),
        "tenure_months": _tenure_months(rng, contract),
    }


def _tenure_months(rng: np.random.Generator, contract: NDArray[np.int8]) -> NDArray[np.int16]:
    """Months so far: mostly few for a month-to-month contract, many for a long one."""
    young = rng.exponential(20.0, BLOCK_ROWS)
    settled = rng.normal(np.array([0.0, 42.0, 56.0])[contract], 16.0)
    months = np.where(contract == _MONTH_TO_MONTH, young, np.maximum(settled, 1.0))
    return np.minimum(months, MAX_TENURE_MONTHS).astype(np.int16)


def _person(rng: np.random.Generator) -> _Columns:
    """Age and income are NaN where the customer never told them."""
    age = np.clip(np.rint(rng.normal(46.0, 15.0, BLOCK_ROWS)), 18.0, 95.0)
    earning = 1.0 - ((age - 48.0) / 60.0) ** 2
    income = to_cents(np.minimum(48_000.0 * earning * np.exp(rng.normal(0.0, 0.45, BLOCK_ROWS)), 1_000_000.0))
    return {
        "gender": _draw(rng, np.broadcast_to(_GENDER_SHARES, (BLOCK_ROWS, 3))),
        "age": np.where(_chance(rng, MISSING_SHARE), np.nan, age),
        "income": np.where(_chance(rng, MISSING_SHARE), np.nan, income),
    }


def _charges(rng: np.random.Generator, customers: _Columns) -> _Columns:
    """The month's charges follow the services; the total is every month's, with a little change of price on the way."""
    extra_lines = customers["phone_service"] & _chance(rng, 0.45)
    monthly = (
        20.0 * customers["phone_service"]
        + _INTERNET_CHARGE[customers["internet_service"]]
        + 5.0 * extra_lines
        + 10.0 * (customers["streaming_tv"].astype(float) + customers["streaming_movies"])
        + 5.0 * (customers["tech_support"].astype(float) + customers["device_protection"])
        + rng.normal(0.0, 1.5, BLOCK_ROWS)
    )
    monthly = to_cents(np.maximum(monthly, 15.0))
    drift = 1.0 + np.clip(rng.normal(0.0, 0.04, BLOCK_ROWS), -0.15, 0.15)
    return {"monthly_charges": monthly, "total_charges": to_cents(monthly * customers["tenure_months"] * drift)}


def _churn_probability(rng: np.random.Generator, customers: _Columns) -> NDArray[np.float64]:
    """The made-up process: a logistic model with one interaction, and a part that no column shows."""
    tenure = customers["tenure_months"].astype(np.float64)
    fiber = customers["internet_service"] == _FIBER
    month_to_month = customers["contract_type"] == _MONTH_TO_MONTH
    logit = (
        -0.78
        + np.array([0.0, -1.2, -2.3])[customers["contract_type"]]
        + np.array([0.0, 0.65, -0.8])[customers["internet_service"]]
        + 0.45 * (customers["payment_method"] == _ELECTRONIC_CHECK)
        + 0.9 * np.exp(-tenure / 6.0)
        - 0.022 * tenure
        - 0.40 * customers["tech_support"]
        - 0.15 * customers["device_protection"]
        + 0.25 * customers["paperless_billing"]
        + 0.006 * (customers["monthly_charges"] - 65.0)
        + 0.20 * (np.nan_to_num(customers["age"], nan=46.0) < 30.0)
        - 0.15 * np.log(np.nan_to_num(customers["income"], nan=45_000.0) / 45_000.0)
        + 0.40 * (fiber & month_to_month & (tenure < 12))
        + rng.normal(0.0, 0.4, BLOCK_ROWS)
    )
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def _draw(rng: np.random.Generator, shares: NDArray[np.float64]) -> NDArray[np.int8]:
    """Category codes drawn from one row of shares a customer; each row sums to 1."""
    passed = rng.random(len(shares))[:, None] >= shares[:, :-1].cumsum(axis=1)
    return np.asarray(passed.sum(axis=1), dtype=np.int8)


def _chance(rng: np.random.Generator, share: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(rng.random(BLOCK_ROWS) < share)


def _table(columns: _Columns, first_id: int) -> pa.Table:
    n = len(columns["churned"])
    numbers = pc.utf8_lpad(pa.array(np.arange(first_id, first_id + n)).cast(pa.string()), width=7, padding="0")
    arrays = {
        ROW: pa.array(np.arange(n, dtype=np.int32)),
        CUSTOMER_ID: pc.binary_join_element_wise("SYN", numbers, "-"),
        **{feature.name: _array(feature, columns[feature.name]) for feature in FEATURES},
    }
    return pa.table(arrays, schema=CUSTOMER_SCHEMA)


def _array(feature: Feature, values: NDArray[Any]) -> pa.Array:
    match feature.kind:
        case Kind.CATEGORY:
            return pa.DictionaryArray.from_arrays(pa.array(values), pa.array(feature.categories))
        case Kind.INTEGER:
            return pa.array(values, from_pandas=True).cast(pa.int16())
        case _:
            return pa.array(values, from_pandas=True)
