"""Registered models: one champion, whoever activates what at the same moment; a version is one bundle for good."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from db.batches import get_batch
from db.errors import Conflict, NotFound
from db.models import activate_model, current_model, current_version, get_model, list_models, register_model
from schemas.states import ModelState
from tests.factories import MODEL, add_batch, add_model, empty_tables
from tests.integration.db.concurrency import meanwhile, together


def champions(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT version FROM models WHERE state = 'champion'")).scalars())


def test_a_model_is_read_as_it_was_registered(conn: Connection) -> None:
    register_model(conn, version="v2", location="v2", sha256="c" * 64, metrics={"auc": 0.8}, manifest={"format": 1})
    model = get_model(conn, "v2")
    assert (model.state, model.location, model.sha256) == (ModelState.CANDIDATE, "v2", "c" * 64)
    assert (model.metrics, model.manifest, model.activated_at) == ({"auc": 0.8}, {"format": 1}, None)


def test_the_same_bundle_again_changes_nothing(conn: Connection) -> None:
    add_model(conn, "v2")
    activate_model(conn, "v2")
    add_model(conn, "v2")
    assert get_model(conn, "v2").state is ModelState.CHAMPION


def test_another_bundle_under_a_taken_version_is_a_conflict(conn: Connection) -> None:
    add_model(conn, "v2")
    with pytest.raises(Conflict, match="'v2' is registered already with another checksum") as caught:
        add_model(conn, "v2", sha256="1" * 64)
    assert caught.value.code == "model_exists"
    assert get_model(conn, "v2").sha256 == "0" * 64


def test_an_activation_retires_the_champion_before(conn: Connection) -> None:
    add_model(conn, "v2")
    changed = activate_model(conn, "v2")
    assert (changed.previous_version, changed.new_version) == (MODEL, "v2")
    assert current_model(conn).version == current_version(conn) == "v2"
    assert current_model(conn).activated_at == changed.activated_at
    assert get_model(conn, MODEL).state is ModelState.RETIRED


def test_a_retired_model_can_come_back(conn: Connection) -> None:
    add_model(conn, "v2")
    activate_model(conn, "v2")
    assert activate_model(conn, MODEL).previous_version == "v2"
    assert current_model(conn).version == MODEL


def test_activating_the_champion_changes_nothing(conn: Connection) -> None:
    before = current_model(conn)
    assert activate_model(conn, MODEL).activated_at == before.activated_at
    assert current_model(conn) == before


def test_an_unknown_model_is_not_found_and_the_champion_stays(ledger: Engine) -> None:
    with pytest.raises(NotFound, match="there is no model 'x'"), ledger.begin() as conn:
        activate_model(conn, "x")
    assert champions(ledger) == [MODEL]
    with pytest.raises(NotFound, match="there is no model 'x'"), ledger.begin() as conn:
        get_model(conn, "x")


def test_without_a_champion_there_is_no_current_model(conn: Connection) -> None:
    empty_tables(conn)
    add_model(conn)
    with pytest.raises(Conflict, match="no model is active") as caught:
        current_model(conn)
    assert caught.value.code == "no_active_model"


def test_models_are_listed_the_newest_first(ledger: Engine) -> None:
    for version in ("v2", "v3"):
        with ledger.begin() as conn:
            add_model(conn, version)
    with ledger.connect() as conn:
        assert [model.version for model in list_models(conn)] == ["v3", "v2", MODEL]


def test_activations_at_once_leave_one_champion_and_one_chain(ledger: Engine) -> None:
    champion = MODEL
    for number in range(10):
        versions = [f"v{number}-{letter}" for letter in "abc"]
        with ledger.begin() as conn:
            for version in versions:
                add_model(conn, version)
        changes = together(ledger, *[lambda conn, v=version: activate_model(conn, v) for version in versions])
        [last] = champions(ledger)
        # Each replaced the one before it, from the old champion to the new.
        assert {change.previous_version for change in changes} == {champion, *versions} - {last}
        champion = last


def test_a_second_champion_is_refused_by_the_table_itself(conn: Connection) -> None:
    add_model(conn, "v2")
    with pytest.raises(IntegrityError, match="models_one_champion"):
        conn.execute(text("UPDATE models SET state = 'champion'"))


def test_a_batch_keeps_the_model_it_was_submitted_with(conn: Connection) -> None:
    add_batch(conn)
    add_model(conn, "v2")
    activate_model(conn, "v2")
    assert get_batch(conn, "b").model_version == MODEL


def test_submits_go_on_during_an_activation(ledger: Engine) -> None:
    with ledger.connect() as activating:
        add_model(activating, "v2")
        activate_model(activating, "v2")
        with meanwhile(ledger, add_batch) as submit:
            assert submit.result(timeout=5).model_version == MODEL
        activating.rollback()


def test_activating_the_champion_again_changes_nothing(conn: Connection) -> None:
    add_model(conn, "v2")
    first = activate_model(conn, "v2")
    again = activate_model(conn, "v2")
    assert (again.previous_version, again.new_version, again.activated_at) == ("v2", "v2", first.activated_at)
