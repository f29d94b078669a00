"""The digests that an environment keeps: what a tag was when it was pushed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from slipway.inventory import MOVING_TAGS

HEADER = "---\n# Written when images are pushed: the digest of each tag, the newest last.\n"


def images_lock(text: str, images: list[dict[str, Any]]) -> str:
    """Add the tags of pushed images to the lock file's `text` and return the new text.

    An image's tags move to the end of its repository, so the last ones are those of the newest push; other tags
    stay, since an older release may be made from them. Images without a digest were not pushed and change nothing.
    """
    lock: dict[str, Any] = yaml.safe_load(text) or {}
    repositories: dict[str, dict[str, str]] = lock.get("images") or {}
    for image in images:
        if not image["digest"]:
            continue
        others = {
            tag: digest for tag, digest in repositories.get(image["repository"], {}).items() if tag not in image["tags"]
        }
        repositories[image["repository"]] = {**others, **dict.fromkeys(image["tags"], image["digest"])}
    if not repositories:
        return text
    return HEADER + yaml.safe_dump({**lock, "images": repositories}, sort_keys=False, width=200)


def images_promotion(text: str, source: str, repositories: Iterable[str], own: Iterable[str] = ()) -> dict[str, Any]:
    """Take over into the lock file `text` what the lock file `source` of another environment got last.

    `repositories` are those of this environment; the other's are those whose last part is the same. Those of `own` may
    be this environment's alone, such as a database that runs in the other one in a file; what `text` has of them stays.
    The answer holds the new `text`, in `said` the commands that copy the images, and in `problem` why there is nothing
    to take over.
    """
    ours, theirs = _repositories(text), _repositories(source)
    may_stay = {one for one in map(str, own) if ours.get(one)}
    copies, images = [], []
    for repository in sorted({*map(str, repositories), *map(str, own)}):
        name = repository.rpartition("/")[2]
        found = [other for other in theirs if other.rpartition("/")[2] == name and theirs[other]]
        if not found and repository in may_stay:
            continue
        if len(found) != 1:
            return _no_promotion(
                text,
                f"The other environment's images.lock.yml has {len(found) or 'no'} repositories called {name}, "
                f"and one is needed for {repository}. Name another environment, or add the digest by hand.",
            )
        [other] = found
        digest = list(theirs[other].values())[-1]
        tags = [tag for tag, one in theirs[other].items() if one == digest and tag not in MOVING_TAGS]
        if not tags:
            return _no_promotion(
                text,
                f"The newest image of {other} has no tag but one that moves, such as dev. "
                "Commit what it is built from and build it again.",
            )
        images.append({"repository": repository, "tags": tags, "digest": digest})
        if other != repository:
            names = " ".join(f"--tag {repository}:{tag}" for tag in tags)
            copies.append(f"docker buildx imagetools create {names} {other}@{digest}")
    said = ["Copy the images; they keep their digests:", *copies] if copies else []
    return {"text": images_lock(text, images), "said": "\n".join(said), "problem": ""}


def _repositories(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = (yaml.safe_load(text) or {}).get("images") or {}
    return found


def _no_promotion(text: str, problem: str) -> dict[str, Any]:
    return {"text": text, "said": "", "problem": problem}


class FilterModule:
    """Makes the filter known to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Names the filters of this file."""
        return {"images_lock": images_lock, "images_promotion": images_promotion}
