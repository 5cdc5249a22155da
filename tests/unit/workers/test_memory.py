"""A bound on a process's memory: what asks for more is refused, and the bound goes with its block."""

from __future__ import annotations

import resource

import pytest

from workers.memory import bounded_memory

MB = 1 << 20


def test_more_than_the_bound_is_refused_and_less_is_not() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded_memory(256 * MB):
        assert len(bytearray(64 * MB)) == 64 * MB
        with pytest.raises(MemoryError):
            bytearray(512 * MB)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(512 * MB)) == 512 * MB


def test_the_bound_goes_with_an_error() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ValueError, match="x"), bounded_memory(256 * MB):
        raise ValueError("x")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
