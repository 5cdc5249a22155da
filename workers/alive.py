"""`python -m workers.alive`: exits with 0 if the worker at WORKER_METRICS_PORT gets on; for probes where there is no curl.

It imports nothing of the worker, so that it can be run every few seconds.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final

_TIMEOUT_S: Final = 5.0
_NO_PORT: Final = 2
_EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened at


def main() -> int:
    """Ask; the answer's words go to standard output, where orchestrators keep them."""
    port = int(os.environ.get("WORKER_METRICS_PORT") or 0)
    if not port:
        sys.stderr.write("WORKER_METRICS_PORT is not set: this worker has no port that could be asked.\n")
        return _NO_PORT
    host = os.environ.get("WORKER_METRICS_HOST", "")
    connection = HTTPConnection("127.0.0.1" if host in _EVERYWHERE else host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode(errors="replace"))
    except (OSError, HTTPException) as exc:
        sys.stdout.write(f"it does not answer: {type(exc).__name__}\n")
        return 1
    else:
        return 0 if answer.status == 200 else 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
