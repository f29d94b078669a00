"""A PostgreSQL of this machine for hosts of a lab, from Debian's own programs."""

from __future__ import annotations

import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.commands import out

PORT = 54329
USER = "postgres"


class Postgres:
    """A cluster that listens on `address`, from :meth:`start` to :meth:`stop`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._password = secrets.token_hex(16)
        self._home = Path()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its database is."""
        return f"postgresql://{USER}:{self._password}@{self._address}:{PORT}/postgres"

    def start(self) -> None:
        """Make it and start it. PostgreSQL refuses to run as root."""
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
        self._home = Path(tempfile.mkdtemp(prefix="slipway-bench-postgres-"))
        account = pwd.getpwnam(USER)
        for path, mode in ((self._home, 0o700), (self._home / "password", 0o600)):
            if path != self._home:
                path.write_text(self._password)
            path.chmod(mode)
            _give(path, account.pw_uid, account.pw_gid)
        data = self._home / "data"
        made: list[str | Path] = [
            programs / "initdb",
            "--pgdata",
            data,
            "--username",
            USER,
            "--auth",
            "scram-sha-256",
            "--no-sync",
        ]
        subprocess.run(
            [*made, "--pwfile", self._home / "password"], user=USER, cwd=self._home, check=True, capture_output=True
        )
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        settings = ("fsync=off", f"listen_addresses={self._address}", f"unix_socket_directories={self._home}")
        options = [word for setting in settings for word in ("-c", setting)]
        self._server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(PORT), *options],
            user=USER,
            cwd=self._home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready = [str(programs / "pg_isready"), "-q", "-h", self._address, "-p", str(PORT)]
        for _ in range(100):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit("PostgreSQL did not start.")

    def stop(self) -> None:
        """End it, and remove it with its data."""
        if self._server:
            # Which waits for no client.
            self._server.send_signal(signal.SIGINT)
            self._server.wait()
        if self._home != Path():
            out("rm", "-rf", str(self._home))


def _give(path: Path, uid: int, gid: int) -> None:
    out("chown", f"{uid}:{gid}", str(path))
