"""Counters of the ledger at each scrape, the promise in a batch's answer, and the day's customers at risk."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.tallies import Tallies
from db.engine import make_engine
from db.insights import compare_singles
from db.promises import OVERHEAD_S
from db.requests import claim_requests, finish_requests
from tests.asking import PREFIX, accepted, as_csv, customers, score_all, submit
from tests.factories import add_batch, add_customers, add_request, scored


def scrape(client: FlaskClient) -> list[str]:
    names = ("churn_batches_promised_total", "churn_customers_newly_at_risk_total")
    lines = client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith(names)]


def promise(ledger: Engine, in_s: float) -> None:
    with ledger.begin() as conn:
        conn.execute(text("INSERT INTO promise_paces SELECT c, 1e9, :s FROM generate_series(0, 2) c"), {"s": in_s - OVERHEAD_S})


def test_they_begin_at_nothing(client: FlaskClient, ledger: Engine) -> None:
    assert scrape(client) == [
        'churn_batches_promised_total{kept="yes"} 0.0',
        'churn_batches_promised_total{kept="no"} 0.0',
        'churn_customers_newly_at_risk_total{risk_category="high"} 0.0',
        'churn_customers_newly_at_risk_total{risk_category="critical"} 0.0',
    ]


def test_promises_are_counted_as_soon_as_their_batches_end(client: FlaskClient, ledger: Engine) -> None:
    promise(ledger, 1_000)
    with ledger.begin() as conn:
        add_batch(conn, "kept", team="another")
        add_batch(conn, "broken")
        conn.execute(text("UPDATE batch_jobs SET promised_at = now() WHERE batch_id = 'broken'"))
    assert 'churn_batches_promised_total{kept="yes"} 0.0' in scrape(client)
    score_all(ledger, "kept")
    score_all(ledger, "broken")
    assert scrape(client)[:2] == ['churn_batches_promised_total{kept="yes"} 1.0', 'churn_batches_promised_total{kept="no"} 1.0']


def test_with_the_database_away_they_are_absent() -> None:
    assert list(Tallies(make_engine("postgresql://churn@127.0.0.1:1/churn")).collect()) == []


def test_a_submit_is_promised_its_end(client: FlaskClient, ledger: Engine) -> None:
    promise(ledger, 1_000)
    batch = accepted(submit(client, as_csv(customers(3))))
    path = f"{PREFIX}/batches/{batch['batch_id']}"
    assert batch["promised_completion"] == client.get(path).get_json()["promised_completion"] > batch["submitted_at"]
    client.post(f"{path}/pause")
    assert client.get(path).get_json()["promised_completion"] is None


def test_without_a_history_it_is_promised_nothing(client: FlaskClient, ledger: Engine) -> None:
    assert accepted(submit(client, as_csv(customers(3))))["promised_completion"] is None


def test_a_submit_stands_behind_the_batches_of_all_teams(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "other", sizes=(5,), team="another")
    name = accepted(submit(client, as_csv(customers(3))))["batch_id"]
    with ledger.connect() as conn:
        load = conn.execute(text("SELECT planned_load FROM batch_jobs WHERE batch_id = :b"), {"b": name}).scalar_one()
    assert load == 8


@pytest.mark.parametrize("band", ["high", "critical"])
def test_those_newly_at_risk_are_told(client: FlaskClient, ledger: Engine, band: str) -> None:
    with ledger.begin() as conn:
        add_customers(conn, "C-0")
        (held,) = claim_requests(conn, [add_request(conn, "C-0")], lease_s=60)
        score = scored(held)
        finish_requests(conn, [type(score)(held, 0.9, 0.9, band)])
    with ledger.begin() as conn:
        compare_singles(conn, most=10)
    assert f'churn_customers_newly_at_risk_total{{risk_category="{band}"}} 1.0' in scrape(client)
    today = client.get(f"{PREFIX}/stats").get_json()["newly_at_risk"]
    assert today == {"high": int(band == "high"), "critical": int(band == "critical")}
