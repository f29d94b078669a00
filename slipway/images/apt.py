"""Where this machine's apt gets Debian from, so that a base image can be made from the same mirrors.

apt's own listing (`apt-get indextargets`) takes a second; this is asked on every run and takes a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

ETC = Path("/etc/apt")
MIRROR_FILE = "mirror+file:"


class Entry(msgspec.Struct, frozen=True):
    """One package archive: address, release (`bookworm-updates`), components, and the keyring it is signed by."""

    uri: str
    release: str
    components: tuple[str, ...]
    signed_by: str = ""


def read(etc: Path = ETC) -> list[Entry]:
    """Every enabled binary archive of an apt configuration, in both of its file formats."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    entries = [entry for file in files if file.is_file() for entry in one_line(file.read_text())]
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        entries.extend(deb822(file.read_text()))
    return [resolved for entry in entries for resolved in _follow_mirror_file(entry)]


def one_line(text: str) -> Iterator[Entry]:
    """`deb [signed-by=…] URI RELEASE COMPONENT…`"""
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>[^#]+)", line)
        if not found:
            continue
        uri, release, *components = found["rest"].split()
        signed = re.search(r"signed-by=(\S+)", found["options"] or "", re.IGNORECASE)
        yield Entry(uri, release, tuple(components), signed[1] if signed else "")


def deb822(text: str) -> Iterator[Entry]:
    """Paragraphs of `Types:`, `URIs:`, `Suites:`, `Components:` and so on; a value may span indented lines."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        joined = re.sub(r"\n[ \t]+", " ", paragraph)
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (row.partition(":") for row in joined.splitlines())
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {
            "no",
            "false",
            "0",
        }:
            continue
        for uri in fields.get("uris", "").split():
            for release in fields.get("suites", "").split():
                yield Entry(uri, release, tuple(fields.get("components", "").split()), fields.get("signed-by", ""))


def debian_sources(entries: Iterable[Entry], *, codename: str, suite: str) -> list[str]:
    """Debian's own archives among `entries`, as sources.list lines for `suite`.

    Mirrors, updates and security stay as the machine has them. Other vendors' archives are left out, and so are
    addresses that only this machine can reach, such as `file:`. A user name and password in an address are
    dropped: an image is no place for them.
    """
    lines: dict[str, None] = {}
    for entry in entries:
        name, _, rest = entry.release.replace("/", "-").partition("-")
        url = urlsplit(entry.uri)
        if name not in {codename, suite, "stable", "oldstable"} or rest not in {"", "updates", "security"}:
            continue
        if "main" not in entry.components or url.scheme not in {"http", "https"} or not _is_debian(entry):
            continue
        address = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
        lines[f"deb {address} {suite}{f'-{rest}' if rest else ''} main"] = None
    return list(lines)


def _is_debian(entry: Entry) -> bool:
    """By its key where one is named, else by its address: mirrors end in /debian or /debian-security."""
    if entry.signed_by:
        return "debian-archive" in entry.signed_by
    return urlsplit(entry.uri).path.rstrip("/").rpartition("/")[2].startswith("debian")


def _follow_mirror_file(entry: Entry) -> Iterator[Entry]:
    """Debian's cloud images name their mirrors in a file; the first of them is the nearest."""
    if not entry.uri.startswith(MIRROR_FILE):
        yield entry
        return
    file = Path(entry.uri.removeprefix(MIRROR_FILE).replace("//", "/"))
    for line in file.read_text().splitlines() if file.is_file() else ():
        if line.strip() and not line.startswith("#"):
            yield msgspec.structs.replace(entry, uri=line.split()[0])
            return
