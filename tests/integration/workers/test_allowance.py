"""Rows that are known only when a worker has counted them: held to their team's day, and refused with a reason."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from schemas.states import BatchStatus
from tests.integration.workers import builders as b
from workers.plan import validate_batch
from workers.resources import Resources


@pytest.mark.parametrize(("limit", "status"), [(25, BatchStatus.PROCESSING), (24, BatchStatus.FAILED)])
def test_an_upload_is_held_to_its_team_s_day(resources: Resources, ledger: Engine, limit: int, status: BatchStatus) -> None:
    limited = b.with_settings(resources, max_rows_of_team_a_day=limit)
    for name, n in (("first", 15), ("second", 10)):
        with ledger.begin() as conn:
            b.submit_file(conn, name, b.csv_of(b.rows_of(n)))
        validate_batch(limited, name)
    assert b.batch_of(ledger, "first").status is BatchStatus.PROCESSING
    second = b.batch_of(ledger, "second")
    assert second.status is status
    if status is BatchStatus.FAILED:
        assert second.failure_code == "daily_rows_exceeded"
        assert b.chunks_of(ledger, "second") == []
