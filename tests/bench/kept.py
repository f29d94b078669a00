"""What backups cost: an environment of its own on this machine, with an archive in a folder."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.commands import out, step
from tests.bench.here import NAME, PORT, Here, inventory, sudo
from tests.bench.table import Row

GB = 10**9
CHUNK = 10**6
SLICE = 5
"""Seconds of load that are measured at once."""
SLICES = 4
"""Of them before a backup, and after it."""
REQUESTS = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)


class Kept(Here):
    """The environment `slipway-bench` with backups."""

    def start(self) -> None:
        """Deploy it."""
        step("deploy an environment with an archive")
        declared = inventory(
            backup_target=str(self.folder / "archive"),
            backup_password="the-password-of-a-bench",
            # Nothing else than what is measured starts one.
            backup_times=[],
            backup_drill_time="",
        )
        (self.folder / "inventory.json").write_text(json.dumps(declared))
        self.play("site")

    def remove(self) -> None:
        """Remove everything that was made."""
        self.play("archive", backup_target="")
        super().remove()

    def rows(self) -> Iterator[Row]:
        """What is measured."""
        yield from self._uploads()
        yield from self._database()

    def _uploads(self) -> Iterator[Row]:
        step("back up 1 GB of uploads, twice")
        uploads = self._volume("uploads")
        for number in range(100):
            (uploads / f"{number}.bin").write_bytes(os.urandom(GB // 100))
        first, second = self._backup(), self._backup()
        yield Row("uploads, 1 GB: backup", "s", [first["seconds"]])
        share = 100 * second["sent"] / first["sent"]
        yield Row("uploads, 1 GB: sent again", "%", [share], bound=2)
        for file in uploads.iterdir():
            file.unlink()

    def _database(self) -> Iterator[Row]:
        step("back up a database of 1 GB, under load")
        self._fill()
        # It is good for longer than all of this takes, and asking for one is work as well.
        token = self._token()
        quiet = [self._load(token) for _ in range(SLICES)]
        with subprocess.Popen(
            [*sudo(), "slipway", "backup", "--name", NAME, "--json"], stdout=subprocess.PIPE, text=True
        ) as call:
            during = []
            while call.poll() is None:
                during.append(self._load(token))
            answer = json.loads(call.stdout.read() if call.stdout else "")
        quiet += [self._load(token) for _ in range(SLICES)]
        yield Row("database, 1 GB: dump, verify, send", "s", [answer["seconds"]])
        yield Row("requests a second meanwhile", "", during, quiet)
        # The last slice may have gone on after the backup.
        lost = 100 * (1 - statistics.mean(during[:-1] or during) / statistics.mean(quiet))
        yield Row("throughput that it costs", "%", [lost], bound=10)

    def _backup(self) -> dict[str, float]:
        told: dict[str, float] = json.loads(out(*sudo(), "slipway", "backup", "--name", NAME, "--json"))
        return told

    def _fill(self) -> None:
        """One small document, and a thousand large ones."""
        [file] = self._volume("data").glob("*.db")
        with sqlite3.connect(file) as database:
            row = "INSERT INTO documents (title, content) VALUES (?, ?)"
            database.execute(row, ("small", "text"))
            for number in range(GB // CHUNK):
                database.execute(row, (f"large {number}", os.urandom(CHUNK // 2).hex()))
        database.close()

    @staticmethod
    def _token() -> str:
        [container] = out("docker", "ps", "--quiet", "--filter", f"label=org.slipway.name={NAME}").split()
        return out("docker", "exec", container, "backend", "token").strip()

    @staticmethod
    def _load(token: str) -> float:
        """Requests a second for one document, which the application reads from its database."""
        where = f"http://127.0.0.1:{PORT}/api/documents/1"
        said = out(
            "wrk",
            "--threads=1",
            "--connections=8",
            f"--duration={SLICE}s",
            f"--header=Authorization: Bearer {token}",
            where,
        )
        found = REQUESTS.search(said)
        if not found or "Non-2xx" in said:
            raise SystemExit(f"The application did not answer as it should:\n{said}")
        return float(found[1])

    @staticmethod
    def _volume(name: str) -> Path:
        return Path(out("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"{NAME}-{name}").strip())
