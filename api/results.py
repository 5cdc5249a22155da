"""What came of a batch: scores and row errors, streamed in the form that the client asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Response

from api.downloads import Listing, errors_of, predictions_of, stream
from api.media import FORMATS, JSON, wanted_format
from api.nouns import Noun
from api.resources import resources
from api.streams import whole
from db.batches import get_batch
from schemas.batch import DownloadQuerySchema

results = Noun("results", __name__, description="Download the scores and the row errors of a batch.")

_FILE: Final = {"schema": {"type": "string", "format": "binary"}}
_DOWNLOAD: Final = {
    200: {
        "description": "Streamed in input order; what there is so far while the batch runs.",
        "content": {media_type: _FILE if media_type != JSON else {} for media_type in FORMATS.values()},
    }
}


@results.get("/batches/<batch_id>/results")
@results.query(DownloadQuerySchema)
@results.doc(responses=_DOWNLOAD)
@results.problems(_404="No such batch.", _406="Accept allows no form that there is.")
def get_results(query: dict[str, Any], batch_id: str) -> Response:
    """Download the scores in input order."""
    return _download(predictions_of, query, batch_id)


@results.get("/batches/<batch_id>/errors")
@results.query(DownloadQuerySchema)
@results.doc(responses=_DOWNLOAD)
@results.problems(_404="No such batch.", _406="Accept allows no form that there is.")
def get_errors(query: dict[str, Any], batch_id: str) -> Response:
    """Download the rows that were refused or could not be scored, each with its reasons."""
    return _download(errors_of, query, batch_id)


def _download(list_of: Callable[..., Listing], query: dict[str, Any], batch_id: str) -> Response:
    form = wanted_format(query.get("format"))
    engine = resources().engine
    with engine.connect() as conn:
        batch = get_batch(conn, batch_id)
    listing = list_of(engine, batch, first_row=query["first_row"], limit=query.get("limit"))
    answer = Response(whole(stream(listing, batch, form)), mimetype=FORMATS[form])
    if form != "json":
        answer.headers.set("Content-Disposition", "attachment", filename=f"{batch_id}-{listing.name}.{form}")
    answer.vary.add("Accept")
    return answer
