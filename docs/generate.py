"""Write roles/<role>/README.md from what meta/argument_specs.yml and defaults/main.yml of each role say.

`make docs` runs it; with --check it writes nothing and names the READMEs that are stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

KIT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made by `make docs` from meta/argument_specs.yml. Change that file, not this one. -->"
ENTRY = "main"
"""The entry point of a role that an inventory configures; others are named with the tasks file they stand for."""

MARKUP = re.compile(r"\b(?:C|V|O|I|B|E|RV|M)\(((?:[^()\\]|\\.)*)\)")
"""Ansible's own markup in descriptions, `C(word)`; source: Ansible's guide to semantic markup."""


def readme(role: Path) -> str:
    """Lay out the README of the role in the folder `role`."""
    entries: dict[str, Any] = _load(role / "meta/argument_specs.yml")["argument_specs"]
    defaults: dict[str, Any] = _load(role / "defaults/main.yml")
    blocks = [f"# Role `{role.name}`", NOTE]
    for name, entry in sorted(entries.items(), key=lambda item: item[0] != ENTRY):
        if name != ENTRY:
            blocks.append(f"## Tasks `{name}`")
        blocks.append(f"{_text(entry['short_description']).rstrip('.')}.")
        blocks += [_text(paragraph) for paragraph in _paragraphs(entry.get("description"))]
        if name != ENTRY and entry.get("options") == entries[ENTRY].get("options"):
            blocks.append("It takes the same variables.")
        else:
            blocks.append(_table(entry.get("options") or {}, defaults))
    return "\n\n".join(blocks) + "\n"


def _table(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    rows = ["| variable | type | default | meaning |", "|---|---|---|---|", *_rows(options, defaults, "")]
    return "\n".join(rows)


def _rows(options: Mapping[str, Any], defaults: Mapping[str, Any], parent: str) -> Iterator[str]:
    for name, option in options.items():
        path = f"{parent}{name}"
        meaning = " ".join(_text(paragraph) for paragraph in _paragraphs(option.get("description")))
        if choices := option.get("choices"):
            meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        cells = [f"`{path}`", _type(option), _default(name, option, {} if parent else defaults), meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        within = f"{path}[]." if option.get("type") == "list" else f"{path}."
        yield from _rows(option.get("options") or {}, defaults, within)


def _type(option: Mapping[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def _default(name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "*required*"
    value = option.get("default", defaults.get(name))
    if value is None:
        return "unset"
    if value in ("", [], {}):
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _paragraphs(description: str | list[str] | None) -> list[str]:
    if description is None:
        return []
    return [description] if isinstance(description, str) else description


def _text(paragraph: str) -> str:
    return MARKUP.sub(r"`\1`", " ".join(paragraph.split()))


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}
    return found


def main(arguments: list[str]) -> int:
    """Write every README, or with --check only say which are stale. Returns the exit code."""
    wanted = {
        specs.parents[1]: readme(specs.parents[1]) for specs in sorted(KIT.glob("roles/*/meta/argument_specs.yml"))
    }
    files = {role / "README.md": text for role, text in wanted.items()}
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    if arguments == ["--check"]:
        names = ", ".join(str(path.relative_to(KIT)) for path in stale)
        if stale:
            sys.stderr.write(f"Not as their argument specs say: {names}. Run `make docs`.\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(files[path])
        sys.stdout.write(f"wrote {path.relative_to(KIT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
