"""Looking: counters become rates, what is away is named, and a look costs few requests."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cli.top.look import Looker, Past, quantile, rate
from cli.top.scrape import Samples, Target, read, targets_of
from client import ChurnClient, RetryPolicy, Unauthorised
from tests.unit.cli.conftest import Churn
from tests.unit.client.fake_api import DROP, Answer, FakeApi, batch_json, problem

STATS = {
    "predictions_today": 70,
    "predictions_by_risk": {"low": 70},
    "batches_by_status": {"processing": 1, "completed": 3},
    "chunks_by_priority": {"urgent": 0, "high": 0, "normal": 9, "low": 0},
    "oldest_chunk_seconds": 4.5,
    "waiting_predictions": 2,
    "mean_batch_seconds": 3.0,
}
OF_API = """
churn_redis_up 1.0
churn_queue_depth{priority="normal"} 9.0
churn_queue_depth{priority="high"} 0.0
churn_oldest_chunk_age_seconds{priority="normal"} 61.0
churn_oldest_chunk_age_seconds{priority="high"} 0.0
churn_predictions_waiting 0.0
churn_webhooks_waiting 3.0
churn_queue_hints{queue="batches.normal"} 4.0
churn_queue_hints{queue="webhooks"} 1.0
"""
OF_WORKER = "churn_chunk_seconds_count 5.0\n"
READY = {"status": "ready", "checks": {"postgres": "ok", "schema": "ok", "redis": "ok"}}


def samples(at_s: float, **values: float) -> Samples:
    return Samples(at_s, {name: {frozenset(): value} for name, value in values.items()})


@pytest.fixture
def service(api: FakeApi) -> FakeApi:
    """An API at work."""
    api.on("GET", "/health/ready", READY)
    api.on("GET", "/stats", STATS)
    api.on("GET", "/batches", {"batches": [batch_json("june")], "next_cursor": None})
    api.on("GET", "/metrics", Answer(body=OF_API.encode()))
    api.on("GET", "/worker", Answer(body=OF_WORKER.encode()))
    return api


@pytest.fixture
def looker(service: FakeApi) -> Iterator[Looker]:
    with ChurnClient(service.url, retry=RetryPolicy(attempts=1)) as client, httpx.Client() as http:
        targets = [Target("api", f"{service.url}/metrics"), Target("batch", f"{service.url}/worker")]
        yield Looker(client, [*targets, Target("gone", "http://127.0.0.1:1/metrics")], http)


class TestRates:
    def test_a_counter_becomes_a_rate(self) -> None:
        assert rate(samples(12, a=50.0), samples(10, a=30.0), "a") == 10
        assert rate(samples(12, a=50.0, b=8.0), samples(10, a=30.0, b=4.0), "a", "b", "none") == 12

    def test_one_that_was_started_anew_counts_from_nothing(self) -> None:
        assert rate(samples(12, a=6.0), samples(10, a=30.0), "a") == 3

    def test_one_that_has_appeared_counts_from_nothing(self) -> None:
        assert rate(samples(12, a=6.0), samples(10), "a") == 3

    def test_there_is_none_before_two_looks_or_of_nothing(self) -> None:
        assert rate(samples(12, a=6.0), None, "a") is None
        assert rate(samples(12), samples(10), "a") is None
        assert rate(samples(12, a=6.0), samples(12, a=5.0), "a") is None

    def test_looks_are_kept_for_a_minute(self) -> None:
        past = Past()
        for at_s in range(0, 200, 2):
            past.add(samples(at_s, a=float(at_s)))
        short, long = past.before(10), past.before(60)
        assert short is not None
        assert long is not None
        assert (short.at_s, long.at_s) == (188, 138)
        assert Past().before(10) is None

    def test_looks_that_are_far_apart_still_make_a_rate(self) -> None:
        past = Past()
        past.add(samples(0, a=0.0))
        past.add(samples(300, a=1.0))
        assert past.before(10) == samples(0, a=0.0)

    def test_a_quantile_is_of_what_was_counted_in_between(self) -> None:
        inf = float("inf")
        before, now = {0.1: 100.0, 0.2: 100.0, inf: 100.0}, {0.1: 150.0, 0.2: 200.0, inf: 200.0}
        assert quantile(now, before, 0.5) == pytest.approx(0.1)
        assert quantile(now, before, 0.95) == pytest.approx(0.19)
        assert quantile({0.1: 0.0, inf: 10.0}, {}, 0.5) == 0.1
        assert quantile(now, now, 0.5) is None
        assert quantile({}, {}, 0.5) is None


class TestTargets:
    API = Target("api", "http://h:8001/metrics", "key")

    def test_they_are_named_or_called_by_their_address(self) -> None:
        found = targets_of("api=http://h:9100/metrics, http://h:9101/metrics?a=b", token="t", api=self.API)
        assert [(target.name, target.url, target.token) for target in found] == [
            ("api", "http://h:9100/metrics", "t"),
            ("h:9101", "http://h:9101/metrics?a=b", "t"),
        ]

    def test_without_any_the_api_s_own_is_asked(self) -> None:
        assert targets_of("", token="", api=self.API) == [self.API]

    @pytest.mark.parametrize("given", ["h:9100", "batch=h:9100/metrics", "ftp://h/metrics"])
    def test_what_is_no_address_is_refused(self, given: str, churn: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHURN_METRICS_URLS", given)
        run = churn("top", "--once")
        assert run.code == 2
        assert "CHURN_METRICS_URLS" in run.err

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (Answer(401), "wants METRICS_TOKEN, or a key of the scope admin"),
            (Answer(500), "answers 500"),
            (Answer(body=b"<html>hello</html>"), "shows no metrics"),
            (DROP, "no answer"),
        ],
    )
    def test_one_that_cannot_be_read_says_why(self, api: FakeApi, answer: Answer, said: str) -> None:
        api.on("GET", "/metrics", answer)
        with httpx.Client() as http:
            assert read(http, Target("x", f"{api.url}/metrics", "secret")) == said
        assert api.asked[0].headers["authorization"] == "Bearer secret"

    def test_a_token_is_not_shown(self) -> None:
        assert "hunter2" not in repr(Target("x", "http://h", "hunter2"))


class TestLook:
    def test_everything_is_put_together(self, looker: Looker) -> None:
        frame = looker.look()
        queues = {queue.name: queue for queue in frame.queues}
        assert (frame.state, frame.trouble) == ("ready", ())
        assert (queues["batches.normal"].hints, queues["batches.normal"].waiting, queues["batches.normal"].oldest_s) == (
            4,
            9,
            61,
        )
        assert (queues["batches.high"].waiting, queues["batches.high"].oldest_s) == (0, None)
        assert (queues["webhooks"].hints, queues["webhooks"].waiting) == (1, 3)
        assert [(worker.name, worker.is_alive) for worker in frame.workers] == [("batch", True), ("gone", False)]
        assert [batch.batch_id for batch in frame.batches] == ["june"]
        assert frame.n_batches == 1
        assert frame.today is not None
        assert frame.today.predictions_today == 70

    def test_a_second_look_has_rates(self, looker: Looker, service: FakeApi) -> None:
        assert looker.look().workers[0].tasks_per_minute is None
        service.on("GET", "/worker", Answer(body=b"churn_chunk_seconds_count 9.0\n"))
        found = looker.look()
        assert found.workers[0].tasks_per_minute is not None
        assert found.workers[0].tasks_per_minute > 0
        assert found.singles.per_second == 0

    def test_with_a_key_alone_the_team_s_own_numbers_are_shown(self, looker: Looker, service: FakeApi) -> None:
        service.on("GET", "/metrics", problem(403, "forbidden", "no"))
        frame = looker.look()
        queues = {queue.name: queue for queue in frame.queues}
        assert (queues["batches.normal"].hints, queues["batches.normal"].waiting) == (None, 9)
        assert queues["predictions"].waiting == 2
        assert frame.singles.per_second is None
        [said] = frame.trouble
        assert "wants METRICS_TOKEN, or a key of the scope admin" in said

    def test_redis_away_is_said_once(self, looker: Looker, service: FakeApi) -> None:
        service.on("GET", "/health/ready", {**READY, "status": "degraded", "checks": {"redis": "unreachable"}})
        service.on("GET", "/metrics", Answer(body=OF_API.replace("redis_up 1.0", "redis_up 0.0").encode()))
        frame = looker.look()
        assert frame.state == "degraded"
        assert [said.split()[0] for said in frame.trouble] == ["Redis"]

    def test_postgres_away_leaves_what_was_seen_last(self, looker: Looker, service: FakeApi) -> None:
        before = looker.look()
        service.on("GET", "/health/ready", problem(503, "database_unavailable", "Postgres cannot be reached."))
        frame = looker.look()
        assert frame.state == "not ready"
        assert frame.trouble[0].startswith("Postgres is away")
        assert (frame.batches, frame.batches_at) == (before.batches, before.batches_at)

    def test_the_api_away_and_back(self, looker: Looker, service: FakeApi) -> None:
        service.on("GET", "/health/ready", DROP)
        frame = looker.look()
        assert (frame.state, frame.batches_at) == ("away", None)
        assert "does not answer" in frame.trouble[0]
        service.on("GET", "/health/ready", READY)
        assert looker.look().state == "ready"

    def test_a_key_that_is_refused_is_no_matter_of_waiting(self, looker: Looker, service: FakeApi) -> None:
        service.on("GET", "/stats", problem(401, "unauthorised", "no such key"))
        with pytest.raises(Unauthorised):
            looker.look()

    def test_a_look_asks_for_states_that_have_batches_only_and_spares_the_count_of_the_day(self, service: FakeApi) -> None:
        # Began, answered a second later; 19 s and 21 s after that second look.
        clock = iter([100.0, 101.0, 120.0, 121.5, 121.6])
        with ChurnClient(service.url) as client, httpx.Client() as http:
            looker = Looker(client, [], http, clock=lambda: next(clock))
            looker.look()
            assert [asked.params["status"] for asked in service.asked_of("/batches")] == ["processing"]
            looker.look()
            assert len(service.asked_of("/stats")) == 1
            looker.look()
            assert len(service.asked_of("/stats")) == 2

    def test_a_batch_that_moves_on_in_between_is_shown_once(self, looker: Looker, service: FakeApi) -> None:
        service.on("GET", "/stats", {**STATS, "batches_by_status": {"processing": 1, "queued": 1}})
        assert [batch.batch_id for batch in looker.look().batches] == ["june"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHURN_METRICS_URLS", raising=False)
    monkeypatch.setattr("cli.session.ChurnClient", functools.partial(ChurnClient, sleep=lambda _: None))


@pytest.mark.usefixtures("quick")
class TestCommand:
    @pytest.mark.usefixtures("service")
    def test_one_picture_for_people(self, churn: Churn) -> None:
        run = churn("top", "--once", "--interval", "0.2")
        assert (run.code, run.err) == (0, "")
        assert "june" in run.out
        assert "\x1b" not in run.out

    @pytest.mark.usefixtures("service")
    def test_without_a_terminal_it_is_one_picture_too(self, churn: Churn) -> None:
        assert churn("top", "--interval", "0.2").code == 0

    @pytest.mark.usefixtures("service")
    def test_one_picture_for_programs(self, churn: Churn) -> None:
        found: dict[str, Any] = churn("top", "--once", "--json", "--interval", "0.2").json
        assert found["state"] == "ready"
        assert found["batches"][0]["batch_id"] == "june"
        assert found["today"] == STATS
        assert {queue["name"] for queue in found["queues"]} >= {"predictions", "batches.low"}
        assert set(found["singles"]) == {"per_second", "median_ms", "p95_ms", "waiting"}

    def test_an_api_that_is_away_is_shown_as_such(self, churn: Churn, api: FakeApi) -> None:
        api.on("GET", "/health/ready", DROP)
        run = churn("top", "--once", "--interval", "0.2")
        assert run.code == 4
        assert "AWAY" in run.out

    def test_a_key_that_is_refused_ends_it(self, churn: Churn, service: FakeApi) -> None:
        service.on("GET", "/stats", problem(401, "unauthorised", "no such key"))
        assert churn("top", "--once").code == 6
