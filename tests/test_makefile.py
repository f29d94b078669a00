"""The Makefile's own refusals, before there is anything of the kit: one sentence, and nothing is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[1]
NOBODY = 65534

OLD_PYTHON = """\
#!/bin/sh
# The first question is whether it is new enough.
exit 1
"""
PYTHON_WITHOUT_VENV = f"""\
#!/bin/sh
# Debian's own says it on its standard output.
[ "$1" = -m ] && echo 'The virtual environment was not created: ensurepip is not available.' && exit 1
exec {sys.executable} "$@"
"""


@pytest.fixture
def checkout() -> Iterator[Path]:
    """What the Makefile reads of a checkout, with an environment that is up to date."""
    # Not tmp_path, which lies in a folder that only its owner enters.
    with tempfile.TemporaryDirectory(prefix="slipway-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "app/requirements.txt"):
            (path / name).parent.mkdir(exist_ok=True)
            shutil.copy(KIT / name, path / name)
        (path / ".venv").mkdir()
        for name in ("controller", "dev"):
            (path / ".venv" / name).touch()
        yield path


@pytest.fixture
def bare(checkout: Path) -> Path:
    """A checkout in which nothing was made yet."""
    shutil.rmtree(checkout / ".venv")
    return checkout


def refusal(checkout: Path, target: str, *variables: str, path: str = os.defpath, user: int | None = None) -> str:
    """Make a target, which has to fail, and give the one sentence that it says beside make's own words."""
    make = shutil.which("make")
    assert make is not None
    done = subprocess.run(
        [make, target, *variables],
        cwd=checkout,
        env={"PATH": path, "LC_ALL": "C"},
        user=user,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    [sentence] = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    return sentence


def a_python(checkout: Path, script: str) -> str:
    """Put a program in a Python's place; gives the variable that names it."""
    program = checkout / "python"
    program.write_text(script)
    program.chmod(0o755)
    return f"PYTHON={program}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a program as another user")
@pytest.mark.parametrize(
    "target", ["up", "down", "destroy", "lab", "lab-down", "test", "test-long", "faults", "bench", "test-vm", "fresh"]
)
def test_who_is_neither_root_nor_has_sudo_is_told_so(checkout: Path, target: str) -> None:
    identity = shutil.which("id")
    assert identity is not None
    (checkout / "bin").mkdir()
    (checkout / "bin" / "id").symlink_to(identity)
    assert refusal(checkout, target, path=str(checkout / "bin"), user=NOBODY) == (
        "This needs root. Run it as root, or install sudo and give this user the right to use it."
    )


def test_a_python_that_is_too_old_is_told_with_how_to_name_another(bare: Path) -> None:
    assert refusal(bare, "up", a_python(bare, OLD_PYTHON)) == (
        "Slipway needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3 up."
    )
    assert not (bare / ".venv").exists()


def test_a_python_without_venv_is_told_with_the_package_that_has_it(bare: Path) -> None:
    assert refusal(bare, "up", a_python(bare, PYTHON_WITHOUT_VENV)) == (
        "Python has no venv module here. Install it: apt-get install -y python3-venv."
    )
    assert not (bare / ".venv").exists()


def test_an_environment_that_does_not_exist_is_told_with_those_that_do(bare: Path) -> None:
    for name in ("staging", "local"):
        (bare / "inventories" / name).mkdir(parents=True)
        (bare / "inventories" / name / "hosts.yml").touch()
    assert refusal(bare, "verify", "env=nowhere") == "There is no environment nowhere. There are: local, staging."
    assert not (bare / ".venv").exists()
