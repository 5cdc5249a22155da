"""Where the programs come from, and what is said where they come from nowhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.ops import debian


def test_it_is_taken_out_of_its_package_where_the_path_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(debian, "_UNPACKED", tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = debian.program(debian.PROMTOOL)
    assert found.is_relative_to(tmp_path)
    assert b"promtool" in subprocess.run([found, "--version"], capture_output=True, check=True, timeout=30).stdout


def test_a_machine_that_cannot_fetch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(debian, "_UNPACKED", tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(debian.MissingProgram, match="apt-get install prometheus"):
        debian.program(debian.PROMTOOL)
