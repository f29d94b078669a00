"""Migrations that go wrong, and one that is right: the release that serves goes on, and the data is there."""

from __future__ import annotations

import json

import pytest

from tests.faults.environment import FOLDER, ROW, Environment

pytestmark = pytest.mark.faults


def test_a_migration_that_only_adds_is_applied_while_the_old_release_serves(shop: Environment) -> None:
    with shop.load() as load:
        shop.deploy("2.0").ok()
    assert load.seen.undisturbed().versions == ["1.0", "2.0"]
    told = shop.last()
    assert (told["schema_before"], told["schema_after"], told["unavailable_ms"]) == ("0001", "0002", 0)
    backups = list(shop.machine.path(f"{FOLDER}/backups").glob("*-0001/backup.json"))
    assert [json.loads(backup.read_text())["rows"] for backup in backups] == [{"rows": 1}]
    shop.serves("2.0")


@pytest.mark.core
def test_a_migration_that_fails_leaves_the_old_release_and_its_schema(shop: Environment) -> None:
    with shop.load() as load:
        play = shop.deploy("2.0", env={"MIGRATION": "fails"})
    play.failed("The migration of shop-faults failed", "column shop.price does not exist", "still serves", "0001")
    assert load.seen.undisturbed().versions == ["1.0"]
    told = shop.last()
    assert (told["result"], told["schema_before"], told["schema_after"]) == ("failed", "0001", "0001")
    shop.serves("1.0")
    shop.goes_on("2.0")


def test_a_migration_that_hangs_is_ended(shop: Environment) -> None:
    with shop.load() as load:
        play = shop.deploy("2.0", env={"MIGRATION": "hangs"}, migrate={"timeout": 3})
    play.failed("took longer than 3 seconds and was ended", "still serves")
    assert load.seen.undisturbed().versions == ["1.0"]
    assert shop.last()["result"] == "failed"
    assert "once" not in shop.machine.docker("ps", "--all", "--format", "{{.Names}}"), "nothing of it goes on"
    shop.serves("1.0")
    shop.goes_on("2.0")


def test_a_migration_that_is_unsafe_is_refused_before_anything_is_done(shop: Environment) -> None:
    with shop.load() as load:
        play = shop.deploy("2.0", env={"MIGRATION": "unsafe"})
    play.failed("is not safe for the release that serves", "allow_unsafe_migrations=true")
    assert load.seen.undisturbed().versions == ["1.0"]
    shop.serves("1.0")
    shop.goes_on("1.1")


def test_an_unsafe_migration_that_is_allowed_takes_the_service_away_for_as_long_as_it_takes(shop: Environment) -> None:
    with shop.load() as load:
        shop.deploy("2.0", env={"MIGRATION": "unsafe"}, variables={"allow_unsafe_migrations": True}).ok()
    seen = load.seen
    assert seen.versions == ["1.0", "2.0"]
    assert seen.overlap_ms == 0, "the old release never sees the new schema"
    # Requests wait at the edge meanwhile, for `patience` seconds each.
    assert 0 < seen.gap_ms <= 10_000, seen
    assert seen.without_service_ms <= 5000, seen
    told = shop.last()
    assert (told["result"], told["schema_after"]) == ("good", "0002")
    assert 0 < told["unavailable_ms"] <= seen.gap_ms + 1000
    shop.serves("2.0")
    shop.goes_on("2.0")


@pytest.mark.parametrize("wrong", ["fails", "broken"])
def test_nothing_is_migrated_without_a_backup_that_is_good(wrong: str, shop: Environment) -> None:
    with shop.load() as load:
        shop.deploy("2.0", env={"BACKUP": wrong}).failed("backup", "Nothing was migrated")
    assert load.seen.undisturbed().versions == ["1.0"]
    assert (shop.last()["result"], shop.rows()) == ("failed", [ROW])
    shop.serves("1.0")
    shop.goes_on("2.0")
