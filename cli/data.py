"""`churn import-telco` and `churn generate`: real and made-up customers as files to submit and to train on."""

from __future__ import annotations

from pathlib import Path

import click

from cli.exits import Exit
from cli.output import say, write_json
from cli.session import LocalCommand, Session, pass_session


@click.command("import-telco", cls=LocalCommand)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Folder to write to."
)
@pass_session
def import_telco(session: Session, *, file: Path, out: Path) -> Exit:
    """Read the public IBM Telco Customer Churn CSV.

    Writes customers.csv, to be submitted, and labelled.csv, to be trained on. The file knows no age and no income.
    """
    from datasets.files import write_customers, write_labelled
    from datasets.telco import read_telco

    labelled = read_telco(file)
    customers_path, labelled_path = out / "customers.csv", out / "labelled.csv"
    n_rows = write_customers(customers_path, [labelled.customers])
    write_labelled(labelled_path, [labelled])
    n_churned = int(labelled.churned.sum())
    if session.as_json:
        write_json({"customers": str(customers_path), "labelled": str(labelled_path), "n_rows": n_rows, "n_churned": n_churned})
    else:
        say(f"Wrote {n_rows:,} customers, of whom {n_churned:,} left, to {customers_path} and {labelled_path}.")
    return Exit.OK


@click.command(cls=LocalCommand)
@click.argument("n", type=click.IntRange(1), metavar="N")
@click.option(
    "-o",
    "--out",
    "--output",
    "output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="CSV to write.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same customers.")
@click.option("--labelled", is_flag=True, help="With a last column `churned`, to train on.")
@pass_session
def generate(session: Session, *, n: int, output: Path, seed: int, labelled: bool) -> Exit:
    """Write N synthetic customers as CSV. They are plausible, and they are made up."""
    from datasets.synthetic import write_csv

    write_csv(output, n, seed=seed, labelled=labelled)
    if session.as_json:
        write_json({"file": str(output), "n_rows": n, "seed": seed, "labelled": labelled, "synthetic": True})
    else:
        say(f"Wrote {n:,} synthetic customers (seed {seed}) to {output}.")
    return Exit.OK
