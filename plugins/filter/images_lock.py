"""The digests that an environment keeps: what a tag was when it was pushed."""

from __future__ import annotations

from typing import Any

import yaml

HEADER = "# Written when images are pushed: the digest of each tag, the newest last.\n"


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


class FilterModule:
    """Makes the filter known to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Names the filters of this file."""
        return {"images_lock": images_lock}
