"""What every command shares: the API's address and key, whether to speak JSON; options that work before and after its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from cli.output import say
from client import DEFAULT_API_URL, ChurnApiError, ChurnClient


@dataclass
class Session:
    """One run of the command."""

    api_url: str = DEFAULT_API_URL
    api_key: str | None = None
    as_json: bool = False
    debug: bool = False

    def client(self, **transport: Any) -> ChurnClient:
        """Open a client of the API; `transport` as ChurnClient takes it.

        Raises
        ------
        click.UsageError
            The address or the key is not usable.
        """
        try:
            return ChurnClient(self.api_url, api_key=self.api_key, on_retry=_tell, **transport)
        except ValueError as exc:
            raise click.UsageError(f"{exc} Set --api-url or CHURN_API_URL.") from exc


pass_session = click.make_pass_decorator(Session)


def _tell(error: ChurnApiError, pause_s: float) -> None:
    # Short pauses are not worth a word; a longer one looks like a hang without it.
    if pause_s >= 1.0:
        say(f"{error} Trying again in {pause_s:.0f} s.")


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    # An option that is given after the command's name wins over one before it; one that is not given changes nothing.
    if value:
        setattr(ctx.ensure_object(Session), str(param.name), value)
    return value


def _json_option() -> click.Option:
    help_text = "Write JSON to stdout; messages go to stderr."
    return click.Option(["--json", "as_json"], is_flag=True, expose_value=False, callback=_keep, help=help_text)


def _api_url_option(envvar: str | None = None) -> click.Option:
    help_text = f"Address of the API; CHURN_API_URL, or else {DEFAULT_API_URL}."
    return click.Option(
        ["--api-url"], metavar="URL", envvar=envvar, expose_value=False, is_eager=True, callback=_keep, help=help_text
    )


def _secret(name: str, envvar: str) -> click.Option:
    # Hidden, as it is meant to be set by environment: every user of the machine sees what stands on a command line.
    return click.Option([name], envvar=envvar, hidden=True, expose_value=False, is_eager=True, callback=_keep)


class LocalCommand(click.Command):
    """A command that does without the API; it knows --json."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_json_option())


class ApiCommand(LocalCommand):
    """A command that speaks to the API; it knows --api-url too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_api_url_option())


def shared_options() -> list[click.Parameter]:
    """The options of the whole command, which also read the environment."""
    debug = click.Option(
        ["--debug"], is_flag=True, envvar="CHURN_DEBUG", expose_value=False, callback=_keep, help="Show tracebacks of bugs."
    )
    return [_api_url_option("CHURN_API_URL"), _secret("--api-key", "CHURN_API_KEY"), _json_option(), debug]
