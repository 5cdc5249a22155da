"""Where things are written: results to stdout, words about them to stderr, and a terminal's codes to terminals alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def plain(value: object) -> str:
    """A value as printable text: data of strangers must not steer the terminal it is shown on."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def say(message: str) -> None:
    """Write a line for people to stderr."""
    click.echo(message, err=True)


def write_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def write_line(line: str) -> None:
    """Write a line of the result to stdout."""
    click.echo(line)


def write_fields(fields: Mapping[str, object]) -> None:
    """Write names and values, one a line; what is None or empty is left out."""
    shown = {name: plain(value) for name, value in fields.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name:<{width}}  {value}")


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Write a table: drawn on a terminal, tab-separated with a header line into a pipe, where `cut` and `awk` read it."""
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(map(plain, row)))
        return
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        # Text, not markup: a customer_id such as "[red]" is data.
        table.add_row(*(Text(plain(cell), justify="right" if isinstance(cell, int | float) else "left") for cell in row))
    Console().print(table)
