"""Files that a host gets together: all of them, or none where one is refused. On this machine, by the module itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).parents[1] / "plugins"
RUN = (
    "import ansible.module_utils, runpy, sys; "
    f"ansible.module_utils.__path__.append({str(PLUGINS / 'module_utils')!r}); "
    f"runpy.run_path({str(PLUGINS / 'modules/host_files.py')!r}, run_name='__main__')"
)
"""Runs the module with what Ansible sends along with it."""
JUDGE: dict[str, Any] = {"validate": ["grep", "--quiet", "good", "%s"], "otherwise": "It is not good."}


def host_files(folder: Path, *files: Mapping[str, object]) -> dict[str, Any]:
    """Run the module, which gives its files to root."""
    arguments = folder / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"files": files}}))
    done = subprocess.run([sys.executable, "-c", RUN, arguments], capture_output=True, text=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_files_are_there_once_all_of_them_were_accepted(tmp_path: Path) -> None:
    mark, config = tmp_path / "new/mark", tmp_path / "new/config"
    files = [
        {"path": str(mark), "content": ""},
        {"path": str(config), "content": "good\n", **JUDGE},
    ]
    assert host_files(tmp_path, *files)["changed"]
    assert (mark.read_text(), config.read_text()) == ("", "good\n")
    assert not host_files(tmp_path, *files)["changed"]


def test_where_one_is_refused_none_is_written(tmp_path: Path) -> None:
    mark, config = tmp_path / "mark", tmp_path / "config"
    config.write_text("good before\n")
    files = [
        {"path": str(mark), "content": ""},
        {"path": str(config), "content": "bad\n", **JUDGE},
    ]
    answer = host_files(tmp_path, *files)
    assert answer["msg"].startswith("It is not good. grep --quiet good ")
    assert answer["msg"].endswith("Nothing was changed.")
    assert config.read_text() == "good before\n"
    assert not mark.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arguments.json", "config"]


def test_what_is_there_already_is_not_judged_again(tmp_path: Path) -> None:
    config = tmp_path / "config"
    wanted = {"path": str(config), "content": "bad\n"}
    assert host_files(tmp_path, wanted)["changed"]
    assert host_files(tmp_path, {**wanted, **JUDGE})["changed"] is False
