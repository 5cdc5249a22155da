"""Customers: the latest values win by when they were submitted, and what has not changed is not written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from db.customers import (
    copy_customers,
    get_customer,
    put_customer,
    unknown_ids,
    upsert_customers,
)
from db.engine import clock
from db.errors import NotFound
from scoring.features import COLUMNS, FEATURES, Feature, Kind
from tests.factories import add_customers, customer, customers_csv
from tests.integration.db.concurrency import together

NASTY_IDS = ['a,"b"', "x\ny", "\\.", "\\N", "it's", "%s", ":id", "NULL", "\N{SNOWMAN}", " padded ", "{1,2}"]

Write = Callable[[Connection, dict[str, Any], datetime], object]


def put(conn: Connection, given: dict[str, Any], submitted_at: datetime) -> object:
    return put_customer(conn, given, submitted_at=submitted_at)


def upsert(conn: Connection, given: dict[str, Any], submitted_at: datetime) -> object:
    return upsert_customers(conn, customers_csv([given]), submitted_at=submitted_at)


def version_of(conn: Connection, customer_id: str = "C-0") -> tuple[object, ...]:
    """Which physical row holds the customer: any write moves it."""
    query = text("SELECT ctid, xmin FROM customers WHERE customer_id = :id")
    return tuple(conn.execute(query, {"id": customer_id}).one())


both_ways = pytest.mark.parametrize("write", [put, upsert])


class TestLatestWins:
    """Singly and as a set alike."""

    @both_ways
    def test_a_customer_is_read_as_it_was_written(self, conn: Connection, write: Write) -> None:
        given = customer(age=None, income=None, gender="other", monthly_charges=0.01, phone_service=False)
        submitted_at = clock(conn)
        write(conn, given, submitted_at)
        stored = get_customer(conn, "C-0")
        assert tuple(stored.values) == COLUMNS
        assert {name: float(v) if isinstance(given[name], float) else v for name, v in stored.values.items()} == given
        assert stored.updated_at == submitted_at

    @both_ways
    def test_later_values_replace_earlier_ones(self, conn: Connection, write: Write) -> None:
        now = clock(conn)
        write(conn, customer(tenure_months=1), now)
        write(conn, customer(tenure_months=2), now + timedelta(seconds=1))
        stored = get_customer(conn, "C-0")
        assert (stored.values["tenure_months"], stored.updated_at) == (2, now + timedelta(seconds=1))

    @both_ways
    def test_an_older_submit_that_ends_late_overwrites_nothing(self, conn: Connection, write: Write) -> None:
        now = clock(conn)
        write(conn, customer(tenure_months=2), now)
        write(conn, customer(tenure_months=1), now - timedelta(seconds=1))
        assert get_customer(conn, "C-0").values["tenure_months"] == 2

    @both_ways
    def test_an_unchanged_customer_is_not_rewritten(self, ledger: Engine, write: Write) -> None:
        with ledger.begin() as conn:
            now = clock(conn)
            write(conn, customer(age=None), now)
        with ledger.begin() as conn:
            before = version_of(conn)
            write(conn, customer(age=None), now + timedelta(seconds=1))
            assert version_of(conn) == before

    @both_ways
    @pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
    def test_a_change_of_any_one_feature_is_written(self, conn: Connection, write: Write, feature: Feature) -> None:
        now = clock(conn)
        write(conn, customer(), now)
        write(conn, customer(**{feature.name: _other(feature)}), now)
        assert get_customer(conn, "C-0").values[feature.name] == _other(feature)

    @both_ways
    def test_created_at_stays(self, ledger: Engine, write: Write) -> None:
        with ledger.begin() as conn:
            now = clock(conn)
            write(conn, customer(tenure_months=1), now)
            created_at = get_customer(conn, "C-0").created_at
        with ledger.begin() as conn:
            write(conn, customer(tenure_months=2), now)
            assert get_customer(conn, "C-0").created_at == created_at


class TestPut:
    """One customer."""

    def test_it_says_whether_the_customer_is_new(self, conn: Connection) -> None:
        assert put_customer(conn, customer(tenure_months=1))
        assert not put_customer(conn, customer(tenure_months=2))
        assert not put_customer(conn, customer(tenure_months=2))

    def test_without_a_time_it_is_now(self, conn: Connection) -> None:
        before = clock(conn)
        put_customer(conn, customer())
        assert before <= get_customer(conn, "C-0").updated_at <= clock(conn)

    @pytest.mark.parametrize("customer_id", NASTY_IDS)
    def test_any_text_is_an_id(self, conn: Connection, customer_id: str) -> None:
        put_customer(conn, customer(customer_id))
        assert get_customer(conn, customer_id).values["customer_id"] == customer_id

    def test_two_first_puts_at_once_make_one_customer(self, ledger: Engine) -> None:
        for number in range(5):
            made = together(ledger, *[lambda conn, n=number: put_customer(conn, customer(f"C-{n}"))] * 2)
            assert sorted(made) == [False, True]

    def test_an_unknown_customer_is_not_found(self, conn: Connection) -> None:
        with pytest.raises(NotFound, match="there is no customer 'x'"):
            get_customer(conn, "x")


class TestUpsert:
    """Many customers as one set."""

    def test_only_what_changed_is_counted_and_written(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "same", "changed", tenure_months=1)
            later = clock(conn)
        with ledger.begin() as conn:
            before = version_of(conn, "same")
            rows = [customer("new"), customer("same", tenure_months=1), customer("changed", tenure_months=2)]
            assert upsert_customers(conn, customers_csv(rows), submitted_at=later) == 2
            assert version_of(conn, "same") == before
            assert get_customer(conn, "changed").values["tenure_months"] == 2
            assert get_customer(conn, "new").updated_at == later

    def test_two_sets_in_one_transaction_do_not_mix(self, conn: Connection) -> None:
        now = clock(conn)
        upsert_customers(conn, customers_csv([customer("C-1", tenure_months=1)]), submitted_at=now)
        put_customer(conn, customer("C-1", tenure_months=5), submitted_at=now + timedelta(seconds=1))
        assert upsert_customers(conn, customers_csv([customer("C-2")]), submitted_at=now + timedelta(seconds=2)) == 1
        assert get_customer(conn, "C-1").values["tenure_months"] == 5

    def test_an_empty_set_is_no_work(self, conn: Connection) -> None:
        assert upsert_customers(conn, io.BytesIO(), submitted_at=clock(conn)) == 0

    def test_sets_that_overlap_do_not_deadlock(self, ledger: Engine) -> None:
        for number in range(4):
            ids = [f"C-{number}-{n:04}" for n in range(1500)]
            with ledger.begin() as conn:
                now = clock(conn)
            orders = [ids, ids[::-1]]
            together(ledger, *[lambda conn, o=order, t=now: self._upsert_all(conn, o, t) for order in orders])
            with ledger.begin() as conn:
                assert unknown_ids(conn, ids) == set()

    @staticmethod
    def _upsert_all(conn: Connection, ids: list[str], submitted_at: datetime) -> int:
        return upsert_customers(conn, customers_csv(map(customer, ids)), submitted_at=submitted_at)


class TestByIds:
    """Sets of stored customers."""

    def test_unknown_ids_are_told(self, conn: Connection) -> None:
        add_customers(conn, "C-1", *NASTY_IDS)
        assert unknown_ids(conn, ["C-1", "c-1", "x", *NASTY_IDS]) == {"c-1", "x"}
        assert unknown_ids(conn, []) == set()

    def test_copies_hold_every_known_customer_in_column_order(self, conn: Connection) -> None:
        add_customers(conn, "C-1", age=None)
        add_customers(conn, *NASTY_IDS)
        rows = list(csv.reader(io.StringIO(copy_customers(conn, ["C-1", "x", *NASTY_IDS]).decode(), newline="")))
        assert {row[0] for row in rows} == {"C-1", *NASTY_IDS}
        by_name = dict(zip(COLUMNS, next(row for row in rows if row[0] == "C-1"), strict=True))
        assert (by_name["age"], by_name["contract_type"], by_name["phone_service"]) == ("", "Month-to-month", "t")

    def test_copies_of_nobody_are_empty(self, conn: Connection) -> None:
        assert copy_customers(conn, []) == b""
        assert copy_customers(conn, ["x"]) == b""


def _other(feature: Feature) -> Any:
    match feature.kind:
        case Kind.BOOLEAN:
            return not feature.example
        case Kind.CATEGORY:
            return next(category for category in feature.categories if category != feature.example)
        case _:
            return None if feature.nullable else feature.low
