"""The layers below the formats: gzip within bounds, encodings named, the upload never held as a whole."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from typing import Any

import pytest

from intake.read import NDJSON, PARQUET, Limits, read_file
from intake.streams import HEAD_BYTES, CheckedText, Rewound, open_bytes, open_text, read_up_to
from scoring.errors import UnreadableFile
from tests.unit.intake.customers import csv_of, customer, ndjson_of, read_all

BODY = csv_of([customer(customer_id=f"C{row}") for row in range(2_000)])


def refusal(body: bytes, **options: Any) -> UnreadableFile:
    """The error that a file is refused with."""
    with pytest.raises(UnreadableFile) as refused:
        read_all(body, **options)
    return refused.value


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP ", None, "identity"])
def test_gzip_is_undone_as_declared_or_as_recognised(encoding: str | None) -> None:
    assert read_all(gzip.compress(BODY), encoding=encoding) == read_all(BODY)


def test_a_gzip_file_sent_gzipped_again() -> None:
    assert read_all(gzip.compress(gzip.compress(BODY)), encoding="gzip") == read_all(BODY)


def test_several_gzip_members_are_one_file() -> None:
    assert read_all(gzip.compress(BODY[:5_000]) + gzip.compress(BODY[5_000:])) == read_all(BODY)


def test_gzip_that_is_none() -> None:
    error = refusal(BODY, encoding="gzip")
    assert error.code == "not_gzip"
    assert "Content-Encoding" in error.detail


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_gzip(kept: float) -> None:
    body = gzip.compress(BODY)
    error = refusal(body[: int(len(body) * kept)])
    assert error.code == "truncated_gzip"
    assert "breaks off after" in error.detail


def test_truncated_gzip_is_found_after_good_rows() -> None:
    # Arrow reads 32 blocks ahead; the file is longer than that.
    slices = read_file(io.BytesIO(gzip.compress(BODY * 10)[:-20]), media_type="text/csv", limits=Limits(max_row_bytes=10_000))
    assert next(slices).customers.num_rows > 0
    with pytest.raises(UnreadableFile, match="breaks off"):
        list(slices)


@pytest.mark.parametrize("place", [-4, -8, 1_000])
def test_damaged_gzip(place: int) -> None:
    body = bytearray(gzip.compress(BODY))
    body[place] ^= 0xFF
    assert refusal(bytes(body)).code in {"corrupt_gzip", "bad_encoding"}


def test_rubbish_behind_gzip() -> None:
    assert refusal(gzip.compress(BODY) + b"rubbish").code == "corrupt_gzip"


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, br"])
def test_other_encodings_are_refused(encoding: str) -> None:
    error = refusal(BODY, encoding=encoding)
    assert error.code == "unsupported_encoding"
    assert "gzip" in error.detail


@pytest.mark.parametrize("media_type", ["text/csv", NDJSON, PARQUET])
def test_a_bomb_is_refused_at_its_bound(media_type: str) -> None:
    body = gzip.compress(BODY * 200, compresslevel=1)
    limits = Limits(max_decompressed_bytes=5_000_000)
    tracemalloc.start()
    try:
        assert refusal(body, media_type=media_type, limits=limits).code == "decompressed_too_large"
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_bomb_of_empty_gzip_files_within_gzip_is_refused() -> None:
    body = gzip.compress(gzip.compress(b"") * 100_000 + gzip.compress(BODY))
    assert refusal(body, limits=Limits(max_decompressed_bytes=1_000_000)).code == "decompressed_too_large"


def test_a_bomb_of_zeros_is_refused_by_its_first_row() -> None:
    assert refusal(gzip.compress(b"\0" * 50_000_000)).code == "not_csv"
    assert refusal(gzip.compress(b"\0" * 50_000_000), media_type=NDJSON).code == "cell_too_large"


def test_plain_text_is_bounded_too() -> None:
    assert refusal(BODY, limits=Limits(max_decompressed_bytes=len(BODY) - 1)).code == "decompressed_too_large"
    assert read_all(BODY, limits=Limits(max_decompressed_bytes=len(BODY)))


def test_reading_pulls_blocks_and_not_the_whole_upload() -> None:
    class Endless(io.RawIOBase):
        n_read = 0

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= 2**20
            self.n_read += size
            return (ndjson_of([customer()]) * (size // 300 + 1))[:size]

    stream = Endless()
    slices = read_file(stream, media_type=NDJSON, limits=Limits(max_row_bytes=10_000))  # type: ignore[arg-type]
    next(slices)
    slices.close()  # type: ignore[attr-defined]
    assert stream.n_read < 2 * HEAD_BYTES + 100_000


def test_a_socket_that_trickles_is_read_to_its_end() -> None:
    class Trickle(io.RawIOBase):
        rest = io.BytesIO(gzip.compress(BODY))

        def read(self, size: int = -1) -> bytes:
            return self.rest.read(min(size, 7) if size > 0 else 7)

    opened = open_bytes(Trickle(), encoding="gzip", limits=Limits())  # type: ignore[arg-type]
    assert read_up_to(opened, 10**9) == BODY


def test_a_rewound_stream_gives_its_head_first() -> None:
    assert Rewound(b"abc", io.BytesIO(b"def")).read() == b"abcdef"
    stream = Rewound(b"abc", io.BytesIO(b"def"))
    assert [stream.read(2), stream.read(2), stream.read(2), stream.read(2)] == [b"ab", b"c", b"de", b"f"]


def test_the_byte_order_mark_is_dropped_even_when_it_comes_alone() -> None:
    text = open_text(io.BytesIO(b"\xef\xbb\xbfa"), encoding=None, limits=Limits())
    assert text.read(3) == b"a"
    assert text.read(3) == b""


@pytest.mark.parametrize(("second", "byte"), [(b"(x", "0xC3"), (b"\xff", "0xC3"), (b"", "0xC3"), (b"\xa9\xe9!", "0xE9")])
def test_a_character_broken_between_two_blocks_is_located(second: bytes, byte: str) -> None:
    first = b"ab\nd\xc3"
    text = CheckedText(io.BytesIO(first + second), Limits())
    assert text.read(len(first)) == first
    with pytest.raises(UnreadableFile) as refused:
        text.read(len(second) or 1)
    offset = 4 if byte == "0xC3" else 6
    assert f"Line 2 is not UTF-8: byte {byte} at offset {offset}." in refused.value.detail
