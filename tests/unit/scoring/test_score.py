"""Scores: LightGBM's, calibrated, sorted into bands; and the guards against a model that lies."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.synthetic import generate
from scoring.calibrate import Calibration, Method
from scoring.engine import LightGBMEngine
from scoring.errors import BundleCorrupt, BundleMismatch, ModelError
from scoring.manifest import Reference
from scoring.matrix import matrix_of
from scoring.model import ModelBundle, save_bundle
from scoring.risk import RiskThresholds, categorise
from scoring.score import Scorer
from scoring.table import CUSTOMER_SCHEMA
from tests.unit.scoring.factories import booster_text, predict, trained_model

CUSTOMERS = generate(300, seed=12).customers


@pytest.fixture
def bundle(tmp_path: Path) -> ModelBundle:
    calibration = Calibration(Method.PLATT, slope=1.3, intercept=0.2)
    return save_bundle(tmp_path / "v1", trained_model(calibration=calibration), thresholds=RiskThresholds(0.2, 0.3, 0.4))


def test_a_score_is_the_calibrated_probability_of_lightgbm(bundle: ModelBundle) -> None:
    expected = bundle.manifest.calibration.apply(predict(bundle.model_text, matrix_of(CUSTOMERS)))
    scores = Scorer(bundle).score(CUSTOMERS)
    assert scores.churn_probability.tolist() == expected.tolist()
    assert scores.confidence.tolist() == np.maximum(expected, 1 - expected).tolist()


def test_bands_come_from_the_bundle(bundle: ModelBundle) -> None:
    scores = Scorer(bundle).score(CUSTOMERS)
    assert scores.risk.tolist() == categorise(scores.churn_probability, RiskThresholds(0.2, 0.3, 0.4)).tolist()
    assert len(set(scores.risk.tolist())) > 1


def test_an_installations_own_bands_go_first(bundle: ModelBundle) -> None:
    own = RiskThresholds(0.001, 0.002, 0.003)
    assert set(Scorer(bundle, thresholds=own).score(CUSTOMERS).risk.tolist()) == {3}


def test_threads_do_not_change_a_score(bundle: ModelBundle) -> None:
    one, two = (Scorer(bundle, num_threads=threads).score(CUSTOMERS) for threads in (1, 2))
    assert one.churn_probability.tolist() == two.churn_probability.tolist()


def test_no_customers_have_no_scores(bundle: ModelBundle) -> None:
    scores = Scorer(bundle).score(CUSTOMER_SCHEMA.empty_table())
    assert (scores.churn_probability.shape, scores.risk.dtype, scores.confidence.shape) == ((0,), np.int8, (0,))


def test_a_model_that_scores_its_reference_otherwise_is_refused(bundle: ModelBundle) -> None:
    reference = bundle.manifest.reference
    shifted = Reference(reference.matrix, reference.churn_probability + 1e-6)
    with pytest.raises(BundleMismatch, match="scores its reference rows"):
        Scorer(replace(bundle, manifest=replace(bundle.manifest, reference=shifted)))


def test_a_probability_that_is_not_a_number_never_becomes_a_band(bundle: ModelBundle) -> None:
    scorer = Scorer(bundle)
    scorer._engine = NaNEngine()
    with pytest.raises(ModelError, match="not a number"):
        scorer.score(CUSTOMERS)


class NaNEngine:
    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return np.full(len(matrix), np.nan)


def test_what_lightgbm_cannot_read_is_corrupt(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleCorrupt, match="LightGBM cannot read the model"):
        LightGBMEngine("not a model")


def test_a_model_of_other_features_is_refused() -> None:
    with pytest.raises(BundleMismatch, match="was trained on years, gender"):
        LightGBMEngine(booster_text().replace("feature_names=age ", "feature_names=years "))


def test_a_model_that_is_no_classifier_is_refused() -> None:
    with pytest.raises(BundleMismatch, match="does not predict a binary outcome"):
        LightGBMEngine(booster_text(objective="regression"))


def test_a_forked_child_scores(bundle: ModelBundle, tmp_path: Path) -> None:
    # The worker's way: imports and a verified bundle in the parent, the engine in the child. With a Booster loaded and used
    # in the parent the child would hang at its first prediction (LightGBM#6137).
    code = """
import os, pathlib, sys
from scoring.model import load_bundle
from scoring.score import Scorer
import numpy as np
bundle = load_bundle(pathlib.Path(sys.argv[1]))
child = os.fork()
if child == 0:
    scores = Scorer(bundle, num_threads=2).score_matrix(np.full((5000, 15), np.nan))
    os._exit(0 if len(scores.risk) == 5000 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "v1")], check=False, timeout=60)
    assert done.returncode == 0


def test_scoring_loads_no_sklearn_and_training_may_follow(tmp_path: Path) -> None:
    save_bundle(tmp_path / "v1", trained_model())
    code = (
        "import sys; from pathlib import Path\n"
        "from scoring.engine import LightGBMEngine; from scoring.model import load_bundle\n"
        "LightGBMEngine(load_bundle(Path(sys.argv[1])).model_text)\n"
        "assert 'sklearn' not in sys.modules\n"
        "from datasets.synthetic import generate; from scoring.train import train\n"
        "assert train(generate(600, seed=1), version='t', data='a test', params={'num_leaves': 3}).metrics.auc > 0.5\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "v1")]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
