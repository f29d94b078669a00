"""What an environment keeps on a host: release folders, which one is current, and the lock around one call.

    /srv/slipway/<name>/            0700 root
        releases/<id>/              0700 root, immutable; plain Compose lies in it
            sums.json               file -> SHA-256 as it was staged, so that an edit by hand shows
        current -> releases/<id>    the release that serves
        ledger.jsonl                what happened (`slipway.ledger`)
        lock                        held by the kernel for the length of one call

A release folder is written under a temporary name, synced and renamed, so it is whole or not there, whenever
the power goes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from slipway.errors import PreflightError, SlipwayError, UsageError
from slipway.release import MANIFEST_FILE, NAME, File, Manifest, Release, read_manifest

if TYPE_CHECKING:
    from slipway.project import Project

ROOT = Path("/srv/slipway")
LOCK_PATIENCE = 10.0
"""Seconds that a call waits for another one on the same environment."""

SUMS_FILE = "sums.json"
"""Beside the files of a release: their path -> SHA-256, in hex. Only for root, since a short secret can be guessed."""
BEGUN_FILE = "begun.json"
"""In the folder of a stack whose containers are being started; holds why that failed, once it has."""
ARCHIVE_FILE = "archive/archive.json"
"""In the environment's folder where the host backs it up (`slipway.archive.settings`)."""
RESTORING_FILE = "restoring.json"
"""In the environment's folder while data is being restored (`slipway.archive.restore`)."""
HOST_ENV_FILE = ".env"
HOST_FILES = frozenset({SUMS_FILE, HOST_ENV_FILE})
"""Files of a release folder that belong to the host and not to the release."""

_STAGING = ".staging-"
_EDITED = "edited-"
_REMOVED = "removed-"


class Store:
    """One environment's folder on this host."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a name of an environment.",
                "Use 2 to 41 lower-case letters, digits and dashes, a letter first.",
            )
        self.name = name
        self.root = root
        self.folder = root / name
        self.releases = self.folder / "releases"
        self._current = self.folder / "current"

    def exists(self) -> bool:
        """Whether anything was ever staged here."""
        return self.releases.is_dir()

    @contextmanager
    def lock(self, patience: float = LOCK_PATIENCE) -> Iterator[None]:
        """Hold this environment for one call. The kernel lets go of it however the process ends."""
        _make_private(self.folder)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(handle, time.monotonic() + patience)
            yield
        finally:
            os.close(handle)

    def _acquire(self, handle: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise PreflightError(
                        f"Another slipway call (process {owner}) is at work on {self.name}.",
                        "Wait until it has ended and run this again.",
                    ) from None
                time.sleep(0.05)
            else:
                # Only a hint for people: a full disk must keep nobody from going back.
                with suppress(OSError):
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
                return

    def current(self) -> str | None:
        """The id of the release that serves, or None before the first one."""
        try:
            return self._current.readlink().name
        except FileNotFoundError:
            return None

    def point(self, release_id: str | None) -> None:
        """Make `current` point at a release, in one step; at none where nothing serves any more."""
        if release_id is None:
            self._current.unlink(missing_ok=True)
            _sync_folder(self.folder)
            return
        beside = self._current.with_name(f".current-{os.getpid()}")
        beside.unlink(missing_ok=True)
        beside.symlink_to(Path("releases") / release_id)
        beside.rename(self._current)
        _sync_folder(self.folder)

    def path(self, release_id: str) -> Path:
        """The folder of a release."""
        return self.releases / release_id

    def ids(self) -> list[str]:
        """Ids of all releases on this host."""
        if not self.exists():
            return []
        found = (path for path in self.releases.iterdir() if path.is_dir() and not path.name.startswith("."))
        return sorted(path.name for path in found)

    def manifest(self, release_id: str) -> Manifest:
        """Read what a release says of itself. Raises :class:`PreflightError` when it is not on this host."""
        try:
            data = (self.path(release_id) / MANIFEST_FILE).read_bytes()
        except FileNotFoundError:
            raise PreflightError(
                f"There is no release {release_id} of {self.name} on this host.",
                f"See what there is: slipway history --name {self.name}.",
            ) from None
        try:
            return read_manifest(data)
        except msgspec.MsgspecError as error:
            raise PreflightError(
                f"The release {release_id} of {self.name} was written by a version of the kit that this one "
                "cannot read.",
                f"Use that version, or remove {self.path(release_id)} if nothing of it runs.",
                details=str(error),
            ) from error

    def project(self, manifest: Manifest, folder: Path | None = None) -> Project:
        """The Compose project of a release; in `folder`, where it does not lie in its own yet."""
        # Imported here because it takes longer than all that a call does that finds nothing to change.
        from slipway.project import Project  # noqa: PLC0415

        return Project(folder or self.path(manifest.id), manifest)

    def holds(self, release: Release) -> bool:
        """Whether the release lies here, file for file as it should be."""
        folder = self.path(release.manifest.id)
        return all(_same(folder / file.path, file) for file in _all_files(release))

    def release(self, release_id: str) -> Release:
        """Read a release back, file for file. Raises :class:`PreflightError` where someone edited it by hand."""
        if altered := self.altered(release_id):
            raise PreflightError(
                f"The release {release_id} is not as it was staged: {', '.join(altered)}.",
                f"Put back what was edited in {self.path(release_id)}; a deploy does that for the release that serves.",
            )
        folder = self.path(release_id)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = {str(path.relative_to(folder)): path for path in paths}
        files = [_file(name, path) for name, path in names.items() if name not in {*HOST_FILES, MANIFEST_FILE}]
        return Release(manifest=self.manifest(release_id), files=files)

    def altered(self, release_id: str) -> dict[str, str]:
        """Files of a release that are not as they were staged -> `changed`, `absent` or `not declared`."""
        folder = self.path(release_id)
        try:
            sums = msgspec.json.decode((folder / SUMS_FILE).read_bytes(), type=dict[str, str])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {SUMS_FILE: "absent or unreadable, so edits do not show"}
        here = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - HOST_FILES
        found = dict.fromkeys(sums.keys() - here, "absent")
        found |= dict.fromkeys(here - sums.keys(), "not declared")
        found |= {path: "changed" for path in here & sums.keys() if _sum((folder / path).read_bytes()) != sums[path]}
        return dict(sorted(found.items()))

    def place(self, release: Release) -> Path:
        """Write a release under a temporary name, synced, and return that folder for :meth:`keep` or :meth:`drop`.

        Raises :class:`PreflightError` when the disk is full; what was written is removed again.
        """
        _make_private(self.folder)
        _make_private(self.releases)
        self.sweep()
        folder = self.releases / f"{_STAGING}{release.manifest.id}"
        try:
            _make_private(folder)
            for file in _all_files(release):
                _write(folder / file.path, file)
            with suppress(FileNotFoundError):
                # One that was edited by hand is written anew; what runs keeps its addresses.
                shutil.copy2(self.path(release.manifest.id) / HOST_ENV_FILE, folder)
            for parent in {path.parent for path in folder.rglob("*")} | {folder}:
                _sync_folder(parent)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PreflightError(
                    f"The disk is full: the release could not be written to {self.releases}.",
                    "Free some space on that file system and run the play again.",
                ) from error
            raise
        return folder

    def keep(self, folder: Path) -> None:
        """Give a placed folder its final name."""
        final = self.path(folder.name.removeprefix(_STAGING))
        if final.exists():
            # Someone edited a release by hand. Containers keep the files they were started with.
            aside = final.with_name(f"{_STAGING}{_EDITED}{final.name}")
            final.rename(aside)
            folder.rename(final)
            shutil.rmtree(aside)
        else:
            folder.rename(final)
        _sync_folder(self.releases)

    def drop(self, folder: Path) -> None:
        """Remove a placed folder that is not kept."""
        shutil.rmtree(folder, ignore_errors=True)

    def discard(self, release_id: str) -> None:
        """Remove a release folder: in one step out of sight, so that a killed call leaves no half of one."""
        aside = self.releases / f"{_STAGING}{_REMOVED}{uuid.uuid4().hex}"
        self.path(release_id).rename(aside)
        _sync_folder(self.releases)
        shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed call left half-written."""
        for left in self.releases.glob(f"{_STAGING}*"):
            edited = self.path(left.name.removeprefix(f"{_STAGING}{_EDITED}"))
            if left.name.startswith(f"{_STAGING}{_EDITED}") and not edited.exists():
                # The call was killed before the new folder had its name. The old one may be of what serves.
                left.rename(edited)
            else:
                shutil.rmtree(left, ignore_errors=True)

    def remove(self) -> None:
        """Remove the environment's folder with all releases and the ledger."""
        with suppress(FileNotFoundError):
            # In one step, so that a killed call leaves no half of a release that the next one trips over.
            self.releases.rename(self.folder / f"{_STAGING}{uuid.uuid4().hex}")
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the folder of a stack for one call; the kernel lets go of it however the process ends."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def environments(root: Path = ROOT) -> list[str]:
    """Names of the environments on this host."""
    return sorted(path.parent.name for path in root.glob("*/releases"))


def only_environment(root: Path = ROOT) -> str:
    """The one environment of this host. Raises :class:`UsageError` when there is none, or more than one."""
    match environments(root):
        case [name]:
            return name
        case []:
            raise SlipwayError("Nothing has been deployed to this host yet.", "Deploy something: playbooks/site.yml.")
        case names:
            raise UsageError(f"This host has several environments: {', '.join(names)}.", "Name one with --name.")


def _file(name: str, path: Path) -> File:
    status = path.stat()
    content = path.read_bytes().decode()
    return File(path=name, content=content, mode=f"{status.st_mode & 0o7777:04o}", uid=status.st_uid, gid=status.st_gid)


def _all_files(release: Release) -> list[File]:
    """The files of a release, its manifest, and the sums of both."""
    files = [*release.files, File(path=MANIFEST_FILE, content=_json(release.manifest))]
    return [*files, File(path=SUMS_FILE, content=_json({file.path: _sum(file.content.encode()) for file in files}))]


def _json(content: object) -> str:
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _same(path: Path, file: File) -> bool:
    try:
        status = path.stat()
        content = path.read_bytes()
    except OSError:
        return False
    return (
        content == file.content.encode()
        and status.st_mode & 0o7777 == int(file.mode, 8)
        and (status.st_uid, status.st_gid) == (file.uid, file.gid)
    )


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        stream.write(file.content)
        stream.flush()
        os.fchown(handle, file.uid, file.gid)
        os.fchmod(handle, int(file.mode, 8))
        os.fsync(handle)


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
