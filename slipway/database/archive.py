"""What is archived of the bundled PostgreSQL, as pgBackRest is told it, and to when one can go back. All of it is pure.

The archive holds backups of the whole server and every segment of its write-ahead log (WAL) since, both encrypted. From
the end of a backup on, the segments that follow it without a gap lead to any second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from slipway.archive.target import Place, Target
from slipway.errors import PreflightError, SlipwayError, UnhealthyError, UsageError
from slipway.stack import StackFile

STANZA = "main"
UID = 999
"""Of the user that PostgreSQL and pgBackRest run as."""
CONF = "conf/pgbackrest.conf"
KEY = "secrets/archive_key"
KNOWN_HOSTS = "conf/archive_known_hosts"
CA = "conf/archive_ca.crt"
ABOUT = "archive.json"
FOLDER_INSIDE = "/var/lib/pgbackrest"
"""Where the container sees the repository, where that is a folder of the host."""

SETTINGS = {"archive_mode": "on", "archive_command": f"pgbackrest --stanza={STANZA} archive-push %p"}
TIMEOUT = {"archive_timeout": "60s"}
"""A segment is archived when it is full, and once in that time where anything was written."""

SEGMENT = 16 * 1024**2
"""Bytes of a segment of WAL."""
SLACK = timedelta(hours=1)
"""By which a weekly backup may be early: a timer does not fire to the second."""

_SEGMENT_FILE = re.compile(r"(?:.*/)?([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})-[0-9a-f]{40}(?:\.[a-z0-9]+)?")
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_SHARE = re.compile(r"([1-9][0-9]?)%")
_SIZE = re.compile(r"([1-9][0-9]*)([mgt])", re.IGNORECASE)
_UNITS = {"m": 1024**2, "g": 1024**3, "t": 1024**4}


class Terms(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What is kept, and for how long."""

    keep: int = 4
    """Full backups; with each goes what is based on it, and the WAL before the oldest."""
    full_days: int = 7
    """After so many days a backup is full again; those between hold what differs."""
    queue: str = "25%"
    """What may wait on the host while the target is gone: a size, or a share of the file system with the data."""


class About(msgspec.Struct, kw_only=True, frozen=True):
    """What the host has to know of its archive beside pgBackRest's own file. It holds no secret."""

    place: Place
    """Of the database's own archive in the target."""
    full_days: int

    @property
    def where(self) -> str:
        """For people."""
        place = self.place
        port = f":{place.port}" if place.port else ""
        match place.kind:
            case "folder":
                return place.path
            case "sftp":
                return f"sftp://{place.user}@{place.host}{port}{place.path}"
            case "s3":
                return f"s3://{place.host}{port}/{place.bucket}{place.path}"

    @property
    def folder(self) -> str:
        """Of the host; empty where it is none."""
        return self.place.path if self.place.kind == "folder" else ""


def place_of(target: Target, name: str) -> Place:
    """The repository of an environment's database in a target."""
    return target.place.below(f"{name}-wal")


def about(target: Target, name: str, terms: Terms) -> About:
    """What is noted of a target."""
    return About(place=place_of(target, name), full_days=terms.full_days)


def files(target: Target, name: str, terms: Terms) -> list[StackFile]:
    """What the server reads of it, without secrets."""
    noted = msgspec.json.format(msgspec.json.encode(about(target, name, terms)), indent=2).decode() + "\n"
    found = [StackFile(path=ABOUT, content=noted)]
    if target.place.kind == "sftp":
        found.append(StackFile(path=KNOWN_HOSTS, content=_ended(target.known_hosts)))
    if target.place.kind == "s3" and target.ca:
        found.append(StackFile(path=CA, content=_ended(target.ca)))
    return found


def secret_files(target: Target, name: str, terms: Terms, *, disk: int, port: int) -> list[StackFile]:
    """What holds secrets, readable for pgBackRest alone. `disk` are the bytes of the file system with the data."""
    found = [_secret(CONF, conf(target, name, terms, disk=disk, port=port))]
    if target.place.kind == "sftp":
        found.append(_secret(KEY, _ended(target.ssh_key)))
    return found


def conf(target: Target, name: str, terms: Terms, *, disk: int, port: int) -> str:
    """The text of pgbackrest.conf. Raises :class:`UsageError` for a value that no line could hold."""
    options = {
        **_storage(target, place_of(target, name)),
        "repo1-cipher-type": "aes-256-cbc",
        "repo1-cipher-pass": target.password,
        "repo1-retention-full": str(terms.keep),
        "repo1-bundle": "y",
        # Parts of a file are read one by one, and of a file over SFTP only so many (`copying`).
        "repo1-block": "n" if target.place.kind == "sftp" else "y",
        "compress-type": "zst",
        "start-fast": "y",
        "io-timeout": "30",
        # The server's log has it all.
        "log-level-file": "off",
        # Not by a process in the background: where one ends badly, PostgreSQL, which is the first process of its
        # container and so its parent, takes it for one of its own that crashed, and ends all connections.
        "archive-async": "n",
        "archive-push-queue-max": str(queue_of(terms.queue, disk=disk)),
    }
    if broken := [option for option, value in options.items() if "\n" in value or value != value.strip()]:
        raise UsageError(
            f"What opens backup_target has a line break, or a space at an end: {', '.join(broken)}.",
            "Correct it in the vault.",
        )
    lines = [f"{option}={value}" for option, value in options.items()]
    return "\n".join(
        [
            "# Do not edit: playbooks/database.yml writes it.",
            "[global]",
            *lines,
            "",
            # While the target is gone a server that is stopped tries three times before it ends.
            "[global:archive-push]",
            "io-timeout=10",
            "",
            f"[{STANZA}]",
            "pg1-path=/var/lib/postgresql/data",
            "pg1-socket-path=/run/postgresql",
            f"pg1-port={port}",
            "",
        ]
    )


def _storage(target: Target, place: Place) -> dict[str, str]:
    if place.kind == "folder":
        return {"repo1-type": "posix", "repo1-path": FOLDER_INSIDE}
    if place.kind == "sftp":
        return {
            "repo1-type": "sftp",
            "repo1-path": place.path,
            "repo1-sftp-host": place.host,
            "repo1-sftp-host-port": str(place.port or 22),
            "repo1-sftp-host-user": place.user,
            "repo1-sftp-private-key-file": "/run/secrets/archive_key",
            "repo1-sftp-host-key-hash-type": "sha256",
            "repo1-sftp-host-key-check-type": "strict",
            "repo1-sftp-known-host": "/etc/postgresql/archive_known_hosts",
        }
    return {
        "repo1-type": "s3",
        "repo1-path": place.path,
        "repo1-s3-bucket": place.bucket,
        "repo1-s3-endpoint": place.host,
        "repo1-storage-port": str(place.port or 443),
        "repo1-s3-region": target.region,
        "repo1-s3-uri-style": "path",
        "repo1-s3-key": target.access_key,
        "repo1-s3-key-secret": target.secret_key,
        "repo1-storage-verify-tls": "y",
        "repo1-storage-ca-file": f"/etc/postgresql/{CA.removeprefix('conf/')}"
        if target.ca
        else "/etc/ssl/certs/ca-certificates.crt",
    }


def copying(place: Place, backup: Backup, folder: str, timeline: int) -> str:
    """What OpenSSH's sftp is told, to copy what the restore of a backup reads to FOLDER_INSIDE, the log apart.

    pgBackRest closes no file that it reads over SFTP before it ends, and an SSH server lets a session have 1024 open. A
    restore opens one for each large file, and for each row of small ones in a bundle. Each segment of the log is read
    by a process of its own.
    `folder` is that of the log, such as 17-1.
    """
    kept, log = f"backup/{STANZA}", f"archive/{STANZA}"
    wanted = [(kept, label) for label in backup.needs]
    if timeline > 1:
        wanted.append((f"{log}/{folder}", f"{timeline:08X}.history"))
    # Of each of these there are two, and one is enough.
    either = [(kept, "backup.info"), (kept, "backup.info.copy"), (log, "archive.info"), (log, "archive.info.copy")]
    folders = ("backup", kept, "archive", log, f"{log}/{folder}")
    return "".join(
        [
            *(f"lmkdir {FOLDER_INSIDE}/{one}\n" for one in folders),
            *(f"-get {place.path}/{one}/{name} {FOLDER_INSIDE}/{one}/\n" for one, name in either),
            *(f"get -R {place.path}/{one}/{name} {FOLDER_INSIDE}/{one}/\n" for one, name in wanted),
        ]
    )


FROM_COPY = (
    "--repo1-type=posix",
    f"--repo1-path={FOLDER_INSIDE}",
    # It would tell the server to look for the log in the copy as well.
    f'--recovery-option=restore_command=pgbackrest --stanza={STANZA} archive-get %f "%p"',
)
"""What has pgBackRest restore from such a copy."""


def sftp_words(place: Place) -> list[str]:
    """How OpenSSH's sftp in the container reaches a target, as pgBackRest does; it is told what to do on its input."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    options = {
        "IdentityFile": f"/run/{KEY}",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"/etc/postgresql/{KNOWN_HOSTS.removeprefix('conf/')}",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "15",
        # A target that is gone is noticed, and not waited for.
        "ServerAliveInterval": "10",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
        "Port": str(place.port or 22),
    }
    words = [f"-o{name}={value}" for name, value in options.items()]
    return ["-q", "-b", "-", "-F", "/dev/null", *words, f"{place.user}@{host}"]


def queue_of(said: str, *, disk: int) -> int:
    """Bytes that `database_archive_queue` means. Raises :class:`UsageError`."""
    if share := _SHARE.fullmatch(said):
        # Whole gigabytes, so that a file system that grew a little changes nothing.
        return max(disk * int(share[1]) // 100 // _UNITS["g"], 1) * _UNITS["g"]
    if size := _SIZE.fullmatch(said):
        return int(size[1]) * _UNITS[size[2].lower()]
    raise UsageError(
        f"database_archive_queue is {said!r}, which is neither a size nor a share of the file system.",
        "Write it like 20g or 25%.",
    )


def _secret(path: str, content: str) -> StackFile:
    return StackFile(path=path, content=content, mode="0400", uid=UID, gid=UID)


def _ended(text: str) -> str:
    return text.strip() + "\n"


# --- what is in it ------------------------------------------------------------------------------------------------


class Backup(msgspec.Struct, kw_only=True, frozen=True):
    """A backup in the archive. Times are UTC."""

    label: str
    kind: str
    """full, diff or incr."""
    began: datetime
    ended: datetime
    first: str
    """The segments of WAL that it needs by itself, from this one …"""
    last: str
    """… to this one."""
    stop: int
    """The position in the WAL where it ends."""
    size: int
    """Bytes of the database."""
    stored: int
    """Bytes that it added to the archive."""
    needs: list[str]
    """Labels of the backups that it consists of, its own among them."""
    damaged: bool
    """Whether pages were found whose checksum is wrong."""


class Contents(msgspec.Struct, kw_only=True, frozen=True):
    """What pgBackRest tells of the archive: of the cluster that was archived last."""

    system: str
    """PostgreSQL's identifier of it; empty where nothing was archived yet."""
    version: str
    archive: str
    """The folder of its WAL, such as 17-1."""
    backups: list[Backup]
    """Oldest first."""


class Window(msgspec.Struct, kw_only=True, frozen=True):
    """Every second after the one and up to the other can be gone back to. UTC."""

    after: datetime
    to: datetime

    def holds(self, moment: datetime) -> bool:
        """Whether one can go back to it."""
        return self.after < moment <= self.to


class Line(msgspec.Struct, frozen=True):
    """The timelines that a server has lived through, each with the position where it begins; oldest first."""

    parts: list[tuple[int, int]]

    def timeline(self, segment: int) -> int:
        """Of which timeline the segment of that number is."""
        return next(timeline for timeline, begins in reversed(self.parts) if segment >= begins // SEGMENT)

    def holds(self, backup: Backup) -> bool:
        """Whether a backup is of the past of this line, and not of a branch that was left."""
        timeline = timeline_of(backup.last)
        ends = {one: end for (one, _), (_, end) in zip(self.parts, self.parts[1:], strict=False)}
        known = {one for one, _ in self.parts}
        return timeline in known and backup.stop <= ends.get(timeline, backup.stop)


def readable(said: bytes) -> str:
    """What pgBackRest prints, without what a wrong password makes of a file that it cites."""
    text = said.decode(errors="replace").replace("\N{REPLACEMENT CHARACTER}", "?")
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


def contents(told: str) -> Contents:
    """Read what `pgbackrest info --output=json` prints."""
    stanzas: list[dict[str, Any]] = msgspec.json.decode(told)
    if not stanzas or not stanzas[0].get("db"):
        return Contents(system="", version="", archive="", backups=[])
    stanza = stanzas[0]
    cluster = max(stanza["db"], key=lambda one: int(one["id"]))
    backups = [_backup(one) for one in stanza["backup"] if one["database"]["id"] == cluster["id"]]
    return Contents(
        system=str(cluster["system-id"]),
        version=cluster["version"],
        archive=f"{cluster['version']}-{cluster['id']}",
        backups=sorted(backups, key=lambda backup: backup.ended),
    )


def _backup(told: Mapping[str, Any]) -> Backup:
    stored = told["info"]["repository"]
    return Backup(
        label=told["label"],
        kind=told["type"],
        began=datetime.fromtimestamp(told["timestamp"]["start"], UTC),
        ended=datetime.fromtimestamp(told["timestamp"]["stop"], UTC),
        first=told["archive"]["start"],
        last=told["archive"]["stop"],
        stop=position(told["lsn"]["stop"]),
        size=told["info"]["size"],
        stored=stored.get("delta", stored.get("size", 0)),
        needs=[*(told.get("reference") or []), told["label"]],
        damaged=bool(told.get("error")),
    )


def stored(backup: Backup, contents: Contents) -> int:
    """Bytes in the archive of all that a backup consists of."""
    return sum(one.stored for one in contents.backups if one.label in backup.needs)


def position(text: str) -> int:
    """`0/3000148` -> bytes."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def timeline_of(name: str) -> int:
    """Of the name of a segment."""
    return int(name[:8], 16)


def number_of(name: str) -> int:
    """Which segment it is, counted from the beginning of the cluster."""
    return int(name[8:16], 16) * (2**32 // SEGMENT) + int(name[16:24], 16)


def segments(listed: bytes) -> dict[str, datetime]:
    """The segments in what `pgbackrest repo-ls --recurse --output=json` prints, with when each was archived."""
    entries: dict[str, dict[str, Any]] = msgspec.json.decode(listed)
    return {
        "".join(found.groups()): datetime.fromtimestamp(entry["time"], UTC)
        for path, entry in entries.items()
        if (found := _SEGMENT_FILE.fullmatch(path))
    }


def timelines(listed: bytes) -> list[int]:
    """The timelines of which there is a history in the same list."""
    names = (path.rpartition("/")[2] for path in msgspec.json.decode(listed))
    return sorted(int(name.removesuffix(".history"), 16) for name in names if name.endswith(".history"))


def line(timeline: int, history: str) -> Line:
    """The line that leads to a timeline, from PostgreSQL's history file of it."""
    rows = [row.split("\t") for row in history.splitlines() if row.strip() and not row.startswith("#")]
    left = [(int(one), position(where)) for one, where, *_ in rows]
    begins = [0, *(where for _, where in left)]
    return Line([*zip([one for one, _ in left], begins, strict=False), (timeline, begins[-1])])


def reach(backup: Backup, line: Line, archived: Mapping[str, datetime], upto: datetime | None = None) -> datetime:
    """Until when the segments lead that follow a backup without a gap.

    `upto` is until when all of the log is known to be there, which the time of the last segment says less exactly.
    """
    to, number = _followed(backup, line, archived)
    newest = max((number_of(name) for name in archived), default=0)
    return max(to, upto) if upto and number > newest else to


def _followed(backup: Backup, line: Line, archived: Mapping[str, datetime]) -> tuple[datetime, int]:
    """Until when the segments lead that follow a backup, and the number of the first that is missing."""
    known = {(timeline_of(name), number_of(name)): when for name, when in archived.items()}
    to, number = backup.ended, number_of(backup.last)
    while when := known.get((line.timeline(number), number)):
        to, number = max(to, when), number + 1
    return to, number


def missing_since(
    backups: Sequence[Backup], line: Line, archived: Mapping[str, datetime], sent: str = ""
) -> datetime | None:
    """Since when log is missing behind the newest backup, so that nothing leads to what came after; None where none is.

    `sent` is the segment that the server has given away last. It counts what pgBackRest gave up as archived.
    """
    newest = max((one for one in backups if line.holds(one)), key=lambda one: one.ended, default=None)
    if newest is None:
        return None
    to, first = _followed(newest, line, archived)
    names = [*archived, *([sent] if _SEGMENT.fullmatch(sent) else [])]
    later = (number for name in names if line.timeline(number := number_of(name)) == timeline_of(name))
    return to if max(later, default=0) >= first else None


def windows(
    backups: Sequence[Backup], line: Line, archived: Mapping[str, datetime], upto: datetime | None = None
) -> list[Window]:
    """To when one can go back on a line; more than one where log is missing between. `upto` as in :func:`reach`."""
    found: list[Window] = []
    for backup in sorted((one for one in backups if line.holds(one)), key=lambda one: one.ended):
        to = reach(backup, line, archived, upto)
        if found and backup.ended <= found[-1].to:
            found[-1] = Window(after=found[-1].after, to=max(to, found[-1].to))
        else:
            found.append(Window(after=backup.ended, to=to))
    return found


def base(
    backups: Sequence[Backup],
    line: Line,
    archived: Mapping[str, datetime],
    moment: datetime | None,
    upto: datetime | None = None,
) -> Backup | None:
    """The backup to begin with: the newest that leads to a moment, or to the end where that is what is wanted."""
    of_it = sorted((one for one in backups if line.holds(one)), key=lambda one: one.ended, reverse=True)
    if moment is None:
        return of_it[0] if of_it else None
    for backup in of_it:
        if Window(after=backup.ended, to=reach(backup, line, archived, upto)).holds(moment):
            return backup
    return None


def told(found: Sequence[Window]) -> str:
    """The windows in words."""
    if not found:
        return "There is no backup yet to begin with."
    # A backup is good by itself, but the log behind it may not have come yet.
    spans = [
        f"from {clock(one.after + timedelta(seconds=1))} to {clock(max(one.to, one.after + timedelta(seconds=1)))}"
        for one in found
    ]
    return f"One can go back to any second {', and '.join(spans)}."


def clock(moment: datetime) -> str:
    """`2026-11-24T18:40:05Z`, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def span(seconds: float) -> str:
    """How long something is, in words: `3 hours`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' * (number > 1)}"
    return f"{max(seconds, 0):.0f} seconds"


def moment_of(said: str) -> datetime | None:
    """What `--to` says; None is the end of the archive. Raises :class:`UsageError`."""
    if said == "latest":
        return None
    try:
        moment = datetime.fromisoformat(said)
    except ValueError as error:
        raise UsageError(
            f"{said!r} is no moment to go back to.", "Write it like 2026-11-24T18:40:05Z, or latest."
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def kind_due(backups: Sequence[Backup], full_days: int, now: datetime) -> str:
    """Which kind of backup is to be taken next: full or incr."""
    fulls = [backup.began for backup in backups if backup.kind == "full" and not backup.damaged]
    return "incr" if fulls and now - max(fulls) < timedelta(days=full_days) - SLACK else "full"


# --- what went wrong ----------------------------------------------------------------------------------------------

LAST_LINES = 12
LONGEST = 240
"""Characters of a line."""

_ERROR = re.compile(r"ERROR: \[(\d+)\]: (.*)", re.DOTALL)
_NO_SPACE = re.compile(r"no space left|disc quota|disk quota|ENOSPC", re.IGNORECASE)
_CITED = re.compile(r"['\"](/[^'\"]*)['\"]")


def _sentences(where: str) -> Iterator[tuple[re.Pattern[str], type[SlipwayError], str, str]]:
    """What pgBackRest's words mean, the surest first."""
    again = "Mend that, and run this again."

    def meaning(
        pattern: str, what: str, do_next: str = again, error: type[SlipwayError] = SlipwayError
    ) -> tuple[re.Pattern[str], type[SlipwayError], str, str]:
        return re.compile(pattern, re.IGNORECASE | re.DOTALL), error, what, do_next

    yield meaning(
        r"unable to acquire lock|another pgBackRest process",
        "Another backup of this database is under way.",
        "Wait until it has ended: slipway db backups shows it.",
        PreflightError,
    )
    yield meaning(
        rf"{_NO_SPACE.pattern}|insufficient storage|InsufficientStorage|QuotaExceeded",
        f"The target of the archive, {where}, is full.",
        "Free some space there, or keep fewer full backups (database_archive_keep).",
    )
    yield meaning(
        r"FileMissingError: unable to open missing file '[^']*\.info'|archive\.info.*does not exist",
        f"There is no archive of this database at {where}.",
        "Run playbooks/database.yml, which makes it; where there was one, see what became of the target.",
    )
    yield meaning(
        r"cipher header|unable to flush|unable to decrypt|key.value (pair|found outside)|invalid checksum, actual"
        r"|bad decrypt|cipher.*(mismatch|not match)",
        f"The archive at {where} cannot be read with backup_password: it was made with another one, or is damaged.",
        "Put the password into the vault with which it was made, or name another folder in backup_target.",
    )
    yield meaning(
        r"host key|hostkey|known.hosts",
        f"The host of the archive at {where} shows another host key than backup_known_hosts has.",
        "Compare it with the host's own, and put all that ssh-keyscan prints of it into backup_known_hosts.",
    )
    yield meaning(
        r"public key authentication|publickey|authentication failed|unable to initialize.*key|invalid private key",
        f"The host of the archive at {where} does not take backup_ssh_key.",
        "Put its public half into authorized_keys of that user there, or correct the key in the vault.",
    )
    yield meaning(
        r"certificate verify|unable to verify certificate|unable to find hostname|unable to set user-defined CA"
        r"|unable to load CA|certificate is not valid",
        f"The certificate of the archive's target, {where}, does not do.",
        "Correct backup_ca, or the name in backup_target.",
    )
    yield meaning(
        r"\b403\b|AccessDenied|InvalidAccessKey|SignatureDoesNotMatch|\b401\b",
        f"The target of the archive, {where}, does not take backup_access_key and backup_secret_key.",
        "Correct them in the vault, or let them read and write there.",
    )
    yield meaning(
        r"NoSuchBucket|\b404\b.*bucket|bucket.*does not exist",
        f"There is no bucket for the archive at {where}.",
        "Make it, or correct backup_target.",
    )
    yield meaning(
        r"bind source path does not exist|unable to connect|unable to get address|HostConnect|could not resolve"
        r"|connection (refused|closed|reset|lost|timed out)"
        r"|timeout.*(connect|read|write)"
        r"|no route|unreachable|unable to (init|open).*(sftp|session)|EAI_|unexpected eof|socket|handshake",
        f"The target of the archive, {where}, cannot be reached.",
        "See that it is up and that this host gets there, and run this again.",
    )
    yield meaning(
        r"permission denied|read-only file system|unable to create path|\bLIBSSH2_FX_PERMISSION",
        f"Nothing can be written to the archive at {where}.",
        "Let its user write there, and run this again.",
    )
    yield meaning(
        r"was not archived before|archive.timeout|WAL segment.*(missing|not found|timeout)",
        f"The log of the database does not arrive in the archive at {where}.",
        "The server's log says why: slipway db backups, docker logs. The database goes on.",
        UnhealthyError,
    )
    yield meaning(
        r"do not match the (?:running|database)|does not match the (?:stanza|database)|system.id",
        foreign(where),
        "Restore that one here (slipway db restore --to latest), or name another folder in backup_target.",
    )
    yield meaning(
        r"checksum|corrupt|info is missing|missing file|File \"[^\"]*\" not found|error restoring|raised from local",
        f"The archive at {where} is damaged: what lies there is not what was written.",
        "Go back to a moment of another backup, or put the files back from where the target itself is backed up.",
    )


def foreign(where: str) -> str:
    """That the archive is not of the cluster that runs."""
    return f"The archive at {where} is of another database server than the one that runs here."


def wrong(said: str, about: About, code: int, *, full: bool = False) -> SlipwayError:
    """What pgBackRest's last words mean for an operator, with those words below. `full`: the disk of this host is."""
    # Each once: it says of two copies of a file that they are wrong.
    lines = dict.fromkeys(line.strip()[:LONGEST] for line in said.splitlines() if line.strip())
    words = "\n".join([*lines][-LAST_LINES:])
    error = _ERROR.search(said)
    told = error[2] if error else said
    if _NO_SPACE.search(told) and _is_here(told, about, full=full):
        return PreflightError(
            "The disk of the database's host is full.",
            "Free some space where Docker keeps volumes, and run this again.",
            details=words,
        )
    where = about.where
    for pattern, kind, what, do_next in _sentences(where):
        if pattern.search(told):
            return kind(what, do_next, details=words)
    return SlipwayError(
        f"pgBackRest could not do its work on the archive at {where} ({code}).", "Its words are below.", details=words
    )


def _is_here(told: str, about: About, *, full: bool) -> bool:
    """Whether it is this host that has no space left: a file is cited that is not of a target in a folder."""
    cited = _CITED.findall(told)
    if not cited:
        return full
    return not (about.folder and any(path.startswith(f"{FOLDER_INSIDE}/") for path in cited))
