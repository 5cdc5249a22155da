"""An input on which a reader would take ever more memory ends its batch, and not the worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from schemas.states import BatchStatus
from tests.integration.workers import builders as b
from workers import sources as sources_module
from workers.plan import validate_batch
from workers.resources import Resources


def test_a_reader_that_asks_for_too_much_fails_the_batch_at_once(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: Any, **__: Any) -> Iterator[Any]:
        yield bytearray(2 << 30)

    with ledger.begin() as conn:
        b.submit_file(conn, "b", b.csv_of(b.rows_of(10)))
    with monkeypatch.context() as patched:
        patched.setattr(sources_module, "read_file", greedy)
        validate_batch(b.with_settings(resources, max_intake_memory_mb=512), "b")
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.failure_code) == (BatchStatus.FAILED, "too_much_memory")
    assert "MAX_INTAKE_MEMORY_MB" in (batch.failure_detail or "")
    assert b.chunks_of(ledger, "b") == []

    with ledger.begin() as conn:
        b.submit_file(conn, "next", b.csv_of(b.rows_of(10)))
    validate_batch(resources, "next")
    assert b.batch_of(ledger, "next").status is BatchStatus.PROCESSING
