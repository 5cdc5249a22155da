"""`python -m bench.dashboards`: run a stack under load beside a real Prometheus, and draw what the dashboards show of it."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Final

from bench.dashboards import load
from bench.dashboards.asked import Span, answers, panels_of
from bench.dashboards.drawn import draw_board
from bench.ground import prepared_ground
from bench.measure import tell
from bench.prometheus import Programs, watching
from deploy.local.layout import PROJECT

_BOARDS: Final = PROJECT / "deploy" / "grafana" / "dashboards"
_RULES: Final = PROJECT / "deploy" / "prometheus" / "rules"
_PICTURES: Final = PROJECT / "docs" / "dashboards"
_INTERVAL_S: Final = 5.0


def main() -> None:
    """Draw all of them."""
    options = _options()
    programs = Programs(_found(options.prometheus), _found(options.node_exporter) if options.node_exporter else None)
    with (
        prepared_ground() as ground,
        watching(
            ground.stack,
            ground.folder / "prometheus",
            programs,
            interval_s=_INTERVAL_S,
            rules=_RULES if _RULES.exists() else None,
        ) as prometheus,
    ):
        load.prepare(ground)
        begin = time.time()
        tell(f"Load for {options.minutes:g} minutes.")
        load.run(ground, options.minutes)
        span = Span(begin, time.time(), _INTERVAL_S)
        options.out.mkdir(parents=True, exist_ok=True)
        for file in sorted(_BOARDS.glob("*.json")):
            board = json.loads(file.read_text())
            found = {panel["id"]: answers(prometheus, panel, span) for panel in panels_of(board)}
            picture = options.out / f"{file.stem}.svg"
            picture.write_text(draw_board(board, found, span))
            tell(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dashboards", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the load lasts (10)")
    parser.add_argument("--prometheus", default="prometheus", help="the program, by path or as found on the PATH")
    parser.add_argument(
        "--node-exporter", default="prometheus-node-exporter", help="the same for node_exporter; blank goes without it"
    )
    parser.add_argument("--out", type=Path, default=_PICTURES, help="the folder of the pictures")
    return parser.parse_args()


def _found(program: str) -> Path:
    path = shutil.which(program)
    if path is None:
        raise SystemExit(f"{program} was not found. Debian has it as the package {Path(program).name}.")
    return Path(path)


if __name__ == "__main__":
    main()
