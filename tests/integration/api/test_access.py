"""Every route of the map: nobody without a key, nobody without its scope, and no other team's objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from api.access import PUBLIC, SCOPES
from db.keys import add_key
from db.webhooks import add_endpoint, hand_out
from schemas.key_text import KeyText, new_key
from schemas.scopes import DEFAULT_TEAM, Scope
from schemas.secrets import new_secret
from tests.asking import PREFIX, as_csv, customers, refused, submit
from tests.factories import MODEL, add_batch, add_customers, add_request, score, score_requests
from tests.keys import TEST_KEY

OWNED: Final = {"batch_id", "prediction_id", "webhook_id", "delivery_id"}
"""Names in a path that mean one team's object."""
SHARED: Final = {"customer_id", "version", "key_id"}
"""Those of what all teams share, and of the keys, which administrators see of every team."""
OTHER: Final = "other-team"


@pytest.fixture
def objects(ledger: Engine) -> Mapping[str, str]:
    """One object for each name that a path can hold; they are the default team's."""
    with ledger.begin() as conn:
        add_customers(conn, "C-9")
        webhook = add_endpoint(conn, "https://hook.test/a", team=DEFAULT_TEAM, secret=new_secret())
        waiting = add_request(conn, "C-9")
        add_batch(conn, "b", sizes=(2,))
        score(conn, "b")
        hand_out(conn)
        delivery = conn.execute(text("SELECT delivery_id FROM webhook_deliveries")).scalar_one()
    return {
        "batch_id": "b",
        "prediction_id": str(waiting),
        "webhook_id": webhook.endpoint_id,
        "delivery_id": str(delivery),
        "customer_id": "C-9",
        "version": MODEL,
        "key_id": TEST_KEY.key_id,
    }


@pytest.fixture(autouse=True)
def _no_keys_left(ledger: Engine) -> Iterator[None]:
    yield
    with ledger.begin() as conn:
        conn.execute(text("DELETE FROM api_keys WHERE created_by = 'walk'"))


def bearer(ledger: Engine, *, team: str = DEFAULT_TEAM, scopes: set[Scope] | None = None) -> dict[str, str]:
    """The header of a new key; with every scope by default."""
    key: KeyText = new_key()
    with ledger.begin() as conn:
        add_key(conn, key, team=team, scopes=set(Scope) if scopes is None else scopes, created_by="walk")
    return {"X-API-Key": key.text}


def guarded(app: Flask) -> list[tuple[Rule, str]]:
    """Every rule that is not public, with each of its methods."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint not in PUBLIC]
    assert len(rules) > len(SCOPES)  # the aliases
    return [(rule, method) for rule in rules for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})]


def ask(app: Flask, rule: Rule, method: str, objects: Mapping[str, str], headers: Mapping[str, str]) -> TestResponse:
    with app.test_request_context():
        _, path = rule.build({name: objects[name] for name in rule.arguments}) or ("", "")
    client = app.test_client()
    del client.environ_base["HTTP_X_API_KEY"]
    return client.open(path, method=method, headers=dict(headers))


def everything(ledger: Engine) -> list[Any]:
    """All rows that a request could have changed."""
    tables = ("batch_jobs", "chunks", "webhook_endpoints", "webhook_deliveries", "prediction_requests", "customers", "models")
    with ledger.connect() as conn:
        return [conn.execute(text(f"SELECT t::text FROM {table} t ORDER BY 1")).scalars().all() for table in tables]


def test_every_route_without_a_key_is_401(app: Flask, objects: Mapping[str, str], ledger: Engine) -> None:
    before = everything(ledger)
    for rule, method in guarded(app):
        answer = ask(app, rule, method, objects, {})
        refused(answer, 401, "no_key")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="churn"', rule
    assert everything(ledger) == before


def test_every_route_with_every_scope_but_its_own_is_403(app: Flask, objects: Mapping[str, str], ledger: Engine) -> None:
    before = everything(ledger)
    keys = {scope: bearer(ledger, scopes=set(Scope) - {scope}) for scope in Scope}
    for rule, method in guarded(app):
        scope = SCOPES[rule.endpoint]
        answer = ask(app, rule, method, objects, keys[scope])
        refused(answer, 403, "missing_scope")
        assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"], rule
    assert everything(ledger) == before


def test_every_object_of_another_team_is_404(app: Flask, objects: Mapping[str, str], ledger: Engine) -> None:
    before, stranger, walked = everything(ledger), bearer(ledger, team=OTHER), set()
    for rule, method in guarded(app):
        assert rule.arguments <= OWNED | SHARED, f"{rule}: say in this test whether that is one team's"
        owned = rule.arguments & OWNED
        if not owned:
            continue
        walked |= owned
        answer = ask(app, rule, method, objects, stranger)
        missing = ask(app, rule, method, {**objects, **dict.fromkeys(owned, "4711")}, stranger)
        assert (answer.status_code, missing.status_code) == (404, 404), rule
        # Nothing tells that there is one: but for its name, the answer is that for one that nobody has.
        named, unnamed = answer.get_json(force=True), missing.get_json(force=True)
        for name in owned:
            assert named["detail"].replace(repr(objects[name]), "'4711'") == unnamed["detail"]
        assert named["code"] == unnamed["code"]
    assert walked == OWNED
    assert everything(ledger) == before


def test_its_owner_is_answered(app: Flask, objects: Mapping[str, str], ledger: Engine) -> None:
    owner = bearer(ledger)
    for rule, method in guarded(app):
        if rule.arguments & OWNED and method == "GET" and not rule.endpoint.endswith("get_events"):
            assert ask(app, rule, method, objects, owner).status_code in {200, 202}, rule


def test_what_is_public_answers_whoever_asks(app: Flask) -> None:
    client = app.test_client()
    del client.environ_base["HTTP_X_API_KEY"]
    for path in ("/health", "/health/live", "/health/ready", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200, path


class TestTeams:
    """What two teams have of each other's: the customers, and nothing else."""

    @pytest.fixture
    def theirs(self, app: Flask, ledger: Engine) -> FlaskClient:
        """A client of the other team."""
        client = app.test_client()
        client.environ_base["HTTP_X_API_KEY"] = bearer(ledger, team=OTHER)["X-API-Key"]
        return client

    @pytest.mark.usefixtures("objects")
    def test_lists_and_numbers_are_of_ones_own(self, client: FlaskClient, theirs: FlaskClient) -> None:
        for name in ("batches", "webhooks"):
            assert len(client.get(f"{PREFIX}/{name}").get_json()[name]) == 1
            assert theirs.get(f"{PREFIX}/{name}").get_json()[name] == []
        mine, others = (each.get(f"{PREFIX}/stats").get_json() for each in (client, theirs))
        assert (mine["predictions_today"], mine["batches_by_status"], mine["waiting_predictions"]) == (2, {"completed": 1}, 1)
        assert (others["predictions_today"], others["batches_by_status"], others["waiting_predictions"]) == (0, {}, 0)

    def test_a_batch_is_whose_key_submitted_it(self, client: FlaskClient, theirs: FlaskClient, ledger: Engine) -> None:
        assert submit(theirs, as_csv(customers(1)), query="?batch_id=t").status_code == 202
        assert theirs.get(f"{PREFIX}/batches/t").status_code == 200
        refused(client.get(f"{PREFIX}/batches/t"), 404, "batch_not_found")
        with ledger.connect() as conn:
            assert conn.execute(text("SELECT team FROM batch_jobs")).scalar_one() == OTHER

    def test_a_batch_id_that_another_team_has_is_taken_and_no_more_is_said(
        self, client: FlaskClient, theirs: FlaskClient
    ) -> None:
        submit(client, as_csv(customers(1)), query="?batch_id=t")
        said = [
            refused(submit(who, as_csv(customers(1)), query="?batch_id=t"), 409, "batch_exists") for who in (client, theirs)
        ]
        assert said[0]["detail"] == said[1]["detail"]

    def test_an_idempotency_key_is_ones_own(self, client: FlaskClient, theirs: FlaskClient) -> None:
        mine, others = (
            submit(who, as_csv(customers(1)), Idempotency_Key="k").get_json()["batch_id"] for who in (client, theirs)
        )
        assert mine != others
        again = submit(theirs, as_csv(customers(1)), Idempotency_Key="k")
        assert (again.get_json()["batch_id"], again.headers["Idempotency-Replayed"]) == (others, "true")
        refused(submit(theirs, as_csv(customers(2)), Idempotency_Key="k"), 422, "idempotency_key_reused")

    def test_a_receiver_hears_of_its_own_teams_batches_alone(
        self, client: FlaskClient, theirs: FlaskClient, ledger: Engine
    ) -> None:
        url = {"url": "https://hook.test/theirs"}
        hook = theirs.post(f"{PREFIX}/webhooks", json=url).get_json()["webhook_id"]
        with ledger.begin() as conn:
            for batch_id, team in (("mine", DEFAULT_TEAM), ("others", OTHER)):
                add_batch(conn, batch_id, sizes=(1,), team=team)
                score(conn, batch_id)
            hand_out(conn)
        told = theirs.get(f"{PREFIX}/webhooks/{hook}/deliveries").get_json()["deliveries"]
        assert [each["batch_id"] for each in told] == ["others"]
        assert client.get(f"{PREFIX}/batches/mine/deliveries").get_json()["deliveries"] == []

    def test_a_single_prediction_is_whose_key_asked_for_it(
        self, client: FlaskClient, theirs: FlaskClient, ledger: Engine
    ) -> None:
        asked = theirs.post(f"{PREFIX}/predictions", json=customers(1)[0], headers={"Prefer": "respond-async"})
        path = asked.headers["Location"]
        for status in (202, 200):
            assert theirs.get(path).status_code == status
            refused(client.get(path), 404, "prediction_not_found")
            with ledger.begin() as conn:
                score_requests(conn, int(asked.get_json()["prediction_id"]))

    def test_customers_are_shared_and_their_history_names_no_batch_of_others(
        self, client: FlaskClient, theirs: FlaskClient, ledger: Engine
    ) -> None:
        with ledger.begin() as conn:
            add_batch(conn, "mine", sizes=(1,))
            score(conn, "mine")
            score_requests(conn, add_request(conn, "C-0", team=OTHER))
        assert theirs.get(f"{PREFIX}/customers/C-0").status_code == 200
        histories = [
            {
                (each["batch_id"], each["row"])
                for each in who.get(f"{PREFIX}/customers/C-0/predictions").get_json()["predictions"]
            }
            for who in (client, theirs)
        ]
        assert histories == [{("mine", 0), (None, None)}, {(None, None)}]

    def test_a_key_is_of_its_makers_team_unless_another_is_named(self, client: FlaskClient, theirs: FlaskClient) -> None:
        made = client.post(f"{PREFIX}/keys", json={"name": "n", "scopes": ["batches:read"], "team": "brand-new"})
        assert made.get_json()["team"] == "brand-new"
        made = theirs.post(f"{PREFIX}/keys", json={"name": "n", "scopes": ["batches:read"]})
        assert made.get_json()["team"] == OTHER
