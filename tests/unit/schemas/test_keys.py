"""API keys as text, and the names of teams."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.key_text import new_key, read_key
from schemas.scopes import MEANINGS, Scope, TenantClass, is_team, tenant_class


def test_a_key_has_256_bits_of_secret_and_is_read_as_it_was_made() -> None:
    made = new_key()
    assert len(base64.urlsafe_b64decode(made.secret + "=")) == 32
    assert read_key(made.text) == made
    assert made.sha256 == hashlib.sha256(made.secret.encode()).digest()
    assert len({new_key().text for _ in range(100)}) == 100


def test_a_key_in_a_log_shows_no_secret() -> None:
    made = new_key()
    assert made.secret not in repr(made)
    assert made.key_id in repr(made)


@given(st.text())
def test_no_other_text_is_a_key(text: str) -> None:
    assert read_key(text) is None


@pytest.mark.parametrize("cut", [slice(1, None), slice(0, -1)])
def test_a_key_that_was_not_copied_whole_is_none(cut: slice) -> None:
    assert read_key(new_key().text[cut]) is None
    assert read_key(new_key().text + "x") is None
    assert read_key(new_key().text + "\n") is None


def test_every_scope_is_explained() -> None:
    assert set(MEANINGS) == set(Scope)


@pytest.mark.parametrize(("name", "holds"), [("growth", True), ("a.b-c_1", True), ("x" * 50, True), ("x" * 51, False)])
def test_a_team_has_a_plain_name(name: str, holds: bool) -> None:
    assert is_team(name) is holds
    for odd in (f"-{name}", f"{name} ", f"{name}\n", f"{name}/", f"{name}\N{SNOWMAN}", ""):
        assert not is_team(odd)


@pytest.mark.parametrize(
    ("scopes", "widest"),
    [
        (Scope, "admin"),
        ({Scope.ADMIN}, "admin"),
        ({Scope.PREDICT, Scope.BATCHES_READ, Scope.BATCHES_WRITE}, "writer"),
        ({Scope.CUSTOMERS_DELETE}, "writer"),
        ({Scope.PREDICT, Scope.HISTORY_READ}, "reader"),
        ({Scope.PREDICT}, "predictor"),
        ((), "none"),
    ],
)
def test_a_key_is_of_the_class_of_the_widest_that_it_opens(scopes: Iterable[Scope], widest: str) -> None:
    assert tenant_class(frozenset(scopes)) == widest


@pytest.mark.parametrize("scope", Scope)
def test_every_scope_has_a_class(scope: Scope) -> None:
    assert tenant_class({scope}) != TenantClass.NONE
