"""Which targets for backups an inventory may name."""

from __future__ import annotations

import pytest

from slipway.archive.target import Place, Target, place_of, problems
from slipway.errors import UsageError

PASSWORD = "a-password-that-is-long-enough"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("/mnt/backups/", Place(kind="folder", path="/mnt/backups")),
        ("sftp://keeper@10.0.0.9/srv/b", Place(kind="sftp", path="/srv/b", host="10.0.0.9", user="keeper")),
        (
            "sftp://keeper@vault.example:2222/b",
            Place(kind="sftp", path="/b", host="vault.example", port=2222, user="keeper"),
        ),
        ("s3://s3.example/backups", Place(kind="s3", path="", host="s3.example", bucket="backups")),
        ("s3://s3.example:9000/b/shop", Place(kind="s3", path="/shop", host="s3.example", port=9000, bucket="b")),
    ],
)
def test_a_folder_a_host_and_a_store_are_told_apart_by_the_url(url: str, place: Place) -> None:
    assert place_of(url) == place
    assert place_of(url).below("shop").path == f"{place.path}/shop"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "backups",
        "/",
        "/srv/with space",
        "ftp://host/b",
        "sftp://host/b",
        "sftp://keeper@host",
        "sftp://keeper:pa55-w0rd@host/b",
        "sftp://keeper@-oProxyCommand=x/b",
        "s3://host",
        "s3://host/b?versionId=1",
        "s3://host:port/b",
    ],
)
def test_what_is_no_such_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        place_of(url)
    assert "sftp://user@host[:port]/folder" in str(refused.value)
    assert "pa55-w0rd" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (Target(url="/b", password=PASSWORD), []),
        (Target(url="/b", password="short"), ["backup_password"]),
        (Target(url="sftp://k@host/b", password=PASSWORD), ["backup_ssh_key", "backup_known_hosts"]),
        (Target(url="s3://host/b", password=PASSWORD, access_key="a"), ["backup_secret_key"]),
        (Target(url="ftp://host/b", password=""), ["no URL of a known form"]),
    ],
)
def test_all_that_a_target_lacks_is_told_at_once(target: Target, told: list[str]) -> None:
    found = problems(target)
    assert len(found) == len(told)
    assert all(word in sentence for word, sentence in zip(told, found, strict=True))
