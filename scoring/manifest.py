"""The manifest of a model bundle: everything there is to say about a model but its trees, as one JSON document.

It holds the checksums of the bundle's other files, so the SHA-256 of the manifest's bytes names the whole bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scoring.calibrate import Calibration
from scoring.errors import BundleCorrupt, BundleMismatch
from scoring.features import FEATURES
from scoring.risk import RiskThresholds

FORMAT: Final = 1
"""Raised when an older program could misread a newer bundle."""

MAX_VERSION_LENGTH: Final = 50
_VERSION: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_VERSION_LENGTH - 1}}}")


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A few rows and the calibrated churn probabilities that the trained model gave them, to check a loaded one by."""

    matrix: NDArray[np.float64]
    churn_probability: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """What a bundle says of itself.

    Attributes
    ----------
    version : str
        The model's name: letters, digits, ``.``, ``_`` and ``-``, at most 50.
    created_at : datetime
        Aware, in UTC.
    metrics : Mapping of str to float
        Of the held-out rows, see `scoring.evaluate.Metrics`.
    training : Mapping
        Data, its fingerprint and whether it is synthetic; rows, seed, parameters, number of trees, library versions.
    files : Mapping of str to str
        SHA-256 in hex of each of the bundle's other files.
    """

    version: str
    created_at: datetime
    calibration: Calibration
    thresholds: RiskThresholds
    metrics: Mapping[str, float]
    training: Mapping[str, Any]
    reference: Reference
    files: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """The JSON document, in UTF-8 with keys in a fixed order: equal manifests give equal bytes."""
        document = {
            "format": FORMAT,
            "version": self.version,
            "created_at": self.created_at.isoformat(),
            "features": feature_schema(),
            "calibration": self.calibration.to_json(),
            "thresholds": asdict(self.thresholds),
            "metrics": dict(self.metrics),
            "training": dict(self.training),
            "reference": {
                "matrix": [[None if np.isnan(value) else value for value in row] for row in self.reference.matrix.tolist()],
                "churn_probability": self.reference.churn_probability.tolist(),
            },
            "files": dict(self.files),
        }
        return json.dumps(document, indent=1, allow_nan=False).encode()


def feature_schema() -> list[dict[str, Any]]:
    """The part of the feature declaration that the matrix depends on: names, kinds and category codes, in order.

    Bounds are left out, as a bound may move without changing what a trained model's numbers mean.
    """
    return [{"name": feature.name, "kind": str(feature.kind), "categories": list(feature.categories)} for feature in FEATURES]


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest.

    Raises
    ------
    BundleCorrupt
        If it is not a manifest.
    BundleMismatch
        If it is of another format, or its model was trained on other features than the declaration's.
    """
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise BundleMismatch(f"the bundle has format {document['format']}; this version reads format {FORMAT}")
        _check_features(document["features"])
        return _from_document(document)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BundleCorrupt(f"the manifest is not one: {type(exc).__name__}: {exc}") from exc


def check_version(version: str) -> str:
    """Return a model version that is fit to be a folder's and a URL's part, or raise ValueError."""
    if not _VERSION.fullmatch(version):
        raise ValueError(
            f"model version {version!r} must be 1 to {MAX_VERSION_LENGTH} letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    return version


def _from_document(document: Mapping[str, Any]) -> Manifest:
    reference = document["reference"]
    return Manifest(
        version=check_version(document["version"]),
        created_at=datetime.fromisoformat(document["created_at"]),
        calibration=Calibration.from_json(document["calibration"]),
        thresholds=RiskThresholds(**document["thresholds"]),
        metrics=dict(document["metrics"]),
        training=dict(document["training"]),
        reference=Reference(
            np.array(reference["matrix"], dtype=np.float64).reshape(-1, len(FEATURES)),  # None becomes NaN.
            np.array(reference["churn_probability"], dtype=np.float64),
        ),
        files={str(name): str(digest) for name, digest in document["files"].items()},
    )


def _check_features(trained: list[dict[str, Any]]) -> None:
    declared = feature_schema()
    if trained == declared:
        return
    names, names_now = [feature["name"] for feature in trained], [feature["name"] for feature in declared]
    if names != names_now:
        raise BundleMismatch(f"the model was trained on {', '.join(names)}; this version declares {', '.join(names_now)}")
    changed = [before["name"] for before, now in zip(trained, declared, strict=True) if before != now]
    raise BundleMismatch(
        f"the kind or the categories changed since the model was trained: {', '.join(changed)}; train it again"
    )
