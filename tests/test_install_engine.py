"""What a host is told, and left with, when the engine cannot be installed there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KIT = Path(__file__).parents[1]
HOME = Path("/opt/slipway")


def test_an_engine_that_cannot_be_installed_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    python, packed = tmp_path / "python3", tmp_path / "packed.tar.gz"
    python.write_text("#!/bin/sh\necho 'No module named venv' >&2\nexit 1\n")
    python.chmod(0o755)
    packed.write_bytes(b"")
    before = sorted(HOME.glob("venv*"))
    ansible = [str(Path(sys.executable).with_name("ansible")), "localhost", "--connection", "local"]
    given = f"packed={packed} key=broken python={python}"
    done = subprocess.run(
        [*ansible, "--module-name", "slipway_engine", "--args", given],
        cwd=KIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"The engine could not be installed with {python}, and what was there before stays." in done.stdout
    assert "No module named venv" in done.stdout
    assert sorted(HOME.glob("venv*")) == before
