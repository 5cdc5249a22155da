"""`churn describe`: the tasks that Flower and Celery show, in words; each kind of them, or one by its id."""

from __future__ import annotations

from dataclasses import asdict

import click

from cli.describe import fields_of
from cli.exits import Exit
from cli.output import plain, write_fields, write_json, write_line
from cli.session import ApiCommand, Session, pass_session
from client import Batch
from schemas import task_ids
from schemas.messages import KINDS, Kind
from schemas.task_ids import TaskAbout

_EPILOG = """\b
Examples:
  churn describe
  churn describe june.chunk-12.5f3a9c1e
"""


@click.command(cls=ApiCommand, epilog=_EPILOG)
@click.argument("task_id", metavar="[TASK]", required=False)
@pass_session
def describe(session: Session, *, task_id: str | None) -> Exit:
    """Say what a task is.

    TASK is its id, as Flower calls it the UUID: what it is about is told, and how its batch stands. Without one, every kind of
    task is described: what a worker does with it, which queues carry it, and how its id is made.
    """
    if task_id is None:
        _kinds(session)
        return Exit.OK
    about = task_ids.read(task_id.strip())
    if about is None:
        raise click.UsageError(f"{plain(task_id)} is no id of a task such as june.chunk-12.5f3a9c1e; see churn describe.")
    kind = next(kind for kind in KINDS if kind.name == about.name)
    if about.batch_id is None:
        _about(session, kind, about, None)
        return Exit.OK
    with session.client() as churn:
        batch = churn.batch(about.batch_id)
    _about(session, kind, about, batch)
    return Exit.OK


def _kinds(session: Session) -> None:
    if session.as_json:
        write_json({"tasks": [asdict(kind) for kind in KINDS]})
        return
    for place, kind in enumerate(KINDS):
        if place:
            write_line("")
        queues = ", ".join(kind.queues)
        write_fields(
            {"task": kind.name, "does": kind.description, "routing keys": queues, "message": kind.arguments, "id": kind.id_form}
        )


def _about(session: Session, kind: Kind, about: TaskAbout, batch: Batch | None) -> None:
    named = {name: value for name, value in asdict(about).items() if value is not None}
    if session.as_json:
        write_json({**named, "description": kind.description, "batch": None if batch is None else batch.raw})
        return
    write_fields(
        {
            "task": kind.name,
            "does": kind.description,
            "chunk": about.chunk_no,
            "prediction": about.prediction_id,
            "scored with it": f"{about.others} more" if about.others else None,
            "delivery": about.delivery_id,
            **({} if batch is None else fields_of(batch)),
        }
    )
