"""The documents lead somewhere: links, commands and files that they name exist, and what is generated is not stale."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from slipway import contract

KIT = Path(__file__).parents[1]
DOCUMENTS = [
    KIT / "README.md",
    KIT / "app/README.md",
    *sorted(KIT.glob("docs/*.md")),
    *sorted(KIT.glob("roles/*/README.md")),
]
SOURCES = [
    path
    for pattern in ("slipway/**/*.py", "plugins/**/*.py", "roles/**/*.yml", "playbooks/*.yml")
    for path in KIT.glob(pattern)
]
CONTRACT = (KIT / "docs/configure.md").read_text()
SHAPES = {
    "A service": contract.Service,
    "`resources`": contract.Resources,
    "`health`": contract.Health,
    "An expectation": contract.Expectation,
    "`database`": contract.DatabaseProbe,
    "`migrate`": contract.Migrate,
    "`backup`": contract.Backup,
    "`route`": contract.Route,
    "`tls`": contract.Tls,
    "`config_files`": contract.ConfigFile,
    "`config_schema`": contract.ConfigSchema,
    "`volumes`": contract.Volume,
}
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(KIT))


def anchors(document: Path) -> set[str]:
    """What a heading can be linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.is_relative_to(KIT), f"{link} leads out of the kit"
        assert target.is_file(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_make_target_and_playbook_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (KIT / "Makefile").read_text(), re.MULTILINE))
    typed = re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )?([a-z-]+)", text, re.MULTILINE)
    assert set(typed) <= targets
    for playbook in re.findall(r"playbooks/[a-z]+\.yml", text):
        assert (KIT / playbook).is_file(), f"{playbook} does not exist"


def test_every_document_that_an_error_names_exists() -> None:
    named = {found for path in SOURCES for found in re.findall(r"\bdocs/[\w-]+\.md", path.read_text())}
    assert named, "no error names a document any more; this test looks in the wrong place"
    assert not {found for found in named if not (KIT / found).is_file()}


HOLE = "\0"
"""Stands for what a program puts into a sentence."""
WORDY = 5
"""Letters from which on a text says something of its own, instead of only joining others."""
PLACE = re.compile(r"^/\S+: (?:\$\S* )?")
"""The file and the path in it that a finding is about; they are put before the sentence."""
SENTENCE_END = re.compile(rf"(?<=[.!?]) (?=[A-Z{HOLE}])")


def texts(source: Path) -> Iterator[str]:
    """All strings of a program, playbook or Makefile, each with a HOLE for every value that it is filled with."""
    text = source.read_text()
    if source.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.JoinedStr(values=parts):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in parts)
                case ast.Constant(value=str(said)):
                    yield said
    elif source.suffix == ".yml":
        yield from (re.sub(r"{{.*?}}", HOLE, said, flags=re.DOTALL) for said in strings(yaml.safe_load(text)))
    else:
        yield from (re.sub(r"\$\(\w+\)", HOLE, said) for said in re.findall(r"echo '([^']+)'", text))


def strings(data: Any) -> Iterator[str]:
    match data:
        case str():
            yield data
        case dict() | list():
            for value in data.values() if isinstance(data, dict) else data:
                yield from strings(value)


def sentences(text: str) -> list[str]:
    return SENTENCE_END.split(" ".join(text.split()))


@pytest.fixture(scope="module")
def said() -> list[re.Pattern[str]]:
    """Every sentence that the kit can say."""
    found: set[str] = set()
    for source in [*SOURCES, KIT / "Makefile"]:
        for text in texts(source):
            for sentence in sentences(text):
                # What goes into a text may be whole sentences, and then another one begins behind it.
                found |= {sentence, sentence.removeprefix(f"{HOLE} ")}
    return [
        re.compile(".+?".join(map(re.escape, sentence.split(HOLE))))
        for sentence in found
        if len(re.findall(r"[a-z]", sentence)) >= WORDY
    ]


TROUBLES = (KIT / "docs/troubleshooting.md").read_text()
QUOTED = re.findall(r"^> (.+)$", TROUBLES, re.MULTILINE) + [
    line
    for block in re.findall(r"^```text\n(.*?)^```$", TROUBLES, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.endswith(".") and not line.startswith(" ")  # not the display around it, nor what other programs say
]


@pytest.mark.parametrize("line", QUOTED)
def test_an_error_that_is_explained_is_one_that_the_kit_can_say(line: str, said: list[re.Pattern[str]]) -> None:
    shown = sentences(PLACE.sub("", line))
    assert not [sentence for sentence in shown if not any(pattern.fullmatch(sentence) for pattern in said)]


def test_every_role_has_a_readme_that_says_what_its_argument_specs_say() -> None:
    command = [sys.executable, str(KIT / "docs/generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("heading", "shape"), SHAPES.items(), ids=[shape.__name__ for shape in SHAPES.values()])
def test_every_key_of_the_contract_is_explained(heading: str, shape: type[msgspec.Struct]) -> None:
    section = CONTRACT.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    explained = {
        key
        for line in section.splitlines()
        if line.startswith("|")
        for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert explained == {field.name for field in msgspec.structs.fields(shape)}


@pytest.mark.parametrize(("heading", "shape"), SHAPES.items(), ids=[shape.__name__ for shape in SHAPES.values()])
def test_every_key_that_is_required_is_called_so(heading: str, shape: type[msgspec.Struct]) -> None:
    section = CONTRACT.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    called = {
        key
        for line in section.splitlines()
        if "| *required* |" in line
        for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert called == {field.name for field in msgspec.structs.fields(shape) if field.required}
