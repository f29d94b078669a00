"""What people look at in the bundled database of this host: `slipway db`. PostgreSQL's own programs do the work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NoReturn

from slipway.database.host import Server, folder_of
from slipway.errors import SlipwayError, UsageError
from slipway.store import ROOT

Tool = Literal["shell", "dump", "size", "activity", "locks"]

SUFFIX = "-database"

QUESTIONS: dict[Tool, str] = {
    "size": """
SELECT current_database() AS database, pg_size_pretty(pg_database_size(current_database())) AS size,
    (SELECT count(*) FROM pg_stat_user_tables) AS tables;
SELECT schemaname || '.' || relname AS "the largest tables", pg_size_pretty(pg_total_relation_size(relid)) AS all,
    pg_size_pretty(pg_table_size(relid)) AS data, pg_size_pretty(pg_indexes_size(relid)) AS indexes,
    n_live_tup AS "rows, about", n_dead_tup AS "dead rows",
    to_char(greatest(last_vacuum, last_autovacuum), 'YYYY-MM-DD HH24:MI') AS "last vacuum"
FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC LIMIT 20;
""",
    "activity": """
SELECT count(*) AS connections, current_setting('max_connections') AS "of at most",
    count(*) FILTER (WHERE state = 'active') AS active,
    count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS "idle in transaction",
    count(*) FILTER (WHERE wait_event_type = 'Lock') AS "waiting for a lock"
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid();
SELECT pid, usename AS role, datname AS database, host(client_addr) AS "from", application_name AS program, state,
    date_trunc('second', now() - coalesce(xact_start, state_change)) AS since, wait_event AS "waits for",
    left(regexp_replace(query, '\\s+', ' ', 'g'), 60) AS statement
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
ORDER BY state = 'idle', coalesce(xact_start, state_change);
""",
    "locks": """
SELECT waiting.pid AS waits, waiting.usename AS role, date_trunc('second', now() - waiting.query_start) AS since,
    left(regexp_replace(waiting.query, '\\s+', ' ', 'g'), 50) AS statement, blocking.pid AS "for",
    blocking.usename AS "whose role", blocking.state AS "who is",
    left(regexp_replace(blocking.query, '\\s+', ' ', 'g'), 50) AS "and did last"
FROM pg_stat_activity AS waiting, unnest(pg_blocking_pids(waiting.pid)) AS blocker
JOIN pg_stat_activity AS blocking ON blocking.pid = blocker ORDER BY waiting.query_start;
""",
}
"""What psql is asked. It lays out the answers, too."""


def databases(root: Path = ROOT) -> list[str]:
    """Environments whose bundled database is on this host."""
    return sorted(path.parent.name.removesuffix(SUFFIX) for path in root.glob(f"*{SUFFIX}/authority"))


def only_database(root: Path = ROOT) -> str:
    """The environment that is meant where none is named. Raises :class:`SlipwayError`."""
    match databases(root):
        case [name]:
            return name
        case []:
            raise SlipwayError(
                "No database runs on this host.",
                "Type it on the host of the group database; an external one has tools of its provider's.",
            )
        case names:
            raise UsageError(f"This host has databases of {', '.join(names)}.", "Name one: --name.")


def run(tool: Tool, name: str, *, out: Path | None = None, read_only: bool = False, root: Path = ROOT) -> None:
    """Run a tool on the database of an environment. A shell takes the place of this process."""
    if name not in databases(root):
        raise SlipwayError(
            f"The database of {name} does not run on this host.", "Type it on the host of the group database."
        )
    server = Server(f"slipway-{folder_of(name, root).name}")
    match tool:
        case "shell":
            _shell(server.container(), read_only=read_only)
        case "dump":
            _dump(server.container(), out)
        case _:
            # One that waits for a lock itself would be of little help.
            script = f"SET default_transaction_read_only = on;\nSET lock_timeout = '2s';\n{QUESTIONS[tool]}"
            sys.stdout.write(server.psql(script, database=""))


def _shell(container: str, *, read_only: bool) -> NoReturn:
    options = ["--env", "PGOPTIONS=-c default_transaction_read_only=on"] if read_only else []
    terminal = ["--tty"] if sys.stdin.isatty() else []
    os.execvp("docker", ["docker", "exec", "--interactive", *terminal, *options, container, "psql"])  # noqa: S606 - as asked


def _dump(container: str, out: Path | None) -> None:
    """Write a dump, in PostgreSQL's own packed form, whole or not at all where it goes to a file."""
    if out is None:
        if sys.stdout.isatty():
            raise UsageError("A dump is no text to look at.", "Send it somewhere: --out FILE, or | or >.")
        _pg_dump(container, sys.stdout.fileno())
        return
    beside = out.with_name(f".{out.name}.part")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _pg_dump(container, handle)
        os.fsync(handle)
        beside.replace(out)
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            beside.unlink()


def _pg_dump(container: str, to: int) -> None:
    command: Sequence[str] = ["docker", "exec", container, "pg_dump", "--format=custom", "--no-password"]
    done = subprocess.run(command, stdout=to, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SlipwayError(
            "The dump broke off.", "Its words are below.", details=done.stderr.decode(errors="replace").strip()
        )
