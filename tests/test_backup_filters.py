"""What an inventory says of backups."""

from __future__ import annotations

import pytest

from plugins.filter.backup import slipway_backup_problems, slipway_backup_secrets


@pytest.mark.parametrize(
    ("url", "environment", "database", "told"),
    [
        ("", "staging", {}, ""),
        ("", "production", {}, "nothing says where its backups go"),
        ("", "production", {"mode": "bundled"}, "nothing says where its backups go"),
        ("", "production", {"backup": "none"}, ""),
        ("/mnt/backups", "production", {}, ""),
        ("ftp://host/b", "staging", {}, "backup_target is no URL of a known form"),
    ],
)
def test_production_says_where_its_backups_go_or_that_there_are_none(
    url: str, environment: str, database: dict[str, str], told: str
) -> None:
    assert told in " ".join(slipway_backup_problems(url, environment, database))
    assert bool(told) == bool(slipway_backup_problems(url, environment, database))


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("", set()),
        ("nonsense", set()),
        ("/mnt/backups", {"backup_password"}),
        ("sftp://k@host/b", {"backup_password", "backup_ssh_key"}),
        ("s3://host/b", {"backup_password", "backup_access_key", "backup_secret_key"}),
    ],
)
def test_the_vault_has_to_hold_what_opens_the_target(url: str, names: set[str]) -> None:
    found = slipway_backup_secrets(url)
    assert found.keys() == names
    assert all(one["kind"] == "given" for name, one in found.items() if name != "backup_password")
