"""Customers and models for the tests of scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets.synthetic import generate
from scoring.calibrate import Calibration
from scoring.evaluate import Metrics
from scoring.features import CUSTOMER_ID, FEATURES, Feature, Kind
from scoring.manifest import Reference
from scoring.table import CUSTOMER_SCHEMA, ROW, arrow_type
from scoring.train import TrainedModel

Row = Mapping[str, Any]


def customer(**values: Any) -> dict[str, Any]:
    """A valid customer; arguments replace its values."""
    return {feature.name: feature.example for feature in FEATURES} | {CUSTOMER_ID: "C-1"} | values


def table_of(*rows: Row) -> pa.Table:
    """A table with CUSTOMER_SCHEMA of customers given as mappings."""
    arrays = {
        ROW: pa.array(range(len(rows)), pa.int32()),
        CUSTOMER_ID: pa.array([row[CUSTOMER_ID] for row in rows], pa.string()),
    }
    for feature in FEATURES:
        arrays[feature.name] = _array(feature, [row[feature.name] for row in rows])
    return pa.table(arrays, schema=CUSTOMER_SCHEMA)


def _array(feature: Feature, values: list[Any]) -> pa.Array:
    if feature.kind is not Kind.CATEGORY:
        return pa.array(values, arrow_type(feature))
    codes = [None if value is None else feature.categories.index(value) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(feature.categories))


def booster_text(n_rows: int = 600, n_rounds: int = 5, **params: Any) -> str:
    """A small booster over the declaration's features, in LightGBM's text format."""
    import lightgbm as lgb

    examples = generate(n_rows, seed=3).examples()
    data = lgb.Dataset(
        examples.matrix,
        label=examples.churned.astype(np.float64),
        feature_name=[feature.name for feature in FEATURES],
        categorical_feature=[place for place, feature in enumerate(FEATURES) if feature.kind is Kind.CATEGORY],
    )
    settings = {"objective": "binary", "verbose": -1, "num_leaves": 8, "num_threads": 1, "deterministic": True, "seed": 3}
    return str(lgb.train({**settings, **params}, data, n_rounds).model_to_string())


def predict(model_text: str, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """LightGBM's own word on a matrix."""
    import lightgbm as lgb

    return np.asarray(lgb.Booster(model_str=model_text).predict(matrix), dtype=np.float64)


def trained_model(
    version: str = "test-1", calibration: Calibration | None = None, model_text: str | None = None
) -> TrainedModel:
    """A small model with made-up metrics, quicker than training one."""
    text = model_text or booster_text()
    chosen = calibration or Calibration()
    matrix = generate(4, seed=9).examples().matrix
    return TrainedModel(
        version=version,
        model_text=text,
        calibration=chosen,
        metrics=Metrics(0.8, 0.4, 0.13, 0.02, 2.5, 120, 0.26),
        training={"data": "a test", "synthetic": True},
        reference=Reference(matrix, chosen.apply(predict(text, matrix))),
    )
