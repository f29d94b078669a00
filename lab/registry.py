"""A private registry, as an operator's own: TLS by an authority that nobody else trusts, and a login.

It is filled by copying what lies in the registry of this machine byte by byte, so digests stay what they were.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import http.client
import json
import os
import secrets
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.commands import at_once, out
from lab.machines import REGISTRY_USER
from lab.ssh import write_private
from slipway.errors import SlipwayError

LOCAL = "127.0.0.1:5000"
"""The registry of this machine, which the kit's images are built into."""
UID = 5000
"""The user that the registry runs as (images/registry/Dockerfile)."""
DAYS = "30"
"""How long a certificate is good for; a lab does not live longer."""
BCRYPT = b"$2b$"
ROUNDS = 8
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
)
STARTS_WITHIN = 15.0
"""Seconds."""

# openssl wants to be told of names; they are given on its command line.
CONFIG = "[req]\ndistinguished_name = names\n[names]\n"


def make_credentials(folder: Path, address: str) -> None:
    """Write what the registry needs into `folder`/registry, and what its users need beside it.

    Nothing is done where that was done before. The authority's key signs once and is thrown away.
    """
    served = folder / "registry"
    if served.exists():
        return
    password = secrets.token_urlsafe(24)
    made = Path(tempfile.mkdtemp(prefix="registry-", dir=folder))
    with tempfile.TemporaryDirectory(dir=folder) as thrown_away:
        ca_key, ca = f"{thrown_away}/ca.key", str(folder / "registry-ca.crt")
        certificate(
            ca_key, ca, "the lab's own authority", "basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign"
        )
        certificate(
            str(made / "tls.key"),
            str(made / "tls.crt"),
            "the lab's registry",
            "basicConstraints=critical,CA:false",
            f"subjectAltName=IP:{address}",
            "extendedKeyUsage=serverAuth",
            signed_by=("-CA", ca, "-CAkey", ca_key),
        )
    (made / "htpasswd").write_text(f"{REGISTRY_USER}:{bcrypt(password)}\n")
    for file in made.iterdir():
        file.chmod(0o400)
        os.chown(file, UID, UID)
    os.chown(made, UID, UID)
    write_private(folder / "registry-password", password)
    made.rename(served)


@dataclass(frozen=True)
class Registry:
    """A registry by its host and port. Without a file of authorities it is asked in plain text."""

    host: str
    password: str = ""
    ca: Path | None = None

    def answers(self) -> bool:
        """Whether it can be asked."""
        try:
            with self._ask("GET", "/v2/") as answer:
                return answer.status == http.client.OK
        except OSError:
            return False

    def digest(self, repository: str, reference: str) -> str:
        """The digest of an image in it; empty where it has none."""
        with self._ask("HEAD", f"/v2/{repository}/manifests/{reference}") as answer:
            return answer.headers["Docker-Content-Digest"] if answer.status == http.client.OK else ""

    def copy(self, repository: str, tags: Mapping[str, str], source: Registry) -> None:
        """Get a repository's images (tag, digest) from another registry."""
        for tag, digest in tags.items():
            self._copy_manifest(repository, digest, tag, source)
            if self.digest(repository, tag) != digest:
                raise SlipwayError(
                    f"{self.host} has another image {repository}:{tag} than {source.host}.",
                    "Remove the lab and try again.",
                )

    def _copy_manifest(self, repository: str, digest: str, reference: str, source: Registry) -> None:
        path = f"/v2/{repository}/manifests"
        with source._ask("GET", f"{path}/{digest}") as answer:
            manifest, kind = answer.read(), answer.headers["Content-Type"]
            if answer.status != http.client.OK:
                raise SlipwayError(
                    f"{source.host} does not have {repository}@{digest}, which the lock names.",
                    "Build the images: playbooks/images.yml.",
                )
        described = json.loads(manifest)
        for part in described.get("manifests", ()):
            self._copy_manifest(repository, part["digest"], part["digest"], source)
        blobs = [part["digest"] for part in (described.get("config"), *described.get("layers", ())) if part]
        at_once(lambda blob: self._copy_blob(repository, blob, source), dict.fromkeys(blobs))
        self._put(f"{path}/{reference}", manifest, {"Content-Type": kind})

    def _copy_blob(self, repository: str, digest: str, source: Registry) -> None:
        path = f"/v2/{repository}/blobs"
        with self._ask("HEAD", f"{path}/{digest}") as answer:
            if answer.status == http.client.OK:
                return
        with self._ask("POST", f"{path}/uploads/") as answer:
            place = answer.headers["Location"]
        with source._ask("GET", f"{path}/{digest}") as blob:
            size = {"Content-Length": blob.headers["Content-Length"], "Content-Type": "application/octet-stream"}
            self._put(f"{place}&digest={digest}", blob, size)

    def _put(self, place: str, body: bytes | http.client.HTTPResponse, headers: Mapping[str, str]) -> None:
        with self._ask("PUT", place, body, headers) as answer:
            if answer.status != http.client.CREATED:
                raise SlipwayError(
                    f"{self.host} does not take an image: {answer.status} {answer.reason}.",
                    "See what it says: docker logs.",
                    details=answer.read().decode(),
                )

    @contextlib.contextmanager
    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | http.client.HTTPResponse | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        given = {"Accept": MANIFESTS, **(headers or {})}
        if self.password:
            login = base64.b64encode(f"{REGISTRY_USER}:{self.password}".encode()).decode()
            given["Authorization"] = f"Basic {login}"
        connection = (
            http.client.HTTPSConnection(self.host, timeout=30, context=ssl.create_default_context(cafile=str(self.ca)))
            if self.ca
            else http.client.HTTPConnection(self.host, timeout=30)
        )
        # What a registry names is an address of its own, host included.
        path = path.partition(self.host)[2] or path
        with contextlib.closing(connection):
            connection.request(method, path, body, given)
            yield connection.getresponse()


def lab_registry(folder: Path, host: str) -> Registry:
    """The registry of the lab that keeps its files in `folder`, to be asked as its user."""
    return Registry(host, (folder / "registry-password").read_text(), folder / "registry-ca.crt")


def fill(registry: Registry, images: Mapping[str, Mapping[str, str]]) -> None:
    """Wait for a registry that is starting, and copy images (repository, tag, digest) of this machine's into it."""
    end = time.monotonic() + STARTS_WITHIN
    while not registry.answers():
        if time.monotonic() > end:
            raise SlipwayError(
                f"The lab's registry {registry.host} does not answer within {STARTS_WITHIN:g} s.",
                "See what it says: docker logs.",
            )
        time.sleep(0.1)
    source = Registry(LOCAL)
    at_once(lambda item: registry.copy(item[0].partition("/")[2], item[1], source), images.items())


def certificate(key: str, certificate: str, name: str, *extensions: str, signed_by: tuple[str, ...] = ()) -> None:
    """Write a new key, and a certificate of it with these extensions: signed with the key itself, or by an authority.

    `signed_by` is how openssl is told of that authority: `-CA` and `-CAkey` with their files.
    """
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    added = [word for extension in extensions for word in ("-addext", extension)]
    files = ["-keyout", key, "-out", certificate]
    command = ["openssl", "req", "-x509", "-config", "/dev/stdin", "-days", DAYS, "-subj", f"/CN={name}"]
    out(*command, *curve, *files, *added, *signed_by, stdin=CONFIG)


def bcrypt(password: str) -> str:
    """As htpasswd does, by the library that Debian logs in with: the password is on no command line."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = library.crypt_gensalt.restype = ctypes.c_char_p
    library.crypt_gensalt.argtypes = [ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int]
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    salt = library.crypt_gensalt(BCRYPT, ROUNDS, None, 0)
    return str(library.crypt(password.encode(), salt).decode())
