"""A file that is read while another process writes it: all of its bytes, no sooner than they are there, and no false end."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import IO

import pytest

from intake.arriving import ALL, MORE, Arriving


class Writer:
    """The other side."""

    def __init__(self, file: IO[bytes], words: Connection) -> None:
        self.file = file
        self.words = words

    def write(self, content: bytes) -> None:
        self.file.write(content)

    def say(self, word: bytes) -> None:
        self.words.send_bytes(word)


@pytest.fixture
def both() -> Iterator[tuple[Writer, Arriving]]:
    hears, words = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryFile(buffering=0) as file, hears, words:
        yield Writer(file, words), Arriving(file.fileno(), hears)


def test_what_is_there_is_read_without_a_word(both: tuple[Writer, Arriving]) -> None:
    writer, arriving = both
    writer.write(b"abcdef")
    assert [arriving.read(4), arriving.read(4)] == [b"abcd", b"ef"]


def test_a_reader_waits_for_more(both: tuple[Writer, Arriving]) -> None:
    writer, arriving = both
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(arriving.read(10)))
    reader.start()
    writer.write(b"late")
    writer.say(MORE)
    reader.join(timeout=10)
    assert got == [b"late"]


def test_words_that_say_nothing_new_are_no_end(both: tuple[Writer, Arriving]) -> None:
    writer, arriving = both
    writer.write(b"a")
    for word in (MORE, MORE, MORE):
        writer.say(word)
    assert arriving.read(10) == b"a"
    writer.say(ALL)
    assert arriving.read(10) == b""


def test_what_was_written_before_the_last_word_is_read(both: tuple[Writer, Arriving]) -> None:
    writer, arriving = both
    writer.say(MORE)
    writer.write(b"x" * 10)
    writer.say(ALL)
    assert b"".join(iter(lambda: arriving.read(3), b"")) == b"x" * 10
    assert arriving.read(3) == b""


def test_a_writer_that_is_gone_is_no_end(both: tuple[Writer, Arriving]) -> None:
    writer, arriving = both
    writer.write(b"half")
    writer.words.close()
    assert arriving.read(10) == b"half"
    with pytest.raises(EOFError):
        arriving.read(10)


def test_the_writers_place_is_left_alone(both: tuple[Writer, Arriving]) -> None:
    writer, arriving = both
    writer.write(b"one")
    assert arriving.read(3) == b"one"
    writer.write(b"two")
    assert arriving.read() == b"two"
    writer.file.seek(0)
    assert writer.file.read() == b"onetwo"
