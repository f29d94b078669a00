"""The images of one host: their base, building them, pushing them, and knowing when there is nothing to do.

What goes into an image arrives as an archive, packed on the controller (slipway/source.py), so a
builder needs neither git nor a copy of the kit. An image carries the hash of everything it was made from in the
label `org.slipway.inputs`; where that label is found again, nothing is built and nothing is pushed.
"""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from slipway.images import base as bases
from slipway.images.base import DAY_LABEL, Base, BaseAnswer
from slipway.images.build import INPUTS_LABEL, Image, ImageAnswer, ensure, plan
from slipway.images.docker import Images, children_first, remove
from slipway.registries import Login

__all__ = ["Base", "Image", "ImagesRequest", "run"]


class ImagesRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway images --json` reads: a base, and the images to build from it, in this order."""

    check: bool = False
    state: Literal["present", "absent"] = "present"
    """absent removes every image that the kit made on this host, whatever else the request lists."""
    base: Base = msgspec.field(default_factory=Base)
    images: list[Image] = []
    logins: dict[str, Login] = msgspec.field(default_factory=dict)
    """For the registries that the base is pulled from, and the images are pushed to."""


def run(request: ImagesRequest) -> dict[str, object]:
    """Ensure the base and every image, or remove them all; in check mode say what would be done.

    The answer: `changed`, `msg` (one sentence per thing done), `missing` (Debian packages that have to be
    installed first; then nothing was done), `base` (reference, id, how, seconds) and `images` (repository, tags,
    reference, digest, id, size in bytes, how: built|pushed|unchanged, why, seconds), or in check mode how: build.
    """
    if request.state == "absent":
        return _remove(check=request.check)
    base = bases.find(request.base)
    if base is None and not request.base.image:
        missing = bases.missing_packages()
        if missing or request.check:
            return _not_yet(request, missing)
    if base is None and request.check:
        return _not_yet(request, [])
    started = time.monotonic()
    base = base or bases.make(request.base, request.logins)
    base.seconds = round(time.monotonic() - started, 1)
    act = plan if request.check else ensure
    images = [act(image, base, request.logins) for image in request.images]
    return {
        "changed": base.how != "unchanged" or any(image.how != "unchanged" for image in images),
        "msg": " ".join([_about_base(base), *(_about_image(image, check=request.check) for image in images)]),
        "missing": [],
        "base": base,
        "images": images,
    }


def _remove(*, check: bool) -> dict[str, object]:
    found = {
        image["Id"]: image["ParentId"] for label in (INPUTS_LABEL, DAY_LABEL) for image in Images().labelled(label)
    }
    if found and not check:
        remove(children_first(found))
    done = "to remove" if check else "removed"
    return {"changed": bool(found), "msg": f"Images {done}: {len(found)}.", "missing": [], "base": None, "images": []}


def _not_yet(request: ImagesRequest, missing: list[str]) -> dict[str, object]:
    """Without a base there is no key to compare with, so every image would be built."""
    how = f"pulled as {request.base.image}" if request.base.image else f"bootstrapped from {request.base.suite}"
    wanted = ", ".join(image.repository for image in request.images)
    return {
        "changed": request.check,
        "msg": f"The base has to be {how} first." + (f" Then to build: {wanted}." if wanted else ""),
        "missing": missing,
        "base": None,
        "images": [],
    }


def _about_base(base: BaseAnswer) -> str:
    took = "" if base.how == "unchanged" else f" in {base.seconds} s"
    return f"Base {base.reference}: {base.how}{took}."


def _about_image(image: ImageAnswer, *, check: bool) -> str:
    where = image.reference or image.repository
    done = {"built": "to build", "pushed": "to push"}.get(image.how, image.how) if check else image.how
    took = "" if check or image.how == "unchanged" else f" in {image.seconds} s"
    return f"Image {where}: {done}{took}{f' ({image.why})' if image.why else ''}."
