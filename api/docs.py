"""The API's description: /openapi.json from the marshmallow schemas, and /docs, a page whose parts are all served from here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import flask_swagger_ui
from flask import Blueprint, Response, current_app, jsonify, render_template, send_from_directory
from flask_smorest import Api

from api.description import complete

_ASSETS: Final = Path(flask_swagger_ui.__file__).parent / "dist"

docs = Blueprint("docs", __name__, template_folder="templates", static_folder="static", static_url_path="/docs/static")


@docs.get("/openapi.json")
def get_openapi() -> Response:
    """Describe every route."""
    api: Api = current_app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    return jsonify(complete(api.spec.to_dict()))


@docs.get("/docs")
def get_docs() -> str:
    """Show the description as a page."""
    return render_template("docs.html", title=current_app.config["API_TITLE"])


@docs.get("/docs/assets/<path:name>")
def get_asset(name: str) -> Response:
    """Serve Swagger UI's own files out of its wheel."""
    return send_from_directory(_ASSETS, name, max_age=86_400)
