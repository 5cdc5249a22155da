"""Repeated customers over many slices, held against a plain Python set."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake import duplicates
from intake.duplicates import Duplicates

SLICES = st.lists(st.lists(st.none() | st.sampled_from("abcdefgh"), max_size=8), max_size=8)


def expected(slices: list[list[str | None]]) -> list[list[bool]]:
    """What a set would say."""
    seen: set[str | None] = {None}

    def is_repeated(customer_id: str | None) -> bool:
        repeated = customer_id in seen and customer_id is not None
        seen.add(customer_id)
        return repeated

    return [[is_repeated(customer_id) for customer_id in ids] for ids in slices]


def found_in(slices: list[list[str | None]]) -> list[list[bool]]:
    """What Duplicates says."""
    remembered = Duplicates()
    return [remembered.find(pa.array(ids, pa.string())).tolist() for ids in slices]


@given(SLICES)
def test_later_occurrences_and_only_those(slices: list[list[str | None]]) -> None:
    assert found_in(slices) == expected(slices)


@given(SLICES)
def test_ids_that_share_their_first_hash_are_told_apart_by_the_second(slices: list[list[str | None]]) -> None:
    def colliding(texts: np.ndarray, hash_key: str, **_: object) -> np.ndarray:
        values = np.array([ord(text) for text in texts], np.uint64)
        return values // 4 if hash_key == keys[0] else values

    with pytest.MonkeyPatch.context() as patch:
        keys = ["first", "second"]
        handed_out = iter(keys * len(slices) + keys)
        patch.setattr(duplicates.secrets, "token_hex", lambda _: next(handed_out))
        patch.setattr(duplicates, "hash_array", colliding)
        assert found_in(slices) == expected(slices)


def test_many_slices_stay_in_few_runs() -> None:
    remembered = Duplicates()
    for start in range(0, 100_000, 1_000):
        ids = pa.array([f"C{n}" for n in range(start, start + 1_000)])
        assert not remembered.find(ids).any()
    assert len(remembered._runs) < 12
    assert sum(run.first.nbytes + run.second.nbytes for run in remembered._runs) == 16 * 100_000
    assert remembered.find(pa.array(["C0", "C99999", "C100000"])).tolist() == [True, True, False]


def test_each_file_hashes_under_keys_of_its_own() -> None:
    ids = pa.array(["C1"])
    assert Duplicates()._hash(ids)[0] != Duplicates()._hash(ids)[0]


def test_ascending_ids_are_not_hashed_until_one_is_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    hash_array = duplicates.hash_array

    def counted(texts: np.ndarray, **options: str) -> np.ndarray:
        hashed.append(len(texts))
        return hash_array(texts, **options)

    monkeypatch.setattr(duplicates, "hash_array", counted)
    remembered = Duplicates()
    for ids in (["C1", "C2"], [], ["C3"], ["C5", "C7"]):
        assert not remembered.find(pa.array(ids, pa.string())).any()
    assert hashed == []
    assert remembered.find(pa.array(["C8", "C6", "C2", "C8"])).tolist() == [False, False, True, True]
    assert remembered.find(pa.array(["C7", "C9"])).tolist() == [True, False]


@pytest.mark.parametrize("second", [["C2", "C3"], ["C1", "C3"], ["C3", "C3"], [None, "C2"]])
def test_an_id_that_equals_the_last_one_does_not_ascend(second: list[str | None]) -> None:
    slices = [["C1", "C2"], second]
    assert found_in(slices) == expected(slices)
