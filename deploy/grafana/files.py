"""The dashboards as the files that Grafana reads."""

from __future__ import annotations

import json

from deploy.grafana.board import Board


def file_name(board: Board) -> str:
    """Name the file of a dashboard."""
    return f"{board.name}.json"


def text_of(board: Board, *, repository: str = "") -> str:
    """Write a dashboard as JSON; each run writes the same."""
    return json.dumps(board.to_json(repository), indent=2, ensure_ascii=False) + "\n"
