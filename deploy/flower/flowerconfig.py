"""Flower's settings: never without a login, reading only, and no task arguments on any page.

Flower runs this file by path (``celery -A workers.app flower --conf=deploy/flower/flowerconfig.py``) and takes the names that
are options of its own. /metrics and /healthcheck stay open to anyone who reaches the port (Flower 2.2 asks for no login there),
so it listens on this machine alone, unless FLOWER_ADDRESS says otherwise; a proxy that shows it must leave those two paths out.
"""

from __future__ import annotations

import os
from typing import Any

from schemas.secrets import is_placeholder

if not os.environ.get("FLOWER_BASIC_AUTH"):
    raise SystemExit("Flower shows queues and workers and needs a login: set FLOWER_BASIC_AUTH=user:password.")
basic_auth = os.environ["FLOWER_BASIC_AUTH"].split(",")
if os.environ.get("ENVIRONMENT", "development") not in {"development", "testing"}:
    for login in basic_auth:
        user, _, password = login.partition(":")
        if is_placeholder(password, user=user):
            raise SystemExit("FLOWER_BASIC_AUTH: a password in it may be guessed; give Flower another.")

address = os.environ.get("FLOWER_ADDRESS") or "127.0.0.1"

# Without this anybody with the login could publish tasks or shut workers down; FLOWER_READ_ONLY=0 allows that.
read_only = os.environ.get("FLOWER_READ_ONLY", "1").lower() not in {"0", "false", "no", "off"}

tasks_columns = "name,uuid,state,received,started,runtime,worker,retries"
max_tasks = 10_000
natural_time = False
purge_offline_workers = 300


def format_task(task: Any) -> Any:
    """Show a task without its arguments and result: they are of no use to a reader, and a slip could put data in them."""
    task.args = task.kwargs = task.result = ""
    return task
