"""Property tests share the machine with everything else, so no single example has a deadline."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("intake", deadline=None, max_examples=60)
settings.load_profile("intake")
