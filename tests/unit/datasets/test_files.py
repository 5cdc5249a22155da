"""Written files appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from datasets.files import write_customers, write_labelled
from datasets.synthetic import generate

PART = generate(3, seed=1)


def test_rows_are_counted(tmp_path: Path) -> None:
    assert write_customers(tmp_path / "c.csv", [PART.customers, PART.customers]) == 6
    assert write_labelled(tmp_path / "l.csv", [PART]) == 3


def test_labels_are_written_as_one_and_zero(tmp_path: Path) -> None:
    write_labelled(tmp_path / "l.csv", [PART])
    cells = [line.rsplit(",", 1)[1] for line in (tmp_path / "l.csv").read_text().splitlines()]
    assert cells == ['"churned"', *("1" if left else "0" for left in PART.churned)]


def test_no_customers_make_a_header(tmp_path: Path) -> None:
    assert write_customers(tmp_path / "c.csv", []) == 0
    assert (tmp_path / "c.csv").read_text().startswith('"customer_id","age"')


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_customers(tmp_path / "a" / "b" / "c.csv", [PART.customers])
    assert (tmp_path / "a" / "b" / "c.csv").exists()


def test_a_writing_that_breaks_off_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.Table]:
        yield PART.customers
        raise RuntimeError("the source broke off")

    (tmp_path / "c.csv").write_text("old")
    with pytest.raises(RuntimeError, match="broke off"):
        write_customers(tmp_path / "c.csv", broken())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("c.csv", "old")]
