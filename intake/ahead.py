"""Working one step ahead: the next item is made in a thread while the one before it is used."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Make the first item now, and then pass all on, each made in a thread while the one before it is used.

    Never more than one item waits, so memory is bounded, and what making one holds, such as a connection, is held once. An
    error is raised where its item would have come. The thread begins with the iteration and ends with it: by exhaustion, by an
    error or by `close`, which waits for the item that is being made.

    Parameters
    ----------
    items : generator
        Is closed at the end. It is never run by two threads at a time.
    """
    return _ahead(next(items, None), items)


def _ahead(item: Item | None, items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    try:
        # Leaving the pool waits for its thread, so the items are closed when nobody runs them.
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as maker:
            while item is not None:
                coming = maker.submit(next, items, None)
                yield item
                item = coming.result()
    finally:
        items.close()
