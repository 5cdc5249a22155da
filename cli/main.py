"""The `churn` command: its parts put together, and the one place where a run ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from cli.audit import audit
from cli.batches import cancel, list_batches, pause, reconcile, resume, retry, status
from cli.data import generate, import_telco
from cli.database import database
from cli.doctor import doctor
from cli.exits import HELP, Exit
from cli.failures import EXPECTED, report, report_bug
from cli.keys import keys
from cli.migrate import migrate
from cli.models import models
from cli.output import say
from cli.predict import health, predict
from cli.results import errors, results
from cli.session import Session, shared_options
from cli.submit import submit
from cli.tasks import describe
from cli.top.command import top
from cli.train import train
from cli.webhooks import webhooks

COMMANDS: tuple[click.Command, ...] = (
    submit,
    predict,
    status,
    list_batches,
    results,
    errors,
    cancel,
    pause,
    resume,
    retry,
    reconcile,
    webhooks,
    keys,
    health,
    top,
    describe,
    train,
    models,
    import_telco,
    generate,
    migrate,
    database,
    audit,
    doctor,
)


class _Churn(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        # In the order of use; the alphabet would tear apart what belongs together.
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        # Caught here, inside of click, which would otherwise end the process with the code of a failure.
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _silence_stdout()
            return Exit.PIPE_CLOSED
        return code


@click.group(
    cls=_Churn,
    params=shared_options(),
    epilog=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="churn-prediction-api", message="churn %(version)s")
def churn() -> None:
    """Predict which customers leave: submit batches, fetch scores, train models.

    Results go to standard output and messages to standard error; every command knows --json.
    """


for _command in COMMANDS:
    churn.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code, see cli/exits.py.
    """
    session = Session()
    try:
        code = churn.main(args=argv, prog_name="churn", standalone_mode=False, obj=session)
        return int(code or Exit.OK)
    except (click.Abort, KeyboardInterrupt):
        say("Interrupted.")
        return Exit.INTERRUPTED
    except click.UsageError as error:
        error.show()
        return Exit.USAGE
    except EXPECTED as error:
        return report(session, error)
    except Exception as error:  # noqa: BLE001 - the last line of defence against a traceback
        return report_bug(session, error)


def _silence_stdout() -> None:
    # What is still buffered would raise again when the interpreter flushes it at its end.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


if __name__ == "__main__":
    sys.exit(main())
