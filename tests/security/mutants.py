"""Tests run once more without the guard that they are about, and must then fail: so that each guard is known to be needed.

The table (`tests.security.table`) names for each guard the tests that hold it. Those are run as they are, and once more for
each mutant, which is the product with that one guard taken out in this process; the run passes if the test notices.
"""

from __future__ import annotations
import __future__

import ast
import atexit
import importlib
import inspect
import pkgutil
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

Change: TypeAlias = Callable[[pytest.MonkeyPatch], None]
"""Takes a guard out, by a MonkeyPatch that puts it back."""

_NAME: Final = "guard_taken_out"
_GUARDED: Final = "guarded"
_TAKEN_OUT: Final = pytest.StashKey[pytest.MonkeyPatch]()


@dataclass(frozen=True, slots=True)
class Mutant:
    """The product without one guard.

    Attributes
    ----------
    name : str
        Of the guard, unique.
    without : Change
    noticed_by : tuple of str
        Node ids of tests; with parameters in brackets, only by those.
    by : tuple of type
        What else than a failed assertion a test may end with.
    """

    name: str
    without: Change
    noticed_by: tuple[str, ...]
    by: tuple[type[Exception], ...] = ()


def instead(target: str, value: Any) -> Change:
    """Put something else in the place of what a dotted name names."""
    return lambda monkeypatch: monkeypatch.setattr(target, value)


def rewritten(target: str, old: str, new: str) -> Change:
    """Change the text of a function, which must hold the old words once, wherever the function was imported to."""

    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        function = inspect.unwrap(pkgutil.resolve_name(target))
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(old) != 1:
            pytest.fail(f"{target} holds {old!r} {source.count(old)} times: bring the table of mutants up to date")
        tree = ast.parse(source.replace(old, new))
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
        definition.decorator_list = []
        made: dict[str, Any] = {}
        code = compile(tree, f"<{target} without a guard>", "exec", __future__.annotations.compiler_flag)
        exec(code, function.__globals__, made)  # noqa: S102 - our own text, and only defined here
        monkeypatch.setattr(function, "__code__", made[definition.name].__code__)

    return change


def rewritten_script(module: str, old: str, new: str) -> Change:
    """Change the text of a module that is run as a script, in a process of its own: a changed copy is run instead."""

    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        script = importlib.import_module(module)
        source = Path(str(script.__file__)).read_text()
        if source.count(old) != 1:
            pytest.fail(f"{module} holds {old!r} {source.count(old)} times: bring the table of mutants up to date")
        folder = tempfile.mkdtemp(prefix="mutant-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder, Path(str(script.__file__)).name)
        copy.write_text(source.replace(old, new))
        monkeypatch.setattr(script, "__file__", str(copy))

    return change


def both(*changes: Change) -> Change:
    """Take out several guards at once, where each stands behind another."""

    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        for each in changes:
            each(monkeypatch)

    return change


def offer(metafunc: pytest.Metafunc, mutants: Iterable[Mutant]) -> None:
    """Have a test that holds guards run without each of them, too."""
    base = metafunc.definition.nodeid
    those = [each for each in mutants if any(test.partition("[")[0] == base for test in each.noticed_by)]
    if those:
        metafunc.fixturenames.insert(0, _NAME)
        ids = [_GUARDED, *(f"without-{each.name}" for each in those)]
        metafunc.parametrize(_NAME, [None, *those], ids=ids)


def is_meant(item: pytest.Item) -> bool:
    """Whether an item is a test as it is, or a mutant that it is named to notice with these very parameters."""
    mutant = _mutant_of(item)
    if mutant is None:
        return True
    base, _, given = item.nodeid.partition("[")
    others = given.removesuffix("]").replace(f"without-{mutant.name}", "").strip("-")
    return any(test == base or test == f"{base}[{others}]" for test in mutant.noticed_by)


def take_out(item: pytest.Item) -> None:
    """Take out the guard that a run of a test is to go without, before its fixtures are made."""
    mutant = _mutant_of(item)
    if mutant is not None:
        monkeypatch = item.stash[_TAKEN_OUT] = pytest.MonkeyPatch()
        mutant.without(monkeypatch)


def put_back(item: pytest.Item) -> None:
    """Put that guard back."""
    if (monkeypatch := item.stash.get(_TAKEN_OUT, None)) is not None:
        monkeypatch.undo()


def run(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a test; without a guard, turn what it says about."""
    mutant = _mutant_of(pyfuncitem)
    if mutant is None:
        return (yield)
    try:
        yield
    except (AssertionError, pytest.fail.Exception, *mutant.by):
        return True
    pytest.fail(f"without {mutant.name} this test passes as well: it does not hold that guard")


def _mutant_of(item: pytest.Item) -> Mutant | None:
    callspec = getattr(item, "callspec", None)
    found = None if callspec is None else callspec.params.get(_NAME)
    return found if isinstance(found, Mutant) else None
