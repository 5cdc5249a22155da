"""Parquet: typed and text columns are read, and a file that lies hurts only the process that decodes it."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import subprocess
import tempfile
from dataclasses import fields
from decimal import Decimal
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intake.read import PARQUET, Limits, read_file
from scoring.errors import UnreadableFile
from scoring.features import COLUMNS, FEATURES, Code, Kind
from scoring.table import ROW
from settings import Settings
from tests.unit.intake.customers import customer, read_all, where


def table_of(n_rows: int = 3, **changes: Any) -> pa.Table:
    """Typed customers with ids of their own, some columns replaced."""
    columns = {name: [value] * n_rows for name, value in customer().items()}
    columns["customer_id"] = [f"C{row}" for row in range(n_rows)]
    table = pa.table(columns)
    for name, values in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def file_of(table: pa.Table, **options: Any) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def refusal(body: bytes, **limits: int) -> UnreadableFile:
    """The error that a file is refused with."""
    with pytest.raises(UnreadableFile) as refused:
        read_all(body, media_type=PARQUET, limits=Limits(**limits))
    return refused.value


GOOD = file_of(table_of())


def test_typed_columns() -> None:
    good, faults, n_rows = read_all(GOOD, media_type=PARQUET)
    assert ([row["customer_id"] for row in good], faults, n_rows) == (["C0", "C1", "C2"], [], 3)
    assert {name: good[0][name] for name in COLUMNS} == customer(customer_id="C0")


def test_text_columns_are_read_as_cells() -> None:
    texts = {feature.name: pa.array([str(customer()[feature.name])] * 3) for feature in FEATURES}
    assert read_all(file_of(table_of(**texts)), media_type=PARQUET) == read_all(GOOD, media_type=PARQUET)


def test_other_types_of_the_same_values() -> None:
    table = table_of(
        customer_id=pa.array([7, 8, 9]),
        age=pa.array([42.0, None, 42.5]),
        income=pa.array([Decimal("1.05"), None, Decimal("-1.00")]),
        monthly_charges=pa.array([0.1, 70.35, 1e9], pa.float32()),
        phone_service=pa.array([1, 0, 2], pa.uint8()),
        gender=pa.array(["male", "FEMALE", None]).dictionary_encode(),
    )
    good, faults, _ = read_all(file_of(table), media_type=PARQUET)
    assert [(row["customer_id"], row["age"], row["income"], row["monthly_charges"], row["phone_service"]) for row in good] == [
        ("7", 42, 1.05, 0.1, True),
        ("8", None, None, 70.35, False),
    ]
    assert where(faults) == [
        (2, "age", Code.WRONG_TYPE),
        (2, "gender", Code.MISSING),
        (2, "income", Code.OUT_OF_RANGE),
        (2, "monthly_charges", Code.OUT_OF_RANGE),
        (2, "phone_service", Code.WRONG_TYPE),
    ]


def test_a_column_of_nulls_is_missing() -> None:
    good, faults, _ = read_all(file_of(table_of(age=pa.nulls(3))), media_type=PARQUET)
    assert ([row["age"] for row in good], faults) == ([None] * 3, [])
    assert {fault.code for fault in read_all(file_of(table_of(gender=pa.nulls(3))), media_type=PARQUET)[1]} == {Code.MISSING}


def test_not_a_number_is_not_finite() -> None:
    _, faults, _ = read_all(file_of(table_of(income=pa.array([float("nan"), float("inf"), 1.0]))), media_type=PARQUET)
    assert where(faults) == [(0, "income", Code.NOT_FINITE), (1, "income", Code.NOT_FINITE)]


def test_rows_are_numbered_through_row_groups() -> None:
    good, _, n_rows = read_all(file_of(table_of(50_000), row_group_size=700), media_type=PARQUET)
    assert n_rows == 50_000
    assert all(row["customer_id"] == f"C{row[ROW]}" for row in good)


@pytest.mark.parametrize("kind", ["file", "spooled", "memory", "gzip"])
def test_streams_of_every_kind(kind: str) -> None:
    with tempfile.TemporaryFile() if kind == "file" else tempfile.SpooledTemporaryFile(10**6) as stream:
        body = gzip.compress(GOOD) if kind == "gzip" else GOOD
        stream.write(body)
        stream.seek(0)
        given = io.BytesIO(body) if kind == "memory" else stream
        slices = list(read_file(given, media_type=PARQUET, encoding="gzip" if kind == "gzip" else None))  # type: ignore[arg-type]
    assert [piece.n_rows for piece in slices] == [3]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("age", pa.array(["2024-01-01"] * 3).cast(pa.date32())),
        ("income", pa.array([True] * 3)),
        ("phone_service", pa.array([1.0] * 3)),
        ("gender", pa.array([1] * 3)),
        ("customer_id", pa.array([1.5] * 3)),
        ("gender", pa.array([b"male"] * 3)),
    ],
)
def test_a_type_that_cannot_hold_the_column_is_refused(column: str, values: pa.Array) -> None:
    error = refusal(file_of(table_of(**{column: values})))
    assert error.code == "wrong_column_type"
    assert f"{column} ({values.type})" in error.detail


def test_columns_are_checked() -> None:
    assert refusal(file_of(table_of().drop_columns(["gender"]))).code == "missing_column"
    assert refusal(file_of(table_of().append_column("churned", pa.array([1] * 3)))).code == "unknown_column"


def test_no_rows() -> None:
    assert refusal(file_of(table_of(0))).code == "empty_batch"
    assert refusal(b"").code == "empty_file"


@pytest.mark.parametrize(
    "body", [b"PAR1PAR1", b"customer_id,age\n1,2\n", b"PAR1" + b"\xff" * 100 + b"PAR1", GOOD[:-100], GOOD[:4]]
)
def test_what_is_no_parquet_is_refused(body: bytes) -> None:
    assert refusal(body).code == "not_parquet"


def test_a_file_without_its_end_says_so() -> None:
    assert "breaks off" in refusal(GOOD[:-10]).detail


@pytest.mark.parametrize("seed", range(8))
def test_damaged_files_never_escape(seed: int) -> None:
    chance = random.Random(seed)
    body = bytearray(file_of(table_of(500), compression="none" if seed % 2 else "zstd"))
    for _ in range(12):
        body[chance.randrange(4, len(body) - 4)] = chance.randrange(256)
    with contextlib.suppress(UnreadableFile):
        read_all(bytes(body), media_type=PARQUET)


def test_text_that_is_not_utf_8_is_refused() -> None:
    body = GOOD.replace(b"female", b"f\xe9male")
    error = refusal(body)
    assert error.code == "bad_encoding"
    assert "gender" in error.detail


def test_a_footer_that_claims_too_many_rows_is_refused_before_reading() -> None:
    columns = {name: pa.nulls(5_000_000, pa.float64()) for name in COLUMNS}
    body = file_of(pa.table(columns))
    assert len(body) < 200_000
    assert refusal(body, max_rows=1_000_000).code == "too_many_rows"


def test_a_footer_whose_row_counts_do_not_add_up_is_refused() -> None:
    # num_rows of FileMetaData: an i64 field (0x16) behind the schema, 3 written as zigzag 6; 63 is as long.
    footer = GOOD.rindex(b"\x16\x06\x19")
    body = GOOD[:footer] + b"\x16\x7e\x19" + GOOD[footer + 3 :]
    assert "contradicts itself" in refusal(body).detail


def test_a_footer_that_claims_too_many_bytes_is_refused_before_reading() -> None:
    body = file_of(table_of(100_000), compression="zstd")
    assert refusal(body, max_decompressed_bytes=len(body)).code == "decompressed_too_large"


@pytest.mark.parametrize(("memory_bytes", "code"), [(2 * 2**30, "cell_too_large"), (384 * 2**20, "decompressed_too_large")])
def test_a_bomb_meets_the_limits_of_its_own_process(memory_bytes: int, code: str) -> None:
    body = file_of(table_of(1, gender=pa.array(["x" * 100_000_000])), compression="zstd", use_dictionary=False)
    assert len(body) < 100_000
    assert refusal(body, parquet_memory_bytes=memory_bytes).code == code


def test_a_file_refused_in_its_middle_does_not_end_as_if_it_were_whole() -> None:
    genders = pa.array(["male"] * 20_000 + ["x" * 70_000_000])
    slices = read_file(io.BytesIO(file_of(table_of(20_001, gender=genders), compression="zstd")), media_type=PARQUET)
    assert next(slices).customers.num_rows == 16_384
    with pytest.raises(UnreadableFile) as refused:
        list(slices)
    assert refused.value.code == "cell_too_large"


def test_the_decoding_process_knows_no_setting_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {field.name.upper() for field in fields(Settings)}
    for name in settings:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    slices = read_file(io.BytesIO(file_of(table_of(200_000))), media_type=PARQUET)
    before = set(psutil.Process().children())
    next(slices)
    [child] = set(psutil.Process().children()) - before
    known = child.environ()
    slices.close()  # type: ignore[attr-defined]
    assert "PATH" in known
    assert settings & known.keys() == set()
    assert "secret" not in known.values()


def test_leaving_early_ends_the_decoding_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    slices = read_file(io.BytesIO(file_of(table_of(200_000))), media_type=PARQUET)
    next(slices)
    slices.close()  # type: ignore[attr-defined]
    assert [child.returncode for child in started] == [-9]


def test_categories_keep_the_order_of_the_declaration() -> None:
    piece = next(read_file(io.BytesIO(GOOD), media_type=PARQUET))
    for feature in FEATURES:
        if feature.kind is Kind.CATEGORY:
            assert tuple(piece.customers[feature.name].chunk(0).dictionary.to_pylist()) == feature.categories


def test_more_columns_than_anybody_needs_are_refused_as_such() -> None:
    assert refusal(file_of(pa.table({f"c{place}": [1] for place in range(1_001)}))).code == "too_many_columns"
