"""Quotas by the minute over HTTP: at the limit and one over it, what the headers say, and what happens while Redis is away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
import redis
from flask import Flask, request
from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.caller import Caller, set_caller
from api.errors import Unauthorised
from api.limits import BATCH_ENDPOINTS, register_limits
from api.resources import resources
from db.keys import add_key
from schemas.key_text import new_key
from schemas.scopes import Scope
from settings import Settings
from tests.apps import application
from tests.asking import PREFIX, accepted, as_csv, batches_stored, customers, refused, submit
from tests.integration.frozen import frozen_redis

Limited = Callable[..., FlaskClient]
NOWHERE = "redis://127.0.0.1:1/0"
MODELS = f"{PREFIX}/models"


@pytest.fixture
def limited(settings: Settings, ledger: Engine, redis_url: str) -> Iterator[Limited]:
    """Make clients of applications of their own, each one process, over one empty Redis."""
    with ExitStack() as stack, closing(redis.Redis.from_url(redis_url)) as client:
        client.flushdb()

        def make(**values: Any) -> FlaskClient:
            app: AbstractContextManager[Flask] = application(replace(settings, **values))
            return stack.enter_context(app).test_client()

        yield make


class TestRequests:
    def test_the_last_one_passes_and_the_next_is_told_when_to_come_back(self, limited: Limited) -> None:
        client = limited(rate_limit_requests_per_minute=3)
        left = [client.get(MODELS).headers["RateLimit"] for _ in range(3)]
        assert [re.sub(r"t=\d+", "t=", said) for said in left] == [f'"requests";r={n};t=' for n in (2, 1, 0)]
        answer = client.get(MODELS)
        problem = refused(answer, 429, "rate_limited")
        wait_s = int(answer.headers["Retry-After"])
        assert 0 < wait_s <= 60
        assert answer.headers["RateLimit"] == f'"requests";r=0;t={wait_s}'
        assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        assert "More than 3 requests within 60 seconds" in problem["detail"]
        assert "RATE_LIMIT_REQUESTS_PER_MINUTE" in problem["detail"]
        assert f"in {wait_s} seconds" in problem["detail"]

    def test_processes_share_a_quota(self, limited: Limited) -> None:
        one, other = (limited(rate_limit_requests_per_minute=4) for _ in range(2))
        statuses = [client.get(MODELS).status_code for client in (one, other, one, other, one, other)]
        assert statuses == [200] * 4 + [429] * 2

    def test_whatever_a_team_asks_counts_and_what_is_nowhere_is_nobodys(self, limited: Limited) -> None:
        client = limited(rate_limit_requests_per_minute=2)
        assert client.get(f"{PREFIX}/batches/none").status_code == 404
        assert [client.get("/nowhere").status_code for _ in range(3)] == [404] * 3
        assert client.get(f"{PREFIX}/batches/none").status_code == 404
        assert client.get(f"{PREFIX}/batches/none").status_code == 429

    def test_a_request_beyond_the_keys_scopes_counts_too(self, limited: Limited, ledger: Engine) -> None:
        client, key = limited(rate_limit_requests_per_minute=2), new_key()
        with ledger.begin() as conn:
            add_key(conn, key, team="default", scopes=[Scope.PREDICT], created_by="tests")
        client.environ_base["HTTP_X_API_KEY"] = key.text
        assert [client.get(MODELS).status_code for _ in range(3)] == [403, 403, 429]

    @pytest.mark.parametrize("path", ["/health/live", "/health", f"{PREFIX}/health", "/metrics", "/openapi.json", "/docs"])
    def test_probes_and_the_description_do_not(self, limited: Limited, path: str) -> None:
        client = limited(rate_limit_requests_per_minute=1)
        assert client.get(MODELS).status_code == 200
        answers = [client.get(path) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit" not in answers[0].headers
        assert client.get(MODELS).status_code == 429

    def test_no_limit_says_nothing(self, client: FlaskClient) -> None:
        assert "RateLimit" not in client.get(MODELS).headers


class TestBatches:
    def test_submits_have_a_quota_of_their_own(self, limited: Limited, ledger: Engine) -> None:
        client = limited(rate_limit_requests_per_minute=100, batch_rate_limit_per_minute=2)
        answers = [submit(client, as_csv(customers(3)), query=f"?batch_id=b{place}") for place in range(3)]
        accepted(answers[1])
        problem = refused(answers[2], 429, "rate_limited")
        assert "BATCH_RATE_LIMIT_PER_MINUTE" in problem["detail"]
        assert answers[1].headers["RateLimit-Policy"] == '"requests";q=100;w=60, "batches";q=2;w=60'
        assert re.fullmatch(r'"requests";r=98;t=\d+, "batches";r=0;t=\d+', answers[1].headers["RateLimit"])
        assert batches_stored(ledger) == 2
        assert client.get(MODELS).status_code == 200

    def test_a_dry_run_and_a_retry_count_as_well(self, limited: Limited) -> None:
        client = limited(batch_rate_limit_per_minute=2)
        assert client.post(f"{PREFIX}/batches:validate", data=as_csv(customers(3)), content_type="text/csv").status_code == 200
        assert client.post(f"{PREFIX}/batches/none/retry").status_code == 404
        refused(client.post(f"{PREFIX}/batches/none/retry"), 429, "rate_limited")

    def test_its_routes_are_routes(self, app: Flask) -> None:
        assert set(app.view_functions) >= BATCH_ENDPOINTS


class TestTeams:
    def test_each_has_its_own_quota(self, settings: Settings, limited: Limited) -> None:
        client = limited(rate_limit_requests_per_minute=0)
        register_as(client.application, settings)
        assert [asks(client, team) for team in ("a", "a", "b", "a")] == [200, 200, 200, 429]


class TestStrangers:
    def test_an_address_of_many_refusals_is_told_to_wait(self, settings: Settings, limited: Limited) -> None:
        client = limited()
        register_as(client.application, settings)
        assert [asks(client, "") for _ in range(5)] == [401, 401, 401, 429, 429]
        assert asks(client, "", address="10.0.0.2") == 401
        answer = client.get(MODELS)
        assert int(answer.headers["Retry-After"]) <= 60
        assert "UNAUTHORISED_REQUESTS_PER_MINUTE" in refused(answer, 429, "rate_limited")["detail"]

    def test_a_valid_key_is_served_whatever_others_do_at_its_address(self, settings: Settings, limited: Limited) -> None:
        client = limited()
        register_as(client.application, settings)
        assert [asks(client, "") for _ in range(4)] == [401, 401, 401, 429]
        assert asks(client, "risk") == 200

    def test_a_network_of_ipv6_is_one_address(self, settings: Settings, limited: Limited) -> None:
        client = limited()
        register_as(client.application, settings)
        statuses = [asks(client, "", address=f"2001:db8:0:1:{place:x}::1") for place in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert asks(client, "", address="2001:db8:0:2::1") == 401

    def test_redis_holds_no_address(self, settings: Settings, limited: Limited, redis_url: str) -> None:
        client = limited()
        register_as(client.application, settings)
        asks(client, "", address="10.9.8.7")
        with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as store:
            keys = store.keys("churn:limit:*")
        assert keys
        assert "10.9.8.7" not in " ".join(keys)


class TestWithoutRedis:
    def test_open_counts_by_itself(self, limited: Limited) -> None:
        client = limited(redis_url=NOWHERE, rate_limit_requests_per_minute=2)
        assert [client.get(MODELS).status_code for _ in range(3)] == [200, 200, 429]

    def test_closed_refuses_and_says_why(self, limited: Limited) -> None:
        client = limited(redis_url=NOWHERE, rate_limit_requests_per_minute=2, rate_limit_on_redis_failure="closed")
        answer = client.get(MODELS)
        assert "RATE_LIMIT_ON_REDIS_FAILURE" in refused(answer, 503, "quota_unknown")["detail"]
        assert answer.headers["Retry-After"]
        assert client.get("/health/live").status_code == 200

    @pytest.mark.parametrize(("choice", "status"), [("open", 200), ("closed", 503)])
    def test_a_frozen_one_holds_up_a_single_request(
        self, limited: Limited, redis_url: str, choice: str, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = limited(rate_limit_requests_per_minute=50, rate_limit_on_redis_failure=choice)
        asked: list[object] = []
        probe = resources(client.application).probe
        pipeline = probe.pipeline
        monkeypatch.setattr(probe, "pipeline", lambda **given: asked.append(given) or pipeline(**given))
        with closing(redis.Redis.from_url(redis_url)) as store, frozen_redis(store):
            assert [client.get(MODELS).status_code for _ in range(20)] == [status] * 20
        assert len(asked) == 1


def test_the_description_names_429_and_its_headers(client: FlaskClient) -> None:
    described = client.get("/openapi.json").get_json()
    assert set(described["components"]["responses"]["TooManyRequests"]["headers"]) == {
        "Retry-After",
        "RateLimit",
        "RateLimit-Policy",
    }
    for path, item in described["paths"].items():
        for operation in (each for method, each in item.items() if method != "parameters"):
            assert ("429" in operation["responses"]) != path.startswith("/health"), path


def register_as(app: Flask, settings: Settings) -> None:
    """Know teams by a header, as an authentication would."""

    def authenticate() -> None:
        team = request.headers.get("X-Team", "")
        if not team:
            raise Unauthorised("No team.", code="no_key")
        set_caller(Caller(team, team, frozenset(Scope)))

    held = replace(
        resources(app), settings=replace(settings, rate_limit_requests_per_minute=2, unauthorised_requests_per_minute=3)
    )
    register_limits(app, held, authenticate=authenticate)


def asks(client: FlaskClient, team: str, *, address: str = "127.0.0.1") -> int:
    return client.get(MODELS, headers={"X-Team": team}, environ_base={"REMOTE_ADDR": address}).status_code
