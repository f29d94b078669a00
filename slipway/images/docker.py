"""What every module here needs of Docker: room on its disk, builds with readable failures, images by label."""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import msgspec

from slipway.daemon import Daemon
from slipway.errors import PreflightError, SlipwayError

# Bytes a build may need at worst: a rootfs as archive, as context and as layer, and wheels beside it.
BUILD_HEADROOM = 1_500_000_000
# Lines of a failed build that are shown: enough to hold the failing command and its error.
LAST_LINES = 25
# On disk: /tmp is often memory, and a rootfs does not belong there.
SCRATCH = Path("/var/tmp")  # noqa: S108  # only private folders are made in it


class Images(Daemon):
    """Questions about the images that this host holds."""

    def labelled(self, label: str) -> list[dict[str, Any]]:
        """The images with the label `name`, or `name=value`: Id, RepoTags, Labels, Size (bytes)."""
        filters = msgspec.json.encode({"label": [label]}).decode()
        found: list[dict[str, Any]] = self._get(f"/images/json?{urlencode({'filters': filters})}")
        return [{**image, "RepoTags": image["RepoTags"] or []} for image in found]


def children_first(images: Mapping[str, str]) -> list[str]:
    """Ids in an order in which they can be removed. `images` are ids, each with that of what it was committed from."""
    order = TopologicalSorter[str]()
    for image, parent in images.items():
        order.add(image)
        if parent in images:
            order.add(parent, image)
    return list(order.static_order())


def remove(images: list[str]) -> None:
    """Remove images by id with all their tags, in this order.

    Raises :class:`SlipwayError` where a container still uses one.
    """
    from python_on_whales import docker  # noqa: PLC0415 - see build()
    from python_on_whales.exceptions import DockerException  # noqa: PLC0415

    try:
        docker.image.remove(images, force=True)
    except DockerException as error:
        raise SlipwayError(
            "An image of the kit could not be removed.",
            "Remove the container that uses it and run the play again.",
            details=error.stderr or "",
        ) from error


def need_room() -> None:
    """Refuse to begin a build that is likely to fill the disk."""
    for folder in (Daemon().root(), SCRATCH):
        free = shutil.disk_usage(folder).free
        if free < BUILD_HEADROOM:
            raise PreflightError(
                f"{folder} has {free // 1_000_000} MB free, a build may need {BUILD_HEADROOM // 1_000_000} MB.",
                "Make room (`docker system df` shows what Docker holds), then run the play again.",
            )


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder for the length of a `with`."""
    with tempfile.TemporaryDirectory(prefix="slipway-", dir=SCRATCH) as folder:
        yield Path(folder)


def build(
    context: Path,
    *,
    what: str,
    tags: list[str],
    labels: Mapping[str, str],
    dockerfile: str = "Dockerfile",
    build_args: Mapping[str, str] | None = None,
    secrets: list[str] | None = None,
    target: str | None = None,
    output: Mapping[str, str] | None = None,
) -> None:
    """Run one buildx build. A failure shows the last lines of its log; secrets are files and never in it."""
    # Imported where it is needed: a run that changes nothing is quicker by a tenth of a second without it.
    from python_on_whales import docker  # noqa: PLC0415
    from python_on_whales.exceptions import DockerException  # noqa: PLC0415

    log: deque[str] = deque(maxlen=LAST_LINES)
    try:
        built = docker.buildx.build(
            context,
            file=context / dockerfile,
            tags=tags,
            labels=dict(labels),
            build_args=dict(build_args or {}),
            secrets=secrets or [],
            target=target,
            output=dict(output or {}),
            load=not output,
            progress="plain",
            # An attestation carries the time of the build and would give equal inputs another digest.
            provenance=False,
            stream_logs=True,
        )
        # With stream_logs it is the lines; the wrapper's type names all that it may be.
        for line in cast("Iterator[str]", built):
            log.append(line.rstrip())
        # What these tags named before has no name left; images that a digest still names are not touched.
        for label in labels:
            docker.image.prune(filters=[("label", label)])
    except DockerException as error:
        raise SlipwayError(
            f"Building {what} failed.",
            "Read the last lines of the build below; nothing was tagged or pushed.",
            details="\n".join(log) or (error.stderr or ""),
        ) from error
