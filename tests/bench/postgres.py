"""A PostgreSQL of this machine for hosts of a lab, from Debian's own programs."""

from __future__ import annotations

import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.commands import out

PORT = 54329
USER = "postgres"


class Postgres:
    """A cluster that listens on `address`, from :meth:`start` to :meth:`stop`.

    `rules` are lines of its pg_hba.conf; with `tls` it speaks that too, by a certificate of its own.
    """

    def __init__(
        self,
        address: str,
        port: int = PORT,
        rules: Sequence[str] = ("host all all samenet scram-sha-256",),
        *,
        tls: bool = False,
    ) -> None:
        self._address = address
        self._port = port
        self._rules = rules
        self._tls = tls
        self._password = secrets.token_hex(16)
        self._home = Path()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its database is."""
        return f"postgresql://{USER}:{self._password}@{self._address}:{self._port}/postgres"

    @property
    def ca(self) -> str:
        """What its certificate is verified by."""
        return (self._home / "data/server.crt").read_text()

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
            rules.write("".join(f"{rule}\n" for rule in self._rules))
        if self._tls:
            subject = ["-subj", f"/CN={self._address}", "-addext", f"subjectAltName=IP:{self._address}"]
            subject += ["-days", "2", "-nodes", "-x509", "-newkey", "rsa:2048"]
            keys = ["-keyout", "server.key", "-out", "server.crt"]
            subprocess.run(["openssl", "req", *subject, *keys], user=USER, cwd=data, check=True, capture_output=True)
            (data / "server.key").chmod(0o600)
        settings = (
            f"ssl={'on' if self._tls else 'off'}",
            "fsync=off",
            f"listen_addresses={self._address}",
            f"unix_socket_directories={self._home}",
        )
        options = [word for setting in settings for word in ("-c", setting)]
        self._server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(self._port), *options],
            user=USER,
            cwd=self._home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready = [str(programs / "pg_isready"), "-q", "-h", self._address, "-p", str(self._port)]
        for _ in range(100):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit("PostgreSQL did not start.")

    def execute(self, sql: str, database: str = USER) -> str:
        """Run SQL as its administrator; the answer is what psql prints."""
        where = ["--host", str(self._home), "--port", str(self._port), "--username", USER, "--dbname", database]
        done = subprocess.run(
            ["psql", "--no-psqlrc", "-Atq", "-v", "ON_ERROR_STOP=1", *where, "--file=-"],
            input=sql,
            env={"PATH": "/usr/bin:/bin", "PGPASSWORD": self._password},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

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
