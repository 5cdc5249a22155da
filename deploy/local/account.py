"""Which account runs Postgres: it refuses to run as root, so root hands it to an account without privileges."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import LocalError


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system."""

    name: str
    uid: int
    gid: int


def account_for(folder: Path) -> Account | None:
    """Choose who runs a server whose data lies in `folder`.

    Returns
    -------
    Account or None
        None: whoever we are. For root, the owner of the folder (or of the nearest parent that exists) if that is an ordinary
        user, who can reach it for sure, else ``nobody``; no account is created.
    """
    if os.geteuid() != 0:
        return None
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    owner = nearest.stat().st_uid
    try:
        entry = pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
    except KeyError as exc:
        raise LocalError(
            "Postgres refuses to run as root and this machine has no ordinary user to run it: start as another user, "
            "or set DATABASE_URL."
        ) from exc
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def let_pass(account: Account, target: Path) -> list[Path]:
    """Let `account` reach `target` by adding the search permission (o+x, not reading) to folders on the way that lack it.

    Without it root's Postgres cannot start from a checkout below /root or a mkdtemp folder.

    Returns
    -------
    list of Path
        The folders that were changed, outermost first.
    """
    closed = [folder for folder in reversed(target.resolve().parents) if not _may_search(account, folder.stat())]
    for folder in closed:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
    return closed


def let_read(account: Account, tree: Path) -> None:
    """Make a tree of our own virtual environment readable for `account`; pip leaves it closed under a umask of 077."""
    if _may_search(account, tree.stat()):
        return
    for place in _walk(tree):
        mode = stat.S_IMODE(place.stat().st_mode)
        place.chmod(mode | (mode & 0o500) >> 6)


def _walk(tree: Path) -> Iterator[Path]:
    yield tree
    yield from (place for place in tree.rglob("*") if not place.is_symlink())


def _may_search(account: Account, found: os.stat_result) -> bool:
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
