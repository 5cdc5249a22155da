"""The product's Flask app, predicting where it stands: no queue, no worker, nothing stored. Only the benchmark runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import httpx
from flask import Flask, Response, jsonify

from api.app import create_app
from api.bodies import read_json
from api.resources import resources
from bench.ground import Ground
from bench.model import load_scorer
from deploy.local.ports import HOST, free_port
from deploy.local.process import Service, running
from deploy.local.stack import API
from schemas.customer import read_customer
from scoring.risk import RECOMMENDED_ACTIONS, RISK_CATEGORIES
from workers.stored import table_of

_BUNDLE: Final = "BENCH_BUNDLE"
_NAME: Final = "in-process-api"


def create_predicting_app() -> Flask:
    """The application whose POST /predictions answers without asking anyone."""
    app = create_app()
    scorer = load_scorer(Path(os.environ[_BUNDLE]))

    def predict() -> Response:
        customer = read_customer(read_json(resources().settings))
        if isinstance(customer, list):
            raise TypeError(f"the benchmark sent a customer that is not valid: {customer}")
        scores = scorer.score(table_of([customer]))
        category = RISK_CATEGORIES[int(scores.risk[0])]
        return jsonify(
            customer_id=customer["customer_id"],
            churn_probability=float(scores.churn_probability[0]),
            confidence_score=float(scores.confidence[0]),
            risk_category=category,
            model_version=scorer.version,
            recommended_action=RECOMMENDED_ACTIONS[category],
        )

    app.view_functions["predictions.post_prediction"] = predict
    return app


@contextmanager
def predicting_api(ground: Ground) -> Iterator[str]:
    """Serve that application as the product is served, on another port, for the length of a block; yields its URL."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    service = _service(ground, port, url)
    with running(service):
        yield url


def _service(ground: Ground, port: int, url: str) -> Service:
    usual = ground.stack.services[API]
    counters = ground.folder / "metrics" / _NAME
    counters.mkdir(parents=True)
    own = {"PORT": str(port), _BUNDLE: str(ground.bundle), "PROMETHEUS_MULTIPROC_DIR": str(counters), "OMP_NUM_THREADS": "1"}

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/health/ready", timeout=2.0, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return replace(
        usual,
        name=_NAME,
        argv=(*usual.argv[:-1], "bench.inprocess:create_predicting_app()"),
        log=usual.log.with_name(f"{_NAME}.log"),
        ready=ready,
        env={**(usual.env or {}), **own},
        prepare=cast("type[list[str]]", list),
        ports=(),
    )
