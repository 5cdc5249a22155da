"""Programs that the tests need and that no wheel brings: found on the machine, or taken out of Debian's packages.

A package is fetched and unpacked below the virtual environment, which needs no root and installs nothing; what is found on the
PATH comes first. Where neither is there, a test that needs the program fails and says what to install: it is never skipped.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PROMETHEUS: Final = "prometheus"
PROMTOOL: Final = "promtool"
NODE_EXPORTER: Final = "prometheus-node-exporter"
BLACKBOX_EXPORTER: Final = "prometheus-blackbox-exporter"
AMTOOL: Final = "amtool"

_PACKAGES: Final = {
    PROMETHEUS: "prometheus",
    PROMTOOL: "prometheus",
    NODE_EXPORTER: "prometheus-node-exporter",
    BLACKBOX_EXPORTER: "prometheus-blackbox-exporter",
    AMTOOL: "prometheus-alertmanager",
}
_UNPACKED: Final = Path(sys.prefix) / "debian"
_FETCH_TIMEOUT_S: Final = 120


class MissingProgram(Exception):
    """A program is neither on this machine nor can it be fetched."""


def program(name: str) -> Path:
    """Find a program, or fetch it; several test processes may ask at once.

    Raises
    ------
    MissingProgram
        It says what to install.
    """
    found = shutil.which(name)
    if found:
        return Path(found)
    package = _PACKAGES[name]
    unpacked = _UNPACKED / package / "usr" / "bin" / name
    _UNPACKED.mkdir(parents=True, exist_ok=True)
    with (_UNPACKED / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            _fetch(package)
    if not unpacked.exists():
        raise MissingProgram(f"Debian's package {package} holds no {name}: install one and put it on the PATH.")
    return unpacked


def _fetch(package: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            if not _downloaded(package, folder):
                # A fresh machine knows no packages yet; only root may ask for the list.
                _run(["apt-get", "update", "-qq"], folder)
                if not _downloaded(package, folder):
                    raise MissingProgram(_missing(package, "apt-get download found none"))
            [archive] = Path(folder).glob("*.deb")
            _run(["dpkg-deb", "--extract", str(archive), str(_UNPACKED / package)], folder, check=True)
        except (OSError, subprocess.SubprocessError) as exc:
            raise MissingProgram(_missing(package, str(exc))) from exc


def _downloaded(package: str, folder: str) -> bool:
    # Fetched by whoever runs the tests: apt's own user may not write into the folder.
    return _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=", package], folder).returncode == 0


def _run(argv: list[str], folder: str, *, check: bool = False) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, timeout=_FETCH_TIMEOUT_S, check=check)


def _missing(package: str, why: str) -> str:
    return (
        f"These tests need Debian's package {package} (or the same program on the PATH) and it cannot be fetched: {why}. "
        f"Install it, for example by `apt-get install {package}` or `brew install prometheus`, and run them again."
    )
