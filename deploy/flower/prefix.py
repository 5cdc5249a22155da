"""The path that Flower is below when a proxy shows it beside other things: every page, the API, and /metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from deploy.flower.login import Refused

_PARTS: Final = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")


def prefix_of(environ: Mapping[str, str]) -> str:
    """FLOWER_URL_PREFIX with one slash before it and none after it; empty for none.

    Raises
    ------
    Refused
        It is not a path.
    """
    path = environ.get("FLOWER_URL_PREFIX", "").strip().strip("/")
    if not path:
        return ""
    if not _PARTS.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise Refused("FLOWER_URL_PREFIX: must be a path such as /flower, of letters, digits and . _ ~ -")
    return f"/{path}"
