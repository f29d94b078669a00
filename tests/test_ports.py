"""Who listens on a port, asked about real sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from slipway.ports import listener


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_process_that_listens_is_named(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        name = Path("/proc/self/comm").read_text().strip()
        assert listener(server.getsockname()[1]) == f"{name}, process {os.getpid()}"


def test_a_port_that_is_only_bound_or_was_closed_is_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert listener(port) is None
    assert listener(port) is None


def test_a_listener_that_this_namespace_cannot_see_is_still_told(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    row = "0: 0100007F:0FA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0 100 0 0 10 0"
    (tmp_path / "net" / "tcp").write_text(f"header\n{row}\n")
    assert listener(4000, tmp_path) == "a process of another namespace"
    assert listener(4001, tmp_path) is None


def test_a_process_that_ends_while_it_is_looked_at_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    row = "0: 0100007F:0FA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0 100 0 0 10 0"
    (tmp_path / "net" / "tcp").write_text(f"header\n{row}\n")
    (tmp_path / "812" / "fd").mkdir(parents=True)
    (tmp_path / "812" / "fd" / "3").symlink_to("socket:[4711]")
    assert listener(4000, tmp_path) == "process 812"
