"""The model that is measured: 300 trees of 31 leaves over the fifteen features, trained on synthetic customers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from sqlalchemy import Engine

from bench.measure import tell
from datasets.synthetic import DESCRIPTION, generate
from db.models import activate_model, register_model
from scoring.calibrate import Calibration
from scoring.compiled import EngineChoice, choose_engine
from scoring.compiling import ensure_compiled
from scoring.evaluate import evaluate
from scoring.features import FEATURE_NAMES, FEATURES, Kind
from scoring.manifest import Reference
from scoring.model import ModelBundle, load_bundle, save_bundle
from scoring.native import FOLDER
from scoring.score import Scorer
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
    """Train the model, store its bundle in `storage` and compile it, as registering does.

    Its size is fixed, so early stopping and calibration have no say.
    """
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
    bundle = save_bundle(storage / VERSION, model)
    if _choice() is not EngineChoice.LIGHTGBM:
        reason = ensure_compiled(storage / VERSION, storage / FOLDER, sha256=bundle.sha256)
        tell(f"Not compiled: {reason}." if reason else "Compiled it.")
    return bundle


def load_scorer(bundle: Path, choice: EngineChoice | None = None) -> Scorer:
    """A stored bundle, ready to score on an engine; without a choice on the one that the workers would choose."""
    loaded = load_bundle(bundle)
    return Scorer(loaded, engine=choose_engine(loaded, choice=choice or _choice(), native_folder=bundle.parent / FOLDER).engine)


def engine_name(bundle: Path) -> EngineChoice:
    """The engine that the workers choose for a stored bundle."""
    return choose_engine(load_bundle(bundle), choice=_choice(), native_folder=bundle.parent / FOLDER).name


def activate(engine: Engine, bundle: ModelBundle) -> None:
    """Make a stored bundle the active model of a database."""
    with engine.begin() as conn:
        register_model(conn, location=VERSION, **bundle.record())
        activate_model(conn, VERSION)


def _choice() -> EngineChoice:
    return EngineChoice(os.environ.get("SCORING_ENGINE") or EngineChoice.AUTO)
