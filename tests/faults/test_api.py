"""The API dies or loses its answer between commit and publish; its client asks again."""

from __future__ import annotations

import time

import httpx
import pytest

from failpoints import Guard
from tests.faults.cast import Quick, against
from tests.faults.ground import CHUNK_ROWS, Scene

KEY = {"Idempotency-Key": "the same"}


def killed_in_a_submit(scene: Scene, **headers: str) -> str:
    """The batch of a submit whose process died after its commit and before it published or answered."""
    scene.order("submitted=exit once")
    with pytest.raises(httpx.TransportError):
        scene.post(CHUNK_ROWS, headers=headers)
    batch = scene.ask("SELECT batch_id FROM batch_jobs WHERE submitted_at >= :s", s=scene.since)
    return scene.note(batch, range(CHUNK_ROWS))


@against(Guard.RESCUER_PUBLISHES, quick=Quick.ALL)
def test_fault_14_api_killed_between_commit_and_publish(scene: Scene) -> None:
    killed_in_a_submit(scene)
    scene.healed()
    scene.verify()


@against(Guard.IDEMPOTENCY, quick=Quick.ALL)
def test_fault_15_client_retries_a_submit(scene: Scene) -> None:
    batch = killed_in_a_submit(scene, **KEY)
    scene.wait(lambda: _is_ready(scene), "the API")
    again = scene.post(CHUNK_ROWS, headers=KEY)
    assert again.status_code == 202, again.text
    scene.expect(again.json()["batch_id"] == batch, "one key has made two batches", batch)
    if scene.mutant is None:
        assert again.headers["Idempotency-Replayed"] == "true"
        assert scene.post(CHUNK_ROWS - 1, headers=KEY).status_code == 422
    scene.healed()
    scene.end()
    batches = scene.ask("SELECT count(*) FROM batch_jobs WHERE submitted_at >= :s", s=scene.since)
    scene.expect(batches == 1, f"there are {batches} batches")
    scene.verify()


def _is_ready(scene: Scene) -> bool:
    try:
        with scene.ground.client() as client:
            return client.get("/health/ready").is_success
    except httpx.TransportError:
        time.sleep(0.1)
        return False
