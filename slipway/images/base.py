"""The image that every image of the kit starts from: pulled by name, or bootstrapped from Debian packages."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import msgspec

from slipway.errors import PreflightError, SlipwayError
from slipway.images import apt
from slipway.images.docker import Images, build, need_room, scratch
from slipway.registries import Logins

REPOSITORY = "slipway/base"
RECIPE_LABEL = "org.slipway.recipe"
DAY_LABEL = "org.slipway.bootstrapped"

# Manual pages and translations are a third of a minimal Debian and of no use in a container. dpkg keeps the rule,
# so packages installed on top stay as lean; licences are kept.
DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
)


class Base(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which base: `image` names one to pull; where it is empty, `suite` is bootstrapped."""

    image: str = ""
    suite: str = "trixie"
    max_age_days: int = 30
    """A bootstrapped base of at most this age is used again; an older one is replaced, for its security updates."""
    recipe: str = ""
    """The Dockerfile that lays the root file system down (images/base/Dockerfile)."""


class BaseAnswer(msgspec.Struct, kw_only=True):
    """The base that is there now. `how`: pulled, bootstrapped or unchanged; `id` is the engine's image id."""

    reference: str
    id: str
    how: Literal["pulled", "bootstrapped", "unchanged"] = "unchanged"
    seconds: float = 0.0


def find(base: Base, today: date | None = None) -> BaseAnswer | None:
    """The base as this host already holds it, or None when it has to be made."""
    images = Images()
    if base.image:
        present = images.image(base.image)
        return BaseAnswer(reference=base.image, id=present["Id"]) if present else None
    today = today or datetime.now(UTC).date()
    label = f"{RECIPE_LABEL}={recipe_key(base, sources_of_this_machine(base.suite))}"
    for image in images.labelled(label):
        day = date.fromisoformat(image["Labels"][DAY_LABEL])
        references = [tag for tag in image["RepoTags"] if tag.startswith(f"{REPOSITORY}:")]
        if references and (today - day).days <= base.max_age_days:
            return BaseAnswer(reference=references[0], id=image["Id"])
    return None


def make(base: Base, logins: Logins, today: date | None = None) -> BaseAnswer:
    """Pull or bootstrap the base."""
    need_room()
    if base.image:
        return _pull(base.image, logins)
    return _bootstrap(base, today or datetime.now(UTC).date())


def missing_packages() -> list[str]:
    """Debian packages that a bootstrap needs and this host lacks."""
    return [] if shutil.which("mmdebstrap") else ["mmdebstrap"]


def recipe_key(base: Base, sources: list[str]) -> str:
    """What a bootstrapped base is made of, but for the day: another recipe or mirror makes another base."""
    parts = (base.suite, base.recipe, *DPKG_OPTIONS, *sources)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def sources_of_this_machine(suite: str) -> list[str]:
    """Where to bootstrap from, as sources.list lines."""
    sources = apt.debian_sources(apt.read(), codename=_codename(), suite=suite)
    if not sources:
        raise SlipwayError(
            "apt on this machine names no Debian mirror to bootstrap the base image from.",
            "Give it one in /etc/apt/sources.list.d (its address ends in /debian, or it is signed by "
            "debian-archive-keyring), or set base_image to an image to pull.",
        )
    return sources


def _codename() -> str:
    found = re.search(r'^VERSION_CODENAME="?(\w+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    return found[1] if found else ""


def _pull(image: str, logins: Logins) -> BaseAnswer:
    try:
        Images().pull(image, logins)
    except PreflightError as error:
        raise SlipwayError(
            f"The base image {image} could not be pulled.",
            "Correct base_image or make its registry reachable, or empty it to bootstrap a base from Debian packages.",
            details=f"{error.what}\n{error.details}".strip(),
        ) from error
    return BaseAnswer(reference=image, id=_id_of(image), how="pulled")


def _bootstrap(base: Base, today: date) -> BaseAnswer:
    sources = sources_of_this_machine(base.suite)
    reference = f"{REPOSITORY}:{base.suite}-{today:%Y%m%d}"
    with scratch() as folder:
        context = folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(base.recipe)
        listing = folder / "debian.list"
        listing.write_text("\n".join(sources) + "\n")
        mmdebstrap(base.suite, listing, context / "rootfs.tar", today)
        build(
            context,
            tags=[reference],
            labels={RECIPE_LABEL: recipe_key(base, sources), DAY_LABEL: today.isoformat()},
            build_args={"SOURCE_DATE_EPOCH": str(_midnight(today))},
            what=f"the base image {reference}",
        )
    return BaseAnswer(reference=reference, id=_id_of(reference), how="bootstrapped")


def _id_of(reference: str) -> str:
    image = Images().image(reference)
    return str(image["Id"]) if image else ""


def mmdebstrap(suite: str, sources: Path, rootfs: Path, today: date) -> None:
    """Lay out a minimal Debian as a tar file, bit-identical for one day and one state of the mirror."""
    # A minimal Debian cannot check an https mirror.
    certificates = ["--include=ca-certificates"] if " https:" in sources.read_text() else []
    # The options given above are for the bootstrap; the name servers and the name of this machine are its own.
    forget = 'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/resolv.conf "$1"/etc/hostname'
    run = subprocess.run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=tar",
            *certificates,
            *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
            f"--customize-hook={forget}",
            suite,
            str(rootfs),
            str(sources),
        ],
        # The tree is laid out beside the sources: /tmp may be memory, or mounted without devices.
        env={**os.environ, "TMPDIR": str(sources.parent), "SOURCE_DATE_EPOCH": str(_midnight(today))},
        # apt reports what is wrong with a mirror on either of the two.
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode == 0:
        return
    if "NO_PUBKEY" in run.stdout or "EXPKEYSIG" in run.stdout:
        raise SlipwayError(
            f"This machine's Debian keyring does not hold the key that {suite} is signed with.",
            "Upgrade it with `apt-get install --only-upgrade debian-archive-keyring`, then run the play again.",
            details=_tail(run.stdout),
        )
    raise SlipwayError(
        f"Bootstrapping {suite} from Debian packages failed.",
        "Read mmdebstrap's last lines below; check that the mirrors of /etc/apt answer and carry this suite.",
        details=_tail(run.stdout),
    )


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-15:])
