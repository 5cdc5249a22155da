"""Writes the frozen files: ``python -m tests.unit.scoring.frozen.make``. Only needed when the feature declaration changes.

The expected scores are written from rows put into numbers here, by LightGBM alone; nothing of `scoring` computes them.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from datasets.synthetic import generate
from scoring.features import FEATURES
from scoring.model import save_bundle
from tests.unit.scoring.factories import booster_text, trained_model

HERE = Path(__file__).parent


def main() -> None:
    """Train on synthetic customers, with missing values and every category among the frozen rows."""
    shutil.rmtree(HERE / "bundle", ignore_errors=True)
    text = booster_text(4_000, 40, cat_smooth=1, min_data_per_group=5, min_data_in_leaf=5)
    save_bundle(HERE / "bundle", trained_model("frozen-1", model_text=text), created_at=datetime(2026, 11, 1, tzinfo=UTC))
    rows = generate(200, seed=77).customers.drop_columns(["row"]).to_pylist()
    matrix = np.array([[number_of(row, feature) for feature in FEATURES] for row in rows])
    probability = lgb.Booster(model_file=str(HERE / "bundle" / "model.txt")).predict(matrix)
    expected = np.asarray(probability).tolist()
    (HERE / "customers.json").write_text("\n".join(["[", ",\n".join(json.dumps(row) for row in rows), "]", ""]))
    (HERE / "churn_probability.json").write_text(json.dumps(expected, indent=0) + "\n")


def number_of(row: dict[str, Any], feature: Any) -> float:
    value = row[feature.name]
    if value is None:
        return float("nan")
    return float(feature.categories.index(value) if feature.categories else value)


if __name__ == "__main__":
    main()
