"""Images that are pulled ahead: nobody waits for them, and nothing that goes wrong there stops a deploy."""

from __future__ import annotations

from typing import Any

import pytest

from slipway import fetch
from slipway.errors import PreflightError
from slipway.fetch import FetchRequest, begin
from slipway.preflight import Image

PINNED = Image(repository="registry.example/shop/api", tag="1.0", digest="sha256:1")
TAGGED = Image(repository="registry.example/shop/worker", tag="2.0")


class Registry:
    """A daemon that has one image, and a registry that does not know the tag `gone`."""

    def __init__(self) -> None:
        self.pulled: list[str] = []

    def registry_digest(self, reference: str, _logins: object) -> str:
        if reference.endswith(":gone"):
            raise PreflightError("It does not exist.", "Push it.")
        return "sha256:2"

    def image(self, reference: str) -> dict[str, Any] | None:
        return {} if reference.startswith("registry.example/here") else None

    def pull(self, reference: str, _logins: object) -> None:
        self.pulled.append(reference)


def test_what_is_not_here_is_pulled_by_digest_and_the_rest_left_to_staging(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    monkeypatch.setattr(fetch, "Daemon", lambda: registry)
    images = {
        "gone": Image(repository="registry.example/shop/gone", tag="gone"),
        "here": Image(repository="registry.example/here", digest="sha256:0"),
        "api": PINNED,
        "worker": TAGGED,
    }
    fetch.fetch(FetchRequest(images=images))
    assert registry.pulled == ["registry.example/shop/api@sha256:1", "registry.example/shop/worker@sha256:2"]


def test_in_check_mode_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "in_background", None)
    assert begin(FetchRequest(images={"api": PINNED}, check=True)) == {"changed": False}
