"""One byte that differs in any file of a model: nothing is scored with it, nothing is lost, and the batch says why it waits."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine

from api.answers import batch_answer
from schemas.states import BatchStatus, ChunkState, HeldUp
from scoring.compiling import ensure_compiled
from scoring.model import MANIFEST_NAME, MODEL_NAME, ModelBundle
from scoring.native import FOLDER
from tests.integration.workers import builders as b
from workers.chunk import score_chunk
from workers.resources import Resources

# By version and not by what is installed: where there is a compiler, a missing one is a fault.
compiles = pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")

PLACES = {"first": 0.0, "early": 0.01, "middle": 0.5, "last": 1.0}
"""Where the byte lies, as a share of the file."""


@pytest.fixture(scope="module")
def compiled_model(bundles: dict[str, ModelBundle], model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles with one model, which is compiled where that can be had."""
    folder = tmp_path_factory.mktemp("compiled")
    shutil.copytree(model_folder / b.MODEL, folder / b.MODEL)
    ensure_compiled(folder / b.MODEL, folder / FOLDER, sha256=bundles[b.MODEL].sha256)
    return folder


@pytest.fixture
def files(compiled_model: Path, tmp_path: Path) -> Path:
    """A copy of it to be altered."""
    return shutil.copytree(compiled_model, tmp_path / "models")


def fresh(resources: Resources, files: Path) -> Resources:
    """What another process holds that has loaded nothing yet."""
    settings = dataclasses.replace(resources.settings, model_storage_path=files)
    return dataclasses.replace(resources, settings=settings, _scorers=OrderedDict())


def file_of(files: Path, name: str) -> Path:
    if name in (MANIFEST_NAME, MODEL_NAME):
        return files / b.MODEL / name
    (found,) = (files / FOLDER).iterdir()
    return found


def flip(path: Path, place: float) -> bytes:
    """Change one bit of one byte; returns the file as it was."""
    before = path.read_bytes()
    at = round(place * (len(before) - 1))
    path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
    return before


@pytest.mark.parametrize("name", [MANIFEST_NAME, MODEL_NAME, pytest.param("compiled", marks=compiles)])
@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_byte_stops_the_model_until_it_is_mended(
    resources: Resources, ledger: Engine, files: Path, name: str, place: str
) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(20), chunk_rows=10)
    path = file_of(files, name)
    before = flip(path, PLACES[place])

    worker = fresh(resources, files)
    for _ in range(2 * resources.settings.max_attempts):
        score_chunk(worker, "b", 0)
        b.wait_out_backoff(ledger, "b")

    assert [(chunk.state, chunk.attempt) for chunk in b.chunks_of(ledger, "b")] == [(ChunkState.PENDING, 0)] * 2
    assert b.predictions_of(ledger, "b") == []
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.held_up) == (BatchStatus.PROCESSING, HeldUp.MODEL_UNUSABLE)
    said = batch_answer(batch)["held_up"]
    assert said["code"] == "model_unusable"
    assert b.MODEL in said["detail"]
    assert str(files) not in said["detail"]
    assert REGISTRY.get_sample_value("churn_model_usable", {"model_version": b.MODEL}) == 0

    path.write_bytes(before)
    score_chunk(worker, "b", 0)
    assert b.batch_of(ledger, "b").held_up is None
    score_chunk(worker, "b", 1)
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch_answer(batch)["held_up"]) == (BatchStatus.COMPLETED, None)
    assert REGISTRY.get_sample_value("churn_model_usable", {"model_version": b.MODEL}) == 1


def test_a_batch_that_was_cancelled_meanwhile_is_held_up_no_longer(resources: Resources, ledger: Engine, files: Path) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(20))
    flip(files / b.MODEL / MODEL_NAME, PLACES["middle"])
    score_chunk(fresh(resources, files), "b", 0)
    ended = dataclasses.replace(b.batch_of(ledger, "b"), status=BatchStatus.CANCELLED)
    assert batch_answer(ended)["held_up"] is None
