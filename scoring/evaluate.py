"""How good a model is, measured on rows that it has not seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

CALIBRATION_BINS: Final = 10
LIFT_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality of churn probabilities.

    Attributes
    ----------
    auc : float
        Area under the ROC curve: the chance that a leaver is ranked above a stayer.
    log_loss, brier : float
        Proper scores; lower is better.
    calibration_error : float
        Mean distance between predicted and true rate over ten groups of equally many rows.
    lift_at_10_percent : float
        Churn rate of the tenth of customers most at risk, over the base rate.
    n_rows : int
        Rows measured on.
    base_rate : float
        Share of leavers among them.
    """

    auc: float
    log_loss: float
    brier: float
    calibration_error: float
    lift_at_10_percent: float
    n_rows: int
    base_rate: float

    def to_json(self) -> dict[str, float]:
        """The metrics by name."""
        return asdict(self)


def evaluate(churned: NDArray[np.bool_], churn_probability: NDArray[np.float64]) -> Metrics:
    """Measure churn probabilities, shape (n,), against what happened, shape (n,); both outcomes must occur."""
    return Metrics(
        auc=float(roc_auc_score(churned, churn_probability)),
        log_loss=float(log_loss(churned, churn_probability)),
        brier=float(brier_score_loss(churned, churn_probability)),
        calibration_error=calibration_error(churned, churn_probability),
        lift_at_10_percent=lift(churned, churn_probability, LIFT_SHARE),
        n_rows=len(churned),
        base_rate=float(churned.mean()),
    )


def calibration_error(
    churned: NDArray[np.bool_], churn_probability: NDArray[np.float64], n_bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error over groups of equally many rows.

    Groups of equal width, the usual choice, leave the high probabilities of a churn model to a handful of rows.

    References
    ----------
    .. [1] K. Nguyen, B. O'Connor, "Posterior calibration and exploratory analysis for natural language processing models",
       EMNLP 2015 (the adaptive bins).
    """
    groups = np.array_split(np.argsort(churn_probability, kind="stable"), n_bins)
    gaps = [abs(churned[rows].sum() - churn_probability[rows].sum()) for rows in groups]
    return float(sum(gaps) / len(churned))


def lift(churned: NDArray[np.bool_], churn_probability: NDArray[np.float64], share: float) -> float:
    """Churn rate of the given share of customers, those most at risk, divided by everyone's.

    Customers with equal probabilities at the edge count by their common rate, so that the order of the input does not matter.
    """
    n_top = max(1, round(share * len(churned)))
    edge = np.partition(churn_probability, -n_top)[-n_top]
    above, tied = churn_probability > edge, churn_probability == edge
    leavers = churned[above].sum() + churned[tied].mean() * (n_top - above.sum())
    return float(leavers / n_top / churned.mean())
