"""`python -m deploy.local up | demo | down`, which make calls; `supervise` is for our own use."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from client import ChurnApiError
from deploy.local.choices import read_choices
from deploy.local.control import follow_start, start, stop
from deploy.local.errors import LocalError
from deploy.local.layout import Layout, default_layout
from deploy.local.plan import make_plan
from deploy.local.process import die_with_parent
from deploy.local.state import is_supervised
from deploy.local.supervisor import Supervisor
from settings import ENV_FILE


@click.group(help="Run the whole product on this machine, without Docker.")
@click.option("--var", type=click.Path(path_type=Path), default=None, help="Folder of the data; var/ of the checkout.")
@click.pass_context
def cli(context: click.Context, var: Path | None) -> None:
    """Choose the data folder."""
    context.obj = default_layout() if var is None else Layout(var.resolve())


@cli.command(help="Start everything in the background; ready when this returns.")
@click.pass_obj
def up(layout: Layout) -> None:
    """Start, or find what runs."""
    from deploy.local.picture import addresses

    console = Console(highlight=False, soft_wrap=True)
    was_up = is_supervised(layout)
    process = None if was_up else start(layout, console.print, tied=False)
    try:
        state = follow_start(layout, console.print, process)
    except KeyboardInterrupt:
        if process is not None:
            stop(layout, console.print)
        raise
    if process is not None:
        process.returncode = 0  # It lives on; the interpreter need not warn of it.
    console.print("It was up already." if was_up else "Everything is up; `make down` stops it.")
    console.print(addresses(state), markup=False)
    console.print("The churn command finds the key and the database after:  set -a; . var/env; set +a")


@cli.command(help="Start everything, score a batch of synthetic customers, show who is most at risk.")
@click.option("--once", is_flag=True, envvar="ONCE", help="End by itself after the batch.")
@click.pass_obj
def demo(layout: Layout, once: bool) -> None:
    """Run the demo."""
    from deploy.local.demo import run_demo

    sys.exit(run_demo(layout, Console(highlight=False, soft_wrap=True), once=once))


@cli.command(help="Stop everything that up started.")
@click.pass_obj
def down(layout: Layout) -> None:
    """Stop what runs."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Everything has stopped; the data stay." if stop(layout, console.print) else "Nothing is running.")


@cli.command(hidden=True)
@click.option("--tied-to", type=int, default=None, help="Pid of the parent whose death ends everything.")
@click.pass_obj
def supervise(layout: Layout, tied_to: int | None) -> None:
    """Be the supervisor."""
    if tied_to is not None:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != tied_to:
            return
    sys.exit(Supervisor(layout, lambda: make_plan(layout, read_choices(ENV_FILE))).run())


def main() -> None:
    """Run a command; faults that the person can mend are shown without a traceback."""
    try:
        cli(prog_name="python -m deploy.local", standalone_mode=False)
    except (LocalError, ChurnApiError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"\n{message}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


if __name__ == "__main__":
    main()
