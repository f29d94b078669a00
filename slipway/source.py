"""Pack what goes into an image, on the controller, and say which version of it this is.

Runs as the invoking user, so a builder needs neither git nor the checkout.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

# A context beyond this holds something that does not belong in it (a virtual environment, a database).
LARGEST = 20_000_000


class SourceError(Exception):
    """One sentence on what is wrong with the source and one on what to do."""


def pack(context: Path, *, dockerfile: str = "Dockerfile", version: str | None = None) -> dict[str, object]:
    """Pack the folder `context` for a build: everything that its .dockerignore lets through.

    With a `version` the result names the tags too: `<version>-build.<commits>` and `sha-<commit>` of the last
    commit that touched the folder, so that commits elsewhere build nothing; `dev` where git cannot vouch for
    the files. Shape: `archive` (base64 tar.gz), `inputs` (hash of the files), `version`, `revision`, `created`
    (seconds since 1970), `tags`, `why`.
    """
    if not (context / dockerfile).is_file():
        raise SourceError(f"{context} holds no {dockerfile}. Correct the image's context or dockerfile.")
    ignored = ignore_rules(_text(context / ".dockerignore"))
    files = sorted(_walk(context, lambda path: ignored(path) and path != dockerfile))
    size = sum((context / file).lstat().st_size for file in files)
    if size > LARGEST:
        raise SourceError(
            f"{context} would send {size // 1_000_000} MB to the build, more than {LARGEST // 1_000_000} MB. "
            "Name what does not belong there in its .dockerignore."
        )
    newest = int(max((context / file).lstat().st_mtime for file in files))
    source: dict[str, object] = {"tags": [], "version": "", "revision": "", "created": newest, "why": ""}
    if version is not None:
        source.update(_describe(context, files, ignored, version, newest))
    archive, inputs = _archive(context, files)
    return {**source, "archive": archive, "inputs": inputs}


def ignore_rules(text: str) -> Callable[[str], bool]:
    """The rules of a .dockerignore as a question: is this path, relative to the context, left out?

    As Docker reads them: every rule is anchored at the context, the last one that matches decides, `!` takes a
    path back in, `**` spans folders, and a rule for a folder covers what is in it.
    """
    rules: list[tuple[bool, re.Pattern[str]]] = []
    for line in text.splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        keep = rule.startswith("!")
        pattern = rule.removeprefix("!").strip().strip("/").removeprefix("./")
        rules.append((keep, re.compile(_regex(pattern) + r"(?:/.*)?\Z", re.DOTALL)))

    def ignored(path: str) -> bool:
        out = False
        for keep, pattern in rules:
            if pattern.match(path):
                out = not keep
        return out

    return ignored


def _regex(pattern: str) -> str:
    parts = {"**/": r"(?:.*/)?", "/**": r"/.*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    tokens = re.findall(r"\*\*/|/\*\*\Z|\*\*|\*|\?|\[[^]]*\]|.", pattern)
    return "".join(
        parts.get(token) or (token if token.startswith("[") and len(token) > 1 else re.escape(token))
        for token in tokens
    )


def _walk(context: Path, left_out: Callable[[str], bool]) -> Iterator[str]:
    for folder, folders, names in os.walk(context):
        for name in [*names, *(inner for inner in folders if (Path(folder) / inner).is_symlink())]:
            path = (Path(folder) / name).relative_to(context).as_posix()
            if not left_out(path):
                yield path


def _describe(
    context: Path, files: list[str], ignored: Callable[[str], bool], version: str, newest: int
) -> dict[str, object]:
    """Version, revision, time and tags of the folder, as git knows them."""
    dev: dict[str, object] = {"version": f"{version}-dev", "revision": "", "created": newest, "tags": ["dev"]}
    last = _git(context, "log", "-1", "--format=%H %ct", "--", ".").split()
    if not last:
        return {**dev, "why": "only dev: the source is not a git checkout"}
    if _git(context, "rev-parse", "--is-shallow-repository").strip() == "true":
        return {
            **dev,
            "why": "only dev: the checkout is shallow, so its commits cannot be counted (git fetch --unshallow)",
        }
    commit, created = last
    uncommitted = _uncommitted(context, files, ignored)
    if uncommitted:
        return {**dev, "revision": f"{commit}-dirty", "why": f"only dev: {uncommitted[0]} is not committed"}
    count = _git(context, "rev-list", "--count", commit).strip()
    short = _git(context, "rev-parse", "--short=7", commit).strip()
    return {
        "version": f"{version}-build.{count}",
        "revision": commit,
        "created": int(created),
        "tags": [f"{version}-build.{count}", f"sha-{short}"],
        "why": "",
    }


def _uncommitted(context: Path, files: list[str], ignored: Callable[[str], bool]) -> list[str]:
    """What would go into the image and is not as git has it: changed, deleted, or never added."""
    changed = _git(context, "diff", "--name-only", "--relative", "-z", "HEAD", "--", ".").split("\0")
    tracked = set(_git(context, "ls-files", "-z", "--", ".").split("\0"))
    return [path for path in changed if path and not ignored(path)] + [path for path in files if path not in tracked]


def _git(context: Path, *arguments: str) -> str:
    """What git says, or nothing where there is no git or no checkout."""
    settings = (
        "log.showSignature=false",
        # `sudo make up` in a user's checkout: root reads what another owns, and the kit runs from it anyway.
        "safe.directory=*",
        # A monitor that the checkout's own configuration names would be started.
        "core.fsmonitor=false",
        "core.quotePath=false",
    )
    options = [part for setting in settings for part in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", "-C", str(context), "--no-optional-locks", *options, *arguments],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else ""


def _archive(context: Path, files: list[str]) -> tuple[str, str]:
    """The files as a base64 tar.gz without times, owners or umask, and the hash of what is in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            entry = archive.gettarinfo(str(context / file), arcname=file)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = 0
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            if entry.isreg():
                with (context / file).open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)
    data = packed.getvalue()
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode(), hashlib.sha256(data).hexdigest()


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""
