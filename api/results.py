"""What came of a batch: scores and row errors, streamed in the form that the client asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from flask import Response

from api.caller import caller
from api.downloads import csv_of_predictions, errors_of, predictions_of, stream
from api.media import FORMATS, JSON, wanted_format
from api.nouns import Noun
from api.resources import resources
from api.streams import whole
from db.batches import Batch, get_own_batch
from db.engine import each_alone
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
    form, batch = wanted_format(query.get("format")), _batch(batch_id)
    engine, first_row, limit = resources().engine, query["first_row"], query.get("limit")
    if form == "csv" and limit is None:
        return _answer(csv_of_predictions(engine, batch, first_row=first_row, guard=query["guard"]), batch_id, "results", form)
    listing = predictions_of(engine, batch, first_row=first_row, limit=limit, typed=form == "parquet")
    return _answer(stream(listing, batch, form, guard=query["guard"]), batch_id, listing.name, form)


@results.get("/batches/<batch_id>/errors")
@results.query(DownloadQuerySchema)
@results.doc(responses=_DOWNLOAD)
@results.problems(_404="No such batch.", _406="Accept allows no form that there is.")
def get_errors(query: dict[str, Any], batch_id: str) -> Response:
    """Download the rows that were refused or could not be scored, each with its reasons."""
    form, batch = wanted_format(query.get("format")), _batch(batch_id)
    listing = errors_of(resources().engine, batch, first_row=query["first_row"], limit=query.get("limit"))
    return _answer(stream(listing, batch, form, guard=query["guard"]), batch_id, listing.name, form)


def _batch(batch_id: str) -> Batch:
    with each_alone(resources().engine) as conn:
        return get_own_batch(conn, batch_id, team=caller().team)


def _answer(pieces: Iterator[bytes], batch_id: str, name: str, form: str) -> Response:
    answer = Response(whole(pieces), mimetype=FORMATS[form])
    if form != "json":
        answer.headers.set("Content-Disposition", "attachment", filename=f"{batch_id}-{name}.{form}")
    answer.vary.add("Accept")
    return answer
