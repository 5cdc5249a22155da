"""The dashboards, a module each, in the order in which somebody looks at them who is told that something is wrong."""

from __future__ import annotations

from typing import Final

from deploy.grafana.board import Board
from deploy.grafana.boards import batches, model, servers, service, workers

BOARDS: Final[tuple[Board, ...]] = (service.BOARD, batches.BOARD, workers.BOARD, servers.BOARD, model.BOARD)
