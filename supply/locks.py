"""The locks: each package that a requirements file brings along, at one version, with the hash of each of its files.

`make` installs from them with --require-hashes, so that an index or a mirror that serves other files is noticed. `make lock`
writes them; what is checked here is that they still say what the requirements ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS: Final = {"requirements.txt": "requirements.lock", "requirements-dev.txt": "requirements-dev.lock"}
"""Each requirements file and its lock."""

PARTS: Final = {
    "deploy/images/api.txt": "deploy/images/api.lock",
    "deploy/images/worker.txt": "deploy/images/worker.lock",
}
"""What each image holds, by name, and its lock: a part of requirements.lock."""

_HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package in a lock.

    Attributes
    ----------
    requirement : Requirement
        Name, version and marker.
    hashes : int
        How many files it may be installed from.
    because_of : tuple of str
        What asked for it: packages, or ``-r`` and a file.
    """

    requirement: Requirement
    hashes: int
    because_of: tuple[str, ...]

    @property
    def name(self) -> str:
        """The package, spelt as the index does."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str | None:
        """The one version, or None if the line allows several."""
        found = re.fullmatch(r"==([^*]+)", str(self.requirement.specifier))
        return found[1] if found else None


def requirements_of(file: Path) -> list[Requirement]:
    """What a requirements file asks for by itself, without the files that it includes."""
    lines = (line.split(" #")[0].strip() for line in file.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r "))]


def pins_of(lock: Path) -> list[Pin]:
    """Read a lock as uv writes it: a package, the hashes of its files, and in comments what asked for it.

    Raises
    ------
    ValueError
        It holds something else, such as the address of an index.
    """
    return [_pin(lock, entry) for entry in _entries(lock.read_text())]


def disagreements(root: Path) -> list[str]:
    """Say each thing in which the locks in a folder differ from its requirements or from what a lock must be."""
    found: list[str] = []
    held: dict[str, Pin] = {}
    for file, lock in LOCKS.items():
        pins = pins_of(root / lock)
        found += [f"{lock}: {pin.name} is not pinned to one version" for pin in pins if pin.version is None]
        found += [f"{lock}: {pin.name} has no hash" for pin in pins if not pin.hashes]
        found += _unmet(root / file, lock, pins)
        now = {str(pin.requirement): pin for pin in pins}
        found += [f"{lock}: {each} is in the other lock and not in this one" for each in held.keys() - now.keys()]
        held = now
    for file, lock in PARTS.items():
        found += _apart(root, file, lock)
    return found


def _apart(root: Path, file: str, lock: str) -> Iterator[str]:
    """How an image's lock differs from the part of requirements.lock that its packages are."""
    whole = {pin.name: pin for pin in pins_of(root / LOCKS["requirements.txt"])}
    part = {pin.name: pin for pin in pins_of(root / lock)}
    for name, pin in part.items():
        same = whole.get(name)
        if same is None or (same.version, same.hashes) != (pin.version, pin.hashes):
            yield f"{lock}: {name} {pin.version} is {same.version if same else 'not'} in requirements.lock"
    for asked in {canonicalize_name(each.name) for each in requirements_of(root / file)} - part.keys():
        yield f"{file} asks for {asked}, {lock} does not hold it"


def _unmet(file: Path, lock: str, pins: list[Pin]) -> Iterator[str]:
    asked = {canonicalize_name(each.name): each for each in requirements_of(file)}
    for name, requirement in asked.items():
        versions = [pin.version for pin in pins if pin.name == name]
        if not any(version and requirement.specifier.contains(version, prereleases=True) for version in versions):
            yield f"{file.name} asks for {requirement}, {lock} holds {' and '.join(map(str, versions)) or 'none'}"
    for pin in pins:
        if f"-r {file.name}" in pin.because_of and pin.name not in asked:
            yield f"{lock}: {pin.name} is there for {file.name}, which does not ask for it"


def _entries(text: str) -> Iterator[list[str]]:
    """Yield the lines of each package, the first of them first."""
    entry: list[str] = []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if not line[0].isspace() and entry:
            yield entry
            entry = []
        entry.append(line)
    if entry:
        yield entry


def _pin(lock: Path, entry: list[str]) -> Pin:
    code = " ".join(line.rstrip("\\") for line in entry if not line.lstrip().startswith("#"))
    comment = " ".join(line.strip().lstrip("#").strip() for line in entry if line.lstrip().startswith("#"))
    hashes = _HASH.findall(code)
    rest = _HASH.sub(" ", code).strip()
    if rest.startswith("-") or "://" in rest or "--" in rest:
        raise ValueError(f"{lock.name} may hold packages and their hashes only, not {rest!r}")
    asked = tuple(re.findall(r"-r \S+|[^\s,]+", comment.removeprefix("via ")))
    return Pin(Requirement(rest), len(hashes), asked)
