"""Scores by segment: what a plain loop over the rows would add up, whatever order a dictionary has and however it is cut."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets.synthetic import generate
from scoring.table import CUSTOMER_SCHEMA
from workers.segments import SEGMENTS, segments_of


def added_up(customers: pa.Table, probability: NDArray[np.float64]) -> dict[tuple[str, str], tuple[int, float]]:
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for feature in SEGMENTS:
        for value, p in zip(customers.column(feature.name).to_pylist(), probability, strict=True):
            found[feature.name, value].append(float(p))
    return {key: (len(some), round(sum(some), 9)) for key, some in found.items()}


def as_told(customers: pa.Table, probability: NDArray[np.float64]) -> dict[tuple[str, str], tuple[int, float]]:
    return {(s.feature, s.value): (s.customers, round(s.probability_sum, 9)) for s in segments_of(customers, probability)}


def test_each_value_has_its_customers_and_the_sum_of_their_scores() -> None:
    customers = generate(2_000, seed=3).customers
    probability = np.random.default_rng(3).random(2_000)
    assert as_told(customers, probability) == added_up(customers, probability)
    assert {s.feature for s in segments_of(customers, probability)} == {
        "contract_type",
        "internet_service",
        "payment_method",
    }


def test_a_table_in_pieces_whose_words_stand_in_another_order_is_the_same() -> None:
    customers = generate(300, seed=4).customers
    column = customers.column("contract_type").combine_chunks()
    words = column.dictionary.to_pylist()[::-1]
    codes = pa.array([words.index(value) for value in column.to_pylist()], pa.int8())
    place = customers.schema.get_field_index("contract_type")
    turned = customers.set_column(place, CUSTOMER_SCHEMA.field(place), pa.DictionaryArray.from_arrays(codes, words))
    pieces = pa.concat_tables([customers.slice(0, 100), turned.slice(100)])
    probability = np.linspace(0.0, 1.0, 300)
    assert pieces.column("contract_type").num_chunks == 2
    assert as_told(pieces, probability) == added_up(customers, probability)


def test_nobody_is_in_no_segment() -> None:
    assert list(segments_of(CUSTOMER_SCHEMA.empty_table(), np.empty(0))) == []
