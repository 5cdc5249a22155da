"""The file that keeps a compiled model: whose it is, what made it, and that not one byte of it has changed.

It holds machine code, which whoever loads it runs. So it is read only if it belongs to the reader's own user, is closed to all
others, names the very model, processor and library versions in use, and has its checksum. It lies in a folder beside the
bundles, never inside one: a bundle that came from elsewhere must not bring machine code along.

A file is one line of JSON, which says all of that, and the object code after it. One file is replaced in one step, so of two
processes that compile at once either may win, and a reader finds a whole file or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Final

from scoring.errors import EngineUnavailable

FOLDER: Final = ".compiled"
"""Of all compiled models, in the folder of the bundles; no model can be named so (see `scoring.manifest.check_version`)."""

FORMAT: Final = "1"
"""Raised whenever the file's form or the options of compiling change: older files are then not used any more."""

_DIGEST: Final = "object_sha256"
_NOT_OURS: Final = 0o077

ALTERED: Final = "altered_file"
"""The one cause for which nothing scores: a file of ours is not as we wrote it, and nobody knows what else was changed."""

Identity = Mapping[str, str]
"""All that the machine code depends on, by name."""


def identity_of(model_sha256: str) -> Identity:
    """What a compiled file of that model must say of itself to be used by this process, on this machine.

    Parameters
    ----------
    model_sha256 : str
        In hex, of the model's text, as the bundle's manifest has it.

    Raises
    ------
    EngineUnavailable
        The compiler is not installed (``missing_compiler``): there is none for this version of Python.
    """
    try:
        from llvmlite import binding as llvm

        versions = {name: library_version(name) for name in ("lleaves", "llvmlite")}
    except (ImportError, OSError, PackageNotFoundError) as exc:
        raise EngineUnavailable(f"the compiler is not installed: {exc}", code="missing_compiler") from exc
    return {
        "format": FORMAT,
        "model_sha256": model_sha256,
        "machine": llvm.get_process_triple(),
        "cpu": llvm.get_host_cpu_name(),
        "cpu_features_sha256": hashlib.sha256(_cpu_features().encode()).hexdigest(),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        **versions,
    }


def _cpu_features() -> str:
    """The instructions that the compiler may use; the name of a processor alone does not say what a virtual one offers."""
    from llvmlite import binding as llvm

    try:
        return str(llvm.get_host_cpu_features().flatten())
    except RuntimeError:  # Not known on every system; the compiler then keeps to what the processor's name implies.
        return ""


def path_of(folder: Path, identity: Identity) -> Path:
    """Where the compiled file of that identity lies; files for several machines may lie in one folder."""
    surroundings = json.dumps(dict(identity), sort_keys=True)
    return folder / f"{identity['model_sha256'][:32]}-{hashlib.sha256(surroundings.encode()).hexdigest()[:16]}.native"


def read_native(folder: Path, identity: Identity) -> bytes:
    """Read the object code that was compiled for exactly this identity.

    Raises
    ------
    EngineUnavailable
        There is no such file (``not_compiled``), it is not private to this user (``unsafe_file``), or it is not as it was
        written (``altered_file``).
    """
    path = path_of(folder, identity)
    try:
        _check_folder(folder)
        content = _read_private(path)
    except FileNotFoundError as exc:
        raise EngineUnavailable(
            "the model is not compiled for this processor and these library versions; registering it again here does that",
            code="not_compiled",
        ) from exc
    except OSError as exc:
        raise EngineUnavailable(f"{path} cannot be read: {exc.strerror}", code="unsafe_file") from exc
    return _verified(path, content, identity)


def make_folder(folder: Path) -> None:
    """Make the folder of compiled files, or check the one there is; errors as for `write_native`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_folder(folder)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only", str(folder))


def write_native(folder: Path, identity: Identity, object_code: bytes) -> Path:
    """Keep object code, whole or not at all, for this user alone.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    EngineUnavailable
        The folder is another user's, or open to others (``unsafe_file``).
    """
    make_folder(folder)
    header = json.dumps({**identity, _DIGEST: hashlib.sha256(object_code).hexdigest()}).encode()
    descriptor, partial = tempfile.mkstemp(dir=folder, prefix=".")  # Only its owner may read or write it, from the start.
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(header + b"\n" + object_code)
            file.flush()
            os.fsync(file.fileno())
        return Path(partial).replace(path_of(folder, identity))
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _check_folder(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EngineUnavailable(f"{folder} is not a folder", code="unsafe_file")
    _check_private(folder, found)


def _read_private(path: Path) -> bytes:
    # What was opened is what is checked and read; a look at the path before could be about another file. A pipe must not block.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise EngineUnavailable(f"{path} is not a plain file", code="unsafe_file")
        _check_private(path, found)
        return file.read()


def _check_private(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise EngineUnavailable(f"{path} belongs to another user, whose machine code is not run", code="unsafe_file")
    if found.st_mode & _NOT_OURS:
        raise EngineUnavailable(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):o}); close it with chmod go= or remove it",
            code="unsafe_file",
        )


def _verified(path: Path, content: bytes, identity: Identity) -> bytes:
    line, _, object_code = content.partition(b"\n")
    try:
        said = dict(json.loads(line))
        digest = said.pop(_DIGEST)
    except (ValueError, TypeError, KeyError) as exc:
        raise EngineUnavailable(
            f"{path} was altered: its first line cannot be read; remove it, or register the model again", code=ALTERED
        ) from exc
    if said != dict(identity):
        raise EngineUnavailable(f"{path} is not what its name says; remove it, or register the model again", code=ALTERED)
    if hashlib.sha256(object_code).hexdigest() != digest:
        raise EngineUnavailable(
            f"{path} was altered: its machine code does not have its checksum; remove it, or register the model again",
            code=ALTERED,
        )
    return object_code
