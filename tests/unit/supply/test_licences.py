"""What is shipped may be: by the kind of its licence, or by a reason."""

from __future__ import annotations

from importlib import metadata

import pytest

from supply import licences
from supply.__main__ import ROOT, main
from supply.licences import REASONED, is_allowed, licence_of, refused
from supply.locks import pins_of


def test_all_that_is_shipped_is_allowed() -> None:
    assert main(["licences"]) == 0


def test_every_reason_is_still_needed() -> None:
    shipped = {pin.name for pin in pins_of(ROOT / "requirements.lock")}
    assert REASONED.keys() <= shipped
    assert not any(is_allowed(licence_of(name)) for name in REASONED)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND 0BSD AND Zlib", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT AND AGPL-3.0-only) OR GPL-2.0-only", False),
        ("", False),
    ],
)
def test_one_alternative_must_be_allowed_in_all_its_parts(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ("License-Expression: MIT\nLicense: whatever\n", "MIT"),
        ("Classifier: License :: OSI Approved :: MIT License\n", "MIT"),
        (
            "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)\n",
            "GNU General Public License v3 (GPLv3)",
        ),
        ("License: BSD-3-Clause\n", "BSD-3-Clause"),
        ("", ""),
    ],
)
def test_a_package_names_its_licence_in_one_of_three_ways(monkeypatch: pytest.MonkeyPatch, headers: str, licence: str) -> None:
    import email

    monkeypatch.setattr(licences.metadata, "metadata", lambda _: email.message_from_string(headers))
    assert licence_of("example") == licence


def test_another_licence_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "licence_of", lambda _: "AGPL-3.0-only")
    [said] = refused(["example"])
    assert "example is under AGPL-3.0-only" in said
    assert refused(REASONED) == []


def test_what_is_not_installed_is_not_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(licences, "licence_of", missing)
    assert refused(["tzdata"]) == []
