"""Flower's settings: never without a login, reading only, no task arguments on any page, and a history that outlives it.

Flower runs this file by path (``celery -A workers.app flower --conf=deploy/flower/flowerconfig.py``) and takes the names that
are options of its own. /metrics and /healthcheck stay open to anyone who reaches the port (Flower 2.2 asks for no login there),
so it listens on this machine alone, unless FLOWER_ADDRESS says otherwise; a proxy that shows it must leave those two paths out.
docs/flower.md lists the settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flower.urls import handlers as _handlers
from tornado.web import RedirectHandler as _RedirectHandler
from tornado.web import url as _url

from deploy.flower.history import prepare_history
from deploy.flower.login import Refused, login_options
from deploy.flower.prefix import prefix_of

_NO = {"0", "false", "no", "off"}

try:
    _prefix = prefix_of(os.environ)
    globals().update(login_options(os.environ, prefix=_prefix))
    persistent = (os.environ.get("FLOWER_PERSISTENT") or "1").lower() not in _NO
    db = str(prepare_history(Path(os.environ.get("FLOWER_DB") or "var/flower/history"))) if persistent else ""
except Refused as exc:
    raise SystemExit(str(exc)) from None

if persistent:
    # What Flower writes is for its account alone, whatever the umask of who started it.
    os.umask(0o077)
# It is also written when Flower ends; this is what a killed one loses.
state_save_interval = 60_000

url_prefix = _prefix.strip("/")
if url_prefix:
    # Flower answers below /flower/ alone, and sends whoever has signed in to /flower.
    _handlers.insert(0, _url("", _RedirectHandler, {"url": f"{_prefix}/", "permanent": False}))

address = os.environ.get("FLOWER_ADDRESS") or "127.0.0.1"

# Without this anybody with the login could publish tasks or shut workers down; FLOWER_READ_ONLY=0 allows that.
read_only = (os.environ.get("FLOWER_READ_ONLY") or "1").lower() not in _NO

# A task's id says what it is about; retries are the ledger's, and Celery counts none.
tasks_columns = "name,uuid,state,routing_key,received,runtime,worker,exception"
max_tasks = 10_000
natural_time = False
purge_offline_workers = 300


def format_task(task: Any) -> Any:
    """Show a task without its arguments and result: they are of no use to a reader, and a slip could put data in them."""
    task.args = task.kwargs = task.result = ""
    return task
