"""Images of a release that is to come, pulled by a process of its own while the host is made ready for it.

Nobody waits for it and nothing depends on it: staging pulls what is not here by then, and says what is wrong.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from slipway.background import in_background
from slipway.daemon import Daemon
from slipway.errors import SlipwayError
from slipway.preflight import Image
from slipway.registries import Login


class FetchRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a deploy is going to ask for."""

    images: dict[str, Image]
    logins: dict[str, Login] = {}
    check: bool = False


def begin(request: FetchRequest) -> dict[str, Any]:
    """Begin to pull. The answer does not wait for it."""
    if not request.check:
        in_background(lambda: fetch(request))
    return {"changed": False}


def fetch(request: FetchRequest) -> None:
    """Pull what is not here by its digest, as staging would."""
    daemon = Daemon()
    for image in request.images.values():
        with suppress(SlipwayError):
            tagged = f"{image.repository}:{image.tag}"
            reference = f"{image.repository}@{image.digest or daemon.registry_digest(tagged, request.logins)}"
            if daemon.image(reference) is None:
                daemon.pull(reference, request.logins)
