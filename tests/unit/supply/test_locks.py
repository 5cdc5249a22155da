"""The locks hold what the requirements ask for, each file by its hash; what they do not hold is not installed."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from supply.__main__ import ROOT, main
from supply.locks import LOCKS, PARTS, disagreements, pins_of

Change = Callable[[str, str, str], None]


def test_the_locks_are_those_of_the_requirements() -> None:
    assert disagreements(ROOT) == [], "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS.values())
def test_every_package_has_one_version_and_its_hashes(lock: str) -> None:
    pins = pins_of(ROOT / lock)
    assert len(pins) > 60
    assert all(pin.version and pin.hashes for pin in pins)
    assert "://" not in (ROOT / lock).read_text()


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Copies of the files, of which a test changes one."""
    for name in (*LOCKS, *LOCKS.values(), *PARTS, *PARTS.values()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())

    def changed(name: str, pattern: str, by: str) -> None:
        text = (tmp_path / name).read_text()
        new = re.sub(pattern, by, text, count=1, flags=re.MULTILINE)
        assert new != text
        (tmp_path / name).write_text(new)

    return changed


@pytest.mark.parametrize(
    ("name", "pattern", "by", "said"),
    [
        (
            "requirements.txt",
            r"^flask==\S+",
            "flask==3.99.0",
            "requirements.txt asks for flask==3.99.0, requirements.lock holds 3.",
        ),
        ("requirements.txt", r"^flask==", "another==1.0\nflask==", "asks for another==1.0, requirements.lock holds none"),
        ("requirements.txt", r"^flower==.*\n", "", "flower is there for requirements.txt, which does not ask for it"),
        ("requirements-dev.txt", r"^ruff==\S+", "ruff==0.0.1", "requirements-dev.lock holds 0."),
        ("requirements.lock", r"^flask==\S+", "flask>=3", "flask is not pinned to one version"),
        ("requirements.lock", r"(^flask==\S+ \\\n)(    --hash=\S+ ?\\?\n)+", r"\1", "flask has no hash"),
        ("requirements-dev.lock", r"^kombu==\S+", "kombu==1.0", "is in the other lock and not in this one"),
        ("deploy/images/api.lock", r"^kombu==\S+", "kombu==1.0", "api.lock: kombu 1.0 is 5."),
        ("deploy/images/worker.lock", r"(^flower==\S+ \\\n)(    --hash=\S+ ?\\?\n)", r"\1", "worker.lock: flower 2."),
        ("deploy/images/worker.lock", r"^flower==\S+", "another==2.2.0", "worker.txt asks for flower, "),
        ("deploy/images/api.txt", r"^flask\b", "another\nflask", "api.txt asks for another, deploy/images/api.lock does not"),
    ],
)
def test_a_disagreement_is_told(tmp_path: Path, change: Change, name: str, pattern: str, by: str, said: str) -> None:
    assert disagreements(tmp_path) == []
    change(name, pattern, by)
    assert any(said in each for each in disagreements(tmp_path)), disagreements(tmp_path)


@pytest.mark.parametrize("line", ["--index-url https://example.org/simple", "flask @ https://example.org/flask.whl", "-e ."])
def test_an_address_has_no_place_in_a_lock(tmp_path: Path, change: Change, line: str) -> None:
    change("requirements.lock", r"\Z", f"\n{line}\n")
    with pytest.raises(ValueError, match="packages and their hashes only"):
        disagreements(tmp_path)


def test_the_command_says_what_to_do(
    tmp_path: Path, change: Change, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["locks"]) == 0
    monkeypatch.setattr("supply.__main__.ROOT", tmp_path)
    change("requirements.txt", r"^flower==.*\n", "")
    assert main(["locks"]) == 1
    assert "make lock" in capsys.readouterr().err


def test_make_installs_nothing_without_a_hash() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^PIP := .* install --quiet$", makefile, re.MULTILINE)
    installs = [line.strip() for line in makefile.splitlines() if "$(PIP) " in line]
    own = "@$(PIP) --no-deps --no-build-isolation --editable ."
    locked = [line for line in installs if line != own and "peers" not in line]
    assert own in installs
    assert re.search(r"^LOCKED := --require-hashes --only-binary :all: --requirement$", makefile, re.MULTILINE)
    assert locked == [f"@$(PIP) $(LOCKED) {lock}" for lock in LOCKS.values()]


@pytest.mark.parametrize("flipped", [False, True])
def test_a_file_of_another_hash_is_not_installed(tmp_path: Path, flipped: bool) -> None:
    wheel = tmp_path / "example-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("example.py", "")
        archive.writestr("example-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
        archive.writestr("example-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("example-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if flipped:
        digest = f"{int(digest[0], 16) ^ 1:x}{digest[1:]}"
    lock = tmp_path / "example.lock"
    lock.write_text(f"example==1.0 \\\n    --hash=sha256:{digest}\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    where = ["--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / "installed")]
    done = subprocess.run(
        [*command, *where, "--requirement", str(lock)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode == 0) is not flipped, done.stderr
    assert ("DO NOT MATCH THE HASHES" in done.stderr) is flipped
    assert (tmp_path / "installed" / "example.py").exists() is not flipped
