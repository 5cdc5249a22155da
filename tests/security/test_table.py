"""The table of security is whole: each test that it names exists, and what is tried is what docs/security.md says."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from intake import parquet_child
from tests.security import mutants
from tests.security.mutants import Mutant, instead, rewritten, rewritten_script
from tests.security.table import MUTANTS, TABLE

ROOT = Path(__file__).parents[2]


def functions(body: list[ast.stmt], *within: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield "::".join((*within, node.name))
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, *within, node.name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_every_guard_is_held_by_tests_that_exist(mutant: Mutant) -> None:
    assert mutant.noticed_by
    for test in mutant.noticed_by:
        file, _, name = test.partition("[")[0].partition("::")
        assert name in functions(ast.parse((ROOT / file).read_text()).body), test


def test_no_guard_is_named_twice() -> None:
    assert {name for name, n in Counter(mutant.name for mutant in MUTANTS).items() if n > 1} == set()


def test_the_documentation_has_every_risk_and_guard() -> None:
    told = (ROOT / "docs" / "security.md").read_text()
    assert [row.risk for row in TABLE if f"| {row.risk} |" not in told] == []
    assert [mutant.name for mutant in MUTANTS if f"`{mutant.name}`" not in told] == []


def is_even(number: int) -> bool:
    if number < 0:
        raise ValueError("negative")
    return number % 2 == 0


def test_a_guard_is_taken_out_and_put_back() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rewritten(f"{__name__}.is_even", "if number < 0:", "if False:")(monkeypatch)
        assert is_even(-2)
        instead(f"{__name__}.ROOT", None)(monkeypatch)
        assert ROOT is None
    with pytest.raises(ValueError, match="negative"):
        is_even(-2)


@pytest.mark.parametrize("old", ["number", "nowhere in it"])
def test_a_guard_that_has_moved_is_told(monkeypatch: pytest.MonkeyPatch, old: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="bring the table of mutants up to date"):
        rewritten(f"{__name__}.is_even", old, "")(monkeypatch)


def test_a_guard_in_another_process_is_taken_out_of_a_copy_of_its_script() -> None:
    before = parquet_child.__file__
    with pytest.MonkeyPatch.context() as monkeypatch:
        rewritten_script("intake.parquet_child", "    _limit(memory_bytes)\n", "")(monkeypatch)
        assert Path(parquet_child.__file__).read_text() == Path(before).read_text().replace("    _limit(memory_bytes)\n", "")
        with pytest.raises(pytest.fail.Exception, match="bring the table of mutants up to date"):
            rewritten_script("intake.parquet_child", "nowhere in it", "")(monkeypatch)
    assert parquet_child.__file__ == before


def outcome(item: object, error: BaseException | None) -> object:
    """What becomes of a test that ends so."""
    running = mutants.run(item)  # type: ignore[arg-type]
    next(running)
    try:
        running.throw(error) if error else running.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it goes on")


@pytest.fixture
def without(request: pytest.FixtureRequest) -> object:
    """A run of some test without a guard."""
    mutant = Mutant("x", lambda _: None, ("tests/test_x.py::test_x",))
    callspec = type("CallSpec", (), {"params": {"guard_taken_out": mutant}})
    return type("Item", (), {"callspec": callspec, "nodeid": "tests/test_x.py::test_x[without-x]"})


def test_a_failure_is_what_a_run_without_a_guard_should_end_with(without: object) -> None:
    assert outcome(without, AssertionError("401 != 200")) is True


def test_a_run_that_passes_without_its_guard_fails(without: object) -> None:
    with pytest.raises(pytest.fail.Exception, match="it does not hold that guard"):
        outcome(without, None)


def test_another_error_is_not_taken_for_a_failure(without: object) -> None:
    with pytest.raises(KeyError):
        outcome(without, KeyError("x"))


def test_a_run_with_all_guards_is_left_alone() -> None:
    with pytest.raises(AssertionError, match="401"):
        outcome(type("Item", (), {}), AssertionError("401 != 200"))
