"""What every score must be: that of LightGBM's own Booster.predict in one process, sharing no code with the product's way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from scoring.calibrate import Calibration
from scoring.features import FEATURES, Kind
from scoring.manifest import parse_manifest


def golden(bundle: Path, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Score rows in one process by Booster.predict alone: a matrix built value by value, and the bundle's calibration."""
    matrix = np.array([[_number(row.get(f.name), f.kind, f.categories) for f in FEATURES] for row in rows])
    raw = lightgbm.Booster(model_file=bundle / "model.txt").predict(matrix)
    calibration: Calibration = parse_manifest((bundle / "manifest.json").read_bytes()).calibration
    return calibration.apply(np.asarray(raw))


def _number(value: Any, kind: Kind, categories: tuple[str, ...]) -> float:
    if value is None:
        return float("nan")
    return float(categories.index(value)) if kind is Kind.CATEGORY else float(value)
