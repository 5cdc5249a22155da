"""Who did what, over HTTP: each route that changes something leaves an entry with it; whoever may not is noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api import auditing
from api.access import PUBLIC
from db.audit import customer_object
from schemas.scopes import Scope
from tests.asking import PREFIX, as_csv, customers, refused, submit
from tests.factories import MODEL, add_model, customer
from tests.integration.api.test_access import bearer, guarded, objects
from tests.keys import TEST_KEY

__all__ = ["objects"]

CHANGES_NOTHING: Final = {"batches.post_validation"}
PREDICTS: Final = {"predictions.post_prediction"}
"""What is asked for there is a prediction, which is itself the record of it."""


def entries(ledger: Engine, **chosen: str) -> list[dict[str, Any]]:
    with ledger.connect() as conn:
        rows = [dict(row._mapping) for row in conn.execute(text("SELECT * FROM audit_log ORDER BY audit_no"))]
    return [row for row in rows if all(row[name] == value for name, value in chosen.items())]


def acts(ledger: Engine) -> list[tuple[str, str | None]]:
    return [(row["act"], row["object"]) for row in entries(ledger)]


def test_every_route_that_changes_something_leaves_an_entry(app: Flask, objects: Mapping[str, str], ledger: Engine) -> None:
    """A new route that writes has to be named in one of the sets above, or to record what it does."""
    rules = {rule.endpoint for rule in app.url_map.iter_rules() if rule.endpoint not in PUBLIC}
    writing = {rule.endpoint for rule, method in guarded(app) if method != "GET"}
    assert rules >= CHANGES_NOTHING | PREDICTS
    assert writing - CHANGES_NOTHING - PREDICTS == set(WRITES)


def of_batches(client: FlaskClient, ledger: Engine) -> list[tuple[str, str | None]]:
    submit(client, as_csv(customers(2)), query="?batch_id=mine")
    for path in ("pause", "pause", "resume", "cancel"):
        client.post(f"{PREFIX}/batches/mine/{path}")
    return [("batch.submitted", "mine"), ("batch.paused", "mine"), ("batch.resumed", "mine"), ("batch.cancelled", "mine")]


def of_customers(client: FlaskClient, ledger: Engine) -> list[tuple[str, str | None]]:
    client.put(f"{PREFIX}/customers/C-1", json=customer("C-1"))
    client.post(f"{PREFIX}/customers:import", data=as_csv(customers(3)), content_type="text/csv")
    client.delete(f"{PREFIX}/customers/C-1")
    her = customer_object("C-1")
    return [("customer.stored", her), ("customers.imported", None), ("customer.deleted", her)]


def of_models(client: FlaskClient, ledger: Engine) -> list[tuple[str, str | None]]:
    with ledger.begin() as conn:
        add_model(conn, "another")
    client.post(f"{PREFIX}/models/another/activate")
    return [("model.activated", "another")]


def of_keys(client: FlaskClient, ledger: Engine) -> list[tuple[str, str | None]]:
    made = client.post(f"{PREFIX}/keys", json={"name": "n", "scopes": ["predict"]}).json["key_id"]
    client.post(f"{PREFIX}/keys/{made}/rotate")
    client.delete(f"{PREFIX}/keys/{made}")
    return [("key.created", made), ("key.rotated", made), ("key.revoked", made)]


def of_webhooks(client: FlaskClient, ledger: Engine) -> list[tuple[str, str | None]]:
    made = client.post(f"{PREFIX}/webhooks", json={"url": "https://hook.test/x"}).json["webhook_id"]
    client.post(f"{PREFIX}/webhooks/{made}/rotate")
    client.post(f"{PREFIX}/webhooks/{made}/enable")
    client.delete(f"{PREFIX}/webhooks/{made}")
    return [(f"webhook.{what}", made) for what in ("added", "rotated", "enabled", "removed")]


WRITES: Final = {
    "batches.post_batch": of_batches,
    "batches.post_pause": of_batches,
    "batches.post_resume": of_batches,
    "batches.post_cancel": of_batches,
    "batches.post_retry": None,
    "customers.put_one_customer": of_customers,
    "customers.post_import": of_customers,
    "customers.delete_one_customer": of_customers,
    "models.post_activation": of_models,
    "keys.post_key": of_keys,
    "keys.post_rotation": of_keys,
    "keys.delete_key": of_keys,
    "webhooks.post_webhook": of_webhooks,
    "webhooks.post_rotation": of_webhooks,
    "webhooks.post_enable": of_webhooks,
    "webhooks.delete_webhook": of_webhooks,
    "webhooks.post_redelivery": None,
}
"""What plays each route that writes; the two others have a test of their own."""


@pytest.mark.parametrize("play", [of_batches, of_customers, of_models, of_keys, of_webhooks])
def test_each_act_is_recorded_once(client: FlaskClient, ledger: Engine, play: Any) -> None:
    expected = play(client, ledger)
    assert acts(ledger) == expected
    for row in entries(ledger):
        assert (row["actor"], row["team"]) == (TEST_KEY.key_id, "default")
        assert row["request_id"]
        assert "C-1" not in str(row)


def test_a_retry_and_a_webhook_that_is_sent_anew(client: FlaskClient, ledger: Engine, objects: Mapping[str, str]) -> None:
    with ledger.begin() as conn:
        conn.execute(text("UPDATE batch_jobs SET status = 'partial', failed_customers = 1, completed_customers = 1"))
        conn.execute(text("INSERT INTO row_errors VALUES ('b', 1, 0, 'C-1', NULL, 'scoring_failed', 'm', NULL)"))
    child = client.post(f"{PREFIX}/batches/b/retry").json["batch_id"]
    client.post(f"{PREFIX}/webhook-deliveries/{objects['delivery_id']}/redeliver")
    assert acts(ledger) == [("batch.retried", child), ("webhook.sent_anew", objects["delivery_id"])]


def test_what_is_refused_or_fails_leaves_none(client: FlaskClient, ledger: Engine) -> None:
    refused(client.post(f"{PREFIX}/models/nobody/activate"), 404, "model_not_found")
    refused(client.delete(f"{PREFIX}/customers/nobody"), 404, "customer_not_found")
    refused(submit(client, b"customer_id\n"), 422, "missing_column")
    assert acts(ledger) == []


def test_whoever_lacks_the_scope_is_noted_once_a_minute_and_a_stranger_never(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "_last_recorded", {})
    reader = bearer(ledger, scopes={Scope.BATCHES_READ})
    for _ in range(3):
        refused(client.post(f"{PREFIX}/models/{MODEL}/activate", headers=reader), 403, "missing_scope")
        refused(client.get(f"{PREFIX}/models", headers={"X-API-Key": "churn_0.nobody"}), 401, "unknown_key")
    (entry,) = entries(ledger)
    assert (entry["act"], entry["object"]) == ("access.denied", "models.post_activation")
    assert reader["X-API-Key"].startswith(entry["actor"])
    assert entry["detail"] == {"needed": "models:write"}


def test_administrators_read_it_filtered_and_page_by_page(client: FlaskClient, ledger: Engine) -> None:
    expected = of_batches(client, ledger)[::-1]
    of_models(client, ledger)
    page = client.get(f"{PREFIX}/audit?object=mine&limit=3").json
    rest = client.get(f"{PREFIX}/audit?object=mine&limit=3&cursor={page['next_cursor']}").json
    assert [(each["act"], each["object"]) for each in page["entries"] + rest["entries"]] == expected
    assert rest["next_cursor"] is None
    assert [each["act"] for each in client.get(f"{PREFIX}/audit?act=model.activated").json["entries"]] == ["model.activated"]
    assert client.get(f"{PREFIX}/audit?until=2020-01-01T00:00:00Z").json["entries"] == []


def test_a_customer_is_found_in_it_by_whoever_knows_the_id(client: FlaskClient, ledger: Engine) -> None:
    of_customers(client, ledger)
    found = client.get(f"{PREFIX}/audit?customer_id=C-1").json["entries"]
    assert [each["act"] for each in found] == ["customer.deleted", "customer.stored"]


@pytest.mark.parametrize("query", ["cursor=x", "since=yesterday", "nobody=1", "limit=0"])
def test_what_cannot_be_asked_is_422(client: FlaskClient, query: str) -> None:
    assert client.get(f"{PREFIX}/audit?{query}").status_code == 422


def test_entries_of_every_team_are_shown(client: FlaskClient, ledger: Engine) -> None:
    client.get(f"{PREFIX}/audit")
    with ledger.begin() as conn:
        conn.execute(text("INSERT INTO audit_log (actor, team, act) VALUES ('k', 'other-team', 'a.b')"))
    assert [each["team"] for each in client.get(f"{PREFIX}/audit").json["entries"]] == ["other-team"]
