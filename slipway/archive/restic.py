"""Restic, the program that keeps an archive: encrypted, checksummed, and each piece of data once.

Debian 12 has 0.14 and Debian 13 has 0.18, so what is asked of it is what both know. Whatever opens the archive is in
files that root alone reads, and never in a command line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from slipway.archive.target import Place, Target, place_of
from slipway.errors import PreflightError, SlipwayError

PASSWORD_FILE = "password"  # noqa: S105 - the name of a file
KEY_FILE = "ssh_key"
KNOWN_HOSTS_FILE = "known_hosts"
CREDENTIALS_FILE = "credentials"
CA_FILE = "ca.crt"
RUN = Path("/run")

ABSENT = "Is there a repository at the following location?"
PATIENCE = 600.0
"""Seconds that one waits for another program to be done with the archive."""
PAUSE = 2.0
LOCKED = "unable to create lock"
WRONG_PASSWORD = "wrong password or no key found"  # noqa: S105 - what restic says
DAMAGE = re.compile(
    r"ciphertext verification failed|invalid data returned|hash mismatch|does not match|not found in (index|repository)"
    r"|Fatal: repository contains errors|pack file .* (damaged|missing)|unexpected EOF|checksum|no matching ID found",
    re.IGNORECASE,
)
FULL = re.compile(r"no space left|disk quota exceeded|sftp: \"Failure\"|StorageFull|XMinioStorageFull", re.IGNORECASE)
UNREACHABLE = re.compile(
    r"connection refused|no route to host|network is unreachable|i/o timeout|connection reset|connection lost"
    r"|could not resolve|no such host|connection timed out|subprocess ssh exited|Host key verification failed"
    r"|Permission denied \(publickey|AccessDenied|Access Denied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|certificate signed by unknown authority|broken pipe|Client\.GetObject|unable to start the sftp session",
    re.IGNORECASE,
)
GONE = re.compile(
    r"file does not exist|no such file or directory|permission denied|read-only file system|NoSuchBucket", re.IGNORECASE
)
"""Also where there is no archive yet."""


class Snapshot(msgspec.Struct, frozen=True):
    """One snapshot of the archive. `time` is when it was made, as restic writes it."""

    id: str
    time: str
    hostname: str = ""
    tags: list[str] = []
    paths: list[str] = []

    @property
    def about(self) -> dict[str, str]:
        """Its tags of the form `key=value`."""
        return dict(tag.partition("=")[::2] for tag in self.tags if "=" in tag)


class Summary(msgspec.Struct, frozen=True):
    """What restic tells of a backup when it is whole. Sizes are bytes."""

    message_type: str
    snapshot_id: str = ""
    data_added: int = 0
    total_bytes_processed: int = 0


class Restic:
    """The archive of a host for environment `name` at a target that `folder` has the secrets of (:func:`secret_files`).

    Each host has one of its own, so that none has to wait for another, or meets it while both make it.
    """

    def __init__(self, url: str, name: str, host: str, folder: Path, region: str = "") -> None:
        self.place = place_of(url).below(name).below(host)
        self._folder = folder
        self._region = region

    # --- the archive itself ----------------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether there is an archive that opens. Raises :class:`SlipwayError` where that cannot be told."""
        done = self._run("cat", "config")
        if done.returncode and ABSENT in done.stderr and not UNREACHABLE.search(done.stderr):
            return False
        self._told(done, "looked at")
        return True

    def make(self) -> None:
        """Make it, empty."""
        if self.place.kind == "folder":
            Path(self.place.path).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._told(self._run("init"), "made")

    def unlock(self) -> None:
        """Remove what killed calls left of their locks; those of calls that go on stay."""
        self._told(self._run("unlock"), "unlocked")

    # --- backups ---------------------------------------------------------------------------------------------------

    def backup(self, paths: Sequence[Path], *, host: str, tags: Sequence[str]) -> Summary:
        """Put these paths into it, as one snapshot. It is an error when one file of them could not be read."""
        given = [f"--tag={tag}" for tag in tags]
        arguments = ["--json", f"--host={host}", *given, "--", *map(str, paths)]
        done = self._told(self._run("backup", *arguments), "written to")
        for line in reversed(done.stdout.splitlines()):
            summary = msgspec.json.decode(line, type=Summary)
            if summary.message_type == "summary" and summary.snapshot_id:
                return summary
        raise SlipwayError("Restic ended well and told of no snapshot.", "Run the backup again.")

    def snapshots(self, tags: Sequence[str] = ()) -> list[Snapshot]:
        """All snapshots that have these tags, oldest first."""
        given = [f"--tag={','.join(tags)}"] if tags else []
        done = self._told(self._run("snapshots", "--json", "--no-lock", *given), "read")
        return sorted(msgspec.json.decode(done.stdout, type=list[Snapshot]), key=lambda one: one.time)

    def forget(self, keep: Mapping[str, int], *, host: str, never: str) -> None:
        """Let go of a host's snapshots beyond those to keep, and of the data that no snapshot needs.

        Those with the tag `never` stay: where a clock was set back, the newest is the oldest by its time.
        """
        rules = [*(f"--keep-{span}={number}" for span, number in keep.items()), f"--keep-tag={never}"]
        self._told(self._run("forget", "--prune", "--quiet", f"--host={host}", "--group-by=host", *rules), "tidied")

    def check(self) -> None:
        """Look whether all that it says it has is there. Raises :class:`SlipwayError`."""
        self._told(self._run("check", "--quiet"), "checked")

    def read(self, snapshot: str, path: str, out: BinaryIO) -> None:
        """Write a file of a snapshot, or a folder as a tar, to `out`."""
        done = self._run("dump", "--quiet", snapshot, path, stdout=out)
        self._told(done, "read")

    def restore(self, snapshot: str, path: str, target: Path) -> None:
        """Write a folder of a snapshot below `target`, with owners and modes, each piece of data verified."""
        self._told(
            self._run("restore", "--quiet", snapshot, f"--include={path}", f"--target={target}"), "restored from"
        )

    # --- how -------------------------------------------------------------------------------------------------------

    def _run(self, *arguments: str, stdout: BinaryIO | int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        """Run restic. What else is at work on the archive is waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self._once(*arguments, stdout=stdout)
            if done.returncode == 0 or LOCKED not in done.stderr or time.monotonic() >= deadline:
                return done
            time.sleep(PAUSE)

    def _once(self, *arguments: str, stdout: BinaryIO | int) -> subprocess.CompletedProcess[str]:
        if shutil.which("restic") is None:
            raise PreflightError("There is no restic on this host.", "Run playbooks/archive.yml for it.")
        done = subprocess.run(
            # A call that is killed leaves none behind that would go on, and hold the archive.
            ["setpriv", "--pdeathsig=KILL", "restic", f"--repo={self._repository}", *self._options(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            cwd="/",
            env={**os.environ, **self._environment()},
        )
        said = (done.stdout or b"").decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, said, done.stderr.decode(errors="replace"))

    @property
    def _repository(self) -> str:
        place = self.place
        match place.kind:
            case "folder":
                return place.path
            case "sftp":
                return f"sftp:{place.user}@{place.host}:{place.path}"
            case "s3":
                port = f":{place.port}" if place.port else ""
                return f"s3:https://{place.host}{port}/{place.bucket}{place.path}"

    def _options(self) -> list[str]:
        # A cache would keep a second copy of what the archive says of itself, outside of it.
        options = ["--no-cache"]
        if (self._folder / CA_FILE).exists():
            options.append(f"--cacert={self._folder / CA_FILE}")
        if self.place.kind == "sftp":
            options.append(f"--option=sftp.command={self._ssh()}")
        if self.place.kind == "s3":
            options.append("--option=s3.bucket-lookup=path")
            options.append(f"--option=s3.region={self._region}")
        return options

    def _ssh(self) -> str:
        options = [
            f"IdentityFile={self._folder / KEY_FILE}",
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={self._folder / KNOWN_HOSTS_FILE}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "ConnectTimeout=15",
            # A target that is gone is noticed, and not waited for.
            "ServerAliveInterval=10",
            "ServerAliveCountMax=3",
        ]
        port = f"-p {self.place.port} " if self.place.port else ""
        flags = " ".join(f"-o {option}" for option in options)
        return f"ssh -F /dev/null {flags} {port}{self.place.user}@{self.place.host} -s sftp"

    def _environment(self) -> dict[str, str]:
        environment = {"RESTIC_PASSWORD_FILE": str(self._folder / PASSWORD_FILE), "HOME": "/root"}
        if self.place.kind == "s3":
            environment["AWS_SHARED_CREDENTIALS_FILE"] = str(self._folder / CREDENTIALS_FILE)
        return environment

    def _told(self, done: subprocess.CompletedProcess[str], verb: str) -> subprocess.CompletedProcess[str]:
        """Raise :class:`SlipwayError` with what restic's complaint means."""
        if done.returncode == 0:
            return done
        where, said = shown(self.place), done.stderr.strip()
        if WRONG_PASSWORD in said:
            raise SlipwayError(
                f"The archive at {where} does not open with this password.",
                "Put the backup_password that it was made with back into the vault.",
            )
        if FULL.search(said):
            raise SlipwayError(
                f"The target {where} is full.", "Free some space there, or keep fewer backups: backup_keep."
            )
        unreachable = UNREACHABLE.search(said)
        if ABSENT in said and not unreachable:
            raise SlipwayError(
                f"There is no archive at {where}.", "Correct backup_target, or run playbooks/archive.yml to make one."
            )
        if (unreachable or GONE.search(said)) and not DAMAGE.search(said):
            raise SlipwayError(
                f"The target {where} cannot be reached, or does not let this host in.",
                "Restic's words are below.",
                details=_last(said),
            )
        if LOCKED in said:
            raise SlipwayError(
                f"Another program is at work on the archive at {where}.",
                "Wait until it has ended, and run this again.",
                details=_last(said),
            )
        if DAMAGE.search(said):
            raise SlipwayError(
                f"The archive at {where} is damaged: what lies there is not what was written.",
                "Take another target, or have restic repair this one; backups that were read well before may still be "
                "good. Its words are below.",
                details=_last(said),
            )
        raise SlipwayError(
            f"The archive at {where} could not be {verb}.", "Restic's words are below.", details=_last(said)
        )


def shown(place: Place) -> str:
    """A place for people."""
    match place.kind:
        case "folder":
            return place.path
        case "sftp":
            return f"{place.host}:{place.path}"
        case "s3":
            return f"{place.host}/{place.bucket}{place.path}"


def secret_files(target: Target) -> dict[str, str]:
    """The files that open a target: name -> content."""
    credentials = (
        "[default]\n"
        f"aws_access_key_id = {target.access_key}\n"
        f"aws_secret_access_key = {target.secret_key}\n"
        f"region = {target.region}\n"
    )
    files = {
        PASSWORD_FILE: target.password,
        KEY_FILE: f"{target.ssh_key.strip()}\n" if target.ssh_key else "",
        KNOWN_HOSTS_FILE: target.known_hosts,
        CREDENTIALS_FILE: credentials if target.access_key else "",
        CA_FILE: target.ca,
    }
    return {name: content for name, content in files.items() if content}


@contextmanager
def opened(target: Target, name: str, host: str) -> Iterator[Restic]:
    """The archive of a host of another environment, at a target that is not this host's; its secrets stay in memory."""
    with tempfile.TemporaryDirectory(prefix="slipway-", dir=RUN) as folder:
        for file, content in secret_files(target).items():
            path = Path(folder) / file
            path.touch(mode=0o400)
            path.write_text(content)
        yield Restic(target.url, name, host, Path(folder), target.region)


def _last(said: str) -> str:
    return "\n".join(said.splitlines()[-20:])
