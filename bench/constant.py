"""The product's Flask app with a batch's status answered by a constant: what a request costs before anything is looked up."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, jsonify

from api.app import create_app

FACTORY: Final = "bench.constant:create_constant_app()"


def create_constant_app() -> Flask:
    """The application; a request meets the same key, quota, headers and log line as a poll does."""
    app = create_app()

    def answer(batch_id: str) -> Response:
        return jsonify(batch_id=batch_id, status="processing")

    app.view_functions["batches.get_one_batch"] = answer
    return app
