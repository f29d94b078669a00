"""What lies on a host: whole or not there, whenever the power goes."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slipway.contract import Health, Service
from slipway.errors import PreflightError, SlipwayError, UsageError
from slipway.release import File, Manifest, Release
from slipway.store import Store, environments, only_environment


def release(release_id: str = "r1", files: int = 2, content: str = "text") -> Release:
    return Release(
        manifest=Manifest(
            name="shop", environment="p", id=release_id, kit="1", images={}, tags={}, fingerprints={}, services={}
        ),
        files=[File(path=f"config/api/{number}.json", content=content, mode="0440") for number in range(files)],
    )


def place(store: Store, wanted: Release) -> None:
    store.keep(store.place(wanted))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store("shop", tmp_path)


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a", "../x", "Shop", "shop_1", "-shop", "1shop", "x" * 42, "shop\n"])
def test_a_name_that_could_not_be_a_folder_and_a_compose_project_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a name of an environment"):
        Store(name, tmp_path)


def test_the_only_environment_of_a_host_need_not_be_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"Nothing has been deployed to this host yet\."):
        only_environment(tmp_path)
    place(store, release())
    assert only_environment(tmp_path) == "shop"
    place(Store("cafe", tmp_path), release())
    with pytest.raises(UsageError, match=r"This host has several environments: cafe, shop\. Name one with --name\."):
        only_environment(tmp_path)


# --- releases -----------------------------------------------------------------------------------------------------


def test_a_kept_release_holds_every_file_with_its_mode(store: Store) -> None:
    place(store, release())
    assert store.holds(release())
    assert store.ids() == ["r1"]
    assert store.manifest("r1") == release().manifest
    assert stat.S_IMODE((store.path("r1") / "config/api/0.json").stat().st_mode) == 0o440
    for folder in (store.folder, store.releases, store.path("r1")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["$", "${VAR}", "a\r\nb", "ü\u2028", ""])
def test_a_file_is_written_byte_for_byte(text: str, store: Store) -> None:
    place(store, release(content=text))
    assert (store.path("r1") / "config/api/0.json").read_bytes() == text.encode()


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_text("edited"),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o444),
        lambda path: os.chown(path, 1, 0),
    ],
    ids=["edited", "removed", "opened to all", "given away"],
)
def test_a_release_that_someone_changed_by_hand_is_not_held_and_is_mended(
    harm: Callable[[Path], None], store: Store
) -> None:
    place(store, release())
    harm(store.path("r1") / "config/api/0.json")
    assert not store.holds(release())
    place(store, release())
    assert store.holds(release())
    assert [path.name for path in store.releases.iterdir()] == ["r1"]


@pytest.mark.parametrize(
    ("harm", "path", "how"),
    [
        (lambda path: path.write_text("edited"), "config/api/0.json", "changed"),
        (lambda path: path.unlink(), "config/api/0.json", "absent"),
        (lambda path: (path.parent / "more.json").touch(), "config/api/more.json", "not declared"),
    ],
    ids=["edited", "removed", "added"],
)
def test_a_file_that_someone_changed_by_hand_shows(
    harm: Callable[[Path], None], path: str, how: str, store: Store
) -> None:
    place(store, release())
    assert store.altered("r1") == {}
    harm(store.path("r1") / "config/api/0.json")
    assert store.altered("r1") == {path: how}


def test_a_file_of_the_host_is_none_of_the_release(store: Store) -> None:
    place(store, release())
    (store.path("r1") / ".env").write_text("SLIPWAY_NETWORK=10.207.0\n")
    assert store.altered("r1") == {}


def test_without_its_sums_a_release_says_that_edits_do_not_show(store: Store) -> None:
    place(store, release())
    (store.path("r1") / "sums.json").unlink()
    assert store.altered("r1") == {"sums.json": "absent or unreadable, so edits do not show"}


def test_only_root_reads_the_sums(store: Store) -> None:
    place(store, release())
    assert stat.S_IMODE((store.path("r1") / "sums.json").stat().st_mode) == 0o400


def test_a_discarded_release_is_gone_with_all_that_it_held(store: Store) -> None:
    place(store, release("r1"))
    place(store, release("r2"))
    store.discard("r1")
    assert [path.name for path in store.releases.iterdir()] == ["r2"]


def test_a_release_whose_removal_was_killed_is_not_there_and_is_swept(store: Store) -> None:
    # The first step of a removal, after which the call is killed.
    place(store, release("r1"))
    store.path("r1").rename(store.releases / ".staging-removed-0")
    assert store.ids() == []
    place(store, release("r2"))
    assert [path.name for path in store.releases.iterdir()] == ["r2"]


def test_a_placed_release_is_not_there_until_it_is_kept(store: Store) -> None:
    folder = store.place(release())
    assert store.ids() == []
    store.drop(folder)
    assert list(store.releases.iterdir()) == []


def test_a_release_that_is_not_on_this_host_is_one_sentence(store: Store) -> None:
    with pytest.raises(PreflightError, match=r"There is no release r9 of shop on this host\. See what there is: "):
        store.manifest("r9")


def test_current_moves_in_one_step(store: Store) -> None:
    assert store.current() is None
    for release_id in ("r1", "r2"):
        place(store, release(release_id))
        store.point(release_id)
        assert store.current() == release_id
        assert (store.folder / "current" / "manifest.json").exists()
    assert not list(store.folder.glob(".current*"))


# --- crashes ------------------------------------------------------------------------------------------------------

STAGE_FOR_EVER = """
import sys
from pathlib import Path
from slipway.release import File, Manifest, Release
from slipway.store import Store

store = Store("shop", Path(sys.argv[1]))
number = 0
while True:
    for number in range(2):
        release = Release(
            manifest=Manifest(name="shop", environment="p", id="r1", kit=str(number), images={}, tags={},
                              fingerprints={}, services={}),
            files=[File(path=f"config/api/{file}.json", content=str(number) * 9000) for file in range(20)],
        )
        store.keep(store.place(release))
        print("kept", flush=True)
"""


def test_a_release_is_whole_or_absent_whenever_the_call_is_killed(store: Store, tmp_path: Path) -> None:
    rest = random.Random(7)  # noqa: S311 - moments to kill at, not secrets
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", STAGE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child, child.stdout:
            child.stdout.readline()
            time.sleep(rest.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
        for release_id in store.ids():
            folder = store.path(release_id)
            number = store.manifest(release_id).kit
            files = list((folder / "config/api").iterdir())
            assert len(files) == 20
            assert {path.read_text() for path in files} == {number * 9000}
        place(store, release())
        assert store.holds(release())
        assert [path.name for path in store.releases.iterdir()] == ["r1"]


def test_a_release_whose_replacement_was_killed_between_the_two_names_is_there_again(store: Store) -> None:
    place(store, release())
    store.place(release())
    store.path("r1").rename(store.releases / ".staging-edited-r1")
    place(store, release("r2"))
    assert store.ids() == ["r1", "r2"]


def test_a_removal_that_was_killed_leaves_nothing_that_the_next_one_trips_over(store: Store, tmp_path: Path) -> None:
    # The first step of a removal, after which the call is killed.
    place(store, release())
    store.releases.rename(store.folder / ".staging-0")
    assert store.ids() == []
    assert environments(tmp_path) == []
    store.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tiny: Path) -> None:
    store = Store("shop", tiny)
    place(store, release("r1"))
    with pytest.raises(PreflightError, match=r"The disk is full: .* Free some space on that file system"):
        store.place(release("r2", files=3, content="x" * 40_000))
    assert [path.name for path in store.releases.iterdir()] == ["r1"]
    place(store, release("r3"))
    assert store.ids() == ["r1", "r3"]


# --- the lock -----------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from slipway.store import Store

with Store("shop", Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_a_second_call_is_told_which_process_is_at_work(holder: subprocess.Popen[str], store: Store) -> None:
    with (
        pytest.raises(PreflightError, match=rf"Another slipway call \(process {holder.pid}\) is at work on shop\."),
        store.lock(patience=0.1),
    ):
        pytest.fail("two calls hold one lock")


def test_environments_do_not_wait_for_one_another(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with Store("cafe", tmp_path).lock(patience=0):
        assert holder.poll() is None


def test_the_lock_of_a_killed_call_is_free_at_once(holder: subprocess.Popen[str], store: Store) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.lock(patience=0):
        assert (store.folder / "lock").read_text() == f"{os.getpid()}\n"


def test_a_release_that_another_version_of_the_kit_wrote_stays_readable(store: Store) -> None:
    place(store, release())
    path = store.path("r1") / "manifest.json"
    service = {"image": "r/api", "user": "1:1", "invented": [1], "health": {"path": "/health", "invented": True}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "services": {"api": service}, "invented": 1}))
    assert store.manifest("r1").services == {"api": Service(image="r/api", user="1:1", health=Health(path="/health"))}


def test_a_manifest_that_cannot_be_read_is_one_sentence(store: Store) -> None:
    place(store, release())
    (store.path("r1") / "manifest.json").write_text("{}")
    with pytest.raises(
        PreflightError, match="r1 of shop was written by a version of the kit that this one cannot read"
    ):
        store.manifest("r1")
