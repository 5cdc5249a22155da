"""The backstop: with the team taken out of the application's own queries, no other team's row is shown all the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from flask import Flask
from sqlalchemy import Engine, TextClause, text

import db.batches
import db.deliveries
import db.idempotency
import db.webhooks
from db.batches import get_own_batch
from db.engine import Prepared
from tests.asking import PREFIX
from tests.integration.api.test_access import OTHER, ask, bearer, guarded, objects

__all__ = ["objects"]

MUTATED = (db.batches, db.deliveries, db.idempotency, db.webhooks)


def without_team(statement: str) -> str:
    """The query as it would be had its team been forgotten: what compares with it is always true."""
    for parameter, always in ((":team", "COALESCE(:team, '') IS NOT NULL"), ("$2", "$2 IS NOT NULL")):
        for column in ("team", "e.team", "b.team"):
            statement = statement.replace(f" {column} = {parameter}", f" {always}")
    return statement


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have every query forget its team; returns how many did."""
    n = 0
    for module in MUTATED:
        for name, value in list(vars(module).items()):
            if isinstance(value, TextClause) and (changed := without_team(value.text)) != value.text:
                monkeypatch.setattr(module, name, text(changed))
                n += 1
            elif isinstance(value, Prepared) and (changed := without_team(value.sql)) != value.sql:
                monkeypatch.setattr(module, name, dataclasses.replace(value, name=f"forgetful_{value.name}", sql=changed))
                n += 1
    return n


def test_the_mutants_show_another_team_s_batch_to_whoever_is_not_bound(
    ledger: Engine, objects: Mapping[str, str], forgetful: int
) -> None:
    assert forgetful >= 4
    with ledger.connect() as conn:
        assert get_own_batch(conn, objects["batch_id"], team=OTHER).team == "default"


@pytest.mark.usefixtures("forgetful")
def test_no_object_of_another_team_is_shown_or_changed(app: Flask, objects: Mapping[str, str], ledger: Engine) -> None:
    stranger = bearer(ledger, team=OTHER)
    for rule, method in guarded(app):
        if rule.arguments & {"batch_id", "webhook_id", "delivery_id"}:
            assert ask(app, rule, method, objects, stranger).status_code == 404, (rule, method)


@pytest.mark.usefixtures("forgetful")
def test_no_list_holds_another_team_s(app: Flask, objects: Mapping[str, str], ledger: Engine) -> None:
    client, stranger = app.test_client(), bearer(ledger, team=OTHER)
    assert client.get(f"{PREFIX}/batches").json["batches"]
    for noun in ("batches", "webhooks"):
        assert client.get(f"{PREFIX}/{noun}", headers=stranger).json[noun] == []
