"""Reading one page ahead: in order, one page and no more, and nothing left behind whoever ends it."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from intake.ahead import read_ahead

PAGES = 10
SAFETY_S = 30.0


class Source:
    """Pages that say what was read, by whom, and whether reading was ended properly."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.reading: list[int] = []
        self.readers: list[str] = []
        self.is_closed = False
        self.second_began = threading.Event()

    def pages(self) -> Generator[int, None, None]:
        try:
            for number in range(PAGES):
                self.reading.append(number)
                self.readers.append(threading.current_thread().name)
                if number == 1:
                    self.second_began.set()
                if number == self.fails_at:
                    raise LookupError(f"page {number}")
                yield number
        finally:
            self.is_closed = True


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_pages_come_in_order_and_the_thread_ends_with_them() -> None:
    source = Source()
    assert list(read_ahead(source.pages())) == list(range(PAGES))
    assert source.is_closed
    assert threads_left() == []


def test_the_first_page_is_read_at_once_and_without_a_thread() -> None:
    source = Source()
    pages = read_ahead(source.pages())
    assert source.reading == [0]
    assert source.readers == [threading.current_thread().name]
    assert threads_left() == []
    pages.close()


def test_an_error_of_the_first_page_is_seen_before_anything_is_sent() -> None:
    with pytest.raises(LookupError, match="page 0"):
        read_ahead(Source(fails_at=0).pages())


def test_the_next_page_is_read_while_one_is_used() -> None:
    source = Source()
    pages = read_ahead(source.pages())
    assert next(pages) == 0
    assert source.second_began.wait(SAFETY_S)
    pages.close()
    assert source.readers[1].startswith("read-ahead")


@pytest.mark.parametrize("used", [1, 2, 5])
def test_never_more_than_one_page_waits(used: int) -> None:
    source = Source()
    pages = read_ahead(source.pages())
    for number in range(used):
        assert next(pages) == number
    pages.close()  # Waits for the page that is being read, so that this is all that was ever read.
    assert source.reading == list(range(used + 1))


def test_whoever_leaves_early_leaves_no_thread_and_no_open_pages() -> None:
    source = Source()
    read = source.pages()  # Held, so that it is closed and not merely forgotten.
    pages = read_ahead(read)
    next(pages)
    assert len(threads_left()) == 1
    pages.close()
    assert threads_left() == []
    assert source.is_closed


def test_an_error_is_raised_where_its_page_would_have_come() -> None:
    source = Source(fails_at=3)
    pages = read_ahead(source.pages())
    assert [next(pages) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="page 3"):
        next(pages)
    assert threads_left() == []
    assert source.is_closed


def test_no_page_at_all() -> None:
    assert list(read_ahead(page for page in ())) == []
