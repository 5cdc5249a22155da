"""Full disks: what cannot be kept is refused, nothing is kept in part, and a log that cannot be written stops no work."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from deploy.local.temporary import temporary_folder
from tests.acceptance.stack import BATCH_WORKER
from tests.faults.cast import against, report
from tests.faults.ground import CHUNK_ROWS, Ground, Scene, ground_in

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

_FULL_ENOUGH_BYTES = 128 << 10


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[None]:
    """A file system of its own on a folder; takes root, without which the test fails and says so."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.fail(
            f"this fault needs the right to mount a tmpfs ({mounted.stderr.strip()}): run as root in a container that may, or"
            " leave it out by name with --deselect tests/faults/test_disk.py"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def crowded() -> Iterator[Ground]:
    """A ground whose Postgres lies on a small disk."""
    with temporary_folder() as folder:
        (folder / "postgres-disk").mkdir()
        with small_disk(folder / "postgres-disk", megabytes=192), ground_in(folder, postgres_in="postgres-disk") as made:
            yield made


def test_fault_19_postgres_on_a_full_disk(crowded: Ground, request: pytest.FixtureRequest) -> None:
    scene = Scene(crowded, None)
    scene.submit(CHUNK_ROWS)
    scene.end()
    filler = crowded.folder / "postgres-disk" / "filler"
    with filler.open("wb") as file:
        while _free(filler.parent) > _FULL_ENOUGH_BYTES:
            file.write(bytes(min(1 << 20, _free(filler.parent) - _FULL_ENOUGH_BYTES // 2)))
            file.flush()
    refused = 0
    for _ in range(30):
        try:
            answer = scene.post(20_000)
        except httpx.TransportError:
            continue
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
            refused += 1
        else:
            assert answer.status_code == 202, answer.text
            scene.note(answer.json()["batch_id"], range(20_000))
    assert refused, "the disk was never too full for a submit"
    filler.unlink()
    if crowded.servers["postgres"].exit_code() is not None:
        # It ends itself when it cannot write its log; whoever runs it starts it again.
        crowded.start_server("postgres")
    scene.healed()
    scene.wait(lambda: _is_ready(crowded), "the API to be ready")
    scene.submit(CHUNK_ROWS)
    scene.end()
    batches = scene.ask("SELECT count(*) FROM batch_jobs")
    assert batches == len(scene.sent), "a batch that was refused was kept"
    scene.verify()
    report(request, scene)


@against()
def test_fault_20_log_disk_full(scene: Scene) -> None:
    stack, services = scene.ground.stack, scene.ground.stack.services
    disk = scene.ground.folder / "log-disk"
    disk.mkdir()
    with small_disk(disk, megabytes=1):
        stack.services = {**services, BATCH_WORKER: replace(services[BATCH_WORKER], log=disk / "worker.log")}
        try:
            scene.ground.restart(BATCH_WORKER)
            with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while True:
                    filler.write(bytes(1 << 10))
            written = (disk / "worker.log").stat().st_size
            scene.order("predict=exit attempt=1 chunk_no=1 once")
            scene.submit()
            scene.healed()
            scene.verify()
            assert _free(disk) == 0
            assert (disk / "worker.log").stat().st_size - written < 4_096
        finally:
            stack.kill(BATCH_WORKER)
            stack.services = services
            stack.start(BATCH_WORKER)


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _is_ready(ground: Ground) -> bool:
    try:
        with ground.client() as client:
            return client.get("/health/ready").is_success
    except httpx.TransportError:
        time.sleep(0.1)
        return False
