"""Cancels and promotions that come at the worst moment."""

from __future__ import annotations

import random
import time
from typing import Final

from datasets.synthetic import generate
from db.models import activate_model, register_model
from failpoints import Guard
from scoring.model import load_bundle, save_bundle
from scoring.train import train
from tests.faults.cast import Quick, against
from tests.faults.ground import CHUNK_ROWS, MODEL, Ground, Scene

_NEXT_MODEL: Final = "faults-2"


@against(Guard.LAST_CHUNK_LOCK, quick=Quick.ALL)
def test_fault_28_two_last_chunks_at_once(scene: Scene) -> None:
    scene.order("closing=sleep:0.3")
    for _ in range(3):
        scene.submit(CHUNK_ROWS * 2)
    scene.healed()
    scene.verify()


@against(Guard.SWEEP_LOCK, quick=Quick.ALL)
def test_fault_28_cancel_meets_a_claim(scene: Scene) -> None:
    # The first claim of a batch locks it as well, so that a cancel waits; that of its second chunk does not.
    scene.order("claiming=sleep:0.5 chunk_no=1")
    for _ in range(5):
        batch = scene.submit(CHUNK_ROWS * 2)
        scene.wait_hit("claiming", len(scene.sent))
        _cancel(scene, batch)
    scene.healed()
    scene.verify(status=None)


@against()
def test_fault_28_cancel_racing_the_last_chunk_200_times(scene: Scene) -> None:
    dice = random.Random(28)
    for _ in range(200):
        batch = scene.submit(CHUNK_ROWS // 2)
        time.sleep(dice.uniform(0.0, 0.12))
        _cancel(scene, batch)
    scene.healed()
    scene.end()
    ends = {scene.status(batch) for batch in scene.sent}
    scene.expect(ends == {"completed", "cancelled"}, f"the race had but one end: {ends}")
    scene.verify(status=None)


def _cancel(scene: Scene, batch: str) -> None:
    with scene.ground.client() as client:
        answer = client.post(f"/batches/{batch}/cancel")
    scene.expect(answer.status_code in (200, 202, 409), f"the cancel was answered {answer.status_code}", batch)


@against(Guard.PINNED_MODEL, quick=Quick.ALL)
def test_fault_29_model_promoted_in_mid_batch(scene: Scene) -> None:
    add_next_model(scene.ground)
    scene.order("scored=sleep:0.1")
    batch = scene.submit()
    scene.begun(batch)
    try:
        with scene.ground.engine.begin() as conn:
            activate_model(conn, _NEXT_MODEL)
        scene.healed()
        scene.verify()
    finally:
        with scene.ground.engine.begin() as conn:
            activate_model(conn, MODEL)


def add_next_model(ground: Ground) -> None:
    """Register a model of other scores, unless it is."""
    folder = ground.folder / "models" / _NEXT_MODEL
    if folder.exists():
        return
    model = train(generate(4_000, seed=29), version=_NEXT_MODEL, data="synthetic", synthetic=True, seed=29)
    save_bundle(folder, model)
    with ground.engine.begin() as conn:
        register_model(conn, location=folder.name, **load_bundle(folder).record())
