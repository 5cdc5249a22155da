"""Where Flower keeps what it has seen, over its own restarts.

The file is a pickle of Flower's own (shelve), and reading a pickle runs what is in it. So Flower's account alone writes and
reads it: its folder and itself belong to that account, and nobody else may write there; otherwise Flower does not start.
Nothing else of the product opens it.
"""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path

from deploy.flower.login import Refused

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def prepare_history(file: Path) -> Path:
    """Make the folder of Flower's file, for its account alone, and refuse one into which others may write.

    Raises
    ------
    Refused
        The folder, or a file of that name, is somebody else's or may be written by others.
    """
    file = file.absolute()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise Refused(f"FLOWER_DB: its folder cannot be made ({exc.strerror}); name another file.") from exc
    # Its name is the beginning of several: each library that may keep it adds an ending of its own.
    for place in (file.parent, *file.parent.glob(glob.escape(file.name) + "*")):
        found = place.stat() if place == file.parent else place.lstat()
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
            raise Refused(
                f"FLOWER_DB: {place} is not of the account that runs Flower alone. Flower runs what it reads there: "
                "use a folder of its own (chmod 700), or FLOWER_PERSISTENT=0 to keep nothing."
            )
    return file
