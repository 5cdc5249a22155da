"""The cache of scores: a hit is what the model said of these very values, for a time and within a bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from datasets.synthetic import generate
from scoring.calibrate import Calibration, Method
from scoring.engine import Engine, LightGBMEngine
from scoring.errors import ModelError
from scoring.features import FEATURES
from scoring.matrix import matrix_of
from scoring.model import ModelBundle, save_bundle
from scoring.risk import RiskThresholds
from scoring.score import Scorer, Scores
from tests.unit.scoring.factories import customer, table_of, trained_model
from workers import cache as cache_module
from workers.cache import ScoreCache

CUSTOMERS = generate(40, seed=12).customers
NULLABLE = [feature.name for feature in FEATURES if feature.nullable]


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


class Counting:
    """An engine that counts the rows it is asked for, and answers none of them with a number when it is told so."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rows: list[int] = []
        self.fails = False

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        self.rows.append(len(matrix))
        return np.full(len(matrix), np.nan) if self.fails else self.engine.predict(matrix)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cache_module, "time", made)
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    calibration = Calibration(Method.PLATT, slope=1.3, intercept=0.2)
    return save_bundle(tmp_path_factory.mktemp("cache") / "v1", trained_model(calibration=calibration))


@pytest.fixture
def engine(bundle: ModelBundle) -> Counting:
    return Counting(LightGBMEngine(bundle.model_text))


@pytest.fixture
def scorer(bundle: ModelBundle, engine: Counting) -> Scorer:
    made = Scorer(bundle, engine=engine)
    engine.rows.clear()  # the check of the reference rows
    return made


def lists(scores: Scores) -> tuple[list[float], list[int], list[float]]:
    return scores.churn_probability.tolist(), scores.risk.tolist(), scores.confidence.tolist()


def looked_up() -> tuple[float, float]:
    """Hits and misses so far."""
    hits, misses = (REGISTRY.get_sample_value("churn_prediction_cache_total", {"outcome": o}) for o in ("hit", "miss"))
    return hits or 0.0, misses or 0.0


def test_hits_misses_and_both_at_once_are_what_the_scorer_says(scorer: Scorer) -> None:
    cache, expected = ScoreCache(ttl_s=60), scorer.score(CUSTOMERS)
    cache.score(scorer, CUSTOMERS.take(pa.array([3, 30, 7])))
    for _ in range(2):
        assert lists(cache.score(scorer, CUSTOMERS)) == lists(expected)


def test_the_model_is_called_for_the_misses_alone_and_not_at_all_for_hits(scorer: Scorer, engine: Counting) -> None:
    cache, before = ScoreCache(ttl_s=60), looked_up()
    for n_rows in (3, 5, 5):
        cache.score(scorer, CUSTOMERS.slice(0, n_rows))
    assert engine.rows == [3, 2]
    hits, misses = looked_up()
    assert (hits - before[0], misses - before[1]) == (8, 5)


@pytest.mark.parametrize("missing", NULLABLE)
def test_a_missing_value_is_a_value_of_its_own(scorer: Scorer, engine: Counting, missing: str) -> None:
    cache = ScoreCache(ttl_s=60)
    cache.score(scorer, table_of(customer()))
    without = table_of(customer(**{missing: None}))
    assert np.isnan(matrix_of(without)).any()
    for _ in range(2):
        assert lists(cache.score(scorer, without)) == lists(scorer.score(without))
    assert engine.rows == [1, 1, 1, 1]  # a miss each, and one a call of the scorer itself


def test_a_missing_income_is_not_an_income_of_nothing(scorer: Scorer, engine: Counting) -> None:
    cache = ScoreCache(ttl_s=60)
    for income in (0.0, None, 0.0, None):
        cache.score(scorer, table_of(customer(income=income)))
    assert (len(cache), engine.rows) == (2, [1, 1])


def test_a_changed_value_misses(scorer: Scorer, engine: Counting) -> None:
    cache = ScoreCache(ttl_s=60)
    for charges in (70.0, 70.01, 70.0):
        cache.score(scorer, table_of(customer(monthly_charges=charges)))
    assert engine.rows == [1, 1]


def test_equal_customers_share_a_score_whatever_their_ids(scorer: Scorer, engine: Counting) -> None:
    cache = ScoreCache(ttl_s=60)
    both = cache.score(scorer, table_of(customer(customer_id="A"), customer(customer_id="B")))
    third = cache.score(scorer, table_of(customer(customer_id="C")))
    assert both.churn_probability.tolist() == [third.churn_probability[0]] * 2
    assert (len(cache), engine.rows) == (1, [2])


def test_another_bundle_misses(scorer: Scorer, tmp_path: Path) -> None:
    cache = ScoreCache(ttl_s=60)
    other = Scorer(save_bundle(tmp_path / "v1", trained_model()))  # the same version and trees, calibrated otherwise
    for each in (scorer, other, scorer, other):
        assert lists(cache.score(each, CUSTOMERS)) == lists(each.score(CUSTOMERS))
    assert scorer.score(CUSTOMERS).churn_probability.tolist() != other.score(CUSTOMERS).churn_probability.tolist()


def test_bands_follow_the_thresholds_of_the_moment(bundle: ModelBundle, scorer: Scorer) -> None:
    cache = ScoreCache(ttl_s=60)
    cache.score(scorer, CUSTOMERS)
    own = Scorer(bundle, thresholds=RiskThresholds(0.001, 0.002, 0.003))
    assert set(cache.score(own, CUSTOMERS).risk.tolist()) == {3}


def test_a_score_ends_with_its_time_and_a_hit_does_not_prolong_it(scorer: Scorer, engine: Counting, clock: Clock) -> None:
    cache = ScoreCache(ttl_s=60)
    calls: list[int] = []
    for seconds in (0.0, 59.9, 0.1, 59.9, 0.1):
        clock.now += seconds
        cache.score(scorer, table_of(customer()))
        calls.append(len(engine.rows))
    assert calls == [1, 1, 2, 2, 3]


def test_what_has_ended_is_forgotten_at_the_next_miss(scorer: Scorer, clock: Clock) -> None:
    cache = ScoreCache(ttl_s=60)
    cache.score(scorer, CUSTOMERS.slice(0, 30))
    clock.now += 60
    cache.score(scorer, CUSTOMERS.slice(30, 2))
    assert len(cache) == 2


def test_beyond_the_bound_the_oldest_go(scorer: Scorer, engine: Counting, clock: Clock) -> None:
    cache = ScoreCache(ttl_s=60, most=3)
    for place in (0, 1, 2):
        cache.score(scorer, CUSTOMERS.slice(place, 1))
        clock.now += 25
    cache.score(scorer, CUSTOMERS.slice(0, 1))  # it had ended, so that it is the newest again
    cache.score(scorer, CUSTOMERS.slice(3, 1))
    assert (len(cache), engine.rows) == (3, [1] * 5)
    for place in (0, 2, 3):
        cache.score(scorer, CUSTOMERS.slice(place, 1))
    assert engine.rows == [1] * 5


def test_a_group_beyond_the_bound_is_scored_in_full(scorer: Scorer) -> None:
    cache = ScoreCache(ttl_s=60, most=3)
    assert lists(cache.score(scorer, CUSTOMERS)) == lists(scorer.score(CUSTOMERS))
    assert len(cache) == 3


def test_what_is_no_score_is_not_kept(scorer: Scorer, engine: Counting) -> None:
    cache = ScoreCache(ttl_s=60)
    engine.fails = True
    with pytest.raises(ModelError):
        cache.score(scorer, CUSTOMERS)
    engine.fails = False
    assert len(cache) == 0
    assert lists(cache.score(scorer, CUSTOMERS)) == lists(scorer.score(CUSTOMERS))


def test_no_customers_have_no_scores(scorer: Scorer, engine: Counting) -> None:
    assert lists(ScoreCache(ttl_s=60).score(scorer, CUSTOMERS.slice(0, 0))) == ([], [], [])
    assert engine.rows == []
