"""Which customers of an upload are sent to be written: no fewer than changed, and where they are one range, no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine

from db.customers import copy_range
from scoring.features import CUSTOMER_ID, FEATURES, Feature, Kind
from scoring.table import CUSTOMER_SCHEMA, ROW, arrow_type
from tests.integration.workers import builders as b
from workers import changes as changes_module
from workers.changes import changed_customers

Values = tuple[Any, Any]

IDS = ["C-a", "C-b", "C-c", "C-d", "C-e"]


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """A connection whose writes vanish with its transaction."""
    with engine.connect() as connection:
        yield connection


def five() -> pa.Table:
    """Five customers without a missing value, in the order of their ids."""
    complete = [row for row in b.customers_of(60).to_pylist() if None not in row.values()][: len(IDS)]
    return pa.Table.from_pylist(
        [{**row, ROW: place, CUSTOMER_ID: name} for place, (row, name) in enumerate(zip(complete, IDS, strict=True))],
        schema=CUSTOMER_SCHEMA,
    )


def with_value(customers: pa.Table, place: int, feature: Feature, value: Any) -> pa.Table:
    """The same customers, one value of one of them another."""
    values = customers[feature.name].to_pylist()
    values[place] = value
    column = pa.array(values, pa.string() if feature.kind is Kind.CATEGORY else arrow_type(feature))
    if feature.kind is Kind.CATEGORY:
        codes = pa.array([feature.categories.index(word) for word in values], pa.int8())
        column = pa.DictionaryArray.from_arrays(codes, pa.array(feature.categories))
    at = customers.schema.names.index(feature.name)
    return customers.set_column(at, customers.schema.field(at), column)


def changed_ids(conn: Connection, customers: pa.Table) -> list[str]:
    return b.ids_of(changed_customers(conn, customers))


def test_where_nobody_is_stored_all_are_sent(conn: Connection) -> None:
    given = five()
    assert changed_customers(conn, given).equals(given)


def test_unchanged_customers_are_not_sent(conn: Connection) -> None:
    b.store_customers(conn, five())
    assert changed_customers(conn, five()).equals(five().slice(0, 0))


def test_missing_values_are_equal_to_each_other(conn: Connection) -> None:
    given = b.customers_of(300)
    assert given["age"].null_count
    assert given["income"].null_count
    b.store_customers(conn, given)
    assert changed_ids(conn, given) == []


def pairs_of(feature: Feature) -> list[Values]:
    """Values that a feature may have, before and after: each one a change."""
    low, high = float(feature.low or 0), float(feature.high or 0)
    match feature.kind:
        case Kind.BOOLEAN:
            return [(True, False), (False, True)]
        case Kind.CATEGORY:
            return list(zip(feature.categories, (*feature.categories[1:], feature.categories[0]), strict=True))
        case Kind.INTEGER:
            pairs: list[Values] = [(int(low), int(low) + 1), (int(high), int(high) - 1)]
        case Kind.DECIMAL:
            pairs = [(0.0, 0.01), (0.1, 0.11), (1_000.29, 1_000.3), (high, round(high - 0.01, 2))]  # a cent each
    return pairs + ([(None, pairs[0][0]), (pairs[0][0], None)] if feature.nullable else [])


CHANGES = [pytest.param(f, *pair, id=f"{f.name}: {pair[0]} to {pair[1]}") for f in FEATURES for pair in pairs_of(f)]


@pytest.mark.parametrize(("feature", "before", "after"), CHANGES)
def test_a_change_of_one_value_of_any_feature_is_sent(conn: Connection, feature: Feature, before: Any, after: Any) -> None:
    b.store_customers(conn, with_value(five(), 2, feature, before))
    assert changed_ids(conn, with_value(five(), 2, feature, before)) == []
    changed = with_value(five(), 2, feature, after)
    assert changed_customers(conn, changed).equals(changed.slice(2, 1))


def test_the_customers_that_are_sent_are_the_uploaded_ones_with_their_rows(conn: Connection) -> None:
    given = b.customers_of(400, seed=2)
    before = b.customers_of(400, seed=1)
    b.store_customers(conn, pa.concat_tables([given.slice(0, 100), before.slice(100, 100), given.slice(300, 100)]))
    assert changed_customers(conn, given).equals(given.slice(100, 200))  # changed ones and new ones


@pytest.mark.parametrize(("first", "last"), [(0, 5), (0, 1), (4, 5), (2, 4)])
def test_only_new_ones_are_sent_wherever_they_stand(conn: Connection, first: int, last: int) -> None:
    given = five()
    new = set(IDS[first:last])
    b.store_customers(conn, given.filter(pa.array([name not in new for name in IDS])))
    assert changed_ids(conn, given) == IDS[first:last]


def test_the_chunks_of_a_column_do_not_matter(conn: Connection) -> None:
    given = five()
    b.store_customers(conn, with_value(given, 3, FEATURES[3], 7))
    pieces = pa.concat_tables([given.slice(0, 0), given.slice(0, 1), given.slice(1, 3), given.slice(4)])
    assert changed_ids(conn, pieces) == IDS[3:4]
    assert changed_ids(conn, given.slice(2, 2)) == IDS[3:4]


def test_no_customer_at_all_is_no_work(conn: Connection) -> None:
    assert changed_customers(conn, five().slice(0, 0)).num_rows == 0


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4], [0, 1, 2, 4, 3], [4, 3, 2, 1, 0]])
def test_ids_that_are_not_in_order_are_all_sent_and_nothing_is_read(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, order: list[int]
) -> None:
    b.store_customers(conn, five())
    monkeypatch.setattr(changes_module, "copy_range", b.raising(AssertionError("read")))
    given = five().take(order)
    assert changed_customers(conn, given).equals(given)


def test_the_order_is_that_of_the_key_and_not_of_any_language(conn: Connection) -> None:
    # By bytes, as Postgres holds them; a dictionary would have "a" before "B" and the accented before "z".
    ids = ["10", "9", "B", "a", "z", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{SNOWMAN}", "\N{PILE OF POO}"]
    given = b.renamed(b.customers_of(len(ids)), *ids)
    b.store_customers(conn, given)
    assert changed_ids(conn, given) == []


@pytest.mark.parametrize(
    "awkward",
    ['a"b', '"', "a,b", "a\nb", "a\r\nb", "\\.", "\\N", "NULL", "it's", "%s", "%(most)s", " a ", "\ufeffa", "\N{SNOWMAN}"],
)
def test_any_text_is_an_id(conn: Connection, awkward: str) -> None:
    others = sorted({"!", "~", awkward}, key=str.encode)
    given = b.renamed(b.customers_of(3), *others)
    b.store_customers(conn, given)
    assert changed_ids(conn, given) == []
    assert changed_ids(conn, given.filter(pa.array([name == awkward for name in others]))) == []
    at = others.index(awkward)
    assert changed_ids(conn, with_value(given, at, FEATURES[3], 599)) == [awkward]


def test_of_a_range_that_holds_many_others_only_the_first_ones_are_read(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = b.customers_of(200)
    b.store_customers(conn, crowd)
    given = crowd.take([0, 3, 100, 199])
    read = read_by(monkeypatch)

    # Eight are read for four: the first two of these are among them, and the others are sent though they are equal.
    assert b.ids_of(changed_customers(conn, given)) == b.ids_of(crowd.take([100, 199]))
    assert [copied.count(b"\n") for copied in read] == [8]


def test_one_other_between_each_two_is_still_told(conn: Connection) -> None:
    crowd = b.customers_of(200)
    b.store_customers(conn, crowd)
    assert changed_ids(conn, crowd.take(list(range(0, 200, 2)))) == []


def read_by(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is read of ranges from now on."""
    real = copy_range
    read: list[bytes] = []

    def listen(*args: Any, **kwargs: Any) -> bytes:
        read.append(real(*args, **kwargs))
        return read[-1]

    monkeypatch.setattr(changes_module, "copy_range", listen)
    return read
