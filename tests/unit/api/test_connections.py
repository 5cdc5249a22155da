"""What gunicorn would do for each request in vain."""

from __future__ import annotations

from gunicorn.config import Config

from api.connections import QuietLogger


def test_no_line_of_a_request_is_gathered() -> None:
    config = Config()
    config.set("logconfig_dict", {"version": 1})
    logger = QuietLogger(config)
    assert logger.access_log_enabled  # as gunicorn thinks, which would look at all of what follows
    logger.access(None, None, None, None)
