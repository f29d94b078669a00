"""The way of a bundled database to another major version: dumped from the old server, restored to a new one.

The old volume is never written to, and stays. Until the new one has been compared with it, row by row counted, the old
server is the one that counts: a call that is cut off leaves it, and the next call begins anew. Meanwhile nobody else
gets in, since what is written after the dump would be lost.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from slipway.daemon import LABEL_PROJECT, Daemon
from slipway.database import access, tuning
from slipway.database.declared import initdb_of
from slipway.database.host import PSQL, Bundled, DatabaseRequest, Server, noted, volume_of
from slipway.errors import PreflightError, SlipwayError
from slipway.release import LABEL_NAME, LABEL_STACK
from slipway.stack import StackFile, write
from slipway.store import ROOT, hold

START_PATIENCE = 120.0
"""Seconds for a new server to make its cluster."""
ROOM = 2
"""How many times the database's size has to be free."""

DATABASES = """
SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database
WHERE NOT datistemplate AND datname <> 'postgres';
"""
COUNT = """
SELECT coalesce(json_object_agg(format('%s.%s', schemaname, tablename), (xpath('/row/c/text()',
    query_to_xml(format('SELECT count(*) AS c FROM %I.%I', schemaname, tablename), false, true, '')))[1]::text::bigint),
    '{}')
FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema');
"""
"""Table -> rows, counted."""


def upgrade(request: DatabaseRequest, root: Path = ROOT) -> dict[str, Any]:
    """Move the database to the major version of the request. The answer is that of `slipway database`, with `kept`,
    the volume with the old data.
    """
    moving = Upgrade(request, root)
    if moving.before in (0, request.version):
        return {**moving.bundled.present(), "kept": ""}
    if request.check:
        return {
            "changed": True,
            "msg": f"To do: PostgreSQL {moving.before} is dumped, and restored to {request.version}.",
            "authority": "",
            "kept": moving.old_volume,
        }
    moving.move()
    answer = moving.bundled.present()
    said = (
        f"PostgreSQL {moving.before} was moved to {request.version}; the volume {moving.old_volume} keeps the old data."
    )
    return {**answer, "changed": True, "msg": f"{said} {answer['msg']}", "kept": moving.old_volume}


class Upgrade:
    """One such way on this host."""

    def __init__(self, request: DatabaseRequest, root: Path) -> None:
        self.request = request
        self.bundled = Bundled(request, root)
        self.before = self.bundled.major
        self.old_volume = noted(self.bundled.folder).get("DATABASE_VOLUME") or volume_of(request.name, self.before)
        self.new_volume = volume_of(request.name, request.version)
        self.container = f"{self.bundled.stack.project}-upgrade"
        self.old, self.new = self.bundled.server, Server("", container=self.container)

    def move(self) -> None:
        """Fill the new volume, and make it the one that counts. Raises :class:`SlipwayError`; the old one goes on."""
        if self.request.version < self.before:
            raise PreflightError(
                f"The database of {self.request.name} is PostgreSQL {self.before}, and {self.request.version} is "
                "older.",
                f"Set app_database.version to {self.before} or more.",
            )
        folder = self.bundled.folder
        with hold(folder):
            self.bundled.prepare()
            self._need_room()
            self._begin()
            with self._closed():
                try:
                    self._fill()
                except BaseException:
                    self._drop()
                    raise
                self._remove_container()
                # On disk before it counts.
                os.sync()
            self.bundled.stack.halt()
            self.bundled.take_over()
            self._mark.unlink()

    @property
    def _mark(self) -> Path:
        """There while the new volume is not whole."""
        return self.bundled.folder / "upgrading"

    def _begin(self) -> None:
        """Remove what a call has left that was cut off. A volume that none of those made is somebody's data."""
        if self._mark.exists():
            self._drop()
        elif Daemon().has_volume(self.new_volume):
            raise PreflightError(
                f"There is a volume {self.new_volume} already, which no upgrade has left half-way.",
                "Look into it; where nobody needs it, remove it (docker volume rm), and run the play again.",
            )
        self._mark.touch()

    def _fill(self) -> None:
        self._start()
        databases = msgspec.json.decode(self.old.tuples(DATABASES), type=list[str])
        # Roles first; the superuser is there already.
        self._copy(["pg_dumpall", "--globals-only"], "postgres", drop="CREATE ROLE postgres;\n")
        for name in databases:
            self._copy(["pg_dump", "--create", f"--dbname={name}"], "postgres")
        for name in databases:
            there, here = (self._counted(server, name) for server in (self.old, self.new))
            if there != here:
                wrong = sorted(table for table in there if there[table] != here.get(table))
                raise SlipwayError(
                    f"What was restored of {name} is not what was dumped: {', '.join(wrong)} differ.",
                    "The old server goes on. Look into the tables, and run the play again.",
                )

    def _start(self) -> None:
        """A server on the new volume that nobody reaches."""
        folder, request = self.bundled.folder, self.request
        options = [
            "--network=none",
            "--user=999:999",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            f"--memory={self.bundled.memory}",
            f"--shm-size={tuning.shared_memory_of(self.bundled.memory)}",
            f"--volume={self.new_volume}:/var/lib/postgresql/data",
            f"--volume={folder / 'secrets'}:/run/secrets:ro",
            "--env=POSTGRES_PASSWORD_FILE=/run/secrets/superuser",
            f"--env=POSTGRES_INITDB_ARGS={initdb_of(request.version)}",
        ]
        project = self.bundled.stack.project
        # As Compose labels those that it makes.
        labels = {LABEL_NAME: self.bundled.folder.name, LABEL_STACK: "database", LABEL_PROJECT: project}
        Daemon().make_volume(self.new_volume, {**labels, "com.docker.compose.volume": "data"})
        # What is slow is left out: until it is whole, nothing of it has to survive a loss of power.
        quick = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off", "-c", "max_wal_size=4GB"]
        done = subprocess.run(
            ["docker", "run", "--detach", "--name", self.container, *options, request.image, "postgres", *quick],
            capture_output=True,
            text=True,
            check=False,
        )
        deadline = time.monotonic() + START_PATIENCE
        ready = ["docker", "exec", self.container, "pg_isready", "--quiet", "--username=postgres"]
        while done.returncode or subprocess.run(ready, check=False, capture_output=True).returncode:
            if done.returncode or time.monotonic() > deadline:
                raise SlipwayError(
                    f"A server of PostgreSQL {request.version} did not start.",
                    "The old one goes on. Its words are below.",
                    details=done.stderr.strip() or _log(self.container),
                )
            time.sleep(0.2)

    def _copy(self, dump: list[str], into: str, *, drop: str = "") -> None:
        """Pipe a dump of the old server into the new one; neither is written down on the way."""
        reading = subprocess.Popen(
            ["docker", "exec", self.old.container(), *dump], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        command = ["docker", "exec", "--interactive", self.container, *PSQL, f"--dbname={into}"]
        with reading:
            if drop:
                said, complained = reading.communicate()
                done = subprocess.run(command, input=said.replace(drop.encode(), b""), capture_output=True, check=False)
            else:
                done = subprocess.run(command, stdin=reading.stdout, capture_output=True, check=False)
                complained = reading.stderr.read() if reading.stderr else b""
        if reading.returncode or done.returncode:
            raise SlipwayError(
                f"`{' '.join(dump)}` could not be carried over to PostgreSQL {self.request.version}.",
                "The old server goes on. The words of both are below.",
                details=f"{complained.decode(errors='replace')}{done.stderr.decode(errors='replace')}".strip(),
            )

    def _counted(self, server: Server, database: str) -> Mapping[str, int]:
        return msgspec.json.decode(server.tuples(COUNT, database=database), type=dict[str, int])

    def _need_room(self) -> None:
        size = int(self.old.tuples("SELECT sum(pg_database_size(oid)) FROM pg_database;"))
        free = shutil.disk_usage(Daemon().root()).free
        if free < ROOM * size:
            raise PreflightError(
                f"The database has {size // 1024**2} MB, and {free // 1024**2} MB are free where Docker keeps volumes.",
                f"Free {ROOM * size // 1024**2} MB there, and run the play again.",
            )

    @contextmanager
    def _closed(self) -> Iterator[None]:
        """Let nobody in but the administrator, and end what others have under way."""
        rules = self.bundled.folder / "conf/pg_hba.conf"
        before = rules.read_text()
        closed = access.HEADER + access.FOOTER
        write(StackFile(path="conf/pg_hba.conf", content=closed), self.bundled.folder)
        self.old.psql(
            "SELECT pg_reload_conf();\nSELECT pg_sleep(0.3);\nSELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend';"
        )
        try:
            yield
        except BaseException:
            write(StackFile(path="conf/pg_hba.conf", content=before), self.bundled.folder)
            self.old.psql("SELECT pg_reload_conf();")
            raise

    def _drop(self) -> None:
        """Remove what an upgrade has made that did not come to its end."""
        self._remove_container()
        subprocess.run(["docker", "volume", "rm", "--force", self.new_volume], check=False, capture_output=True)
        self._mark.unlink(missing_ok=True)

    def _remove_container(self) -> None:
        subprocess.run(["docker", "stop", self.container], check=False, capture_output=True)
        subprocess.run(["docker", "rm", "--force", self.container], check=False, capture_output=True)


def _log(container: str) -> str:
    done = subprocess.run(
        ["docker", "logs", "--tail=20", container],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout.strip()
