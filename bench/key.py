"""The API key of a run of the benchmark: of the default team, with every scope, in the run's own database alone."""

from __future__ import annotations

from typing import Final

from schemas.key_text import new_key

RUN_KEY: Final = new_key().text
KEY_HEADER: Final = {"X-API-Key": RUN_KEY}
