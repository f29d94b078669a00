"""Stacks: why containers are replaced, decided without Docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.errors import UsageError
from slipway.stack import Running, StackFile, StackRequest, drift, run

WANTED = {"registry": "hash-1"}


def running(**change: object) -> Running:
    fields: dict[str, object] = {
        "id": "1",
        "name": "slipway-registry-registry-1",
        "service": "registry",
        "state": "running",
        "health": "healthy",
        "restarts": 0,
        "config": "hash-1",
        "image": "sha256:1",
        "image_now": "sha256:1",
        "created": 100.0,
    }
    return Running(**{**fields, **change})  # type: ignore[arg-type]  # each case changes one field


@pytest.mark.parametrize(
    ("containers", "reasons"),
    [
        ([running()], []),
        ([running(health="starting")], []),
        ([running(health="")], []),
        ([], ["registry is not there"]),
        ([running(config="hash-0")], ["registry runs with other settings"]),
        ([running(image_now="sha256:2")], ["registry runs an older image"]),
        ([running(created=49.0)], ["registry has not seen its newest config"]),
        ([running(state="exited")], ["registry is exited"]),
        ([running(health="unhealthy")], ["registry is unhealthy"]),
        ([running(), running(service="old")], ["old is no longer declared"]),
    ],
)
def test_a_container_is_replaced_only_for_a_reason(containers: list[Running], reasons: list[str]) -> None:
    assert drift(containers, WANTED, files_written=50.0) == reasons


@pytest.mark.parametrize("path", ["/etc/passwd", "../escape", "a/../../b"])
def test_a_file_outside_of_the_stacks_folder_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies outside of the stack's folder"):
        run(StackRequest(name="t-outside", files=[StackFile(path=path, content="")]), tmp_path)


@pytest.mark.parametrize("name", ["../x", "", "a", "Registry"])
def test_a_name_that_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a name of a stack"):
        run(StackRequest(name=name), tmp_path)
