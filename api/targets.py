"""Whether a webhook may be sent to a URL, asked when it is given, so that the client hears of it then.

It is asked again each time a webhook is sent (workers.pinned), which is what protects: a name may lead elsewhere by then.
"""

from __future__ import annotations

import socket
import threading
from typing import Final

from api.errors import Unprocessable
from schemas.targets import REFUSED, TargetRefused, address_of, host_of
from settings import Settings

_PATIENCE_S: Final = 2.0
"""How long a name server may take; a name that is not found by then is left to the sender."""

_look_ups: Final = threading.BoundedSemaphore(8)
"""A look-up cannot be interrupted, and a name server that is away must not have threads pile up here."""


def check_target(settings: Settings, url: str, *, named: str) -> None:
    """Refuse a URL that webhooks may not be sent to.

    Parameters
    ----------
    named : str
        The member or parameter that holds it.

    Raises
    ------
    Unprocessable
    """
    targets = settings.webhook_targets()
    try:
        targets.check_scheme(url.partition(":")[0].lower())
        host = host_of(url)
        written = address_of(host)
        targets.check_addresses([written] if written else _addresses(host))
    except TargetRefused as exc:
        said = f"{named} is refused: {exc}."
        if str(exc) == REFUSED:
            said += " It must be a global one, or in a network that the operator opened (WEBHOOK_ALLOW_PRIVATE)."
        fault = {"pointer": f"/{named}", "code": "target_refused", "message": said}
        raise Unprocessable(said, code="target_refused", errors=[fault]) from None


def _addresses(host: str) -> list[str]:
    """What a name resolves to; nothing if that cannot be found out in time."""
    found: list[str] = []
    if not _look_ups.acquire(blocking=False):
        return []
    asking = threading.Thread(target=_look_up, args=(host, found), name="look-up", daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    return list(found)


def _look_up(host: str, found: list[str]) -> None:
    try:
        found.extend(str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        pass
    finally:
        _look_ups.release()
