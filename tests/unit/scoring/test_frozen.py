"""Scoring is held to LightGBM's own Booster.predict: frozen customers, a frozen model, frozen scores, 1e-12."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scoring.features import FEATURES
from scoring.matrix import matrix_of
from scoring.model import load_bundle
from scoring.score import Scorer
from tests.unit.scoring.factories import predict, table_of

FROZEN = Path(__file__).parent / "frozen"
CUSTOMERS = json.loads((FROZEN / "customers.json").read_text())
EXPECTED = np.array(json.loads((FROZEN / "churn_probability.json").read_text()))


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(load_bundle(FROZEN / "bundle"))


def test_the_frozen_customers_keep_their_scores(scorer: Scorer) -> None:
    scores = scorer.score(table_of(*CUSTOMERS))
    np.testing.assert_allclose(scores.churn_probability, EXPECTED, rtol=0, atol=1e-12)


def test_one_by_one_they_score_the_same(scorer: Scorer) -> None:
    singly = [scorer.score(table_of(row)).churn_probability[0] for row in CUSTOMERS]
    np.testing.assert_allclose(singly, EXPECTED, rtol=0, atol=1e-12)


def test_in_any_order_they_score_the_same(scorer: Scorer) -> None:
    order = np.random.default_rng(1).permutation(len(CUSTOMERS))
    shuffled = scorer.score(table_of(*(CUSTOMERS[place] for place in order)))
    np.testing.assert_allclose(shuffled.churn_probability, EXPECTED[order], rtol=0, atol=1e-12)


def test_lightgbm_itself_still_agrees_bit_by_bit(scorer: Scorer) -> None:
    customers = table_of(*CUSTOMERS)
    bundle = load_bundle(FROZEN / "bundle")
    assert scorer.score(customers).churn_probability.tolist() == predict(bundle.model_text, matrix_of(customers)).tolist()


def test_the_fixture_is_worth_freezing() -> None:
    for feature in FEATURES:
        values = {row[feature.name] for row in CUSTOMERS}
        assert set(feature.categories) <= values, f"{feature.name} lacks a category"
        assert (None in values) == feature.nullable
    assert EXPECTED.std() > 0.1
