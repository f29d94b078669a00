"""The way back, under load: across migrations too, and never with a secret that was revoked."""

from __future__ import annotations

import pytest

from tests.faults.environment import FOLDER, NAME, ROW, SECRET, Environment

pytestmark = pytest.mark.faults


@pytest.mark.core
def test_a_rollback_fails_no_request(shop: Environment) -> None:
    first = shop.current()
    shop.deploy("1.1").ok()
    with shop.load() as load:
        shop.rollback().ok()
    assert load.seen.undisturbed().versions == ["1.1", "1.0"]
    assert shop.current() == first
    told = shop.last()
    assert (told["verb"], told["result"], told["unavailable_ms"]) == ("rollback", "good", 0)
    shop.serves("1.0")
    shop.goes_on()


def test_so_does_one_by_the_operator_on_the_host(shop: Environment) -> None:
    first = shop.current()
    shop.deploy("1.1").ok()
    with shop.load() as load:
        shop.machine.run("slipway", "rollback", "--name", NAME)
    assert load.seen.undisturbed().versions == ["1.1", "1.0"]
    assert shop.current() == first
    shop.serves("1.0")


def test_across_a_migration_it_is_refused_unless_the_contract_says_how(shop: Environment) -> None:
    shop.deploy("2.0").ok()
    with shop.load() as load:
        shop.rollback().failed("cannot run on the database as it is now", "on_rollback")
    assert load.seen.undisturbed().versions == ["2.0"]
    shop.serves("2.0")
    shop.goes_on("2.0", env={"WHO": "the next"})


def test_across_a_migration_the_older_release_can_be_declared_to_run_on_the_schema_as_it_is(shop: Environment) -> None:
    shop.deploy("2.0", migrate={"on_rollback": "skip"}).ok()
    with shop.load() as load:
        shop.rollback().ok()
    assert load.seen.undisturbed().versions == ["2.0", "1.0"]
    assert shop.last()["verb"] == "rollback"
    shop.serves("1.0")
    shop.goes_on("2.0")


def test_across_a_migration_the_schema_can_be_taken_down_by_the_newer_image(shop: Environment) -> None:
    shop.deploy("2.0", migrate={"on_rollback": "down"}).ok()
    shop.write(b"written after")
    with shop.load() as load:
        shop.rollback().ok()
    seen = load.seen
    assert seen.versions == ["2.0", "1.0"]
    # An embedded database cannot be moved under a release that uses it: requests wait meanwhile.
    assert seen.overlap_ms == 0
    assert seen.without_service_ms <= 2000, seen
    assert shop.last()["schema_after"] == "0001"
    assert shop.rows() == [ROW, b"written after"], "going down loses no row"
    shop.serves("1.0")
    shop.goes_on("2.0")


def test_across_a_migration_the_backup_can_be_restored_by_whoever_names_what_is_lost(shop: Environment) -> None:
    first = shop.current()
    shop.deploy("2.0", migrate={"on_rollback": "restore"}).ok()
    shop.write(b"written after")
    with shop.load() as load:
        shop.rollback().failed("what was written since is lost", f"confirm_data_loss={first}", "1 rows then, 2 now")
        assert shop.version() == "2.0"
        shop.rollback(confirm_data_loss=first).ok()
    seen = load.seen
    assert seen.versions == ["2.0", "1.0"]
    assert seen.overlap_ms == 0
    assert seen.without_service_ms <= 2000, seen
    assert shop.rows() == [ROW]
    shop.serves("1.0")
    shop.goes_on("2.0")


def test_a_way_down_that_fails_leaves_the_newer_release_serving(shop: Environment) -> None:
    shop.deploy("2.0", env={"MIGRATION": "down fails"}, migrate={"on_rollback": "down"}).ok()
    with shop.load() as load:
        shop.rollback().failed("There is no way from 0002 down to 0001")
    assert load.seen.without_service_ms <= 2000, load.seen
    assert load.seen.versions == ["2.0"]
    assert shop.last()["result"] == "returned"
    shop.serves("2.0")


def test_a_secret_that_was_revoked_does_not_come_back(shop: Environment) -> None:
    first = shop.current()
    rotated = "rotated-and-never-to-be-seen-9876543210"
    shop.deploy("1.1", config={"auth": {"jwtSecret": rotated}}).ok()
    revoked = shop.play("revoke", secret="app:/app/config/app.json#auth.jwtSecret", reason="was in a ticket").ok()
    with shop.load() as load:
        back = shop.rollback().ok()
    assert load.seen.undisturbed().versions == ["1.1", "1.0"]
    assert shop.current() != first, "a release was made of the old image and today's secret"
    config = "".join(path.read_text() for path in shop.machine.path(f"{FOLDER}/current/config").rglob("*app.json"))
    assert rotated in config
    assert SECRET not in config
    assert not [secret for secret in (SECRET, rotated) if secret in revoked.output + back.output]
    assert (shop.last()["verb"], shop.last()["result"]) == ("rollback", "good")
    shop.serves("1.0")
    shop.goes_on("1.1", config={"auth": {"jwtSecret": rotated}})
