"""The documents lead somewhere: links, commands and files that they name exist, and what is generated is not stale."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

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
    "`migrate`": contract.Migrate,
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
    targets = set(re.findall(r"^([a-z]+):", (KIT / "Makefile").read_text(), re.MULTILINE))
    typed = re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )?([a-z]+)", text, re.MULTILINE)
    assert set(typed) <= targets
    for playbook in re.findall(r"playbooks/[a-z]+\.yml", text):
        assert (KIT / playbook).is_file(), f"{playbook} does not exist"


def test_every_document_that_an_error_names_exists() -> None:
    named = {found for path in SOURCES for found in re.findall(r"\bdocs/[\w-]+\.md", path.read_text())}
    assert named, "no error names a document any more; this test looks in the wrong place"
    assert not {found for found in named if not (KIT / found).is_file()}


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
