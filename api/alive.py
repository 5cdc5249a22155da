"""`python -m api.alive`: exits with 0 if the API of this container answers; for health checks where there is no curl."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final

_TIMEOUT_S: Final = 3.0


def main() -> int:
    """Ask for liveness by the loopback, with the first trusted host for a name."""
    port = int(os.environ.get("PORT") or 8001)
    host = os.environ.get("TRUSTED_HOSTS", "").split(",")[0].strip().removeprefix(".") or "127.0.0.1"
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health/live", headers={"Host": host})
        return 0 if connection.getresponse().status == 200 else 1
    except (OSError, HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
