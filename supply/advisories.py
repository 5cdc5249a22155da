"""Known vulnerabilities, looked up in a copy of the OSV database: for where its server cannot be reached.

The copy is a zip of OSV records, such as the `all.zip` that OSV publishes for PyPI, or a folder of them.
See https://ossf.github.io/osv-schema/.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


@dataclass(frozen=True, slots=True)
class Finding:
    """A package that an advisory speaks of."""

    name: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    summary: str

    def __str__(self) -> str:
        names = ", ".join((self.advisory, *self.aliases))
        return f"{self.name} {self.version}: {names}: {self.summary}"


def records_in(source: Path) -> Iterator[Mapping[str, Any]]:
    """Read every record of a copy."""
    if source.is_dir():
        yield from (json.loads(path.read_bytes()) for path in sorted(source.rglob("*.json")))
        return
    with zipfile.ZipFile(source) as archive:
        yield from (json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json"))


def findings(pins: Mapping[str, str], records: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Match packages with advisories.

    Parameters
    ----------
    pins : mapping of str to str
        Versions by package, spelt as the index does.
    records : iterable of mapping
        OSV records; those that were withdrawn count for nothing.
    """
    found = []
    for record in records:
        if "withdrawn" in record:
            continue
        for affected in record.get("affected", ()):
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            if package.get("ecosystem") == "PyPI" and name in pins and _is_affected(pins[name], affected):
                aliases = tuple(record.get("aliases", ()))
                summary = record.get("summary") or str(record.get("details", "")).partition("\n")[0]
                found.append(Finding(name, pins[name], record["id"], aliases, summary))
                break
    return found


def _is_affected(version: str, affected: Mapping[str, Any]) -> bool:
    if version in affected.get("versions", ()):
        return True
    ranges = [each["events"] for each in affected.get("ranges", ()) if each.get("type") == "ECOSYSTEM"]
    return any(_is_within(Version(version), events) for events in ranges)


def _is_within(version: Version, events: Iterable[Mapping[str, str]]) -> bool:
    """Whether a version lies in one of the stretches that a range's events begin and end."""
    within = False
    for event in sorted(events, key=_place):
        at = _place(event)
        if "introduced" in event and version >= at:
            within = True
        elif ("fixed" in event and version >= at) or ("last_affected" in event and version > at):
            within = False
    return within


def _place(event: Mapping[str, str]) -> Version:
    told = next(iter(event.values()))
    try:
        return Version(told)
    except InvalidVersion:
        return Version("0")
