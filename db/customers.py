"""Customers: their latest values, read and written as sets, and deleted without leaving a prediction behind that names them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

from sqlalchemy import Connection, text

from db.engine import Prepared, copy_in, copy_out
from db.errors import NotFound
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURE_NAMES

_NAMES: Final = ", ".join(COLUMNS)
_FEATURES: Final = ", ".join(FEATURE_NAMES)

# LIKE copies the columns' types and NOT NULL; the defaults fill the two times, which the upsert ignores.
_STAGE: Final = text(
    "CREATE TEMP TABLE IF NOT EXISTS staged_customers (LIKE customers INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
)
_STAGE_COPY: Final = f"COPY staged_customers ({_NAMES}) FROM STDIN (FORMAT csv)"

# An import calls more than once in one transaction, and must not write its first rows again with its last ones.
_UNSTAGE: Final = text("TRUNCATE staged_customers")

# The join leaves out what would not change before any row is locked: ON CONFLICT locks, and so rewrites, even a row that its
# WHERE then spares. Sorted by key, so that two batches with customers in common lock them in one order.
_UPSERT = text(f"""
    INSERT INTO customers AS c ({_NAMES}, updated_at)
    SELECT {", ".join(f"s.{name}" for name in COLUMNS)}, :submitted_at
      FROM staged_customers s LEFT JOIN customers old USING (customer_id)
     WHERE old.customer_id IS NULL
        OR (old.updated_at <= :submitted_at
            AND ({", ".join(f"old.{name}" for name in FEATURE_NAMES)})
                IS DISTINCT FROM ({", ".join(f"s.{name}" for name in FEATURE_NAMES)}))
     ORDER BY s.customer_id
        ON CONFLICT (customer_id) DO UPDATE
       SET ({_FEATURES}, updated_at) = ({", ".join(f"excluded.{name}" for name in FEATURE_NAMES)}, excluded.updated_at)
     WHERE c.updated_at <= excluded.updated_at
""")


def put_customers(rows: str) -> str:
    """SQL that writes rows, of COLUMNS and a time of submission, each customer once.

    A row is written only where a value differs, and never over values that were submitted later.
    """
    return f"""
        INSERT INTO customers AS c ({_NAMES}, updated_at) {rows}
            ON CONFLICT (customer_id) DO UPDATE
           SET ({_FEATURES}, updated_at) = ({", ".join(f"excluded.{name}" for name in FEATURE_NAMES)}, excluded.updated_at)
         WHERE c.updated_at <= excluded.updated_at
           AND ({", ".join(f"c.{name}" for name in FEATURE_NAMES)})
               IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in FEATURE_NAMES)})
        RETURNING (xmax = 0) AS created
    """


_VALUES: Final = ", ".join(f":{name}" for name in COLUMNS) + ", coalesce(CAST(:submitted_at AS timestamptz), clock_timestamp())"
_PUT = text(put_customers(f"VALUES ({_VALUES})"))

_GET = text(f"SELECT {_NAMES}, created_at, updated_at FROM customers WHERE customer_id = :customer_id")
_BY_ID: Final = Prepared("customers_by_id", {"ids": "text[]"}, f"SELECT {_NAMES} FROM customers WHERE customer_id = ANY($1)")
_UNKNOWN = text("""
    SELECT wanted.customer_id FROM unnest(CAST(:ids AS text[])) AS wanted (customer_id)
     WHERE NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = wanted.customer_id)
""")

DELETION_LOCK: Final = 7163
"""The advisory lock that the trigger on deletions takes alone and whoever stores predictions takes shared."""

_HOLD_DELETIONS = text(f"SELECT pg_advisory_xact_lock_shared({DELETION_LOCK})")
# A deletion's time is the database's clock while it ran; one day is far longer than any transaction may stay open.
_DELETED = text("""
    SELECT d.customer_id FROM customer_deletions d
     WHERE d.deleted_at > CAST(:since AS timestamptz) - make_interval(days => CASE WHEN :in_full THEN 0 ELSE 1 END)
       AND NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = d.customer_id)
""")

_COPY_BY_ID: Final = f"COPY (SELECT {_NAMES} FROM customers WHERE {CUSTOMER_ID} = ANY(%(ids)s)) TO STDOUT (FORMAT csv)"

_COPY_RANGE: Final = f"""
    COPY (SELECT {_NAMES} FROM customers WHERE {CUSTOMER_ID} BETWEEN %(first_id)s AND %(last_id)s
           ORDER BY {CUSTOMER_ID} LIMIT %(most)s) TO STDOUT (FORMAT csv)
"""

_DELETE = text("DELETE FROM customers WHERE customer_id = :customer_id")
# A function of the owner's, because the API's role may not write predictions.
_ANONYMISE = text("SELECT anonymise_predictions(:customer_id)")


@dataclass(frozen=True, slots=True)
class StoredCustomer:
    """A customer's latest values."""

    values: Mapping[str, Any]
    """By column, in the declaration's order."""
    created_at: datetime
    updated_at: datetime


def get_customer(conn: Connection, customer_id: str) -> StoredCustomer:
    """Read one customer.

    Raises
    ------
    NotFound
        There is none of that id.
    """
    row = conn.execute(_GET, {"customer_id": customer_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no customer {customer_id!r}", code="customer_not_found")
    values = {name: getattr(row, name) for name in COLUMNS}
    return StoredCustomer(values, row.created_at, row.updated_at)


def customers_by_id(conn: Connection, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The values of customers by id and column; unknown ids are left out."""
    found = _BY_ID.rows(conn, ids=list(ids))
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in found}


def put_customer(conn: Connection, customer: Mapping[str, Any], *, submitted_at: datetime | None = None) -> bool:
    """Write one customer's latest values where something changed; True when the customer is new.

    Parameters
    ----------
    submitted_at : datetime, optional
        When the values were submitted; None for now.
    """
    return bool(conn.execute(_PUT, {**customer, "submitted_at": submitted_at}).scalar_one_or_none())


def delete_customer(conn: Connection, customer_id: str, *, keep_history: bool) -> None:
    """Delete a customer; the history of its predictions is kept as it is or loses the customer's id.

    Raises
    ------
    NotFound
        There is none of that id.
    """
    # The trigger takes the deletion lock, so what follows sees every prediction of this customer that will ever be.
    if conn.execute(_DELETE, {"customer_id": customer_id}).rowcount == 0:
        raise NotFound(f"there is no customer {customer_id!r}", code="customer_not_found")
    if not keep_history:
        conn.execute(_ANONYMISE, {"customer_id": customer_id})


def upsert_customers(conn: Connection, rows: BinaryIO, *, submitted_at: datetime) -> int:
    """Make uploaded customers the latest row where something changed; an unchanged customer is not rewritten.

    Parameters
    ----------
    rows : binary file of CSV
        In COLUMNS order, without a header, each customer once; a missing value is an empty cell.
    submitted_at : datetime
        When the values were submitted; they never overwrite later ones.

    Returns
    -------
    int
        Customers written.
    """
    conn.execute(_STAGE)
    copy_in(conn, _STAGE_COPY, rows)
    written = conn.execute(_UPSERT, {"submitted_at": submitted_at}).rowcount
    conn.execute(_UNSTAGE)
    return written


def copy_customers(conn: Connection, ids: Sequence[str]) -> bytes:
    """Read customers by id, as CSV in COLUMNS order without a header; unknown ids are left out, the order is the database's."""
    sink = io.BytesIO()
    copy_out(conn, _COPY_BY_ID, sink, {"ids": list(ids)})
    return sink.getvalue()


def copy_range(conn: Connection, *, first_id: str, last_id: str, most: int) -> bytes:
    """Read the first customers of a range of ids, at most `most` of them, in key order, as CSV in COLUMNS order."""
    sink = io.BytesIO()
    copy_out(conn, _COPY_RANGE, sink, {"first_id": first_id, "last_id": last_id, "most": most})
    return sink.getvalue()


def unknown_ids(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that no stored customer has."""
    return set(conn.execute(_UNKNOWN, {"ids": list(ids)}).scalars())


def hold_deletions(conn: Connection, *, since: datetime, in_full: bool = False) -> set[str]:
    """Keep customers from being deleted until this transaction ends, and say which were deleted before.

    Parameters
    ----------
    since : datetime
        When the caller's work was submitted.
    in_full : bool
        Whether the caller brings the customers along: then one who was deleted before the submit comes back by it. Who reads
        stored customers must also know of deletions that began before the submit and were committed after the reading.

    Returns
    -------
    set of str
        Ids of deleted customers that have not come back; usually empty.
    """
    conn.execute(_HOLD_DELETIONS)
    return set(conn.execute(_DELETED, {"since": since, "in_full": in_full}).scalars())
