"""`churn models`: which models there are, and which one scores what is submitted next."""

from __future__ import annotations

from pathlib import Path

import click

from cli.admin import read_settings
from cli.describe import moment
from cli.exits import Exit
from cli.output import plain, say, write_fields, write_json, write_table
from cli.session import ApiCommand, LocalCommand, Session, pass_session


@click.group()
def models() -> None:
    """See, register and activate models."""


@models.command("list", cls=ApiCommand)
@pass_session
def list_models(session: Session) -> Exit:
    """List the registered models."""
    with session.client() as churn:
        found = churn.models()
    if session.as_json:
        write_json({"models": [model.raw for model in found]})
        return Exit.OK
    columns = ("version", "state", "AUC", "log loss", "registered", "activated")
    rows = (
        (
            model.version,
            model.state,
            _figure(model.metrics.get("auc")),
            _figure(model.metrics.get("log_loss")),
            moment(model.registered_at),
            moment(model.activated_at),
        )
        for model in found
    )
    write_table(columns, rows)
    return Exit.OK


@models.command(cls=ApiCommand)
@click.argument("version")
@pass_session
def show(session: Session, *, version: str) -> Exit:
    """Show one model with the metrics of its training."""
    with session.client() as churn:
        model = churn.model(version)
    if session.as_json:
        write_json(model.raw)
        return Exit.OK
    write_fields(
        {
            "version": model.version,
            "state": model.state,
            "sha256": model.sha256,
            "registered": moment(model.registered_at),
            "activated": moment(model.activated_at),
            **{name.replace("_", " "): _figure(value) for name, value in model.metrics.items()},
        }
    )
    return Exit.OK


@models.command(cls=LocalCommand)
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--activate", is_flag=True, help="Make it the current model at once.")
@pass_session
def register(session: Session, *, bundle: Path, activate: bool) -> Exit:
    """Register the model in the folder BUNDLE, as written by `churn train`.

    For administrators: it speaks to the database (DATABASE_OWNER_URL), copies the bundle below MODEL_STORAGE_PATH, and compiles
    the model there for the processor at hand. Registering a model again compiles it where that is missing.
    """
    from cli.registry import register_bundle

    report = register_bundle(bundle, read_settings(), activate=activate)
    if session.as_json:
        write_json(report)
    else:
        done = "registered and made the current model" if activate else "registered"
        say(f"Model {plain(report['version'])} is {done}; its bundle lies in {report['location']}.")
        if reason := report.get("engine_reason"):
            say(f"LightGBM scores it here, as it has no compiled engine: {plain(reason)}.")
    return Exit.OK


@models.command(cls=ApiCommand)
@click.argument("version")
@click.option("--offline", is_flag=True, help="For administrators: change the database (DATABASE_OWNER_URL) without the API.")
@pass_session
def activate(session: Session, *, version: str, offline: bool) -> Exit:
    """Make a registered model the current one; batches submitted before keep theirs."""
    if offline:
        from cli.registry import activate_offline

        report = activate_offline(version, read_settings())
    else:
        with session.client() as churn:
            report = dict(churn.activate(version).raw)
    if session.as_json:
        write_json(report)
    else:
        before = report.get("previous_version")
        say(
            f"Model {plain(report['new_version'])} is the current one"
            + (f"; before it was {plain(before)}." if before else ".")
        )
    return Exit.OK


def _figure(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, float) else None if value is None else str(value)
