"""The licences of what is shipped: allowed by their kind, or each by itself with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Final

ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "PSF-2.0",
        "PostgreSQL",
        "Unlicense",
        "Zlib",
    }
)
"""SPDX names of licences that ask for their text to be kept and little else."""

REASONED: Final = {
    "certifi": "MPL-2.0: binds changes to its own files, and none are made",
    "psycopg2-binary": "LGPL-3.0 with exceptions: a library of its own, unchanged, which whoever has the product may replace",
}
"""Packages under other licences, and why they may be shipped."""

_CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}


def licence_of(name: str) -> str:
    """What an installed package says of its licence: an SPDX expression where it gives one; blank if it says nothing.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        It is not installed.
    """
    found = metadata.metadata(name)
    if expression := found.get_all("License-Expression"):
        return str(expression[0])
    classifiers = [each.split(" :: ")[-1] for each in found.get_all("Classifier") or [] if each.startswith("License ::")]
    if classifiers:
        return " OR ".join(_CLASSIFIERS.get(each, each) for each in classifiers)
    said = str((found.get_all("License") or [""])[0]).partition("\n")[0].strip()
    return _CLASSIFIERS.get(said, said)


def is_allowed(expression: str) -> bool:
    """Whether all parts of one alternative of an SPDX expression are allowed."""
    alternatives = expression.replace("(", "").replace(")", "").split(" OR ")
    return any(all(part.strip() in ALLOWED for part in each.split(" AND ")) for each in alternatives)


def refused(names: Iterable[str]) -> list[str]:
    """Say each package that may not be shipped as it is; those that this platform does not install are left out."""
    found = []
    for name in names:
        try:
            licence = licence_of(name)
        except metadata.PackageNotFoundError:
            continue
        if name not in REASONED and not is_allowed(licence):
            found.append(
                f"{name} is under {licence or 'a licence that it does not name'}: take another package, or give the reason in "
                "supply/licences.py"
            )
    return found
