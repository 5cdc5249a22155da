"""Ports: free or not, and by whom."""

from __future__ import annotations

import os
import re
import socket

import pytest

from deploy.local.errors import PortTaken
from deploy.local.ports import HOST, Port, free_port, is_free


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server((HOST, free_port())) as server:
        assert not is_free(server.getsockname()[1])


def test_a_listener_on_all_interfaces_takes_our_port_too() -> None:
    with socket.create_server(("", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_a_port_with_closed_connections_behind_it_is_free_again() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)):
            server.accept()[0].close()
    assert is_free(port)


def test_a_taken_port_names_its_holder_and_suggests_a_free_one_by_its_variable() -> None:
    with socket.create_server((HOST, 0)) as server:
        number = server.getsockname()[1]
        with pytest.raises(PortTaken, match=f"Port {number} for Flower is taken by") as caught:
            Port(number, "FLOWER_PORT", "Flower").require_free()
    assert f"pid {os.getpid()}" in str(caught.value)
    suggested = re.search(r"FLOWER_PORT=(\d+) make", str(caught.value))
    assert suggested is not None
    assert int(suggested[1]) > number
