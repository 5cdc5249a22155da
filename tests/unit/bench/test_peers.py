"""What the report says of peers, whether they are installed or not."""

from __future__ import annotations

from bench.peers import rows_of


def test_every_peer_is_compared_with_the_product() -> None:
    rows = rows_of({"the product": [200.0], "pandas and to_sql": [20.0], "Ray Data, compiled engine": [100.0]})

    assert [(row[0], row[-1]) for row in rows] == [
        ("the product", "1.00"),
        ("pandas and to_sql", "0.10"),
        ("Ray Data, compiled engine", "0.50"),
    ]


def test_a_peer_that_is_not_installed_is_named() -> None:
    assert rows_of({"the product": [200.0]})[-1] == ("Ray Data", "not installed", "", "", "")
