"""Images to measure with: the bundled backend in the registry of this machine, again and again under other tags."""

from __future__ import annotations

import json
import secrets
import tempfile
import urllib.request
from http.client import HTTPResponse
from pathlib import Path

from tests.bench.commands import attempt, out, step

REGISTRY = "127.0.0.1:5000"
MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
APPLICATION_LAYER = 1_000_000
"""Bytes in which one tag differs from the next, about what the bundled backend's own layer has."""


class Images:
    """A repository in the registry of this machine."""

    def __init__(self, repository: str) -> None:
        """`repository` begins with :data:`REGISTRY`."""
        self.repository = repository
        self._address = f"http://{REGISTRY}/v2/{repository.partition('/')[2]}"

    def push(self, tag: str, base: str) -> str:
        """Push `base` once more with a layer of its own, and let the engine here forget it; answers the tag."""
        reference = f"{self.repository}:{tag}"
        with tempfile.TemporaryDirectory() as context:
            Path(context, "layer").write_bytes(secrets.token_bytes(APPLICATION_LAYER))
            lines = [f"FROM {base}", "COPY layer /app/layer", f"ENV BACKEND_VERSION={tag}"]
            # The gate compares the version that the backend tells with the one that its image is labelled with.
            lines.append(f"LABEL org.opencontainers.image.version={tag}")
            Path(context, "Dockerfile").write_text("\n".join(lines))
            out("docker", "build", "--quiet", "--tag", reference, context)
        out("docker", "push", "--quiet", reference)
        out("docker", "image", "rm", reference)
        return tag

    def gzipped(self, tag: str) -> int:
        """Bytes of a tag's config and layers in the registry."""
        with _ask(f"{self._address}/manifests/{tag}", "GET") as answer:
            manifest = json.loads(answer.read())
        return sum(part["size"] for part in [manifest["config"], *manifest["layers"]])

    def remove(self) -> None:
        """Remove them from the registry and from this machine."""
        try:
            with _ask(f"{self._address}/tags/list", "GET") as answer:
                tags = json.loads(answer.read())["tags"] or ()
            manifests = [_ask(f"{self._address}/manifests/{tag}", "HEAD") for tag in tags]
            for digest in {manifest.headers["Docker-Content-Digest"] for manifest in manifests}:
                _ask(f"{self._address}/manifests/{digest}", "DELETE")
        except OSError as error:
            step(f"could not remove {self.repository} from the registry: {error}")
        form = '{{join .RepoTags "\\n"}}{{"\\n"}}{{join .RepoDigests "\\n"}}'
        listing = out("docker", "image", "ls", "--no-trunc", "--quiet", "--filter", f"reference={self.repository}")
        for image in sorted(set(listing.split())):
            # By its names here and never by its id: the same image may be another environment's as well.
            names = out("docker", "image", "inspect", "--format", form, image).split()
            attempt(["docker", "image", "rm", *(name for name in names if name.startswith(self.repository))])


def _ask(url: str, method: str) -> HTTPResponse:
    request = urllib.request.Request(url, headers={"Accept": MANIFESTS}, method=method)
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=10)
    return answer
