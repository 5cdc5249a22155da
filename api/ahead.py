"""Reading one page ahead: the next one comes from Postgres while the one before it is encoded and sent."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Page = TypeVar("Page")


def read_ahead(pages: Generator[Page, None, None]) -> Generator[Page, None, None]:
    """Read the first page now, and then pass all on, each read in a thread while the one before it is used.

    Never more than one page waits, so memory is bounded, and what reading a page holds, such as a connection, is held once.
    An error is raised where its page would have come. The thread begins with the iteration and ends with it: by exhaustion,
    by an error or by `close`, which waits for the page that is being read.

    Parameters
    ----------
    pages : generator
        Is closed at the end. It is never run by two threads at a time.
    """
    return _ahead(next(pages, None), pages)


def _ahead(page: Page | None, pages: Generator[Page, None, None]) -> Generator[Page, None, None]:
    try:
        # Leaving the pool waits for its thread, so the pages are closed when nobody runs them.
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
            while page is not None:
                coming = reader.submit(next, pages, None)
                yield page
                page = coming.result()
    finally:
        pages.close()
