"""An archive off the host: backups, drills and restores with real restic on real Docker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.archive.restore import BEFORE, RESTORED
from slipway.lease import Leases
from slipway.store import RESTORING_FILE
from tests.engine import archive_targets
from tests.engine.archive_targets import Sftp, s3, wait_until
from tests.engine.conftest import SECRET, Environment, Make, docker, get

pytestmark = pytest.mark.docker

PASSWORD = "the-password-of-a-test-archive"
BACKUP = {verb: ["backup", verb] for verb in ("create", "verify", "count", "restore", "status", "anonymise")}
VOLUMES = {
    "data": {"path": "/app/data", "uid": 1001, "gid": 1001},
    "uploads": {"path": "/app/uploads", "uid": 1001, "gid": 1001, "backup": True},
}


class Shop:
    """An environment with rows, uploads and an archive in a folder."""

    def __init__(self, environment: Environment, target: Path) -> None:
        self.environment = environment
        self.target = target
        self.deploy("1.0")
        self.declare()

    def deploy(self, version: str, **change: Any) -> str:
        migrate = {**self.environment.services("1.0")["app"]["migrate"], "backup": BACKUP}
        deployed = self.environment.deploy(version, migrate=migrate, volumes=VOLUMES, **change)
        return deployed.id

    def declare(self, **change: Any) -> dict[str, Any]:
        target = {"url": str(self.target), "password": PASSWORD, **change.pop("target", {})}
        return self.environment.ask("archive", name=self.environment.name, target=target, host="app1", **change)

    def append(self, *rows: str) -> None:
        for row in rows:
            url = f"http://127.0.0.1:{self.environment.port}/rows"
            request = urllib.request.Request(url, data=row.encode(), method="POST")
            urllib.request.urlopen(request, timeout=2).close()

    def rows(self) -> list[str]:
        return (self.environment.volume() / "rows").read_text().splitlines()

    @property
    def uploads(self) -> Path:
        return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"{self.environment.name}-uploads"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        verb, *rest = arguments
        return self.environment.slipway(verb, "--name", self.environment.name, *rest)

    def told(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def backup(self) -> str:
        self.told("backup")
        return str(self.newest()["id"])

    def newest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.told("backups", "--json"))[0]
        return found

    def restore(self, backup: str, *more: str) -> str:
        return self.told("restore", "--backup", backup, "--confirm-data-loss", backup, *more)

    def closed(self) -> bool:
        try:
            get(self.environment.port, "/rows")
        except urllib.error.HTTPError as error:
            return error.code == 503
        return False


@pytest.fixture
def shop(make_environment: Make, tmp_path: Path) -> Iterator[Shop]:
    environment = make_environment()
    yield Shop(environment, tmp_path / "archive")
    environment.clear()


@pytest.mark.long
def test_a_backup_is_verified_before_it_leaves_and_a_drill_restores_it_from_the_archive(shop: Shop) -> None:
    assert "The archive is empty" in shop.told("backups")
    shop.append("one", "two")
    (shop.uploads / "photo.jpg").write_bytes(b"light")
    assert "Backed up the database of app, volume" in shop.told("backup")
    assert shop.told("backups").splitlines()[1].endswith("ago, before it left")
    assert "can be restored" in shop.told("drill")
    line = shop.told("backups").splitlines()[1]
    assert line.endswith("ago, from the archive")
    assert "database" in line
    assert f"{shop.environment.name}-uploads" in line
    drill = shop.environment.ledger()[-1]
    assert (drill.phase, drill.result) == ("drill", "good")
    assert drill.seconds > 0
    assert drill.data_age > 0


@pytest.mark.long
def test_a_restore_says_what_is_lost_and_waits_for_a_yes(shop: Shop) -> None:
    shop.append("one")
    backup = shop.backup()
    shop.append("two", "three")
    told = shop.refused("restore")
    assert f"Restoring {backup} replaces the data" in told
    assert f"confirm_data_loss={backup}" in told
    assert "rows: 1 then, 3 now" in told
    assert shop.rows() == ["one", "two", "three"]
    assert not (shop.environment.folder / RESTORING_FILE).exists()


def test_a_restore_brings_back_rows_and_files_and_lets_users_in_again(shop: Shop) -> None:
    shop.append("one")
    (shop.uploads / "photo.jpg").write_bytes(b"light")
    backup = shop.backup()
    shop.append("two")
    (shop.uploads / "photo.jpg").unlink()
    (shop.uploads / "other.jpg").write_bytes(b"dark")
    assert "has the data of" in shop.restore(backup)
    assert shop.rows() == ["one"]
    assert [path.name for path in shop.uploads.iterdir()] == ["photo.jpg"]
    assert (shop.uploads / "photo.jpg").read_bytes() == b"light"
    assert shop.uploads.stat().st_uid == 1001
    assert get(shop.environment.port)["status"] == "ready"
    assert shop.told("status").splitlines()[1].endswith("healthy")
    assert {path.name for path in shop.uploads.parent.iterdir()} & {BEFORE, RESTORED} == set()
    restored = shop.environment.ledger()[-1]
    assert (restored.phase, restored.result, restored.backup) == ("restore", "good", backup)


@pytest.mark.long
def test_a_restore_to_a_time_takes_the_newest_from_before_it(shop: Shop) -> None:
    shop.append("one")
    first = shop.backup()
    time.sleep(1.1)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1.1)
    shop.append("two")
    assert shop.backup() != first
    assert f"confirm_data_loss={first}" in shop.refused("restore", "--to", moment)
    assert "The archive has no backup from 2001" in shop.refused("restore", "--to", "2001-01-01")


@pytest.mark.long
def test_a_restore_to_a_release_has_that_release_serve(shop: Shop) -> None:
    old = shop.environment.current()
    shop.append("one")
    backup = shop.backup()
    new = shop.deploy("2.0")
    assert shop.environment.current() == new != old
    shop.append("two")
    shop.told("restore", "--release", old[:8], "--confirm-data-loss", backup)
    assert shop.environment.current() == old
    assert shop.environment.version() == "1.0"
    assert shop.rows() == ["one"]
    assert (shop.environment.volume() / "schema").read_text() == "0001"


@pytest.mark.long
def test_older_data_is_migrated_to_what_the_release_needs(shop: Shop) -> None:
    shop.append("one")
    backup = shop.backup()
    shop.deploy("2.0")
    shop.append("two")
    shop.restore(backup)
    assert shop.environment.version() == "2.0"
    assert shop.rows() == ["one"]
    assert (shop.environment.volume() / "schema").read_text() == "0002"


@pytest.mark.long
def test_a_restore_that_fails_puts_back_what_was_there(shop: Shop) -> None:
    shop.append("one")
    (shop.uploads / "photo.jpg").write_bytes(b"light")
    backup = shop.backup()
    shop.deploy("1.0", env={"BACKUP": "restore fails once"})
    shop.append("two")
    (shop.uploads / "photo.jpg").write_bytes(b"dark")
    told = shop.refused("restore", "--backup", backup, "--confirm-data-loss", backup)
    assert "`backup restore` ended with exit code 1" in told
    assert SECRET not in told
    assert shop.rows() == ["one", "two"]
    assert (shop.uploads / "photo.jpg").read_bytes() == b"dark"
    assert get(shop.environment.port)["status"] == "ready"
    assert not (shop.environment.folder / RESTORING_FILE).exists()


@pytest.mark.long
@pytest.mark.parametrize("moment", ["fetched", "stopped", "replaced"])
def test_a_restore_that_is_killed_keeps_deploys_away_until_it_is_repeated(shop: Shop, moment: str) -> None:
    shop.append("one")
    (shop.uploads / "photo.jpg").write_bytes(b"light")
    backup = shop.backup()
    shop.append("two")
    (shop.uploads / "photo.jpg").write_bytes(b"dark")
    uploads = shop.uploads

    def stopped() -> bool:
        mark = shop.environment.folder / RESTORING_FILE
        return mark.exists() and not shop.environment.containers(running=True)

    when: dict[str, Callable[[], bool]] = {
        "fetched": (uploads.parent / RESTORED).exists,
        "stopped": stopped,
        "replaced": (uploads.parent / BEFORE).exists,
    }
    kill_when(shop, when[moment], "restore", "--backup", backup, "--confirm-data-loss", backup)
    with pytest.raises(Environment.Refused, match="was begun and has not ended"):
        shop.deploy("1.1")
    assert "NOT AS DECLARED" in shop.run("status").stdout
    if moment == "replaced":
        assert "is half restored here, so users stay kept out" in shop.run("restore", "--json", "--step", "open").stdout
        assert shop.closed()
    shop.restore(backup)
    assert shop.rows() == ["one"]
    assert (uploads / "photo.jpg").read_bytes() == b"light"
    assert shop.told("status").splitlines()[1].endswith("healthy")
    assert {path.name for path in uploads.parent.iterdir()} & {BEFORE, RESTORED} == set()
    shop.deploy("1.1")


def kill_when(shop: Shop, moment: Callable[[], bool], verb: str, *arguments: str) -> None:
    command = shop.environment.command(verb, "--name", shop.environment.name, *arguments)
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as call:
        deadline = time.monotonic() + 30
        while not moment():
            assert call.poll() is None, f"{verb} ended before the moment to kill it"
            assert time.monotonic() < deadline, f"the moment to kill {verb} never came"
        call.send_signal(signal.SIGKILL)


@pytest.mark.long
def test_a_backup_that_is_killed_is_none_and_the_next_one_goes_through(shop: Shop) -> None:
    shop.append("one")
    (shop.uploads / "large").write_bytes(b"0123456789" * 10_000_000)
    outgoing = shop.environment.folder / "archive" / "outgoing"
    kill_when(shop, (outgoing / "about.json").exists, "backup")
    assert json.loads(shop.told("backups", "--json")) == []
    shop.backup()
    assert not outgoing.exists()
    assert len(json.loads(shop.told("backups", "--json"))) == 1


@pytest.mark.long
def test_a_damaged_archive_is_found_by_the_drill(shop: Shop) -> None:
    shop.append("one")
    shop.backup()
    packs = sorted(
        (shop.target / shop.environment.name / "app1" / "data").rglob("*"), key=lambda path: path.stat().st_size
    )
    pack = [path for path in packs if path.is_file()][-1]
    pack.chmod(0o600)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 0xFF
    pack.write_bytes(content)
    told = shop.refused("drill")
    assert "is damaged" in told
    assert shop.environment.ledger()[-1].result == "failed"
    assert not shop.newest()["drilled"]


@pytest.mark.long
def test_a_wrong_password_opens_nothing_and_changes_nothing(shop: Shop) -> None:
    with pytest.raises(Environment.Refused, match="does not open with this password"):
        shop.declare(target={"password": "another-password-for-the-archive"})
    shop.backup()


@pytest.mark.long
def test_a_target_that_is_gone_is_a_failed_backup(shop: Shop, tmp_path: Path) -> None:
    shop.append("one")
    shop.target.rename(tmp_path / "moved")
    assert "There is no archive at" in shop.refused("backup")
    assert shop.environment.ledger()[-1].result == "failed"
    (tmp_path / "moved").rename(shop.target)
    shop.backup()


@pytest.mark.long
def test_a_full_target_is_told_and_the_older_backups_stay(shop: Shop, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(small)], check=True)
    try:
        shop.declare(target={"url": f"{small}/archive"})
        shop.append("one")
        first = shop.backup()
        subprocess.run(["dd", "if=/dev/urandom", f"of={shop.uploads}/large", "bs=1M", "count=30"], check=True)
        assert "is full" in shop.refused("backup")
        assert shop.environment.ledger()[-1].result == "failed"
        (shop.uploads / "large").unlink()
        assert shop.newest()["id"] == first
        assert "can be restored" in shop.told("drill")
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.long
def test_a_full_disk_is_told_and_nothing_is_left_of_the_backup(shop: Shop) -> None:
    shop.append("one")
    first = shop.backup()
    outgoing = shop.environment.folder / "archive" / "outgoing"
    outgoing.mkdir()
    # Of random letters, so that packing them does not make them small.
    shop.append(*(os.urandom(1_000_000).hex() for _ in range(2)))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(outgoing.parent)], check=True)
    try:
        shop.declare()
        assert "The disk is full: the backup could not be written" in shop.refused("backup")
        assert shop.environment.ledger()[-1].result == "failed"
        assert list(outgoing.rglob("backup")) == []
    finally:
        subprocess.run(["umount", str(outgoing.parent)], check=True)
    assert shop.newest()["id"] == first
    assert shop.backup() != first


@pytest.mark.long
def test_a_restart_of_the_application_in_the_middle_of_a_backup_harms_neither(shop: Shop) -> None:
    shop.append("one")
    (shop.uploads / "large").write_bytes(os.urandom(100_000_000))
    about = shop.environment.folder / "archive" / "outgoing" / "about.json"
    command = shop.environment.command("backup", "--name", shop.environment.name)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as call:
        wait_until(about.exists)
        docker("restart", *(entry["Id"] for entry in shop.environment.containers(running=True)))
        assert call.wait(timeout=120) == 0
    assert "can be restored" in shop.told("drill")


@pytest.mark.long
def test_old_backups_go_and_the_newest_stay(shop: Shop) -> None:
    shop.declare(keep={"last": 2})
    made = []
    for row in ("one", "two", "three"):
        shop.append(row)
        made.append(shop.backup())
        time.sleep(1.1)
    assert [one["id"] for one in json.loads(shop.told("backups", "--json"))] == [made[2], made[1]]


@pytest.mark.long
def test_where_a_clock_was_set_back_the_backup_that_was_just_taken_stays(shop: Shop) -> None:
    shop.declare(keep={"last": 1})
    archive = shop.environment.folder / "archive"
    repository = f"--repo={shop.target}/{shop.environment.name}/app1"
    command = ["restic", repository, f"--password-file={archive}/password", "--no-cache"]
    later = ["--host=app1", "--tag=slipway", "--tag=id=20400101T000000Z", "--time=2040-01-01 00:00:00"]
    subprocess.run([*command, "backup", "--quiet", *later, str(archive / "archive.json")], check=True)
    shop.append("one")
    shop.told("backup")
    found = [one["id"] for one in json.loads(shop.told("backups", "--json"))]
    assert found[0] == "20400101T000000Z"
    assert len(found) == 2


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    folder = tmp_path / "sftp"
    folder.mkdir()
    with archive_targets.sftp(folder) as server:
        yield server


@pytest.mark.long
def test_another_host_keeps_the_archive_over_ssh_and_sees_nothing_of_it(shop: Shop, sftp: Sftp) -> None:
    shop.declare(target=sftp.target)
    shop.append("alice@example.com")
    backup = shop.backup()
    shop.append("two")
    shop.told("drill")
    shop.restore(backup)
    assert shop.rows() == ["alice@example.com"]
    kept = [path for path in (sftp.folder / "archive").rglob("*") if path.is_file()]
    assert kept
    assert not any(b"alice" in path.read_bytes() for path in kept)


@pytest.mark.long
def test_an_s3_store_keeps_the_archive_and_sees_nothing_of_it(shop: Shop, tmp_path: Path) -> None:
    with s3(tmp_path, "backups") as target:
        shop.declare(target=target)
        shop.append("one")
        backup = shop.backup()
        shop.append("two")
        shop.told("drill")
        shop.restore(backup)
        assert shop.rows() == ["one"]
        with pytest.raises(Environment.Refused, match="cannot be reached, or does not let this host in"):
            shop.declare(target={**target, "ca": ""})
    assert target["secret_key"] not in "".join(shop.environment.said)
    assert "cannot be reached" in shop.refused("backup")


@pytest.mark.long
def test_a_host_with_another_key_is_not_told_anything(shop: Shop, sftp: Sftp, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    with pytest.raises(Environment.Refused, match="cannot be reached, or does not let this host in"):
        shop.declare(target={**sftp.target, "known_hosts": f"[127.0.0.1]:{sftp.port} {other}\n"})
    assert not (sftp.folder / "archive").exists()


@pytest.mark.long
def test_a_target_that_goes_in_the_middle_is_a_failed_backup_and_the_next_one_goes_through(
    shop: Shop, sftp: Sftp
) -> None:
    shop.declare(target=sftp.target)
    subprocess.run(["dd", "if=/dev/urandom", f"of={shop.uploads}/large", "bs=1M", "count=300"], check=True)
    data = sftp.folder / "archive" / shop.environment.name / "app1" / "data"
    command = shop.environment.command("backup", "--name", shop.environment.name)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as call:
        # Well into it: 32 MB have arrived.
        wait_until(lambda: sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) > 32e6)
        sftp.end()
        _, told = call.communicate(timeout=120)
    assert call.returncode == 1
    assert "cannot be reached" in told
    assert shop.environment.ledger()[-1].result == "failed"
    assert "The newest backup failed" in shop.told("status")
    sftp.start()
    shop.backup()
    shop.told("drill")


@pytest.mark.long
def test_data_of_another_environment_is_anonymised(shop: Shop, make_environment: Make, tmp_path: Path) -> None:
    shop.append("alice@example.com", "bob@example.com")
    (shop.uploads / "photo.jpg").write_bytes(b"light")
    backup = shop.backup()
    staging = make_environment()
    other = Shop(staging, tmp_path / "staging-archive")
    other.append("test")
    source = {
        "protocol": 1,
        "name": shop.environment.name,
        "host": "app1",
        "target": {"url": str(shop.target), "password": PASSWORD},
    }
    done = staging.slipway(
        "restore", "--name", staging.name, "--json", "--source", "--confirm-data-loss", backup, stdin=json.dumps(source)
    )
    assert done.returncode == 0, done.stdout
    assert other.rows() == ["somebody", "somebody"]
    assert (other.uploads / "photo.jpg").read_bytes() == b"light"
    assert get(staging.port)["status"] == "ready"
    # Nothing of the way there is kept.
    assert PASSWORD not in "".join(path.read_text() for path in staging.folder.glob("*.json*"))
    assert staging.ledger()[-1].reason.endswith(f"of {shop.environment.name}")
    staging.clear()


@pytest.mark.long
def test_a_contract_that_cannot_anonymise_refuses_foreign_data(
    shop: Shop, make_environment: Make, tmp_path: Path
) -> None:
    shop.append("alice@example.com")
    shop.backup()
    staging = make_environment()
    staging.deploy("1.0")
    source = {
        "protocol": 1,
        "name": shop.environment.name,
        "host": "app1",
        "target": {"url": str(shop.target), "password": PASSWORD},
    }
    done = staging.slipway("restore", "--name", staging.name, "--json", "--source", stdin=json.dumps(source))
    assert "says no way to anonymise the data of" in done.stdout
    staging.clear()


@pytest.mark.long
def test_nothing_secret_shows_anywhere(shop: Shop) -> None:
    shop.append("one")
    backup = shop.backup()
    shop.told("drill")
    shop.restore(backup)
    shop.told("history")
    assert PASSWORD not in "".join(shop.environment.said)
    assert PASSWORD not in (shop.environment.folder / "ledger.jsonl").read_text()
    archive = shop.environment.folder / "archive"
    assert (archive / "password").stat().st_mode & 0o777 == 0o400
    assert PASSWORD not in (archive / "archive.json").read_text()
    inspected = docker("inspect", *(entry["Id"] for entry in shop.environment.containers()))
    assert PASSWORD not in inspected


@pytest.mark.long
def test_a_deploy_waits_for_a_backup_that_began_by_itself(shop: Shop) -> None:
    leases = Leases(shop.environment.folder)
    leases.enter(run="timer", by="root", what="backup", fence=None)
    ending = threading.Timer(2, leases.free)
    ending.start()
    began = time.monotonic()
    shop.deploy("1.1")
    assert time.monotonic() - began > 2
    ending.join()


@pytest.mark.long
def test_a_host_that_does_not_know_its_archive_takes_no_release(shop: Shop) -> None:
    request: dict[str, Any] = {"name": shop.environment.name, "images": {}, "min_free_mb": 1, "archive": True}
    shop.environment.ask("preflight", **request)
    shop.environment.ask("archive", name=shop.environment.name)
    with pytest.raises(Environment.Refused, match="this host does not know it"):
        shop.environment.ask("preflight", **request)


@pytest.mark.long
def test_where_it_is_declared_before_the_first_release_nobody_but_root_looks_in(
    make_environment: Make, tmp_path: Path
) -> None:
    environment = make_environment()
    target = {"url": str(tmp_path / "archive"), "password": PASSWORD}
    environment.ask("archive", name=environment.name, target=target, host="app1")
    assert environment.folder.stat().st_mode & 0o777 == 0o700
    environment.clear()


@pytest.mark.long
def test_what_is_declared_already_changes_nothing(shop: Shop) -> None:
    assert not shop.declare()["changed"]
    assert shop.declare(drill_max_age_days=7)["changed"]
    assert not shop.declare(drill_max_age_days=7)["changed"]


@pytest.mark.long
def test_a_folder_that_cannot_be_written_to_is_told(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Environment.Refused):
        shop.declare(target={"url": f"{tmp_path}/file/below"})
    shop.backup()
    shutil.rmtree(shop.target)
