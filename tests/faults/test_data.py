"""Rows that cannot be scored: exactly they are errors, whatever stands beside them."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.acceptance.http import as_csv, errors, results, submit
from tests.faults.cast import Quick, against
from tests.faults.ground import Scene

_BAD: Final[dict[int, dict[str, Any]]] = {
    3: {"monthly_charges": "NaN"},
    50: {"total_charges": "1e400"},
    51: {"income": "-inf"},
    700: {"contract_type": "Three year"},
    701: {"tenure_months": "10000000000000000000000"},
    999: {"age": "17"},
}


@against(quick=Quick.ALL)
def test_fault_23_nan_overflow_and_unknown_categories(scene: Scene) -> None:
    rows = [{**row, **_BAD.get(place, {})} for place, row in enumerate(scene.ground.population[:1_000])]
    with scene.ground.client() as client:
        answer = submit(client, as_csv(rows), params={"on_error": "skip"})
        assert answer.status_code == 202, answer.text
        batch = scene.note(answer.json()["batch_id"], range(1_000))
        scene.healed()
        scene.end()
        found = {error["row"]: error["field"] for error in errors(client, batch)}
        scored = {result["row"] for result in results(client, batch)}
    assert found == {place: next(iter(values)) for place, values in _BAD.items()}
    assert scored == set(range(1_000)) - set(_BAD)
    scene.verify(status="partial")


@against(quick=Quick.ALL)
def test_fault_23_missing_customers(scene: Scene) -> None:
    known = [row["customer_id"] for row in scene.ground.population[:600]]
    scene.submit(600)
    scene.end()
    body = json.dumps({"customer_ids": [*known, "nobody-1", "nobody-2"], "on_error": "skip"}).encode()
    with scene.ground.client() as client:
        answer = submit(client, body, media_type="application/json")
        assert answer.status_code == 202, answer.text
        batch = answer.json()["batch_id"]
        scene.wait(lambda: scene.status(batch) == "partial", "the batch to end")
        assert {error["customer_id"] for error in errors(client, batch)} == {"nobody-1", "nobody-2"}
        assert [result["customer_id"] for result in results(client, batch)] == known
    scene.verify()
