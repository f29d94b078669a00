"""A release's id: the same for the same release, another one as soon as anything in it differs."""

from __future__ import annotations

from typing import Any

import pytest

from slipway.contract import Health, Service
from slipway.release import File, Manifest, fingerprint, identity, project_of, read_manifest

PARTS: dict[str, Any] = {
    "name": "shop-production",
    "environment": "production",
    "images": {"api": "r/api@sha256:1", "web": "r/web@sha256:2"},
    "services": {"api": Service(image="r/api", user="1:1"), "web": Service(image="r/web", user="1:1")},
    "compose": {"services": {"api": {"image": "r/api@sha256:1", "environment": {"A": "1", "B": "2"}}}},
    "files": [File(path="config/api/a.json", content="{}"), File(path="config/api/b.json", content="[]")],
    "key": "k" * 32,
}


def test_the_id_is_stable_from_run_to_run_and_from_host_to_host() -> None:
    # Written down on purpose: another id for the same release would replace every container of every environment.
    assert identity(**PARTS) == "2c6d8a003a98748f"


def test_the_id_does_not_depend_on_the_order_in_which_things_are_listed() -> None:
    compose = {"services": {"api": {"environment": {"B": "2", "A": "1"}, "image": "r/api@sha256:1"}}}
    images = dict(reversed(PARTS["images"].items()))
    assert identity(**{**PARTS, "compose": compose, "images": images, "files": PARTS["files"][::-1]}) == identity(
        **PARTS
    )


@pytest.mark.parametrize(
    "change",
    [
        {"name": "shop-staging"},
        {"environment": "staging"},
        {"images": {**PARTS["images"], "web": "r/web@sha256:3"}},
        {"services": {"api": Service(image="r/api", user="1:1", health=Health(path="/health"))}},
        {"compose": {"services": {}}},
        {"key": "l" * 32},
        {"files": PARTS["files"][:1]},
        {"files": [File(path="config/api/a.json", content="{ }"), PARTS["files"][1]]},
        {"files": [File(path="config/api/c.json", content="{}"), PARTS["files"][1]]},
        {"files": [File(path="config/api/a.json", content="{}", mode="0440"), PARTS["files"][1]]},
        {"files": [File(path="config/api/a.json", content="{}", uid=1), PARTS["files"][1]]},
        {"files": [File(path="config/api/a.json", content="{}", gid=1), PARTS["files"][1]]},
    ],
)
def test_the_id_changes_with_each_ingredient(change: dict[str, Any]) -> None:
    assert identity(**{**PARTS, **change}) != identity(**PARTS)


def test_a_fingerprint_shows_a_change_and_needs_the_key_to_be_guessed() -> None:
    assert fingerprint("key", "content") == fingerprint("key", "content")
    assert fingerprint("key", "content") != fingerprint("key", "Content")
    assert fingerprint("key", "content") != fingerprint("another", "content")
    assert len(fingerprint("key", "")) == 64


def test_a_manifest_from_before_secrets_were_noted_can_be_read() -> None:
    found = read_manifest(
        b'{"name": "shop", "environment": "p", "id": "r1", "kit": "0", "images": {}, "tags": {}, "fingerprints": {}, '
        b'"services": {}}'
    )
    assert (found.secrets, found.made_from) == ({}, "")


def test_a_release_runs_as_a_project_of_its_own() -> None:
    manifest = Manifest(
        name="shop", environment="p", id="0123456789abcdef", kit="1", images={}, tags={}, fingerprints={}, services={}
    )
    assert manifest.project == project_of("shop", "0123456789abcdef") == "shop-01234567"
