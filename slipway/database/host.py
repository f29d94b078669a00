"""The bundled PostgreSQL of an environment on its host: a stack whose server is kept as declared from inside as well.

    /srv/slipway/<name>-database/   0700 root
        compose.yml                 plain Compose, with what depends on the host in .env
        conf/                       postgresql.conf and pg_hba.conf, which the server reads again when they change
        authority/                  the CA of its certificate; its key stays here, and the container does not see it
        tls/                        the certificate and its key
        secrets/                    the superuser's password, for the first start, and a key to the archive
        archive.json                where its log and its backups go, if anywhere (`slipway.database.archive`)
        archive/                    what the container has in place of a target that is a folder of the host

Containers are replaced for what Compose says of them alone. A changed setting, rule or certificate is a reload, a
setting that PostgreSQL takes over only when it starts is a restart of the same container, and a role or a right is a
statement.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from slipway.archive import target
from slipway.archive.target import Target
from slipway.daemon import Daemon
from slipway.database import access, archive, certificate, roles, tuning
from slipway.database.archive import Terms
from slipway.errors import PreflightError, SlipwayError, UnhealthyError, UsageError
from slipway.registries import Login
from slipway.release import COMPOSE_FILE, LABEL_NAME, LABEL_STACK, NAME
from slipway.schedule import Job, settle
from slipway.stack import Stack, StackFile, StackRequest, differs, look, shown, write
from slipway.store import HOST_ENV_FILE, ROOT, hold

UID = 999
"""Of the user that PostgreSQL runs as."""
RELOAD_PATIENCE = 10.0
"""Seconds for the server to take a changed file over."""
SHORTEST_SECRET = 8


class DatabaseRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway database --json` reads."""

    name: str
    """The environment's."""
    state: Literal["present", "stopped", "absent"] = "present"
    purge: bool = False
    compose: str = ""
    """The Compose file. It holds no secret."""
    image: str = ""
    version: int = 0
    """The major version that is declared."""
    database: roles.Want | None = None
    passwords: dict[str, str] = {}
    """Of `superuser`, `owner`, `user` and `replication`."""
    address: str = ""
    port: int = 5432
    names: list[str] = []
    """By which clients verify the server, the address apart."""
    clients: list[str] = []
    replicas: list[str] = []
    memory: str = "50%"
    connections: int = 100
    settings: dict[str, str] = {}
    archive: Target | None = None
    """Where its log and its backups go; nowhere without."""
    archive_terms: Terms = Terms()
    backup_times: list[str] = []
    """When its host takes a backup, `HH:MM`."""
    wait: float = 120.0
    logins: dict[str, Login] = msgspec.field(default_factory=dict)
    check: bool = False


def run(request: DatabaseRequest, root: Path = ROOT) -> dict[str, Any]:
    """Bring the database to its state. The answer is that of a stack, with `authority`, the CA in PEM."""
    if not NAME.fullmatch(request.name):
        raise UsageError(
            f"{request.name!r} is not a name of an environment.", "Use lower-case letters, digits, dashes."
        )
    bundled = Bundled(request, root)
    if request.state == "present":
        return bundled.present()
    if request.state == "stopped":
        return bundled.stack.stopped()
    answer = bundled.stack.absent()
    if not request.check:
        settle([], request.name, [BACKUP])
    if request.purge and not request.check:
        # Those of older versions, too.
        Daemon().remove_volumes({LABEL_NAME: bundled.folder.name, LABEL_STACK: "database"})
    return answer


class Proof(msgspec.Struct, kw_only=True, frozen=True):
    """What is known of the archive: that it was seen to work, and for which cluster."""

    system: str = ""
    """PostgreSQL's identifier of the cluster; empty where none was ever archived from here."""
    proven: bool = False


def read_proof(folder: Path) -> Proof:
    """What was seen last."""
    try:
        return msgspec.json.decode((folder / PROOF).read_bytes(), type=Proof)
    except FileNotFoundError:
        return Proof()


def write_proof(folder: Path, proof: Proof) -> None:
    """Note it."""
    write(StackFile(path=PROOF, content=msgspec.json.encode(proof).decode() + "\n", mode="0600"), folder)


def volume_of(name: str, version: int) -> str:
    """The volume of a version that was never restored."""
    return f"{name}-database-{version}"


def noted(folder: Path) -> dict[str, str]:
    """What Compose is told of this host."""
    try:
        lines = (folder / HOST_ENV_FILE).read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.partition("=")[::2] for line in lines)


def env_file(env: Mapping[str, str]) -> StackFile:
    """The file that tells it."""
    return StackFile(path=HOST_ENV_FILE, content="".join(f"{name}={value}\n" for name, value in env.items()))


def folder_of(name: str, root: Path = ROOT) -> Path:
    """Where the database of an environment lives on its host."""
    return root / f"{name}-database"


class Bundled:
    """The database of a request on this host."""

    def __init__(self, request: DatabaseRequest, root: Path) -> None:
        if request.state == "present" and request.archive and (wrong := target.problems(request.archive)):
            raise UsageError(" ".join(wrong), "The database is as it was.")
        self.request = request
        self.folder = folder_of(request.name, root)
        self.stack = Stack(
            StackRequest(
                name=self.folder.name,
                files=self._compose_files() if request.state == "present" else [],
                purge=request.purge,
                wait=request.wait,
                logins=request.logins,
                check=request.check,
            ),
            root,
        )
        self.server = Server(self.stack.project)

    def present(self) -> dict[str, Any]:
        """Write what differs, start or replace the container for it, and bring what is inside to what is declared."""
        request = self.request
        self._refuse_another_major()
        files, secret_files = self._files(), self._secret_files()
        given_up = self._given_up([*files, *secret_files])
        changes = [file for file in files if differs(file, self.folder)]
        secret_changes = [file for file in secret_files if differs(file, self.folder)]
        renew = self._certificate_complaint()
        if request.check:
            return self._foretell(changes, secret_changes, given_up, renew)
        diff = [shown(file, self.folder) for file in changes]
        said = [f"{file.path} is written" for file in [*changes, *secret_changes]]
        with hold(self.folder):
            self.prepare()
            if any(file.path == CONF for file in changes):
                self._try_settings(next(file for file in files if file.path == CONF))
            if any(file.path in ARCHIVE_FILES for file in [*changes, *secret_changes]):
                self._forget_proof()
            for file in [*changes, *secret_changes]:
                write(file, self.folder)
            if renew:
                self._make_certificate()
                said.append(f"the certificate is made: {renew}")
            self._hand_over_certificate()
        # It holds the folder itself.
        answer = self.stack.present()
        with hold(self.folder):
            said += self._converge()
            # Only now: until it has read its settings the server may use them.
            for path in given_up:
                (self.folder / path).unlink()
                said.append(f"{path} is removed")
            told, warnings = self._prove_archive()
            said += told
            said += [f"{path} is written or removed" for path in self._settle()]
        done = f"{str(answer['msg']).removesuffix(' As declared.')} Done: {'; '.join(said)}."
        return {
            **answer,
            "changed": bool(answer["changed"] or said),
            "msg": done if said else answer["msg"],
            "diff": [*diff, *answer["diff"]],
            "authority": self._authority.read_text(),
            "warnings": warnings,
        }

    def prepare(self) -> None:
        """Have the folders and the image. Raises :class:`PreflightError` for one of another version."""
        for name, mode in (
            ("conf", 0o755),
            ("tls", 0o755),
            ("authority", 0o700),
            ("secrets", 0o755),
            ("archive", 0o700),
        ):
            path = self.folder / name
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        if self._archive_folder:
            self._have_archive_folder(Path(self._archive_folder))
        self.stack.pull(self.request.image)
        self._refuse_wrong_image()

    def take_over(self) -> None:
        """Have Compose's files be those of the request, so that the volume of its version is the one that counts."""
        # .env last: it says which that is.
        for file in self._compose_files():
            write(file, self.folder)

    # --- what it consists of ---------------------------------------------------------------------------------------

    @property
    def _authority(self) -> Path:
        return self.folder / "authority" / "ca.crt"

    @property
    def major(self) -> int:
        """The version that its data is of; 0 where there is none yet."""
        return self._noted("DATABASE_MAJOR")

    @property
    def volume(self) -> str:
        """The volume that its data lies on: that of its version, or the one that it was last restored to."""
        there = noted(self.folder).get("DATABASE_VOLUME", "") if self.major == self.request.version else ""
        return there or volume_of(self.request.name, self.request.version)

    @property
    def _archive_folder(self) -> str:
        """The folder of this host with the archive; empty where it is none."""
        given = self.request.archive
        return archive.about(given, self.request.name, self.request.archive_terms).folder if given else ""

    @cached_property
    def memory(self) -> int:
        """Bytes that it may use."""
        return tuning.memory_of(self.request.memory, total=_total_memory(), before=self._noted("DATABASE_MEMORY"))

    def _compose_files(self) -> list[StackFile]:
        """What Compose reads."""
        env = {
            "DATABASE_MAJOR": str(self.request.version),
            "DATABASE_VOLUME": self.volume,
            "DATABASE_MEMORY": str(self.memory),
            "DATABASE_SHARED_MEMORY": str(tuning.shared_memory_of(self.memory)),
            "DATABASE_ARCHIVE": self._archive_folder or "./archive",
        }
        return [StackFile(path=COMPOSE_FILE, content=self.request.compose), env_file(env)]

    def _files(self) -> list[StackFile]:
        """What the server reads."""
        request, want = self.request, self._want
        rules = access.rules(
            database=want.name,
            owner=want.owner,
            user=want.user,
            clients=request.clients,
            replicas=request.replicas,
            inspector=request.address if want.inspector else "",
        )
        return [
            StackFile(path=CONF, content=CONF_HEADER + tuning.settings_text(self._settings())),
            StackFile(path="conf/pg_hba.conf", content=rules),
            StackFile(path="conf/pg_ident.conf", content="# Nobody goes by another name.\n"),
            *(archive.files(request.archive, request.name, request.archive_terms) if request.archive else []),
        ]

    def _settings(self) -> dict[str, str]:
        own = {
            "listen_addresses": self.request.address,
            "port": str(self.request.port),
            "unix_socket_directories": "/run/postgresql",
            "hba_file": "/etc/postgresql/pg_hba.conf",
            "ident_file": "/etc/postgresql/pg_ident.conf",
            "ssl": "on",
            "ssl_cert_file": "/etc/postgresql-tls/server.crt",
            "ssl_key_file": "/etc/postgresql-tls/server.key",
            "ssl_min_protocol_version": "TLSv1.2",
            "password_encryption": "scram-sha-256",
        }
        tuned = tuning.tune(self.memory, cpus=os.cpu_count() or 1, connections=self.request.connections)
        if self.request.archive is None:
            return {**SETTINGS, **tuned, **self.request.settings, **own}
        return {**SETTINGS, **tuned, **archive.TIMEOUT, **self.request.settings, **own, **archive.SETTINGS}

    def _secret_files(self) -> list[StackFile]:
        password = self.request.passwords.get("superuser", "")
        needed = (*PASSWORDS, *(["inspector"] if self._want.inspector else []))
        short = [role for role in needed if len(self.request.passwords.get(role, "")) < SHORTEST_SECRET]
        if short:
            raise UsageError(
                f"There is no password for {', '.join(short)} of the database, or a very short one.",
                "Generate it: playbooks/secrets.yml.",
            )
        found = [StackFile(path="secrets/superuser", content=password, mode="0400", uid=UID, gid=UID)]
        if given := self.request.archive:
            terms, disk = self.request.archive_terms, shutil.disk_usage(Daemon().root()).total
            found += archive.secret_files(given, self.request.name, terms, disk=disk, port=self.request.port)
        return found

    def _given_up(self, files: Sequence[StackFile]) -> list[str]:
        """Files of an archive that is no longer declared, or not in this form."""
        declared = {file.path for file in files}
        return [path for path in ARCHIVE_FILES if path not in declared and (self.folder / path).exists()]

    @property
    def _want(self) -> roles.Want:
        if self.request.database is None:
            raise UsageError("The request names no database.", "Use the kit and the engine of one version.")
        return self.request.database

    def _noted(self, variable: str) -> int:
        """What .env says; 0 where it says nothing."""
        return int(noted(self.folder).get(variable, "0"))

    # --- what is refused -------------------------------------------------------------------------------------------

    def _refuse_another_major(self) -> None:
        there, wanted = self.major, self.request.version
        if there and there != wanted:
            raise PreflightError(
                f"The database of {self.request.name} is PostgreSQL {there}, and {wanted} is declared: data of one "
                "major version is none of another.",
                f"Move it with playbooks/database-upgrade.yml, or set app_database.version to {there}.",
            )

    def _refuse_wrong_image(self) -> None:
        image = Daemon().image(self.request.image) or {}
        env = dict(entry.partition("=")[::2] for entry in (image.get("Config") or {}).get("Env") or [])
        if env.get("PG_MAJOR") != str(self.request.version):
            raise PreflightError(
                f"The image {self.request.image} is of PostgreSQL {env.get('PG_MAJOR', 'unknown')}, and "
                f"{self.request.version} is declared.",
                "Correct app_database.version, or database_image and database_tag.",
            )

    def _try_settings(self, conf: StackFile) -> None:
        """Have PostgreSQL read the settings before they replace those that are in force."""
        trial = self.folder / "trial"
        try:
            write(StackFile(path="postgresql.conf", content=conf.content), trial)
            done = self._in_image(
                ["-v", f"{trial}:/trial:ro"],
                ["postgres", "-C", "port", "-D", "/tmp", "-c", "config_file=/trial/postgresql.conf"],  # noqa: S108
                user=str(UID),
            )
        finally:
            shutil.rmtree(trial, ignore_errors=True)
        if done.returncode:
            raise PreflightError(
                f"PostgreSQL does not accept the settings of {self.request.name}.",
                "Correct database_settings; nothing was changed.",
                details=done.stderr.strip(),
            )

    # --- the archive -----------------------------------------------------------------------------------------------

    @staticmethod
    def _have_archive_folder(path: Path) -> None:
        """Have the folder of the archive, for pgBackRest alone. Raises :class:`PreflightError`."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.mkdir(exist_ok=True, mode=0o700)
            os.chown(path, UID, UID)
            path.chmod(0o700)
        except OSError as error:
            raise PreflightError(
                f"The folder of the archive, {path}, cannot be made: {(error.strerror or str(error)).lower()}.",
                "Mount or make what backup_target names on the database's host; the database goes on.",
            ) from error

    def _forget_proof(self) -> None:
        """Have the archive proven anew."""
        if (proof := read_proof(self.folder)).proven:
            write_proof(self.folder, msgspec.structs.replace(proof, proven=False))

    def _prove_archive(self) -> tuple[list[str], list[str]]:
        """See once that a segment of the log arrives where it is declared to; later a look at the server is enough.

        Gives what that took, and what to warn of.
        """
        if self.request.archive is None:
            return [], []
        # It looks back at this module for what a host has.
        from slipway.database.repository import Repository  # noqa: PLC0415

        repository = Repository(self.request.name, self.folder.parent)
        told = repository.prove()
        complaint = "" if told else repository.complaint()
        return told, [complaint] if complaint else []

    def _settle(self) -> list[str]:
        """Have the host take backups at their times; what differed."""
        request = self.request
        command = [PROGRAM, "db", "backup", "--name", request.name]
        what = f"Back up the database of {request.name}"
        job = Job(kind=BACKUP, what=what, command=command, times=request.backup_times)
        return settle(
            [job] if request.archive and request.backup_times else [], request.name, [BACKUP], check=request.check
        )

    # --- TLS -------------------------------------------------------------------------------------------------------

    def _certificate_complaint(self) -> str:
        tls = self.folder / "tls"
        names = [self.request.address, *self.request.names]
        return certificate.complaint(tls / "server.crt", tls / "server.key", self._authority, names)

    def _make_certificate(self) -> None:
        names = [f"IP:{self.request.address}", *(f"DNS:{name}" for name in self.request.names)]
        done = self._in_image(
            ["-v", f"{self.folder / 'authority'}:/authority", "-v", f"{self.folder / 'tls'}:/tls"],
            ["make-certificate", self.request.name, str(certificate.DAYS), *names],
            user="0",
        )
        if done.returncode:
            raise SlipwayError(
                f"The certificate of the database of {self.request.name} could not be made.",
                "Openssl's words are below.",
                details=done.stderr.strip(),
            )

    def _hand_over_certificate(self) -> None:
        """Let the server read it. Each time, since a call may have been killed before it came to that."""
        self._authority.chmod(0o444)
        for name, mode in (("server.crt", 0o444), ("server.key", 0o400)):
            path = self.folder / "tls" / name
            os.chown(path, UID, UID)
            path.chmod(mode)

    def _in_image(
        self, mounts: Sequence[str], command: Sequence[str], *, user: str
    ) -> subprocess.CompletedProcess[str]:
        alone = ["--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--log-driver=none"]
        what = ["--user", user, "--read-only", "--tmpfs", "/tmp", *mounts, "--entrypoint", command[0]]  # noqa: S108
        return subprocess.run(
            ["docker", "run", "--rm", *alone, *what, self.request.image, *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    # --- what the server has taken over ----------------------------------------------------------------------------

    def _converge(self) -> list[str]:
        """Bring a server that runs to what is declared, and tell what that took.

        It reads what was written since it last did, and starts again for what it takes over only then.
        """
        files = [*(self.folder / "conf").iterdir(), *(self.folder / "tls").iterdir()]
        written = max(path.stat().st_mtime for path in files)
        have = self.server.have(self._want)
        said: list[str] = []
        if have.loaded < written:
            self.server.reload(written)
            have = self.server.have(self._want)
            said.append("the server has read its files again")
        if have.pending:
            self.stack.restart()
            said.append(f"the server was restarted for {', '.join(have.pending)}")
        # Twice: a role that had too much lacks what it should have only once that is taken away.
        for _ in range(2):
            steps = roles.plan(self._want, have, self.request.passwords)
            if not steps:
                break
            self.server.apply(steps)
            said += _told(steps)
            have = self.server.have(self._want)
        return said

    def _foretell(
        self, changes: Sequence[StackFile], secret_changes: Sequence[StackFile], given_up: Sequence[str], renew: str
    ) -> dict[str, Any]:
        parts = [f"{file.path} is written" for file in [*changes, *secret_changes]]
        parts += [f"{path} is removed" for path in given_up]
        parts += [f"{path} is written or removed" for path in self._settle()]
        if renew:
            parts.append(f"the certificate is made: {renew}")
        running = any(container.state == "running" for container in look(self.stack.project))
        compose = self.stack.present() if running else None
        steps = roles.plan(self._want, self.server.have(self._want), self.request.passwords) if running else []
        parts += _told(steps)
        if not running:
            parts.append("PostgreSQL is started")
        elif compose and compose["changed"]:
            parts.append("its container is replaced")
        return {
            "changed": bool(parts),
            "msg": f"Stack {self.folder.name}: To do: {'; '.join(parts)}."
            if parts
            else f"Stack {self.folder.name}: As declared.",
            "reasons": [],
            "diff": [shown(file, self.folder) for file in changes],
            "containers": [],
            "authority": self._authority.read_text() if self._authority.exists() else "",
        }


class Server:
    """A server, asked and told through its own socket, as its superuser: that of a project, or in a named container."""

    def __init__(self, project: str, *, container: str = "") -> None:
        self._project = project
        self._name = container

    def reload(self, written: float) -> None:
        """Have it read its files, and wait until it has. Raises :class:`UnhealthyError` with what it refuses."""
        self._sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + RELOAD_PATIENCE
        while float(self._sql("SELECT extract(epoch FROM pg_conf_load_time())")) < written:
            wrong = self._sql(
                "SELECT concat_ws(' ', file_name, line_number, error) FROM pg_hba_file_rules WHERE error IS NOT NULL "
                "UNION ALL SELECT concat_ws(' ', sourcefile, name, error) FROM pg_file_settings "
                "WHERE error IS NOT NULL AND error !~ 'cannot be changed'"
            )
            if wrong.strip() or time.monotonic() > deadline:
                raise UnhealthyError(
                    "PostgreSQL does not accept its new files, and goes on with those that it had.",
                    f"Read what it says: docker logs {self.container()}.",
                    details=wrong.strip(),
                )
            time.sleep(0.1)

    def have(self, want: roles.Want) -> roles.Have:
        """What it has of what is declared."""
        variables = {"name": want.name, "owner": want.owner, "user": want.user}
        return roles.read(self.psql(roles.QUESTION, **variables))

    def apply(self, steps: Sequence[roles.Step]) -> None:
        """Do these steps."""
        self.psql("\n".join(step.sql for step in steps))

    def psql(self, script: str, *, database: str = "postgres", **variables: str) -> str:
        """Run a script, which stands in no command line; what it printed. Raises :class:`SlipwayError`.

        Without a `database` it is run in that of the application.
        """
        where = [f"--dbname={database}"] if database else []
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.container(), *PSQL, *where, *_variables(variables)],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SlipwayError(
                "PostgreSQL did not do what it was told.",
                "Its words are below; mend that, and run the play again.",
                details=_first_error(done.stderr),
            )
        return done.stdout

    def _sql(self, statement: str) -> str:
        return self.tuples(f"{statement};")

    def tuples(self, statement: str, *, database: str = "postgres") -> str:
        """What a statement answers, without anything around it."""
        return self.psql(f"\\pset format unaligned\n\\pset tuples_only on\n{statement}", database=database)

    def container(self) -> str:
        """The container that it runs in. Raises :class:`UnhealthyError`."""
        if self._name:
            return self._name
        for container in look(self._project):
            if container.state == "running" and container.service == "postgres":
                return container.name
        raise UnhealthyError(
            f"The database of this host, {self._project}, does not run.", "Start it: playbooks/database.yml."
        )


PSQL = ("psql", "--no-psqlrc", "--quiet", "--username=postgres", "--set=ON_ERROR_STOP=1")
PASSWORDS = ("superuser", "owner", "user", "replication")
CONF = "conf/postgresql.conf"
PROOF = "archiving.json"
PROGRAM = "/usr/local/bin/slipway"
BACKUP = "basebackup"
"""What the timer of its backups is called after; one of an environment's own archive is called otherwise."""
ARCHIVE_FILES = (archive.ABOUT, archive.CONF, archive.KEY, archive.KNOWN_HOSTS, archive.CA)
CONF_HEADER = "# Do not edit: playbooks/database.yml writes it. Settings of your own go to database_settings.\n"
SETTINGS = {
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d %h ",
    "log_checkpoints": "on",
    "log_lock_waits": "on",
    "log_autovacuum_min_duration": "10s",
    # Parameters may be secrets.
    "log_parameter_max_length_on_error": "0",
    "idle_in_transaction_session_timeout": "10min",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    # On from the first start, with nothing archived yet: a command is a reload, while the mode would be a restart.
    "wal_level": "replica",
    "archive_mode": "on",
    "archive_command": "/usr/bin/true",
    "max_wal_senders": "10",
    # The image has no LLVM.
    "jit": "off",
}
"""What is set where an inventory says nothing else."""


def _told(steps: Sequence[roles.Step]) -> list[str]:
    return [what for what in dict.fromkeys(step.what for step in steps) if what]


def _variables(variables: Mapping[str, str]) -> list[str]:
    return [f"--set={name}={value}" for name, value in variables.items()]


def _first_error(said: str) -> str:
    """Without the line of the statement, which may hold a verifier of a password."""
    return "\n".join(line for line in said.splitlines() if not line.startswith(("LINE ", "STATEMENT:", " ")))


def _total_memory() -> int:
    """Bytes that this host has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
