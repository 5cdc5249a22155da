"""`python -m deploy.grafana`: write the dashboards' JSON; made again after every change of boards/."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from deploy.grafana.boards import BOARDS
from deploy.grafana.files import file_name, text_of

_FOLDER: Final = Path(__file__).parent / "dashboards"


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=_FOLDER, help="The folder to write into.")
@click.option("--repository", default="", help="Where people read this repository: the links to docs/runbook.md begin with it.")
def main(out: Path, repository: str) -> None:
    """Write one JSON file for each dashboard."""
    out.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (out / file_name(board)).write_text(text_of(board, repository=repository.rstrip("/")))
        click.echo(f"{board.title}: {out / file_name(board)}")


if __name__ == "__main__":
    main()
