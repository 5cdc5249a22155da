"""`churn train`: labelled customers in, a model bundle with honest metrics out."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.admin import read_settings
from cli.exits import Exit
from cli.output import say, write_fields, write_json
from cli.session import LocalCommand, Session, pass_session

_MANY_ROWS = 300_000


@click.command(cls=LocalCommand)
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the bundle; must not exist."
)
@click.option("--version", help="Name of the model; by default the time.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="The same data and seed give the same model."
)
@click.option("--folds", type=click.IntRange(2), metavar="N", help="Cross-validate too, with N stratified, shuffled folds.")
@click.option("--register", "is_registered", is_flag=True, help="Register the model (needs DATABASE_OWNER_URL).")
@click.option("--activate", "is_activated", is_flag=True, help="Register it and make it the current one.")
@pass_session
def train(
    session: Session,
    *,
    data: Path,
    out: Path,
    version: str | None,
    seed: int,
    folds: int | None,
    is_registered: bool,
    is_activated: bool,
) -> Exit:
    """Train a model on DATA, a CSV of customers with a last column `churned` of 1 and 0.

    A fifth of the rows is held out for the metrics. `churn import-telco` and `churn generate --labelled` write such files.
    """
    # All that can be known to fail is asked before the minutes of training, not after.
    if out.exists():
        raise click.UsageError(f"{out} exists already, and a bundle never changes: name another --out.")
    settings = read_settings() if is_registered or is_activated else None
    report = _train(data, out, version or f"{datetime.now(UTC):%Y%m%d-%H%M%S}", seed=seed, folds=folds)
    if settings is not None:
        from cli.registry import register_bundle

        report["registration"] = register_bundle(out, settings, activate=is_activated)
    if session.as_json:
        write_json(report)
    else:
        write_fields(_in_words(report))
    return Exit.OK


def _train(data: Path, out: Path, version: str, *, seed: int, folds: int | None) -> dict[str, Any]:
    # LightGBM and scikit-learn take a second to import.
    from cli.labelled import is_synthetic, read_labelled
    from scoring import train as training
    from scoring.manifest import check_version
    from scoring.model import save_bundle

    try:
        check_version(version)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    labelled = read_labelled(data)
    say(f"Training on {len(labelled.churned):,} customers, of whom {int(labelled.churned.sum()):,} left.")
    num_threads = 0 if len(labelled.churned) > _MANY_ROWS else 1
    synthetic = is_synthetic(labelled.customers)
    model = training.train(labelled, version=version, data=data.name, synthetic=synthetic, seed=seed, num_threads=num_threads)
    bundle = save_bundle(out, model)
    report: dict[str, Any] = {
        "version": version,
        "bundle": str(out),
        "sha256": bundle.sha256,
        "metrics": dict(bundle.manifest.metrics),
        "calibration": bundle.manifest.calibration.to_json(),
        "training": dict(bundle.manifest.training),
    }
    if folds is not None:
        say(f"Cross-validating with {folds} folds.")
        found = training.cross_validate(labelled, folds=folds, seed=seed, num_threads=num_threads)
        report["cross_validation"] = [metrics.to_json() for metrics in found]
    return report


def _in_words(report: dict[str, Any]) -> dict[str, object]:
    training, metrics = report["training"], report["metrics"]
    words: dict[str, object] = {
        "model": report["version"],
        "bundle": report["bundle"],
        "sha256": report["sha256"],
        "data": training["data"] + (" (synthetic)" if training["synthetic"] else ""),
        "trees": training["n_rounds"],
        "calibration": report["calibration"]["method"],
        "held-out rows": f"{metrics['n_rows']:,.0f}",
        "base rate": f"{metrics['base_rate']:.4f}",
        "AUC": f"{metrics['auc']:.4f}",
        "log loss": f"{metrics['log_loss']:.4f}",
        "Brier score": f"{metrics['brier']:.4f}",
        "calibration error": f"{metrics['calibration_error']:.4f}",
        "lift at 10 %": f"{metrics['lift_at_10_percent']:.2f}",
    }
    if folds := report.get("cross_validation"):
        aucs = [fold["auc"] for fold in folds]
        words["cross-validated AUC"] = f"{statistics.mean(aucs):.4f} +- {statistics.stdev(aucs):.4f} ({len(aucs)} folds)"
    if registration := report.get("registration"):
        words["registered"] = "yes, and it is the current model" if registration["activated"] else "yes"
        reason = registration.get("engine_reason")
        words["engine"] = f"{registration['engine']} ({reason})" if reason else str(registration["engine"])
    return words
