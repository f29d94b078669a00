"""Reads what apt on this machine is configured to fetch from, in both formats that apt knows.

The kit writes no mirror's host name into its files: whatever it needs of another suite comes from the mirror, and is
checked with the keyring, that the machine itself already uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_ONE_LINE = re.compile(
    r"^(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)$"
)


@dataclass(frozen=True)
class Source:
    """One place that apt fetches from: every combination of `uris` and `suites`, with these `components`.

    `signed_by` is the path of a keyring, a whole key in ASCII armour, or empty where apt's own trusted keys decide.
    """

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    types: tuple[str, ...] = field(default=("deb",))


def parse_one_line(text: str) -> list[Source]:
    """Read the one-line format (`sources.list`, `*.list`); lines that apt would not understand are left out."""
    sources = []
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
        sources.append(
            Source(
                uris=(match["uri"],),
                suites=(match["suite"],),
                components=tuple(match["rest"].split()),
                signed_by=options.get("signed-by", ""),
                types=(match["type"],),
            )
        )
    return sources


def parse_deb822(text: str) -> list[Source]:
    """Read the deb822 format (`*.sources`); stanzas with `Enabled: no` or without the needed fields are left out."""
    sources = []
    for stanza in re.split(r"\n[ \t]*\n", _without_comments(text)):
        fields = _fields(stanza)
        if fields.get("enabled", "yes").strip().lower() in {"no", "false", "0", "off", "without", "disable"}:
            continue
        if not fields.get("uris", "").strip() or not fields.get("suites", "").strip():
            continue
        sources.append(
            Source(
                uris=tuple(fields["uris"].split()),
                suites=tuple(fields["suites"].split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", "").strip("\n "),
                types=tuple(fields.get("types", "deb").split()),
            )
        )
    return sources


def read_sources(root: Path = Path("/etc/apt")) -> list[Source]:
    """Read `sources.list` and then `sources.list.d` in apt's order. A file that cannot be read is left out."""
    formats = {".list": parse_one_line, ".sources": parse_deb822}
    parts = root / "sources.list.d"
    files = [root / "sources.list", *(sorted(parts.iterdir()) if parts.is_dir() else [])]
    return [source for file in files if file.suffix in formats for source in _read(file, formats[file.suffix])]


def _read(file: Path, parse: Callable[[str], list[Source]]) -> list[Source]:
    try:
        return parse(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in {" ", "\t"}:
            # A continued value: an embedded key keeps its lines, with a lone dot for an empty one.
            fields[name] = fields.get(name, "") + "\n" + line
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        fields[name] = value.strip()
    return fields
