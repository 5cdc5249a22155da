"""Training: labelled customers in, a model with honest metrics out.

One fifth of the rows is held out and touched once, for the metrics. On the rest, five-fold cross-validation chooses the number
of trees (early stopping on the mean log loss) and yields out-of-fold probabilities, on which calibrations compete; one is kept
only if it lowers both log loss and Brier score on folds that it was not fitted on. The booster is then fitted on that rest, and
it is this booster, not another one, that the metrics describe. The same rows, seed and parameters give the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as library_version
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split

from scoring.calibrate import Calibration, fit_isotonic, fit_platt
from scoring.errors import DataError
from scoring.evaluate import Metrics, evaluate
from scoring.features import FEATURE_NAMES, FEATURES, Kind
from scoring.labelled import Examples, Labelled
from scoring.manifest import Reference, check_version

DEFAULT_PARAMS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "learning_rate": 0.05,
        "num_leaves": 5,
        "min_data_in_leaf": 40,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 10.0,
        "max_bin": 63,
    }
)
MAX_ROUNDS: Final = 2_000
PATIENCE_ROUNDS: Final = 50
FOLDS: Final = 5
HOLD_OUT: Final = 0.2
MIN_ROWS_PER_OUTCOME: Final = 50
"""Fewer leavers or stayers leave ten or fewer in a fold, and metrics that say nothing."""
N_REFERENCE_ROWS: Final = 8

_FIXED: Final = {
    "objective": "binary",
    "metric": "binary_logloss",
    "verbose": -1,
    "deterministic": True,
    "force_row_wise": True,
}
_CATEGORIES: Final = [position for position, feature in enumerate(FEATURES) if feature.kind is Kind.CATEGORY]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A trained model that is not stored yet; `scoring.model.save_bundle` stores it.

    Attributes
    ----------
    model_text : str
        The booster in LightGBM's text format.
    metrics : Metrics
        Of the held-out rows.
    training : Mapping
        The JSON object that the manifest keeps about the data and the way of training.
    """

    version: str
    model_text: str
    calibration: Calibration
    metrics: Metrics
    training: Mapping[str, Any]
    reference: Reference


class _Fit(NamedTuple):
    booster: lgb.Booster
    n_rounds: int
    calibration: Calibration

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.calibration.apply(np.asarray(self.booster.predict(matrix), dtype=np.float64))


def train(
    labelled: Labelled,
    *,
    version: str,
    data: str,
    synthetic: bool = False,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
    num_threads: int = 1,
) -> TrainedModel:
    """Train a model and measure it on held-out rows.

    Parameters
    ----------
    version : str
        The model's name, see `scoring.manifest.check_version`.
    data : str
        What the rows are, in words, for the manifest (a file's name, or the generator and its seed).
    synthetic : bool
        Whether the rows were generated; the manifest says so.
    params : Mapping or None
        LightGBM parameters that go over `DEFAULT_PARAMS`.
    num_threads : int
        Threads of LightGBM; one is fastest up to some hundred thousand rows, 0 means every core.

    Raises
    ------
    DataError
        If fewer than `MIN_ROWS_PER_OUTCOME` customers left, or stayed.
    ValueError
        If the version's name is not fit for a folder.
    """
    check_version(version)
    examples = labelled.examples()
    _check_outcomes(examples)
    chosen = {**DEFAULT_PARAMS, **(params or {})}
    fitting_rows, held_out_rows = train_test_split(
        np.arange(len(examples.churned)), test_size=HOLD_OUT, stratify=examples.churned, random_state=seed
    )
    fitting, held_out = examples.at(np.sort(fitting_rows)), examples.at(np.sort(held_out_rows))
    fit = _fit(fitting, chosen, seed, num_threads)
    reference = held_out.matrix[:N_REFERENCE_ROWS]
    return TrainedModel(
        version=version,
        model_text=fit.booster.model_to_string(),
        calibration=fit.calibration,
        metrics=evaluate(held_out.churned, fit.predict(held_out.matrix)),
        training={
            "data": data,
            "synthetic": synthetic,
            "data_sha256": examples.fingerprint(),
            "n_rows": len(examples.churned),
            "n_rows_fitted": len(fitting.churned),
            "base_rate": float(examples.churned.mean()),
            "seed": seed,
            "params": chosen,
            "n_rounds": fit.n_rounds,
            "libraries": {name: library_version(name) for name in ("lightgbm", "numpy", "scikit-learn")},
        },
        reference=Reference(reference, fit.predict(reference)),
    )


def cross_validate(
    labelled: Labelled,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
    num_threads: int = 1,
) -> list[Metrics]:
    """Train and measure once a fold, stratified and shuffled; metrics in the order of the folds.

    All choices (number of trees, calibration) are made anew within each fold's training rows, so no test row has a say in them.
    Arguments and errors are those of `train`.
    """
    examples = labelled.examples()
    _check_outcomes(examples)
    chosen = {**DEFAULT_PARAMS, **(params or {})}
    return [
        evaluate(test.churned, _fit(fitting, chosen, seed, num_threads).predict(test.matrix))
        for fitting, test in ((examples.at(near), examples.at(far)) for near, far in _folds(examples, folds, seed))
    ]


def choose_calibration(probability: NDArray[np.float64], churned: NDArray[np.bool_], *, seed: int) -> Calibration:
    """Keep the calibration that is measured to help most, or none.

    Parameters
    ----------
    probability : ndarray of float64, shape (n,)
        Of rows that the booster was not fitted on.
    churned : ndarray of bool, shape (n,)
        What happened.

    Returns
    -------
    Calibration
        Fitted on all the rows. Each candidate is judged by five-fold cross-fitting; one that does not lower both the log loss
        and the Brier score is out, and the lowest log loss wins.
    """
    examples = Examples(probability[:, None], churned)
    best, best_loss = Calibration(), float(log_loss(churned, probability))
    plain_brier = brier_score_loss(churned, probability)
    for fit in (fit_platt, fit_isotonic):
        calibrated = _cross_fitted(fit, examples, seed)
        loss = float(log_loss(churned, calibrated))
        if loss < best_loss and brier_score_loss(churned, calibrated) < plain_brier:
            best, best_loss = fit(probability, churned), loss
    return best


def _cross_fitted(
    fit: Callable[[NDArray[np.float64], NDArray[np.bool_]], Calibration], examples: Examples, seed: int
) -> NDArray[np.float64]:
    probability, churned = examples.matrix[:, 0], examples.churned
    calibrated = np.empty_like(probability)
    for near, far in _folds(examples, FOLDS, seed):
        calibrated[far] = fit(probability[near], churned[near]).apply(probability[far])
    return calibrated


def _fit(examples: Examples, params: Mapping[str, Any], seed: int, num_threads: int) -> _Fit:
    settings = {**_FIXED, **params, "seed": seed, "num_threads": num_threads}
    n_rounds, out_of_fold = _cross_fit_rounds(examples, settings, seed)
    calibration = choose_calibration(out_of_fold, examples.churned, seed=seed)
    return _Fit(lgb.train(settings, _dataset(examples, settings), num_boost_round=n_rounds), n_rounds, calibration)


def _cross_fit_rounds(examples: Examples, settings: dict[str, Any], seed: int) -> tuple[int, NDArray[np.float64]]:
    """The number of trees at which the mean log loss over the folds is lowest, and the out-of-fold probabilities there."""
    folds = _folds(examples, FOLDS, seed)
    outcome = lgb.cv(
        settings,
        _dataset(examples, settings),
        num_boost_round=MAX_ROUNDS,
        folds=folds,
        callbacks=[lgb.early_stopping(PATIENCE_ROUNDS, verbose=False)],
        return_cvbooster=True,
    )
    boosters = cast(lgb.CVBooster, outcome["cvbooster"])
    out_of_fold = np.empty(len(examples.churned))
    for booster, (_, far) in zip(boosters.boosters, folds, strict=True):
        out_of_fold[far] = booster.predict(examples.matrix[far], num_iteration=boosters.best_iteration)
    return boosters.best_iteration, out_of_fold


def _dataset(examples: Examples, settings: dict[str, Any]) -> lgb.Dataset:
    return lgb.Dataset(
        examples.matrix,
        label=examples.churned.astype(np.float64),
        feature_name=list(FEATURE_NAMES),
        categorical_feature=_CATEGORIES,
        params=settings,
        free_raw_data=False,
    )


def _folds(examples: Examples, folds: int, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(examples.matrix, examples.churned))


def _check_outcomes(examples: Examples) -> None:
    n_left = int(examples.churned.sum())
    n_stayed = len(examples.churned) - n_left
    if min(n_left, n_stayed) < MIN_ROWS_PER_OUTCOME:
        raise DataError(
            f"{n_left} customers left and {n_stayed} stayed; training needs at least {MIN_ROWS_PER_OUTCOME} of each",
            code="too_few_examples",
        )
