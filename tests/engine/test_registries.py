"""Registries that want a login and have a CA of their own, through the real Docker: what they say, and what leaks."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway import images, stack
from slipway.daemon import Daemon
from slipway.errors import PreflightError
from slipway.images import Base, Image, ImagesRequest
from slipway.images.build import ImageAnswer, Source
from slipway.images.docker import Images
from slipway.registries import Login
from slipway.source import pack
from tests.engine.private_registry import PrivateRegistry, docker

KIT = Path(__file__).parents[2]
KEPT = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/root/.docker", "/etc/docker", "/srv"]  # noqa: S108
"""Where a login could have been left."""

pytestmark = pytest.mark.docker

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""

# Of this run alone, so that whatever is found was left by it.
FIRST = {"deploy": f"first-{secrets.token_hex(16)}", "stranger": f"strangers-{secrets.token_hex(16)}"}
SECOND = {"deploy": f"second-{secrets.token_hex(16)}"}
PASSWORDS = [*FIRST.values(), *SECOND.values()]


def registry_image() -> str:
    """The image of the registry that runs on this machine."""
    [container] = json.loads(docker("inspect", "slipway-registry-registry-1"))
    return str(container["Config"]["Image"])


@pytest.fixture(scope="module")
def first() -> Iterator[PrivateRegistry]:
    with PrivateRegistry(image=registry_image(), logins=FIRST) as registry:
        registry.trust()
        yield registry


@pytest.fixture(scope="module")
def second() -> Iterator[PrivateRegistry]:
    with PrivateRegistry(image=registry_image(), logins=SECOND) as registry:
        registry.trust()
        yield registry


@contextlib.contextmanager
def unique(base: str) -> Iterator[str]:
    """An image like `base` with a layer that no other one has: Docker asks no registry for layers that it holds."""
    name = f"slipway-test-private/{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "unique").write_bytes(os.urandom(64))
        Path(folder, "Dockerfile").write_text(f"FROM {base}\nCOPY unique /unique\n")
        docker("build", "--quiet", f"--tag={name}", folder)
    yield name
    docker("image", "rm", "--force", name)


@pytest.fixture
def pushed(first: PrivateRegistry) -> Iterator[str]:
    """`repository@digest` in the first registry, and not on this host."""
    with unique("scratch") as image:
        reference = f"{first.host}/shop/api@{first.push(image, 'shop/api:1.0')}"
    yield reference
    Daemon().remove_image(reference)


def login(user: str, password: str) -> dict[str, str]:
    return {"username": user, "password": password}


def logins_of(first: PrivateRegistry, second: PrivateRegistry) -> dict[str, dict[str, str]]:
    return {first.host: login("deploy", FIRST["deploy"]), second.host: login("deploy", SECOND["deploy"])}


def digest_of(reference: str, **logins: dict[str, str]) -> str:
    return Daemon().registry_digest(reference, {host: Login(**given) for host, given in logins.items()})


def refusal(reference: str, **logins: dict[str, str]) -> PreflightError:
    with pytest.raises(PreflightError) as refused:
        digest_of(reference, **logins)
    assert not any(password in f"{refused.value}{refused.value.details}" for password in PASSWORDS)
    return refused.value


# --- A release from two of them -----------------------------------------------------------------------------------


@pytest.fixture
def shop(
    environment: Environment, first: PrivateRegistry, second: PrivateRegistry
) -> Iterator[tuple[Environment, dict[str, Any], list[str]]]:
    """An environment, services of it from two registries, and the references that they get."""
    services = environment.services("1.0")
    references = []
    for registry, name in ((first, "shop/app"), (second, "shop/worker")):
        with unique(f"{services['app']['image']}:1.0") as image:
            references.append(f"{registry.host}/{name}@{registry.push(image, f'{name}:1.0')}")
    services["app"]["image"] = f"{first.host}/shop/app"
    services["worker"] = {
        "image": f"{second.host}/shop/worker",
        "tag": "1.0",
        "user": "1001:1001",
        "entrypoint": ["/usr/bin/python3", "-c", "import time; time.sleep(600)"],
        "init": True,
    }
    yield environment, services, references
    environment.clear()
    for reference in references:
        Daemon().remove_image(reference)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the engine has its temporary files, and nobody else."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def leaked(environment: Environment) -> str:
    """All that is to be read on this host after a deploy: what was said, the files, the containers."""
    files = [path for path in environment.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return "\n".join(
        [
            *environment.said,
            *(path.read_bytes().decode(errors="replace") for path in files),
            json.dumps(environment.containers()),
            *(path.read_text() for path in [Path.home() / ".docker" / "config.json"] if path.exists()),
        ]
    )


def test_a_release_of_images_from_two_registries_with_a_login_each(
    shop: tuple[Environment, dict[str, Any], list[str]],
    first: PrivateRegistry,
    second: PrivateRegistry,
    temporary: Path,
) -> None:
    environment, services, references = shop
    with CommandLines() as seen:
        answer = environment.deploy_services(services, logins=logins_of(first, second))
    assert environment.version() == "1.0"
    assert sorted({container["Config"]["Image"] for container in environment.containers()}) == sorted(references)

    assert seen.lines
    said = leaked(environment) + "\n".join(seen.lines)
    assert "slipway.cli" in said
    assert [password for password in PASSWORDS if password in said] == []
    assert holders() == []
    assert list(temporary.iterdir()) == []

    # No registry is asked once all that the lock names is here, so it takes no login to do nothing.
    digests = dict(zip(services, (reference.partition("@")[2] for reference in references), strict=True))
    pinned = {name: {**service, "digest": digests[name]} for name, service in services.items()}
    assert environment.preflight(pinned)["digests"] == digests
    again = environment.of_run("stage", release=environment.release(services, digests))
    assert (again["release"], again["changed"], again["serves"]) == (answer.id, False, True)


def holders() -> list[str]:
    """The files of this host that hold a password, as it is or as a Docker config would have it."""
    users = [*FIRST.items(), *SECOND.items()]
    encoded = [base64.b64encode(f"{user}:{password}".encode()).decode() for user, password in users]
    look = ["grep", "--recursive", "--files-with-matches", "--no-messages", "--fixed-strings", "--devices=skip"]
    patterns = [f"--regexp={text}" for text in [*PASSWORDS, *encoded]]
    return subprocess.run([*look, *patterns, *KEPT], capture_output=True, text=True, check=False).stdout.split()


class CommandLines:
    """The command lines and environments of all processes of this host, as often as they can be read."""

    def __enter__(self) -> CommandLines:
        self.lines: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.01):
            for process in Path("/proc").glob("[0-9]*"):
                if process.name == str(os.getpid()):
                    continue
                with contextlib.suppress(OSError):
                    for name in ("cmdline", "environ"):
                        self.lines.add((process / name).read_bytes().replace(b"\0", b" ").decode(errors="replace"))


def test_logins_that_are_for_another_registry_open_nothing(
    shop: tuple[Environment, dict[str, Any], list[str]], first: PrivateRegistry, second: PrivateRegistry
) -> None:
    environment, services, _ = shop
    given = logins_of(first, second)
    swapped = {first.host: given[second.host], second.host: given[first.host]}
    with pytest.raises(environment.Refused) as refused:
        environment.deploy_services(services, logins=swapped)
    assert refused.value.verb == "preflight"
    assert refused.value.what == (
        f"The registry {first.host} does not accept the login of deploy: "
        "the password is wrong or has expired, or there is no such user any more."
    )
    assert not environment.folder.exists()


def test_a_stack_of_the_kit_has_its_image_from_there_as_well(
    environment: Environment, first: PrivateRegistry, tmp_path: Path
) -> None:
    with unique(f"{environment.services('1.0')['app']['image']}:1.0") as image:
        reference = f"{first.host}/kit/stack@{first.push(image, 'kit/stack:1.0')}"
    name = "t-private"
    command = ["/usr/bin/python3", "-c", "import time; time.sleep(600)"]
    service = {"image": reference, "entrypoint": command, "init": True}
    file = stack.StackFile(path="compose.yml", content=json.dumps({"services": {"one": service}}))
    mine = {first.host: Login(username="deploy", password=FIRST["deploy"])}
    try:
        with pytest.raises(PreflightError, match="wants a login"):
            stack.run(stack.StackRequest(name=name, files=[file]), tmp_path)
        answer = stack.run(stack.StackRequest(name=name, files=[file], logins=mine), tmp_path)
        assert answer["changed"]
        assert not stack.run(stack.StackRequest(name=name, files=[file]), tmp_path)["changed"]
    finally:
        stack.run(stack.StackRequest(name=name, state="absent", purge=True), tmp_path)
        Daemon().remove_image(reference)


def test_an_image_is_built_on_one_registrys_base_and_pushed_to_another(
    first: PrivateRegistry, second: PrivateRegistry, tmp_path: Path
) -> None:
    with unique("scratch") as image:
        first.push(image, "base:1")
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY hello /hello\n")
    (tmp_path / "hello").write_text("hello\n")
    source = Source(**{**pack(tmp_path), "tags": ["1.0", "sha-0123456"]})  # type: ignore[arg-type]
    built = Image(repository=f"{second.host}/built/hello", source=source, push=True)
    mine = {host: Login(**given) for host, given in logins_of(first, second).items()}
    request = ImagesRequest(base=Base(image=f"{first.host}/base:1"), images=[built], logins=mine)
    try:
        [answer] = run(request)
        assert (answer.how, answer.digest) == ("built", digest_at(second, "built/hello:1.0"))
        assert answer.digest == digest_at(second, "built/hello:sha-0123456")
        assert [again.how for again in run(request)] == ["unchanged"]
        # The registry alone has it now.
        docker("image", "rm", "--force", answer.id)
        assert [(again.how, again.digest) for again in run(request)] == [("unchanged", answer.digest)]

        docker("tag", f"{second.host}/built/hello@{answer.digest}", f"{second.host}/built/hello:1.0")
        second.allow({**SECOND, "deploy": "changed-in-the-meantime"})
        with pytest.raises(PreflightError, match="does not accept the login of deploy"):
            run(request)
        with pytest.raises(PreflightError, match="does not accept the login of deploy"):
            Daemon().push(f"{second.host}/built/hello:1.0", mine)
    finally:
        second.allow(SECOND)
        for image in docker("images", "--quiet", f"{second.host}/built/hello").split():
            docker("image", "rm", "--force", image)
        Daemon().remove_image(f"{first.host}/base:1")


def run(request: ImagesRequest) -> list[ImageAnswer]:
    answer: dict[str, Any] = images.run(request)
    found: list[ImageAnswer] = answer["images"]
    return found


def digest_at(registry: PrivateRegistry, reference: str) -> str:
    return digest_of(f"{registry.host}/{reference}", **{registry.host: login("deploy", SECOND["deploy"])})


# --- What a registry says -----------------------------------------------------------------------------------------


def test_a_digest_is_told_to_the_login_that_the_registry_is_for(first: PrivateRegistry, pushed: str) -> None:
    mine = {first.host: login("deploy", FIRST["deploy"])}
    assert digest_of(f"{first.host}/shop/api:1.0", **mine) == pushed.partition("@")[2]
    Daemon().pull(pushed, {first.host: Login(**mine[first.host])})
    assert Images().image(pushed)


def test_no_login(first: PrivateRegistry, pushed: str) -> None:
    tag = f"{first.host}/shop/api:1.0"
    refused = refusal(tag)
    assert refused.what == f"The registry {first.host} wants a login for {tag}, and docker_registries has none for it."
    with pytest.raises(PreflightError, match="wants a login"):
        Daemon().pull(pushed, {})


@pytest.mark.parametrize("given", [login("deploy", "wrong"), login("deploi", FIRST["deploy"])])
def test_a_wrong_password_or_user(first: PrivateRegistry, pushed: str, given: dict[str, str]) -> None:
    refused = refusal(f"{first.host}/shop/api:1.0", **{first.host: given})
    assert refused.what.startswith(f"The registry {first.host} does not accept the login of {given['username']}: ")
    assert refused.do_next == f"Correct the login of {first.host} in docker_registries, and run the play again."
    with pytest.raises(PreflightError, match="does not accept the login"):
        Daemon().pull(pushed, {first.host: Login(**given)})


def test_a_password_that_was_changed_and_a_user_that_was_removed(first: PrivateRegistry, pushed: str) -> None:
    tag, stranger = f"{first.host}/shop/api:1.0", {first.host: login("stranger", FIRST["stranger"])}
    assert digest_of(tag, **stranger) == pushed.partition("@")[2]
    try:
        first.allow({**FIRST, "stranger": "changed-in-the-meantime"})
        assert "wrong or has expired" in refusal(tag, **stranger).what
        first.allow({"deploy": FIRST["deploy"]})
        assert "no such user any more" in refusal(tag, **stranger).what
    finally:
        first.allow(FIRST)
    assert digest_of(tag, **stranger)


def test_a_certificate_of_a_ca_that_the_host_does_not_trust(first: PrivateRegistry, pushed: str) -> None:
    tag, mine = f"{first.host}/shop/api:1.0", {first.host: login("deploy", FIRST["deploy"])}
    first.distrust()
    try:
        refused = refusal(tag, **mine)
        assert refused.what == f"This host does not trust the certificate of the registry {first.host}."
        assert "as ca, and run playbooks/provision.yml" in refused.do_next
        with pytest.raises(PreflightError, match="does not trust"):
            Daemon().pull(pushed, {first.host: Login(**mine[first.host])})
    finally:
        first.trust()
    assert digest_of(tag, **mine)


def test_a_tag_and_a_repository_that_are_not_there(first: PrivateRegistry, pushed: str) -> None:
    mine = {first.host: login("deploy", FIRST["deploy"])}
    for there in ("shop/api:9.9", "no/such:1.0", f"shop/api@sha256:{'0' * 64}"):
        assert refusal(f"{first.host}/{there}", **mine).what == (
            f"The image {first.host}/{there} does not exist in its registry."
        )
    assert "sha256" in pushed


def test_a_registry_that_is_down(first: PrivateRegistry) -> None:
    first.stop()
    try:
        refused = refusal(f"{first.host}/shop/api:1.0", **{first.host: login("deploy", FIRST["deploy"])})
    finally:
        first.start()
    assert refused.what == f"The registry {first.host} does not answer."
    assert "connection refused" in refused.details


def test_a_registry_that_takes_the_call_and_says_nothing(first: PrivateRegistry) -> None:
    with socket.create_server((first.address, 0)) as silent:
        host = f"{first.address}:{silent.getsockname()[1]}"
        refused = refusal(f"{host}/shop/api:1.0", **{host: login("deploy", FIRST["deploy"])})
    assert refused.what == f"The registry {host} does not answer."
    assert "timeout" in refused.details


def test_a_name_that_nobody_knows() -> None:
    refused = refusal("registry.invalid/shop/api:1.0")
    assert refused.what == "This host cannot find the address of the registry registry.invalid."


def test_a_registry_without_tls(first: PrivateRegistry) -> None:
    import http.server  # noqa: PLC0415

    with http.server.ThreadingHTTPServer((first.address, 0), http.server.BaseHTTPRequestHandler) as plain:
        thread = threading.Thread(target=plain.serve_forever)
        thread.start()
        try:
            host = f"{first.address}:{plain.server_port}"
            refused = refusal(f"{host}/shop/api:1.0")
        finally:
            plain.shutdown()
            thread.join()
    assert refused.what == f"The registry {host} speaks plain HTTP, and Docker asks it over TLS."


# --- A call that is killed ----------------------------------------------------------------------------------------


def test_a_pull_that_is_killed_leaves_no_login_behind(
    shop: tuple[Environment, dict[str, Any], list[str]],
    first: PrivateRegistry,
    second: PrivateRegistry,
    temporary: Path,
) -> None:
    environment, services, _ = shop
    given = logins_of(first, second)
    release = environment.release(services, environment.preflight(services, logins=given)["digests"])
    with CommandLines() as seen:
        # The pulls go on beside the writing of the release folder, which has a temporary name until it is whole.
        environment.kill_when(
            lambda: list((environment.folder / "releases").glob(".staging-*")),
            "stage",
            release=release,
            logins=given,
        )
    assert seen.lines
    said = leaked(environment) + "\n".join(seen.lines)
    assert [password for password in PASSWORDS if password in said] == []
    assert holders() == []
    assert list(temporary.iterdir()) == []

    assert environment.deploy_services(services, logins=given).changed[:1] == ["stage"]
    assert environment.version() == "1.0"


# --- Through Ansible ----------------------------------------------------------------------------------------------


def test_ansible_at_its_most_talkative_tells_no_password(
    shop: tuple[Environment, dict[str, Any], list[str]],
    first: PrivateRegistry,
    second: PrivateRegistry,
    tmp_path: Path,
) -> None:
    environment, services, references = shop
    # Of characters that come out changed where something is quoted.
    odd = f"{secrets.token_hex(8)}\"'\\ä {secrets.token_hex(8)}"
    halves = odd[:16], odd[-16:]
    first.allow({**FIRST, "odd": odd})
    registries = [
        {"host": first.host, "username": "odd", "password": odd, "ca": first.ca},
        {"host": second.host, "username": "deploy", "password": SECOND["deploy"]},
    ]
    variables = {
        "slipway_name": environment.name,
        "slipway_environment": "test",
        "app_services": services,
        "app_image_tag_strategy": "mutable",
        "release_fingerprint_key": "k" * 32,
        "docker_registries": registries,
    }
    # As playbooks/deploy.yml: the backend's contract is made with what the role database knows.
    database = {"ansible.builtin.import_role": {"name": "database", "tasks_from": "reach.yml"}}
    does = {"pre_tasks": [database], "roles": ["backend", "release"]}
    play = Play(tmp_path, environment.root, variables, does)
    try:
        good = play.run("--check", "--diff", "-vvvv")
        registries[0]["password"] = f"{odd}, mistyped"
        play.write()
        wrong = play.run("-vvvv")
        registries[0]["username"] = ""
        play.write()
        incomplete = play.run("-vvvv")
    finally:
        first.allow(FIRST)
    assert good.returncode == 0, good.stdout
    assert f"Would bring the release folder {play.release_in(good.stdout)}" in good.stdout
    assert all(reference in good.stdout for reference in references)
    assert wrong.returncode == 2
    assert f"The registry {first.host} does not accept the login of odd: " in wrong.stdout
    assert incomplete.returncode == 2
    assert f"docker_registries has a password and no username for {first.host}." in incomplete.stdout
    said = "".join(done.stdout + done.stderr for done in (good, wrong, incomplete))
    assert [secret for secret in (*halves, *PASSWORDS) if secret in said] == []
    assert not environment.folder.exists()


def test_the_ca_that_the_inventory_names_is_trusted_from_then_on_and_no_longer(
    first: PrivateRegistry, tmp_path: Path
) -> None:
    tag, mine = f"{first.host}/no/such:1", {first.host: login("deploy", FIRST["deploy"])}
    # Those of this machine stay as they are.
    there = [
        {"host": file.parent.name, "ca": file.read_text()} for file in Path("/etc/docker/certs.d").glob("*/slipway.crt")
    ]
    registries = [*there, {"host": first.host, "ca": first.ca}]
    tasks = [
        {"docker_host_info": {}, "register": "__docker_host"},
        {"include_role": {"name": "docker", "tasks_from": "registries.yml"}},
    ]
    play = Play(tmp_path, tmp_path, {"docker_registries": registries}, {"tasks": tasks})
    first.distrust()
    try:
        foretold = play.run("--check")
        assert "changed=2" in foretold.stdout, foretold.stdout
        assert "does not trust" in refusal(tag, **mine).what
        assert "changed=2" in play.run().stdout
        assert "does not exist in its registry" in refusal(tag, **mine).what
        assert "changed=0" in play.run().stdout
        play.variables["docker_registries"] = there
        play.write()
        assert "changed=1" in play.run().stdout
        assert "does not trust" in refusal(tag, **mine).what
    finally:
        first.trust()


class Play:
    """A play on this machine, with the engine of this checkout in the place of the installed one."""

    def __init__(self, folder: Path, root: Path, variables: dict[str, Any], does: dict[str, Any]) -> None:
        self._folder = folder
        self.variables = variables
        engine = folder / "engine"
        engine.write_text(f'#!/bin/sh\nexec {sys.executable} -m slipway.cli --root {root} "$@"\n')
        engine.chmod(0o755)
        # The plugins are those of this checkout, but for where the engine lies.
        shutil.copytree(KIT / "plugins", folder / "plugins")
        (folder / "slipway").symlink_to(KIT / "slipway")
        front = folder / "plugins" / "engine.py"
        assert '"/opt/slipway/venv/bin/slipway"' in front.read_text()
        front.write_text(front.read_text().replace("/opt/slipway/venv/bin/slipway", str(engine)))
        host = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        (folder / "hosts.yml").write_text(json.dumps({"app": {"hosts": {"here": host}}}))
        (folder / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, **does}]))
        (folder / "group_vars").mkdir()
        self.write()

    def write(self) -> None:
        """Put the variables as they are now where Ansible looks."""
        # JSON is YAML.
        (self._folder / "group_vars" / "all.yml").write_text(json.dumps(self.variables))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("ansible-playbook")
        inventory, play = self._folder / "hosts.yml", self._folder / "play.yml"
        return subprocess.run(
            [str(program), "--inventory", str(inventory), *arguments, str(play)],
            capture_output=True,
            text=True,
            check=False,
            cwd=KIT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(KIT / "ansible.cfg"),
                "ANSIBLE_ACTION_PLUGINS": str(self._folder / "plugins" / "action"),
                "PYTHONPATH": str(KIT),
            },
        )

    @staticmethod
    def release_in(said: str) -> str:
        found = re.search(r"the release folder ([0-9a-f]{16})", said)
        assert found, said
        return found[1]


# --- The way back -------------------------------------------------------------------------------------------------


def test_a_rollback_to_an_image_that_somebody_removed_says_how_to_have_it_again(
    shop: tuple[Environment, dict[str, Any], list[str]], first: PrivateRegistry, second: PrivateRegistry
) -> None:
    environment, services, references = shop
    given = logins_of(first, second)
    old = environment.deploy_services(services, logins=given)
    newer = environment.deploy("1.1")
    daemon = Daemon()
    daemon.remove_containers({"org.slipway.name": environment.name, "org.slipway.release": old.id})
    assert daemon.remove_image(references[0])
    done = environment.slipway("rollback", "--name", environment.name)
    assert done.returncode == 1
    assert f"The image {references[0]} of release {old.id} is no longer on this host" in done.stderr
    assert f"The release {newer.id} still serves." in done.stderr
    assert "playbooks/deploy.yml" in done.stderr
    assert environment.version() == "1.1"

    daemon.pull(references[0], {first.host: Login(**given[first.host])})
    assert environment.slipway("rollback", "--name", environment.name).returncode == 0
    assert environment.version() == "1.0"
