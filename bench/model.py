"""The model that is measured: 300 trees of 31 leaves over the fifteen features, trained on synthetic customers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from sqlalchemy import Engine

from datasets.synthetic import DESCRIPTION, generate
from db.models import activate_model, register_model
from scoring.calibrate import Calibration
from scoring.evaluate import evaluate
from scoring.features import FEATURE_NAMES, FEATURES, Kind
from scoring.manifest import Reference
from scoring.model import ModelBundle, save_bundle
from scoring.train import TrainedModel

VERSION: Final = "bench-300x31"
TREES: Final = 300
LEAVES: Final = 31
_ROWS: Final = 50_000
_SEED: Final = 1
_PARAMS: Final[Mapping[str, Any]] = {
    "objective": "binary",
    "num_leaves": LEAVES,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "seed": _SEED,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}


def build_bundle(storage: Path) -> ModelBundle:
    """Train the model and store its bundle in `storage`; its size is fixed, so early stopping and calibration have no say."""
    examples = generate(_ROWS, seed=_SEED).examples()
    n_fitted = _ROWS * 4 // 5
    fitted, held_out = examples.at(np.arange(n_fitted)), examples.at(np.arange(n_fitted, _ROWS))
    dataset = lgb.Dataset(
        fitted.matrix,
        label=fitted.churned.astype(np.float64),
        feature_name=list(FEATURE_NAMES),
        categorical_feature=[place for place, feature in enumerate(FEATURES) if feature.kind is Kind.CATEGORY],
    )
    booster = lgb.train(dict(_PARAMS), dataset, num_boost_round=TREES)
    scores = np.asarray(booster.predict(held_out.matrix), dtype=np.float64)
    model = TrainedModel(
        version=VERSION,
        model_text=booster.model_to_string(),
        calibration=Calibration(),
        metrics=evaluate(held_out.churned, scores),
        training={"data": DESCRIPTION, "synthetic": True, "seed": _SEED, "n_rows": _ROWS, "params": dict(_PARAMS)},
        reference=Reference(held_out.matrix[:8], scores[:8]),
    )
    return save_bundle(storage / VERSION, model)


def activate(engine: Engine, bundle: ModelBundle) -> None:
    """Make a stored bundle the active model of a database."""
    with engine.begin() as conn:
        register_model(conn, location=VERSION, **bundle.record())
        activate_model(conn, VERSION)
