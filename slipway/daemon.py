"""Questions to the Docker daemon over its socket: what runs, what an image is, what a registry would answer.

What a release is made of is changed through Compose alone (`slipway.project`). Looking is done here because it is
the common case: a question over the socket takes milliseconds, a `docker` process a tenth of a second, and for
one of them, what digest a tag has in the registry as the daemon sees it, there is no docker command at all. So is
forgetting, by exact labels and references, since images belong to no Compose project; and so are pulling and pushing,
because here a login goes with the call, where a `docker` process would read it from a file.
Source: Docker Engine API v1.44, which engines from 25.0 on speak.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from slipway.errors import PreflightError
from slipway.registries import DOCKER_HUB, Logins, authorization, refusal, registry_of
from slipway.release import LABEL_NAME, LABEL_RELEASE

SOCKET = Path("/var/run/docker.sock")
API = "/v1.44"
STOP_PATIENCE = 600.0
"""Seconds."""
LOOK_PATIENCE = 60.0
"""Seconds that a registry has to say what a tag is; the daemon itself gives up earlier in most cases."""
MOVE_PATIENCE = 600.0
"""Seconds without any news of a pull or a push: a large layer is checked and unpacked in silence."""
LABEL_SERVICE = "com.docker.compose.service"
LABEL_ONE_OFF = "com.docker.compose.oneoff"
LABEL_PROJECT = "com.docker.compose.project"


class Container(msgspec.Struct, kw_only=True, frozen=True):
    """One container of the kit, as the daemon sees it now."""

    id: str
    name: str
    labels: dict[str, str]
    state: str
    """created, running, restarting, exited, dead …"""
    health: str
    """healthy, unhealthy, starting, or an empty string where the image has no health check."""
    exit_code: int
    restarts: int
    image: str
    """The id of the image that runs."""
    started_at: str
    error: str

    @property
    def release(self) -> str:
        """The release that it belongs to."""
        return self.labels.get(LABEL_RELEASE, "")

    @property
    def service(self) -> str:
        """The service in Compose that it runs: one replica of a service of the contract."""
        return self.labels.get(LABEL_SERVICE, "")

    @property
    def one_off(self) -> bool:
        """Whether it is a one-shot run (a migration) instead of a service."""
        return self.labels.get(LABEL_ONE_OFF) == "True"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the Unix socket at `path`."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """The Docker daemon of this host. Methods raise :class:`PreflightError` when it does not answer."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    def root(self) -> Path:
        """The daemon's data folder."""
        return Path(self._get("/info")["DockerRootDir"])

    def containers(self, name: str) -> list[Container]:
        """All containers, running or not, of the environment or stack `name`."""
        return [_container(body) for body in self.inspect(name)]

    def inspect(self, name: str) -> list[dict[str, Any]]:
        """The same containers with all that the daemon knows of them, as `docker inspect` prints it."""
        listed = self._get("/containers/json", all="true", filters=_labelled({LABEL_NAME: name}))
        found = (self._find(f"/containers/{entry['Id']}/json") for entry in listed)
        # A container may go between the list and the look at it.
        return [body for body in found if body is not None]

    def projects(self) -> set[str]:
        """Compose projects of which there is a container, running or not, or a network."""
        found = [*self._get("/containers/json", all="true"), *self._get("/networks")]
        return {(entry["Labels"] or {}).get(LABEL_PROJECT, "") for entry in found}

    def networks(self) -> dict[str, list[IPv4Network]]:
        """Name of each network of this daemon -> its IPv4 subnets."""
        return {
            entry["Name"]: [
                IPv4Network(config["Subnet"])
                for config in (entry["IPAM"]["Config"] or [])
                if ":" not in config.get("Subnet", ":")
            ]
            for entry in self._get("/networks")
        }

    def publishers(self, port: int) -> dict[str, str]:
        """Containers that publish the TCP `port` of this host: name -> environment or stack, if of one."""
        listed = self._get("/containers/json", filters=json.dumps({"publish": [f"{port}/tcp"]}))
        return {entry["Names"][0].lstrip("/"): entry["Labels"].get(LABEL_NAME, "") for entry in listed}

    def stop_containers(self, labels: dict[str, str]) -> None:
        """Stop the containers that have all of these labels, each with its own grace period."""
        for entry in self._get("/containers/json", filters=_labelled(labels)):
            # Longer than any grace period that makes sense.
            self._request(f"/containers/{entry['Id']}/stop", timeout=STOP_PATIENCE, method="POST")

    def remove_volumes(self, labels: dict[str, str]) -> None:
        """Remove the volumes that have all of these labels. This is where data ends."""
        for entry in self._get("/volumes", filters=_labelled(labels))["Volumes"] or []:
            self._remove(f"/volumes/{quote(entry['Name'])}")

    def remove_containers(self, labels: dict[str, str]) -> None:
        """Remove the containers, running or not, that have all of these labels."""
        for entry in self._get("/containers/json", all="true", filters=_labelled(labels)):
            self._remove(f"/containers/{entry['Id']}?force=true&v=true")

    def remove_networks(self, labels: dict[str, str]) -> bool:
        """Remove the networks that have all of these labels; False when a container of something else is in one."""
        listed = self._get("/networks", filters=_labelled(labels))
        return all(self._remove(f"/networks/{entry['Id']}") for entry in listed)

    def remove_image(self, reference: str) -> bool:
        """Remove an image by this one reference; False when it was not there or something uses it."""
        return self._remove(f"/images/{quote(reference, safe='/:@')}?noprune=true")

    def images_in_use(self) -> set[str]:
        """Ids of the images that any container of this host, running or not, was made from."""
        return {entry["ImageID"] for entry in self._get("/containers/json", all="true")}

    def image(self, reference: str) -> dict[str, Any] | None:
        """The image `reference` in the local store, or None."""
        found: dict[str, Any] | None = self._find(f"/images/{quote(reference, safe='/:@')}/json")
        return found

    def execute(self, container: str, command: list[str], timeout: float) -> tuple[int | None, bytes]:
        """Run a command in a container as its own user: exit code and output, or no code where it takes too long."""
        made = self._request(
            f"/containers/{quote(container)}/exec",
            method="POST",
            body=json.dumps({"Cmd": command, "AttachStdout": True, "AttachStderr": True}),
        )
        if made[0] != http.HTTPStatus.CREATED:
            # It has stopped meanwhile.
            return -1, str(made[1].get("message", "")).encode()
        said = b""
        try:
            headers = {"Content-Type": "application/json"}
            start = f"/exec/{made[1]['Id']}/start"
            with self._call("POST", start, timeout, headers, json.dumps({"Detach": False})) as response:
                # Each part has a header: which stream, and in the last four bytes how long it is.
                while head := response.read(8):
                    said += response.read(int.from_bytes(head[4:], "big"))
        except TimeoutError:
            return None, said
        code = self._get(f"/exec/{made[1]['Id']}/json")["ExitCode"]
        return code, said

    def has_volume(self, name: str) -> bool:
        """Whether there is a volume of that name."""
        return self.volume(name) is not None

    def volume(self, name: str) -> Path | None:
        """Where the volume of that name lies on this host; None where there is none."""
        found = self._find(f"/volumes/{quote(name)}")
        return None if found is None else Path(found["Mountpoint"])

    def make_volume(self, name: str, labels: dict[str, str]) -> Path:
        """Make a volume, or find the one of that name; the answer is where it lies on this host."""
        body = json.dumps({"Name": name, "Labels": labels})
        status, made = self._request("/volumes/create", method="POST", body=body)
        if status != http.HTTPStatus.CREATED:
            self._wanted("/volumes/create", status, made)
        return Path(made["Mountpoint"])

    def has_container(self, name: str) -> bool:
        """Whether there is a container of that name, running or not."""
        return self._find(f"/containers/{quote(name)}/json") is not None

    def remove_container(self, name: str) -> bool:
        """Remove a container, running or not; False when it was not there or is going already."""
        return self._remove(f"/containers/{quote(name)}?force=true&v=true")

    def registry_digest(self, reference: str, logins: Logins) -> str:
        """The digest that the registry has for `repository:tag`, asked for by the daemon with its own settings.

        Raises :class:`PreflightError` when the tag does not exist, or the registry does not answer, or not to that
        login.
        """
        path = f"/distribution/{quote(reference, safe='/:@')}/json"
        try:
            with self._call("GET", path, LOOK_PATIENCE, self._authorization(reference, logins)) as response:
                status, body = response.status, json.loads(response.read() or b"{}")
        except TimeoutError:
            status, body = http.HTTPStatus.GATEWAY_TIMEOUT, {"message": f"no answer within {LOOK_PATIENCE:g} seconds"}
        if status == http.HTTPStatus.OK:
            return str(body["Descriptor"]["digest"])
        reason = str(body.get("message", ""))
        raise refusal(reference, logins, status, reason) or PreflightError(
            f"The registry {registry_of(reference)} does not answer.",
            "Start it, or check the network between it and this host, and run the play again.",
            details=reason,
        )

    def pull(self, reference: str, logins: Logins) -> None:
        """Pull `repository@digest` or `repository:tag`. Raises :class:`PreflightError` with what the registry said.

        A caller that is killed takes the pull with it.
        """
        name, tag = _split(reference)
        query = urlencode({"fromImage": name, "tag": tag})
        status, reason = self._move(f"/images/create?{query}", self._authorization(reference, logins))
        if reason:
            raise refusal(reference, logins, status, reason) or PreflightError(
                f"The image {reference} could not be pulled.",
                "Check that its registry answers and still holds it, and run the play again.",
                details=reason,
            )

    def push(self, reference: str, logins: Logins) -> None:
        """Push `repository:tag`, as :meth:`pull` pulls."""
        name, tag = _split(reference)
        # Without a login the API still wants the header: `{}`.
        header = {"X-Registry-Auth": "e30=", **self._authorization(reference, logins)}
        path = f"/images/{quote(name, safe='/:')}/push?{urlencode({'tag': tag})}"
        status, reason = self._move(path, header)
        if reason:
            raise refusal(reference, logins, status, reason, to="push") or PreflightError(
                f"The registry {registry_of(reference)} did not take {reference}.",
                "Check that it answers, its logs and its disk, then run the play again.",
                details=reason,
            )

    def _move(self, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Pull or push, and give the status and what went wrong, if anything did."""
        try:
            with self._call("POST", path, MOVE_PATIENCE, headers) as response:
                return response.status, _complaint(response)
        except TimeoutError:
            return http.HTTPStatus.GATEWAY_TIMEOUT, f"no news of it for {MOVE_PATIENCE:g} seconds"

    def _authorization(self, reference: str, logins: Logins) -> dict[str, str]:
        header = authorization(reference, logins)
        if header and registry_of(reference) == DOCKER_HUB:
            # Docker asks the mirrors first, and shows whichever wants one the login of docker.io:
            # https://github.com/moby/moby/issues/42022
            mirrors = self._get("/info")["RegistryConfig"]["Mirrors"]
            if mirrors:
                raise PreflightError(
                    f"Docker would show the login of {DOCKER_HUB} to its mirror {mirrors[0]} as well.",
                    f"Take the mirror out of docker_registry_mirrors, or {DOCKER_HUB} out of docker_registries.",
                )
        return header

    def _get(self, path: str, **query: str) -> Any:
        status, body = self._request(path + (f"?{urlencode(query)}" if query else ""))
        return self._wanted(path, status, body)

    @staticmethod
    def _wanted(path: str, status: int, body: Any) -> Any:
        if status != http.HTTPStatus.OK:
            raise PreflightError(
                f"The Docker daemon answered {status} to {path}.",
                "Read the daemon's log.",
                details=str(body.get("message", "")),
            )
        return body

    def _find(self, path: str) -> Any:
        status, body = self._request(path)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        return self._wanted(path, status, body)

    def _remove(self, path: str) -> bool:
        status, body = self._request(path, method="DELETE")
        if status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.CONFLICT, http.HTTPStatus.FORBIDDEN):
            return False
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.NO_CONTENT):
            self._wanted(path, status, body)
        return True

    def _request(
        self, path: str, timeout: float = 20.0, method: str = "GET", body: str | None = None
    ) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            with self._call(method, path, timeout, headers, body) as response:
                return response.status, json.loads(response.read() or b"{}")
        except TimeoutError as error:
            raise self._silent(error) from error

    @contextmanager
    def _call(
        self, method: str, path: str, timeout: float, headers: Mapping[str, str], body: str | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """One call, for as long as its answer is read. A daemon that takes too long is a :class:`TimeoutError`."""
        connection = UnixConnection(self._path, timeout)
        try:
            connection.request(method, API + path, body, dict(headers))
            yield connection.getresponse()
        except TimeoutError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._silent(error) from error
        finally:
            connection.close()

    def _silent(self, error: Exception) -> PreflightError:
        return PreflightError(
            f"The Docker daemon does not answer on {self._path} ({error}).",
            "Start it: systemctl start docker, or run playbooks/provision.yml where there is no systemd.",
        )


def _split(reference: str) -> tuple[str, str]:
    """`repository@digest` or `repository:tag` -> (repository, digest or tag)."""
    name, separator, digest = reference.partition("@")
    if separator:
        return name, digest
    name, _, tag = reference.rpartition(":")
    return name, tag


def _complaint(response: http.client.HTTPResponse) -> str:
    """What went wrong in a pull or push: the daemon says so in place of its progress, or as the last line of it."""
    last: dict[str, Any] = {}
    for line in response:
        last = json.loads(line)
    return str(last.get("error") or last.get("message") or "")


def _labelled(labels: dict[str, str]) -> str:
    return json.dumps({"label": [f"{label}={value}" for label, value in labels.items()]})


def _container(body: dict[str, Any]) -> Container:
    state = body["State"]
    return Container(
        id=body["Id"],
        name=body["Name"].lstrip("/"),
        labels=body["Config"]["Labels"] or {},
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=state["ExitCode"],
        restarts=body["RestartCount"],
        image=body["Image"],
        started_at=state["StartedAt"],
        error=state["Error"],
    )
