"""The product's Flask app, predicting where it stands: no queue, no worker, nothing stored. Only the benchmark runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flask import Flask, Response, jsonify

from api.app import create_app
from api.bodies import read_json
from api.resources import resources
from bench.ground import Ground
from bench.model import load_scorer
from bench.served import served
from schemas.customer import read_customer
from scoring.risk import RECOMMENDED_ACTIONS, RISK_CATEGORIES
from workers.stored import table_of

_BUNDLE: Final = "BENCH_BUNDLE"


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
    env = {_BUNDLE: str(ground.bundle), "OMP_NUM_THREADS": "1"}
    with served(ground, "bench.inprocess:create_predicting_app()", name="in-process-api", env=env) as api:
        yield api.url
