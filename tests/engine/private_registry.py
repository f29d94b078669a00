"""A registry of one's own, as companies have them: TLS by a private CA, and a login.

    with PrivateRegistry(image="slipway/registry:…", logins={"ci": "secret"}) as registry:
        registry.push("slipway/backend:dev", "shop/api:1.0")
        registry.host, registry.ca          # what `docker_registries` wants to know

It is Debian's docker-registry, in a container on this host's network: it listens on the address of Docker's default
bridge. That is no loopback address, so Docker asks for its CA, and containers on every network reach it too. What is
pushed is kept in memory and gone with it. Needs Docker, openssl, and the image that the role `registry` builds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.registry import UID, bcrypt, certificate

PATIENCE = 20.0
"""Seconds that it has to start."""
OWNER = "owner"
"""Who pushes."""
CERTS = Path("/etc/docker/certs.d")
CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: /var/lib/registry}}, delete: {{enabled: true}}}}
auth: {{htpasswd: {{realm: private, path: /registry/htpasswd}}}}
http:
  addr: {host}
  tls: {{certificate: /registry/server.pem, key: /registry/server.key}}
"""


class PrivateRegistry:
    """Serves as long as the `with` block lasts. `logins` are users and their passwords."""

    def __init__(self, *, image: str, logins: dict[str, str], name: str = "slipway-test-private") -> None:
        self.name = f"{name}-{secrets.token_hex(3)}"
        self.address = bridge_address()
        self.host = f"{self.address}:{free_port(self.address)}"
        """As image references name it."""
        self.ca = ""
        """PEM."""
        self._image = image
        self._logins = logins
        self._owner = secrets.token_hex(16)

    def __enter__(self) -> PrivateRegistry:
        with contextlib.ExitStack() as made:
            self._folder = Path(made.enter_context(tempfile.TemporaryDirectory(prefix=f"{self.name}-")))
            # The registry is not root.
            self._folder.chmod(0o755)
            self.ca = self._certify()
            self.allow(self._logins)
            (self._folder / "config.yml").write_text(CONFIG.format(host=self.host))
            made.callback(self.distrust)
            made.callback(self.stop)
            self.start()
            self._made = made.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def start(self) -> None:
        """Have it answer. What was pushed before a stop is forgotten."""
        docker(
            *("run", "--detach", "--rm", f"--name={self.name}", "--network=host", "--read-only", "--cap-drop=ALL"),
            # In memory, and not in the volume that the image declares there.
            *(f"--tmpfs=/var/lib/registry:uid={UID}", f"--volume={self._folder}:/registry:ro"),
            *(self._image, "serve", "/registry/config.yml"),
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._ask("GET", "/v2/")
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"The registry {self.name} does not start.") from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Have it answer nobody."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], check=False, capture_output=True)

    def allow(self, logins: dict[str, str]) -> None:
        """Let exactly these in from now on: docker-registry reads the file anew when it changes."""
        everybody = {OWNER: self._owner, **logins}
        text = "".join(f"{user}:{bcrypt(password)}\n" for user, password in everybody.items())
        (self._folder / "htpasswd").write_text(text)

    def trust(self) -> None:
        """Have the Docker of this host trust its CA."""
        folder = CERTS / self.host
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_text(self.ca)

    def distrust(self) -> None:
        """Take that back."""
        shutil.rmtree(CERTS / self.host, ignore_errors=True)

    def push(self, image: str, target: str) -> str:
        """Put an image of this host's Docker there as `repository:tag`; the answer is its digest.

        It goes over HTTP and not through Docker, which need not trust the registry for it.
        """
        repository, _, tag = target.rpartition(":")
        with tempfile.TemporaryFile() as file:
            subprocess.run(["docker", "save", image], check=True, stdout=file)
            file.seek(0)
            with tarfile.open(fileobj=file) as saved:
                [entry] = json.loads(_read(saved, "manifest.json"))
                config = self._put_blob(repository, _read(saved, entry["Config"]))
                layers = [self._put_blob(repository, _read(saved, layer)) for layer in entry["Layers"]]
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", **layer} for layer in layers],
        }
        answer = self._ask("PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), kind)
        return str(answer["Docker-Content-Digest"])

    def _put_blob(self, repository: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = self._ask("POST", f"/v2/{repository}/blobs/uploads/")["Location"].partition(self.host)[2]
        self._ask("PUT", f"{place}&digest={digest}", content)
        return {"digest": digest, "size": len(content)}

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> Any:
        connection = http.client.HTTPSConnection(
            self.host, timeout=30, context=ssl.create_default_context(cadata=self.ca)
        )
        # The one who made it, whoever else it lets in.
        login = base64.b64encode(f"{OWNER}:{self._owner}".encode()).decode()
        try:
            connection.request(method, path, body, {"Authorization": f"Basic {login}", "Content-Type": kind})
            response = connection.getresponse()
            said = response.read()
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                raise RuntimeError(f"{self.host} answers {response.status} to {method} {path}: {said!r}")
            return response.headers
        finally:
            connection.close()

    def _certify(self) -> str:
        """Make the CA and the certificate of the server; the answer is the CA's, PEM."""
        ca, ca_key = self._folder / "ca.pem", self._folder / "ca.key"
        server, key = self._folder / "server.pem", self._folder / "server.key"
        certificate(str(ca_key), str(ca), f"{self.name} CA", "basicConstraints=critical,CA:true")
        certificate(
            *(str(key), str(server), self.name),
            *("basicConstraints=critical,CA:false", f"subjectAltName=IP:{self.address}"),
            signed_by=("-CA", str(ca), "-CAkey", str(ca_key)),
        )
        shutil.chown(key, UID)
        return ca.read_text()


def docker(*arguments: str) -> str:
    """Run the command; the answer is what it prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def bridge_address() -> str:
    """This host's own address on Docker's default bridge."""
    [bridge] = json.loads(docker("network", "inspect", "bridge"))
    return str(bridge["IPAM"]["Config"][0]["Gateway"])


def free_port(address: str) -> int:
    """A TCP port of that address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()
