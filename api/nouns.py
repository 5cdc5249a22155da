"""The blueprint of a noun: flask-smorest's, with types, with scopes, and with parameters that refuse what they do not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import flask_smorest
from flask import request
from marshmallow import RAISE, Schema, ValidationError

from api.access import SCHEMES, SCOPES

View = TypeVar("View", bound=Callable[..., Any])


class Door(Protocol):
    """A decorator that leaves the view's type as it is."""

    def __call__(self, view: View, /) -> View: ...


MEDIA_TYPE_PROBLEM: Final = "application/problem+json"


class Noun(flask_smorest.Blueprint):  # type: ignore[misc]
    """The routes of one noun."""

    if TYPE_CHECKING:

        def get(self, rule: str, **options: Any) -> Door: ...
        def post(self, rule: str, **options: Any) -> Door: ...
        def put(self, rule: str, **options: Any) -> Door: ...
        def delete(self, rule: str, **options: Any) -> Door: ...
        def doc(self, **kwargs: Any) -> Door: ...
        def response(self, status_code: int, schema: type[Schema] | None = None, **kwargs: Any) -> Door: ...
        def alt_response(self, status_code: int, response: str | None = None, **kwargs: Any) -> Door: ...
        def arguments(self, schema: Schema, **kwargs: Any) -> Door: ...

    def route(self, rule: str, **options: Any) -> Door:
        """Register a view, and describe what `api.access` says of who may ask it."""

        def decorate(view: View) -> View:
            scope = SCOPES.get(f"{self.name}.{view.__name__}")
            described = view if scope is None else self._guarded(view, str(scope))
            super(Noun, self).route(rule, **options)(described)
            return view

        return decorate

    def _guarded(self, view: View, scope: str) -> View:
        refusals = self.problems(_401="No key or token, or one that opens nothing here.", _403=f"It lacks the scope `{scope}`.")
        return self.doc(security=[{name: []} for name in SCHEMES], **{"x-scope": scope})(refusals(view))

    def query(self, schema: type[Schema]) -> Door:
        """Parse the query into the view's first argument; an unknown parameter is refused: most often it is a misspelt one."""
        # An instance, for webargs would make one of a class for each request.
        instance = schema()
        parse = self.arguments(instance, location="query", unknown=RAISE)
        usual = _without_parameters(instance)

        def decorate(view: View) -> View:
            parsing = parse(view)

            @wraps(parsing)
            def view_of_query(*args: Any, **kwargs: Any) -> Any:
                # Most requests have no query, polls above all, and nothing to parse takes as long as something.
                if usual is not None and not request.query_string:
                    return view(*args, dict(usual), **kwargs)
                return parsing(*args, **kwargs)

            return cast(View, view_of_query)

        return decorate

    def problems(self, **reasons: str) -> Door:
        """Document the errors of a view: `problems(_404="No such batch.")`."""

        def decorate(view: View) -> View:
            for status, reason in reversed(reasons.items()):
                view = self.alt_response(
                    int(status.lstrip("_")), schema="Problem", content_type=MEDIA_TYPE_PROBLEM, description=reason
                )(view)
            return view

        return decorate


def _without_parameters(schema: Schema) -> Mapping[str, Any] | None:
    """What a query without parameters means; None where one is required."""
    try:
        return cast("Mapping[str, Any]", schema.load({}))
    except ValidationError:
        return None


def headers(**described: str) -> dict[str, Mapping[str, Any]]:
    """Describe an answer's headers for OpenAPI: `headers(retry_after="Seconds to wait.")`."""
    return {
        name.replace("_", "-").title(): {"description": text, "schema": {"type": "string"}} for name, text in described.items()
    }
