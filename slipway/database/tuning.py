"""What PostgreSQL is to do with the memory and the processors that it has. All of it is pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from slipway.errors import UsageError

MIB = 1024**2
LEAST = 128 * MIB
"""Less memory than this is none to run a server in."""
STEP = 32 * MIB
"""What a share of a host's memory is rounded down to."""
CLOSE = 0.05
"""A share that differs by less than this from the one that is in force stays: a new kernel finds a little more or less
memory, and nobody wants a database to be restarted for that."""

_SIZE = re.compile(r"([0-9]+)([bkmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1024, "m": MIB, "g": 1024 * MIB}
_SHARE = re.compile(r"([1-9][0-9]?)%")


def memory_of(said: str, *, total: int, before: int = 0) -> int:
    """Bytes that `database_memory` means (`2g`, `50%`) on a host with `total` bytes, where `before` is in force.

    Raises :class:`UsageError` for what is neither, too small, or more than the host has.
    """
    if share := _SHARE.fullmatch(said):
        wanted = total * int(share[1]) // 100 // STEP * STEP
        if before and abs(wanted - before) <= CLOSE * before:
            return before
    elif size := _SIZE.fullmatch(said):
        wanted = int(size[1]) * _UNITS[size[2].lower()]
    else:
        raise UsageError(
            f"database_memory is {said!r}, which is neither a size nor a share of the host's memory.",
            "Write it like 2g, 512m or 50%.",
        )
    if wanted < LEAST:
        raise UsageError(
            f"database_memory comes to {wanted // MIB} MB on this host, and PostgreSQL needs {LEAST // MIB} MB.",
            "Raise it, or give the host more memory.",
        )
    if wanted > total:
        raise UsageError(
            f"database_memory comes to {wanted // MIB} MB, and the host has {total // MIB} MB.", "Lower it."
        )
    return wanted


def shared_memory_of(memory: int) -> int:
    """Bytes of /dev/shm, through which the processes of a parallel query exchange what they found."""
    return max(64 * MIB, memory // 4)


def tune(memory: int, *, cpus: int, connections: int) -> dict[str, str]:
    """Settings for a server that has `memory` bytes for itself alone, on SSDs.

    A quarter is PostgreSQL's own cache, and it may count on the kernel for about as much again. What is left is for
    queries, each of which takes `work_mem` several times over, and for maintenance, where three workers may run.
    """
    buffers = memory // 4
    maintenance = min(max(memory // 16, 16 * MIB), 1024 * MIB)
    work = min(max((memory - buffers - maintenance) // (connections * 3), MIB), 256 * MIB)
    wal = min(max(memory // 2, 512 * MIB), 8192 * MIB)
    workers = max(cpus, 1)
    return {
        "max_connections": str(connections),
        "shared_buffers": _size(buffers),
        "effective_cache_size": _size(memory * 5 // 8),
        "maintenance_work_mem": _size(maintenance),
        "autovacuum_work_mem": _size(maintenance // 3),
        "work_mem": f"{work // 1024}kB",
        "min_wal_size": _size(wal // 4),
        "max_wal_size": _size(wal),
        "max_worker_processes": str(workers + 4),
        "max_parallel_workers": str(workers),
        "max_parallel_workers_per_gather": str(min(max(workers // 2, 1), 4)),
        "max_parallel_maintenance_workers": str(min(max(workers // 2, 1), 4)),
        "random_page_cost": "1.1",
        "effective_io_concurrency": "200",
    }


def settings_text(settings: Mapping[str, str]) -> str:
    """The lines of postgresql.conf. A value is quoted, whatever it is."""
    lines = (f"{name} = '{value}'\n" for name, value in ((one, _quoted(settings[one])) for one in sorted(settings)))
    return "".join(lines)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _size(bytes_: int) -> str:
    return f"{bytes_ // MIB}MB"
