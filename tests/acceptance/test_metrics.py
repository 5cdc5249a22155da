"""What real processes show to Prometheus: what docs/metrics.md says and nothing else, in a bounded number of series, and all of
it when a process has died."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import product
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest
from sqlalchemy import Engine

import settings
from api.access import PUBLIC, SCOPES
from api.app import create_app
from api.metrics import METHODS
from api.resources import resources
from api.tracing import UNMATCHED
from db.keys import ensure_key
from schemas.key_text import KeyText, new_key
from schemas.scopes import Scope
from schemas.secrets import new_secret
from tests import metrics_page as page
from tests.acceptance.http import BASE, as_csv, customers, ended
from tests.acceptance.stack import API, BATCH_WORKER, INTERACTIVE_WORKER, WEBHOOK_WORKER, Stack
from tests.keys import KEY_HEADER
from tests.logged import logging_taken_back
from tests.metrics_page import Described, Exported
from tests.receiver import Receiver, receiving

pytestmark = pytest.mark.acceptance

ROOT: Final = Path(settings.__file__).parent
WORKERS: Final = (BATCH_WORKER, INTERACTIVE_WORKER, WEBHOOK_WORKER)
SCOPES_OF_KEYS: Final = {
    "writer": (Scope.BATCHES_WRITE, Scope.BATCHES_READ),
    "reader": (Scope.MODELS_READ,),
    "predictor": (Scope.PREDICT,),
}

STATUSES: Final = frozenset(
    {200, 201, 202, 204, 304, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413, 415, 422, 429, 500, 503}
)
"""Those that the API answers with; another one that turns up belongs here, and into the bound."""

MODELS: Final = 10
STATED: Final = re.compile(r"at most\s+([\d,]+) of the API and ([\d,]+) of a worker, and each further model adds ([\d,]+)")


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Two processes of the API; files so small that a worker validates them."""
    return {
        "WORKERS": "2",
        "WEBHOOK_SECRET": new_secret(),
        "INLINE_MAX_BYTES": "3000",
        "EARLY_VALIDATION": "false",
        # An answer of 202 on a busy machine would be another series.
        "PREDICTION_TIMEOUT_SECONDS": "60",
    }


@pytest.fixture(scope="module")
def stack_sends_webhooks() -> bool:
    return True


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def scrape_of_api(stack: Stack) -> str:
    return httpx.get(f"{stack.api_url}/metrics", headers=KEY_HEADER, timeout=30).raise_for_status().text


def scrape_of(stack: Stack, name: str) -> str:
    [port] = stack.services[name].ports
    return httpx.get(f"http://127.0.0.1:{port.number}/metrics", timeout=30).raise_for_status().text


@dataclass(frozen=True)
class Scrapes:
    api: str
    workers: tuple[str, ...]

    @classmethod
    def of(cls, stack: Stack) -> Scrapes:
        return cls(scrape_of_api(stack), tuple(scrape_of(stack, name) for name in WORKERS))

    def n_series(self) -> int:
        return sum(len(metric.series) for scrape in (self.api, *self.workers) for metric in page.exported(scrape).values())


@dataclass(frozen=True)
class Used:
    """What the processes were asked, and every word of it that must not be a label."""

    words: frozenset[str]
    uses: Mapping[str, int]


def use(stack: Stack, engine: Engine, receiver: Receiver, mark: str, *, teams: int) -> Used:
    """Ask everything there is, for many customers, batches, teams and keys, whose names all hold the mark."""
    keys = {(team, kind): new_key() for team, kind in product(range(teams), SCOPES_OF_KEYS)}
    with engine.begin() as conn:
        for (team, kind), key in keys.items():
            ensure_key(conn, key, team=f"{mark}-team-{team}", scopes=SCOPES_OF_KEYS[kind], name=mark, created_by="tests")
    uses = dict.fromkeys(SCOPES_OF_KEYS, 0)

    def ask(team: int, kind: str, method: str, path: str, **request: object) -> httpx.Response:
        uses[kind] += 1
        headers = {"X-API-Key": keys[team, kind].text, **dict(request.pop("headers", {}))}  # type: ignore[call-overload]
        return client.request(method, path, headers=headers, **request)  # type: ignore[arg-type]

    with httpx.Client(base_url=stack.api_url + BASE, timeout=60) as client:
        for team in range(teams):
            _work(client, ask, receiver, f"{mark}-{team}", team)
        _err(client, mark)
    for team in range(teams):
        for name in ("mixed", "whole"):
            ended_of(stack, keys[team, "writer"], f"{mark}-{team}-{name}")
        receiver.wait_for(1, f"/{mark}-{team}")
    return Used(frozenset({mark, *(key.key_id for key in keys.values()), *(key.secret for key in keys.values())}), uses)


def _work(client: httpx.Client, ask: Callable[..., httpx.Response], receiver: Receiver, mark: str, team: int) -> None:
    rows = [{**row, "customer_id": f"{mark}-{row['customer_id']}"} for row in customers(40)]
    answer = ask(
        team,
        "writer",
        "POST",
        "/batches",
        json={
            "customers": rows,
            "batch_id": f"{mark}-whole",
            "callback_url": f"{receiver.url.rstrip('/')}/{mark}",
        },
    )
    assert answer.status_code == 202, answer.text
    bad = [{**row, "age": "old"} for row in rows[:5]]
    answer = ask(
        team,
        "writer",
        "POST",
        f"/batches?batch_id={mark}-mixed&on_error=skip",
        content=as_csv(rows + bad),
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 202, answer.text
    assert ask(team, "predictor", "POST", "/predictions", json=rows[0]).status_code == 200
    assert ask(team, "reader", "GET", "/models").status_code == 200
    assert ask(team, "reader", "GET", f"/customers/{mark}").status_code == 403
    assert ask(team, "writer", "GET", f"/batches/{mark}").status_code == 404
    assert ask(team, "writer", "POST", "/batches", content=b"{").status_code in {400, 415}


def _err(client: httpx.Client, mark: str) -> None:
    """Odd paths, odd methods, and what is refused before anybody is known."""
    for method in ("GET", "POST", "BREW", f"X{mark.upper()}", "PROPFIND", "TRACE", "PATCH", "DELETE", "HEAD", "OPTIONS"):
        for path in (f"/{mark}", f"/batches/{mark}/{mark}", "/models", f"/%00{mark}", f"/batches?{mark}={mark}"):
            client.request(method, path)
    for key in (mark, f"churn_{mark}.x", ""):
        client.get("/batches", headers={"X-API-Key": key})


def ended_of(stack: Stack, key: KeyText, batch_id: str) -> None:
    with httpx.Client(base_url=stack.api_url + BASE, timeout=60, headers={"X-API-Key": key.text}) as client:
        assert ended(client, batch_id)["status"] in {"completed", "partial"}


@pytest.fixture(scope="module")
def used(stack: Stack, engine: Engine, receiver: Receiver) -> Used:
    return use(stack, engine, receiver, "zqmark1", teams=2)


@pytest.fixture(scope="module")
def scrapes(stack: Stack, used: Used) -> Scrapes:
    return Scrapes.of(stack)


# -- the page


def differences(described: Mapping[str, Described], exported: Mapping[str, Exported]) -> list[str]:
    """What a page and a scrape disagree in."""
    found = [f"{name} is exported and not on the page" for name in exported.keys() - described.keys()]
    found += [f"{name} is on the page and not exported" for name in described.keys() - exported.keys()]
    for name in described.keys() & exported.keys():
        said, shown = described[name], exported[name]
        if said.kind != shown.kind:
            found.append(f"{name} is a {shown.kind}, and on the page a {said.kind}")
        if shown.labels != {frozenset(said.labels)}:
            found.append(f"{name} has the labels {shown.labels}, and on the page {set(said.labels)}")
    return found


def test_the_page_is_what_the_api_exports(scrapes: Scrapes) -> None:
    assert differences(page.of_api(), page.exported(scrapes.api)) == []


def test_the_page_is_what_the_workers_export(scrapes: Scrapes) -> None:
    assert differences(page.of_workers(), page.exported(*scrapes.workers)) == []


def test_a_metric_that_is_on_one_side_alone_is_found(scrapes: Scrapes) -> None:
    described, shown = page.of_api(), page.exported(scrapes.api)
    assert differences({**described, "churn_made_up": described["churn_redis_up"]}, shown)
    assert differences({name: each for name, each in described.items() if name != "churn_redis_up"}, shown)


# -- the labels


@pytest.fixture(scope="module")
def routes() -> dict[str, set[str]]:
    """The methods of each rule of the application; of what no rule matches, all that can be told."""
    given = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    with logging_taken_back():
        app = create_app(settings.load_settings(given))
        resources(app).close()
    found: dict[str, set[str]] = {UNMATCHED: {*METHODS, "other"}}
    for rule in app.url_map.iter_rules():
        assert rule.endpoint in PUBLIC | set(SCOPES)
        found.setdefault(rule.rule, set()).update(rule.methods or ())
    return found


def codes() -> set[str]:
    """Every word of the product's own source that has the form of a problem's code, and the phrases of HTTP."""
    found = {status.phrase.lower().replace(" ", "_").replace("-", "_") for status in HTTPStatus}
    for folder in ("api", "db", "intake", "scoring", "schemas", "broker"):
        for file in (ROOT / folder).rglob("*.py"):
            found |= set(_codes_of(ast.parse(file.read_text())))
    return found


def _codes_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                yield code
            case ast.AnnAssign(target=ast.Name(id="default_code"), value=ast.Constant(value=str(code))):
                yield code
            case ast.Assign(targets=[ast.Name(id="default_code")], value=ast.Constant(value=str(code))):
                yield code
            case ast.Call(func=ast.Name(id="problem"), args=[_, ast.Constant(value=str(code)), *_]):
                yield code
            case ast.Tuple(elts=[ast.Attribute(value=ast.Name(id="HTTPStatus")), ast.Constant(value=str(code))]):
                yield code
            case _:
                pass


def kinds_of(routes: Mapping[str, set[str]], models: set[str]) -> dict[str, set[str]]:
    """The values of each kind that the page names, for these models."""
    return {
        "*routes*": set(routes),
        "*statuses*": {str(status) for status in STATUSES},
        "*codes*": codes(),
        "*models*": models,
        "*policies*": {"noeviction"},
        "*blank*": {""},
    }


def test_every_value_of_a_label_is_one_that_the_page_names(
    scrapes: Scrapes, routes: Mapping[str, set[str]], active_model: str
) -> None:
    kinds = kinds_of(routes, {active_model})
    for described, shown in (
        (page.of_api(), page.exported(scrapes.api)),
        (page.of_workers(), page.exported(*scrapes.workers)),
    ):
        for name, metric in described.items():
            for label, value in shown[name].values():
                named = metric.labels[label]
                if named == ("*checksums*",):
                    assert re.fullmatch(r"[0-9a-f]{64}", value), (name, label, value)
                    continue
                allowed = {one for each in named for one in kinds.get(each, {each})}
                assert value in allowed, f"{name}: {label}={value!r} is not among the values of the page"


def test_no_label_holds_what_a_client_named(scrapes: Scrapes, used: Used) -> None:
    for scrape in (scrapes.api, *scrapes.workers):
        for word in used.words:
            assert word.lower() not in scrape.lower()


# -- the number of series


def test_more_customers_batches_teams_and_keys_add_no_series(
    stack: Stack, engine: Engine, receiver: Receiver, scrapes: Scrapes
) -> None:
    before = Scrapes.of(stack).n_series()  # the scrapes before have counted themselves
    use(stack, engine, receiver, "zqmark2", teams=5)
    assert Scrapes.of(stack).n_series() == before


def most(described: Mapping[str, Described], shown: Mapping[str, Exported], kinds: Mapping[str, int]) -> int:
    return sum(page.most_series(metric, shown[name], kinds) for name, metric in described.items())


def test_the_number_of_series_has_the_bound_that_the_page_states(scrapes: Scrapes, routes: Mapping[str, set[str]]) -> None:
    sizes = {kind: len(values) for kind, values in kinds_of(routes, set()).items()}
    # Redis has one policy at a time, a model one state and one checksum; a rule has its own methods and no other.
    sizes |= {"*policies*": 1, "*checksums*": 1}
    of_api, of_workers = page.of_api(), page.of_workers()
    pairs = sum(len(methods) for methods in routes.values())
    for name in ("ml_api_requests_total", "ml_api_request_duration_seconds"):
        rest = {label: values for label, values in of_api[name].labels.items() if label not in {"method", "endpoint"}}
        of_api[name] = Described(name, of_api[name].kind, "", {**rest, "pair": ("*pairs*",)})
    info = of_api["ml_model_info"]
    of_api["ml_model_info"] = Described(info.name, info.kind, "", {"model_version": ("*models*",)})

    def bounds(models: int) -> tuple[int, int]:
        kinds = {**sizes, "*models*": models, "*pairs*": pairs}
        return most(of_api, page.exported(scrapes.api), kinds), most(of_workers, page.exported(*scrapes.workers), kinds)

    (api, worker), (api_more, worker_more) = bounds(MODELS), bounds(MODELS + 1)
    stated = STATED.search(page.PAGE.read_text())
    assert stated is not None
    at_most = [int(number.replace(",", "")) for number in stated.groups()]
    for found, bound in zip((api, worker, api_more - api + worker_more - worker), at_most, strict=True):
        assert 0.7 * bound <= found <= bound, (api, worker, api_more - api, worker_more - worker)
    assert sum(len(metric.series) for metric in page.exported(scrapes.api).values()) <= api
    for scrape in scrapes.workers:
        assert sum(len(metric.series) for metric in page.exported(scrape).values()) <= worker


# -- several processes, and their end


def value(scrape: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        sample.value
        for metric in page.text_string_to_metric_families(scrape)
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_uses_of_keys_add_up_over_gunicorn_s_processes_and_outlive_one(
    stack: Stack, engine: Engine, receiver: Receiver
) -> None:
    def uses() -> dict[str, float]:
        scrape = scrape_of_api(stack)
        return {kind: value(scrape, "churn_api_key_uses_total", credential="key", tenant_class=kind) for kind in SCOPES_OF_KEYS}

    before = uses()
    asked = use(stack, engine, receiver, "zqmark3", teams=1).uses
    # Its batches are polled with the key as well, some number of times.
    gained = {kind: n - before[kind] for kind, n in uses().items()}
    assert (gained["reader"], gained["predictor"]) == (asked["reader"], asked["predictor"])
    assert gained["writer"] >= asked["writer"] + 2
    counted = uses()
    gunicorn = psutil.Process(stack.children[API].pid)
    victim = gunicorn.children()[0]
    victim.kill()
    wait_until(lambda: len(alive(gunicorn)) == 2 and victim.pid not in {each.pid for each in alive(gunicorn)})
    wait_until(lambda: answers(stack))
    assert uses() == counted


def answers(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.api_url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_a_killed_pool_child_takes_none_of_its_counters_along_and_all_of_its_gauges(
    stack: Stack, engine: Engine, receiver: Receiver, used: Used
) -> None:
    def scored() -> float:
        return value(scrape_of(stack, BATCH_WORKER), "ml_predictions_total", source="batch")

    def holding_a_model() -> float:
        return value(scrape_of(stack, BATCH_WORKER), "churn_engine_in_use")

    def loads() -> float:
        return value(scrape_of(stack, BATCH_WORKER), "churn_models_loaded_total")

    wait_until(lambda: holding_a_model() == 2)
    scored_before, loaded_before = scored(), loads()
    for victim in alive(psutil.Process(stack.children[BATCH_WORKER].pid)):
        victim.kill()
    wait_until(lambda: loads() == loaded_before + 2)  # by those that took their place
    assert scored() == scored_before
    use(stack, engine, receiver, "zqmark4", teams=1)
    wait_until(lambda: scored() == scored_before + 80)
    assert holding_a_model() == 2  # the gauges of the dead would make it four


def alive(parent: psutil.Process) -> list[psutil.Process]:
    return [child for child in parent.children() if child.status() != psutil.STATUS_ZOMBIE]


def wait_until(true: Callable[[], bool]) -> None:
    """Wait; pytest's own timeout is the limit."""
    while not true():
        time.sleep(0.05)
