"""How the raw script cuts a file: into whole lines, each in one part."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.raw_upload import parts_of


@pytest.mark.parametrize("part_rows", [1, 7, 50, 1_000])
def test_every_line_but_the_header_is_in_one_part(tmp_path: Path, part_rows: int) -> None:
    lines = [f"C-{n},{'x' * (n % 13)}\n" for n in range(100)]
    path = tmp_path / "customers.csv"
    path.write_text("customer_id,name\n" + "".join(lines))
    content = path.read_bytes()

    parts = list(parts_of(path, n_rows=len(lines), part_rows=part_rows))

    pieces = [content[part.start : part.start + part.length] for part in parts]
    assert b"".join(pieces).decode() == "".join(lines)
    assert all(piece.endswith(b"\n") for piece in pieces if piece)
