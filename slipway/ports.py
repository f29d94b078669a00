"""Who listens on a TCP port of this host, so that "port taken" can say by what."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

LISTEN = "0A"
PROC = Path("/proc")


def listener(port: int, proc: Path = PROC) -> str | None:
    """Name the process that listens on `port` (`nginx, process 812`), or None when nobody does."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(proc / "net" / table, port)}
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.glob("[0-9]*"):
        if wanted & _sockets(process):
            return _named(process)
    return "a process of another namespace"


def _named(process: Path) -> str:
    number = f"process {process.name}"
    try:
        return f"{(process / 'comm').read_text().strip()}, {number}"
    except OSError:
        # It ended while we looked.
        return number


def _listening(table: Path, port: int) -> list[str]:
    # Source: proc_net_tcp(5): sl, local_address, rem_address, st, …, the tenth field is the inode.
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _sockets(process: Path) -> set[str]:
    found = set()
    try:
        for handle in (process / "fd").iterdir():
            # Another handle of a process that goes on may be closed between the list and the look at it.
            with suppress(FileNotFoundError):
                found.add(str(handle.readlink()))
    except OSError:
        # It ended while we looked.
        return set()
    return found
