"""Building one image, pushing it, and finding out that neither is needed."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from slipway.errors import SlipwayError, UsageError
from slipway.images.base import BaseAnswer
from slipway.images.docker import Images, build, need_room, scratch
from slipway.registries import DOCKER_HUB, Logins, NoImageError, registry_of

INPUTS_LABEL = "org.slipway.inputs"

How = Literal["built", "pushed", "unchanged"]


class Secret(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A file of this host that a build may read at /run/secrets/<id> and that stays out of the image.

    An `optional` one that is not there is left out.
    """

    id: str
    src: str
    optional: bool = False


class Source(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the controller packed: see slipway/source.py, which makes it."""

    archive: str
    """The build context, a base64 tar.gz."""
    inputs: str
    """Hash of its files: paths, executable bits and contents."""
    tags: list[str] = []
    """Empty: the image is tagged with the version of the Debian package it holds (its `version` build stage)."""
    version: str = ""
    revision: str = ""
    created: int = 0
    """Seconds since 1970: the commit, or the newest file where there is none."""
    why: str = ""
    """What the operator should know about the tags, for example why it is only `dev`."""


class Image(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One image to ensure. BASE, VERSION, REVISION, CREATED and SOURCE_DATE_EPOCH are given to every build."""

    repository: str
    source: Source
    dockerfile: str = "Dockerfile"
    build_args: dict[str, str] = {}
    secrets: list[Secret] = []
    push: bool = False


class ImageAnswer(msgspec.Struct, kw_only=True):
    """One image as it is now. `size` is in bytes, unpacked; 0 where only the registry holds the image.

    `digest` is what the registry gave it, empty for one that is not pushed.
    """

    repository: str
    tags: list[str]
    reference: str
    how: How
    digest: str = ""
    id: str = ""
    size: int = 0
    why: str = ""
    seconds: float = 0.0


class Found(msgspec.Struct):
    """Where an image of the wanted inputs is already: tags and id in the engine, its digest in the registry."""

    id: str = ""
    tags: list[str] = []
    digest: str = ""
    size: int = 0


def key(image: Image, base_id: str) -> str:
    """Hash of everything that decides what the image becomes. Secrets are not in it: they only reach the build."""
    parts = msgspec.json.encode(
        [
            image.source.inputs,
            image.dockerfile,
            base_id,
            image.build_args,
            image.source.version,
            image.source.revision,
        ],
        order="deterministic",
    )
    return hashlib.sha256(parts).hexdigest()


def decide(image: Image, found: Found) -> How:
    """The least that has to be done. A tag missing in the engine is put there by building, which is then cached."""
    wanted = set(image.source.tags)
    local = bool(found.id) and wanted <= set(found.tags)
    if image.push:
        if found.digest:
            return "unchanged"
        return "pushed" if local else "built"
    return "unchanged" if local else "built"


def plan(image: Image, base: BaseAnswer, logins: Logins) -> ImageAnswer:
    """What :func:`ensure` would do. A registry that is not up yet is part of the plan, not an error."""
    inputs = key(image, base.id)
    found = look(image, inputs, logins, check=True)
    return _answer(image, found, decide(image, found))


def ensure(image: Image, base: BaseAnswer, logins: Logins) -> ImageAnswer:
    """Build, tag and push the image, each only where needed."""
    started = time.monotonic()
    inputs = key(image, base.id)
    found = look(image, inputs, logins)
    how = decide(image, found)
    if how == "built":
        need_room()
        found.tags = _build(image, base, inputs)
        present = Images().image(f"{image.repository}:{found.tags[0]}") or {}
        found.id, found.size = present.get("Id", ""), present.get("Size", 0)
    if how != "unchanged" and image.push:
        found.digest = _push(image.repository, image.source.tags or found.tags, logins)
    answer = _answer(image, found, how)
    answer.seconds = round(time.monotonic() - started, 1)
    return answer


def look(image: Image, inputs: str, logins: Logins, *, check: bool = False) -> Found:
    """Find the image of these inputs in the engine, by its label, and in the registry, by its tags."""
    if image.push and registry_of(image.repository) == DOCKER_HUB:
        raise SlipwayError(
            f"{image.repository} names no registry to push to.",
            "Write it as HOST:PORT/NAME, for example 127.0.0.1:5000/slipway/backend.",
        )
    found = Found()
    for present in Images().labelled(f"{INPUTS_LABEL}={inputs}"):
        tags = [tag.rpartition(":")[2] for tag in present["RepoTags"] if tag.rpartition(":")[0] == image.repository]
        if tags:
            found.id, found.tags, found.size = present["Id"], sorted(tags), present["Size"]
    if image.push:
        try:
            found.digest = _digest_of(image, image.source.tags or found.tags, inputs, logins, check=check)
        except SlipwayError:
            if not check:
                raise
    return found


def _digest_of(image: Image, tags: list[str], inputs: str, logins: Logins, *, check: bool) -> str:
    """The digest in the registry, if every tag points at one image and that image is of these inputs.

    The inputs are in the image itself, so one that this host lacks is pulled; in check mode it counts as another one.
    """
    digests = {_tagged(f"{image.repository}:{tag}", logins) for tag in tags}
    if len(digests) != 1 or "" in digests:
        return ""
    [digest] = digests
    images, reference = Images(), f"{image.repository}@{digest}"
    if images.image(reference) is None and not check:
        images.pull(reference, logins)
    known = (images.image(reference) or {}).get("Config", {}).get("Labels") or {}
    return digest if known.get(INPUTS_LABEL) == inputs else ""


def _tagged(reference: str, logins: Logins) -> str:
    """The digest that a tag has in its registry, empty where there is no such tag."""
    try:
        return Images().registry_digest(reference, logins)
    except NoImageError:
        return ""


def _build(image: Image, base: BaseAnswer, inputs: str) -> list[str]:
    """Build into the engine and return the tags it got."""
    source = image.source
    arguments = {
        "BASE": base.reference,
        "VERSION": source.version,
        "REVISION": source.revision,
        "CREATED": datetime.fromtimestamp(source.created, UTC).isoformat(),
        "SOURCE_DATE_EPOCH": str(source.created),
        **image.build_args,
    }
    with scratch() as folder:
        unpack(source.archive, folder)
        tags = source.tags
        if not tags:
            tags = [_package_version(image, folder, arguments)]
        build(
            folder,
            dockerfile=image.dockerfile,
            tags=[f"{image.repository}:{tag}" for tag in tags],
            labels={INPUTS_LABEL: inputs},
            build_args=arguments,
            secrets=_secrets(image),
            what=image.repository,
        )
    return tags


def _package_version(image: Image, context: Path, arguments: dict[str, str]) -> str:
    """Build the stage `version`, whose one file /version names the package's version, and make a tag of it."""
    with scratch() as out:
        build(
            context,
            dockerfile=image.dockerfile,
            tags=[],
            labels={},
            build_args=arguments,
            secrets=_secrets(image),
            target="version",
            output={"type": "local", "dest": str(out)},
            what=image.repository,
        )
        return tag_of((out / "version").read_text().strip())


def tag_of(version: str) -> str:
    """A Debian version as a tag: `2.8.3+ds1-4` -> `2.8.3_ds1-4`. Tags take letters, digits, `_`, `.` and `-`."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in version)[:128]


def _secrets(image: Image) -> list[str]:
    given = []
    for secret in image.secrets:
        if Path(secret.src).is_file():
            given.append(f"id={secret.id},src={secret.src}")
        elif not secret.optional:
            raise SlipwayError(
                f"The build of {image.repository} is to read {secret.src}, which is not there.",
                "Correct the variable that names it, or empty it.",
            )
    return given


def _push(repository: str, tags: list[str], logins: Logins) -> str:
    for tag in tags:
        Images().push(f"{repository}:{tag}", logins)
    return Images().registry_digest(f"{repository}:{tags[0]}", logins)


def _answer(image: Image, found: Found, how: How) -> ImageAnswer:
    tags = image.source.tags or found.tags
    return ImageAnswer(
        repository=image.repository,
        tags=tags,
        reference=f"{image.repository}:{tags[0]}" if tags else "",
        how=how,
        digest=found.digest,
        id=found.id,
        size=found.size,
        why=image.source.why,
    )


def unpack(archive: str, folder: Path) -> None:
    """Lay a packed source down in `folder`: files and links, nothing else and nowhere else.

    Not `extractall(filter="data")`: Debian 12's Python is older than that filter.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive, validate=True)), mode="r:gz") as packed:
            for member in packed:
                _lay_down(packed, member, folder)
    except (ValueError, tarfile.TarError) as error:
        raise UsageError(
            "The source in the request is not a base64 tar.gz of files below one folder.",
            "Use the kit and the engine of one version.",
        ) from error


def _lay_down(packed: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = folder / member.name
    # Resolved, so that a link laid down before cannot lead the way out either.
    if not path.parent.resolve().is_relative_to(folder.resolve()) or path.name in {"", ".."}:
        raise ValueError(member.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = packed.extractfile(member) if member.isreg() else None
    if member.issym():
        path.symlink_to(member.linkname)
    elif content is not None:
        path.write_bytes(content.read())
        path.chmod(member.mode)
    else:
        raise ValueError(member.name)
