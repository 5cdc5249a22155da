"""A supervisor over stand-ins for the product: `stand_ins.py FOLDER PORT [name=behaviour ...]`, run by test_local_supervisor.

As `stand_ins.py be NAME BEHAVIOUR FOLDER PORT` it is one of the stand-ins.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.layout import Layout
from deploy.local.plan import Plan
from deploy.local.ports import HOST, Port
from deploy.local.process import Service
from deploy.local.product import NEWS
from deploy.local.supervisor import Supervisor


def stand_in(name: str, folder: Path, behaviour: str, port: Port | None = None) -> Service:
    """A service that says that it is ready by a file."""
    ready = folder / f"{name}.ready"
    ready.unlink(missing_ok=True)
    return Service(
        name="prepare" if name == "job" else name,
        argv=(sys.executable, __file__, "be", name, behaviour, str(folder), str(port.number if port else 0)),
        log=folder / "log" / f"{name}.log",
        ready=ready.exists,
        cwd=folder,
        stop_timeout_s=1.0,
        ports=() if port is None else (port,),
        is_server=name == "server",
    )


def plan_of(folder: Path, port: int, how: dict[str, str]) -> Plan:
    """A server, a job, a process and a view."""
    stand_in_port = Port(int(how.get("port", port)), "STAND_IN_PORT", "the stand-in")
    return Plan(
        servers=(stand_in("server", folder, "serve", stand_in_port),),
        provision=lambda: None,
        prepare=stand_in("job", folder, how.get("job", "end")),
        processes=(stand_in("process", folder, how.get("process", "serve")),),
        views=(stand_in("view", folder, "serve"),),
        settings={"DATABASE_URL": "post gres"},
        api_url="",
        metrics_url="",
        prometheus_url="",
        flower_url="",
        flower_login="",
    )


def be(name: str, behaviour: str, folder: Path, port: int) -> None:
    """Behave."""
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    if behaviour == "fail":
        sys.stdout.write("the last words\n")
        sys.exit(3)
    if behaviour == "end":
        sys.stdout.write(f"chatter\n{NEWS}told by the job\n")
        return
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.create_server((HOST, port)) if port else None
    if behaviour != "never ready":
        (folder / f"{name}.ready").touch()
    time.sleep(60)
    del listener


def main() -> None:
    """Be the supervisor or a stand-in."""
    if sys.argv[1] == "be":
        be(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
        return
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    how = dict(argument.split("=", 1) for argument in sys.argv[3:])
    try:
        sys.exit(Supervisor(Layout(folder), lambda: plan_of(folder, port, how)).run())
    except LocalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
