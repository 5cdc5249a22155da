"""Statistics: what was done since midnight UTC, what waits, and how fast it goes."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from db.control import pause_batch
from db.deliveries import deliveries_of_batch, settle_delivery
from db.stats import OPEN, backlog, flow, rows_per_second, today
from db.webhooks import hand_out
from schemas.scopes import DEFAULT_TEAM
from schemas.states import DeliveryState, Priority
from tests.factories import add_batch, add_prediction, add_request, add_upload, claim, claim_webhook, customer, score


def test_an_empty_ledger_has_nothing_to_tell(conn: Connection) -> None:
    stats, waiting = today(conn, team=DEFAULT_TEAM), backlog(conn, team=None)
    assert (stats.predictions_by_risk, stats.batches_by_status, stats.mean_batch_seconds) == ({}, {}, None)
    assert (waiting.chunks_by_priority, waiting.oldest_chunk_s, waiting.waiting_requests) == ({}, 0.0, 0)
    assert rows_per_second(conn) is None


def test_todays_predictions_are_counted_by_band(conn: Connection) -> None:
    add_batch(conn, sizes=(3,))
    score(conn)
    for prediction_id, moment in [(1, "- interval '1 us'"), (2, ""), (3, "+ interval '1 us'")]:
        add_prediction(conn, prediction_id, churn_probability=0.9, confidence_score=0.9, risk_category="critical")
        conn.execute(
            text(f"UPDATE prediction_history SET predicted_at = date_trunc('day', now(), 'UTC') {moment} WHERE id = :id"),
            {"id": prediction_id},
        )
    assert today(conn, team=DEFAULT_TEAM).predictions_by_risk == {"low": 3, "critical": 2}


def test_of_a_batch_on_both_sides_of_midnight_todays_part_counts(conn: Connection) -> None:
    for name in ("ended", "open", "yesterdays"):
        add_batch(conn, name, sizes=(2, 3, 4))
    for name, chunks in [("ended", 3), ("open", 2), ("yesterdays", 3)]:
        for chunk_no in range(chunks):
            score(conn, name, chunk_no)
    yesterday = "date_trunc('day', now(), 'UTC') - interval '1 h'"
    conn.execute(text(f"UPDATE batch_jobs SET submitted_at = {yesterday}"))
    conn.execute(text(f"UPDATE batch_jobs SET completed_at = {yesterday} WHERE batch_id = 'yesterdays'"))
    conn.execute(
        text(f"UPDATE prediction_history SET predicted_at = {yesterday} WHERE row_number < 2 OR batch_id = 'yesterdays'")
    )
    assert today(conn, team=DEFAULT_TEAM).predictions_by_risk == {"low": 7 + 3}


def test_anothers_predictions_are_not_counted(conn: Connection) -> None:
    add_batch(conn, "theirs", sizes=(3,), team="another")
    score(conn, "theirs")
    assert today(conn, team=DEFAULT_TEAM).predictions_by_risk == {}
    assert today(conn, team="another").predictions_by_risk == {"low": 3}


def test_batches_are_counted_by_state_and_timed(conn: Connection) -> None:
    add_batch(conn, "one", sizes=(1,))
    add_batch(conn, "two", sizes=(1,))
    add_batch(conn, "open")
    add_upload(conn, "upload")
    for name, seconds in [("one", 2), ("two", 4)]:
        score(conn, name)
        conn.execute(
            text("UPDATE batch_jobs SET submitted_at = completed_at - make_interval(secs => :s) WHERE batch_id = :b"),
            {"s": seconds, "b": name},
        )
    stats = today(conn, team=DEFAULT_TEAM)
    assert stats.batches_by_status == {"completed": 2, "queued": 2}
    assert stats.mean_batch_seconds == pytest.approx(3)


def test_the_backlog_holds_pending_and_running_chunks_by_priority(conn: Connection) -> None:
    add_batch(conn, "low", sizes=(1, 1, 1), priority=Priority.LOW)
    add_batch(conn, "high", sizes=(1, 1), priority=Priority.HIGH)
    score(conn, "low", 0)
    claim(conn, "low", 1)
    conn.execute(text("UPDATE batch_jobs SET submitted_at = submitted_at - interval '90 s' WHERE batch_id = 'low'"))
    add_request(conn, customer())
    waiting = backlog(conn, team=None)
    assert waiting.chunks_by_priority == {"low": 2, "high": 2}
    assert 90 <= waiting.oldest_s_by_priority["low"] == waiting.oldest_chunk_s < 100
    assert 0 <= waiting.oldest_s_by_priority["high"] < 10
    assert waiting.chunks_under_way == 1
    assert waiting.waiting_requests == 1


def test_webhooks_wait_from_the_end_of_their_batch_until_they_arrive(conn: Connection) -> None:
    add_batch(conn, sizes=(1,), callback_url="https://hook.test/")
    seen = [backlog(conn, team=None).waiting_webhooks]
    score(conn)
    seen.append(backlog(conn, team=None).waiting_webhooks)
    hand_out(conn)
    (delivery,) = deliveries_of_batch(conn, "b", team=DEFAULT_TEAM)
    held = claim_webhook(conn, delivery.delivery_id)
    seen.append(backlog(conn, team=None).waiting_webhooks)
    settle_delivery(conn, held, DeliveryState.DELIVERED)
    assert [*seen, backlog(conn, team=None).waiting_webhooks] == [0, 1, 1, 0]


def test_the_pace_is_that_of_large_batches_from_their_first_chunk_on(conn: Connection) -> None:
    for name, rows, seconds in [("large", 20_000, 4), ("larger", 40_000, 2), ("small", 10, 100)]:
        add_batch(conn, name, sizes=(1,))
        score(conn, name)
        conn.execute(
            text("""
                UPDATE batch_jobs
                   SET total_customers = :rows, completed_customers = :rows, processed_customers = :rows,
                       submitted_at = completed_at - interval '1 h', started_at = completed_at - interval '30 min',
                       planned_at = completed_at - make_interval(secs => :seconds)
                 WHERE batch_id = :name
            """),
            {"rows": rows, "seconds": seconds, "name": name},
        )
    assert rows_per_second(conn) == pytest.approx(10_000)


# -- whether work goes forward


def aged(conn: Connection, seconds: float) -> None:
    """Let so much time pass for all that has happened so far."""
    past = {"s": seconds}
    conn.execute(text("UPDATE batch_jobs SET planned_at = planned_at - make_interval(secs => :s)"), past)
    conn.execute(text("UPDATE chunks SET finished_at = finished_at - make_interval(secs => :s)"), past)
    conn.execute(text("UPDATE prediction_requests SET submitted_at = submitted_at - make_interval(secs => :s)"), past)


def test_where_nothing_is_to_be_done_nothing_stands_still(conn: Connection) -> None:
    found = flow(conn)
    assert found.open_batches == dict.fromkeys(OPEN, 0)
    assert (found.oldest_request_s, found.since_progress_s) == (0.0, 0.0)


def test_batches_that_have_not_ended_are_counted_by_status(conn: Connection) -> None:
    for name in ("a", "b", "ended"):
        add_batch(conn, name, sizes=(1, 1))
    add_upload(conn, "upload")
    score(conn, "b", 0)
    for chunk_no in (0, 1):
        score(conn, "ended", chunk_no)
    assert flow(conn).open_batches == {"queued": 2, "validating": 0, "processing": 1, "paused": 0, "cancelling": 0}


def test_the_time_since_progress_is_that_since_a_chunk_was_finished(conn: Connection) -> None:
    add_batch(conn, sizes=(1, 1, 1))
    aged(conn, 90)
    assert 90 <= flow(conn).since_progress_s < 100  # no chunk yet: since it could have been
    score(conn, "b", 0)
    aged(conn, 30)
    assert 30 <= flow(conn).since_progress_s < 40
    claim(conn, "b", 1)
    assert 30 <= flow(conn).since_progress_s < 40  # a claim is no progress
    for chunk_no in (1, 2):
        conn.execute(text("UPDATE chunks SET state = 'pending', lease_until = NULL WHERE state = 'running'"))
        score(conn, "b", chunk_no)
    aged(conn, 30)
    assert flow(conn).since_progress_s == 0.0


def test_another_batch_s_chunk_is_progress_too_also_when_that_has_ended(conn: Connection) -> None:
    add_batch(conn, "waits", sizes=(1,))
    add_batch(conn, "runs", sizes=(1,))
    aged(conn, 90)
    score(conn, "runs", 0)
    assert flow(conn).since_progress_s < 10


def test_the_first_batch_after_a_quiet_night_has_not_waited_all_night(conn: Connection) -> None:
    add_batch(conn, "yesterday", sizes=(1,))
    score(conn, "yesterday", 0)
    aged(conn, 40_000)
    add_batch(conn, "today", sizes=(1,))
    assert flow(conn).since_progress_s < 10


def test_a_paused_batch_waits_for_nobody(conn: Connection) -> None:
    add_batch(conn, sizes=(1,))
    aged(conn, 90)
    pause_batch(conn, "b")
    assert flow(conn).since_progress_s == 0.0


def test_the_oldest_single_prediction_has_its_age(conn: Connection) -> None:
    add_request(conn, customer())
    aged(conn, 90)
    add_request(conn, customer())
    assert 90 <= flow(conn).oldest_request_s < 100
