"""Images and the registry stack against a real Docker: bootstrapped, built, pushed, and left alone the next time.

The base is the kit's own, so it is bootstrapped once and found again by later runs. Everything else carries the
prefix `t-images` and is removed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import pytest

from slipway import images, stack
from slipway.errors import PreflightError, SlipwayError, UnhealthyError
from slipway.images import Base, Image, ImagesRequest
from slipway.images import base as bases
from slipway.images.base import BaseAnswer
from slipway.images.build import ImageAnswer, Secret, Source
from slipway.source import pack
from slipway.stack import StackFile, StackRequest

ROOT = Path(__file__).parents[2]
# As Ansible's file lookup reads it, without the last newline: so it is the base that `make up` makes.
RECIPE = (ROOT / "images" / "base" / "Dockerfile").read_text().rstrip()
STACK = "t-images-registry"
DOCKERFILE = """\
ARG BASE
FROM ${BASE}
ARG VERSION
LABEL org.opencontainers.image.version="${VERSION}"
COPY hello /hello
RUN --mount=type=secret,id=ca test ! -e /run/secrets/ca || cp /run/secrets/ca /tmp/ca && rm -f /tmp/ca
"""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def ensure(*wanted: Image, check: bool = False) -> tuple[dict[str, Any], list[ImageAnswer]]:
    answer: dict[str, Any] = images.run(ImagesRequest(check=check, base=Base(recipe=RECIPE), images=list(wanted)))
    assert answer["missing"] == [], "mmdebstrap is not installed; the role images does that"
    return answer, answer["images"]


def registry_image() -> Image:
    packed = pack(ROOT / "images" / "registry")
    return Image(repository="slipway/registry", source=source_of(packed))


def source_of(packed: dict[str, object]) -> Source:
    return Source(**packed)  # type: ignore[arg-type]  # the shape that pack() documents


@pytest.fixture(scope="module")
def registry_reference() -> str:
    _, [registry] = ensure(registry_image())
    return registry.reference


def stack_files(image: str, port: int, **change: object) -> list[StackFile]:
    """The files that the role lays down, under names that do not meet those of a real registry."""
    values = {
        "__registry_image": image,
        "registry_bind_addresses": ["127.0.0.1"],
        "registry_port": port,
        "registry_memory": "128m",
        "registry_cpus": 1.0,
        "registry_log_level": "info",
        **change,
    }
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701  # YAML
    environment.filters["to_json"] = json.dumps
    folder = ROOT / "compose" / "registry"
    texts = {
        name: environment.from_string((folder / f"{name}.j2").read_text()).render(values)
        for name in ("compose.yml", "config.yml")
    }
    texts["compose.yml"] = texts["compose.yml"].replace("name: slipway-registry", f"name: slipway-{STACK}")
    return [StackFile(path=name, content=text) for name, text in texts.items()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root for the stack, and its end."""
    root = tmp_path_factory.mktemp("srv")
    yield root
    stack.run(StackRequest(name=STACK, state="absent", purge=True), root)
    assert not docker("volume", "ls", "--quiet", "--filter", f"name=slipway-{STACK}")
    assert not docker("ps", "--all", "--quiet", "--filter", f"name=slipway-{STACK}")


@pytest.fixture(scope="module")
def port(place: Path, registry_reference: str) -> int:
    """A registry that runs for these tests."""
    port = free_port()
    answer = stack.run(StackRequest(name=STACK, files=stack_files(registry_reference, port)), place)
    assert answer["changed"]
    return port


@pytest.fixture
def repository(port: int) -> Iterator[str]:
    name = f"127.0.0.1:{port}/t-images/hello-{time.monotonic_ns()}"
    yield name
    for image in docker("images", "--quiet", name).split():
        docker("image", "rm", "--force", image)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "hello").write_text(f"hello {tmp_path}\n")
    return tmp_path


def hello(repository: str, context: Path, **change: Any) -> Image:
    packed = {**pack(context), "tags": ["1.0-build.1", "sha-0123456"], "version": "1.0-build.1"}
    return Image(repository=repository, source=source_of(packed), push=True, **change)


# --- The base ---------------------------------------------------------------------------------------------------


def test_a_base_is_found_again_until_it_is_too_old(registry_reference: str) -> None:
    request = Base(recipe=RECIPE, max_age_days=30)
    today = datetime.now(UTC).date()
    found = bases.find(request)
    assert found is not None
    assert found.reference.startswith("slipway/base:trixie-")
    assert bases.find(request, today + timedelta(days=90)) is None


def test_packages_can_be_installed_in_the_base_and_no_trace_of_this_machine_is_in_it(registry_reference: str) -> None:
    found = bases.find(Base(recipe=RECIPE))
    assert found is not None
    docker("run", "--rm", "--name", "t-images-apt", found.reference, "apt-get", "update")
    files = docker("run", "--rm", "--name", "t-images-ls", found.reference, "find", "/etc/apt", "-type", "f")
    assert "99mmdebstrap" not in files
    assert docker("run", "--rm", "--name", "t-images-os", found.reference, "grep", "trixie", "/etc/os-release")


def test_a_base_that_is_named_and_cannot_be_pulled_is_said_in_a_sentence() -> None:
    request = ImagesRequest(base=Base(image="127.0.0.1:9/debian:trixie-slim"))
    with pytest.raises(SlipwayError, match=r"The base image 127\.0\.0\.1:9/debian:trixie-slim could not be pulled"):
        images.run(request)


def test_a_base_that_is_named_and_is_there_is_used(registry_reference: str) -> None:
    answer: dict[str, Any] = images.run(ImagesRequest(base=Base(image=registry_reference)))
    base: BaseAnswer = answer["base"]
    assert (base.reference, base.how, answer["changed"]) == (registry_reference, "unchanged", False)


def test_check_mode_says_that_a_named_base_would_be_pulled() -> None:
    answer = images.run(ImagesRequest(check=True, base=Base(image="127.0.0.1:9/debian:trixie-slim")))
    assert answer["changed"]
    assert "pulled as 127.0.0.1:9/debian:trixie-slim" in str(answer["msg"])


def test_a_keyring_that_lacks_the_suites_key_is_said_in_a_sentence(tmp_path: Path) -> None:
    sources = bases.sources_of_this_machine("trixie")
    # As good as a keyring from before the suite was released.
    empty = tmp_path / "empty.gpg"
    empty.write_bytes(b"")
    listing = tmp_path / "debian.list"
    listing.write_text("\n".join(line.replace("deb ", f'deb [signed-by="{empty}"] ', 1) for line in sources) + "\n")
    with pytest.raises(SlipwayError, match="keyring does not hold the key that trixie is signed with"):
        bases.mmdebstrap("trixie", listing, tmp_path / "rootfs.tar", datetime.now(UTC).date())


# --- Building and pushing -----------------------------------------------------------------------------------------


def test_an_image_is_built_and_pushed_once(repository: str, context: Path) -> None:
    planned, _ = ensure(hello(repository, context), check=True)
    assert planned["changed"]
    assert "to build" in planned["msg"]
    assert not docker("images", "--quiet", repository)

    first, [built] = ensure(hello(repository, context))
    assert (first["changed"], built.how) == (True, "built")
    docker("pull", "--quiet", f"{repository}@{built.digest}")

    again, [unchanged] = ensure(hello(repository, context))
    assert (again["changed"], unchanged.how, unchanged.digest) == (False, "unchanged", built.digest)
    assert unchanged.id == built.id


def test_a_changed_file_builds_again(repository: str, context: Path) -> None:
    _, [first] = ensure(hello(repository, context))
    (context / "hello").write_text("changed\n")
    _, [second] = ensure(hello(repository, context))
    assert second.how == "built"
    assert second.digest != first.digest


def test_an_image_that_only_the_registry_holds_is_left_alone(repository: str, context: Path) -> None:
    _, [built] = ensure(hello(repository, context))
    docker("image", "rm", "--force", built.id)
    answer, [there] = ensure(hello(repository, context))
    assert (answer["changed"], there.how, there.digest) == (False, "unchanged", built.digest)


def test_an_image_that_the_registry_lost_is_pushed_without_building(repository: str, context: Path, port: int) -> None:
    ensure(hello(repository, context))
    elsewhere = repository.replace("/t-images/", "/t-images/second-")
    for tag in ("1.0-build.1", "sha-0123456"):
        docker("tag", f"{repository}:{tag}", f"{elsewhere}:{tag}")
    _, [pushed] = ensure(hello(elsewhere, context))
    assert pushed.how == "pushed"
    assert pushed.digest
    docker("image", "rm", "--force", pushed.id)


def test_a_secret_reaches_the_build_and_not_the_image(repository: str, context: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do-not-show-this")
    (context / ".dockerignore").write_text("secret\n")
    (context / "Dockerfile").write_text(
        DOCKERFILE + "RUN --mount=type=secret,id=ca sha256sum < /run/secrets/ca > /sum && test -s /run/secrets/ca\n"
    )
    _, [built] = ensure(hello(repository, context, secrets=[Secret(id="ca", src=str(secret))]))
    assert built.how == "built"
    assert "do-not-show-this" not in docker("history", "--no-trunc", built.reference)
    kept = subprocess.run(["docker", "save", built.reference], check=True, capture_output=True).stdout
    assert b"do-not-show-this" not in kept


def test_an_optional_secret_may_be_missing_and_another_may_not(repository: str, context: Path) -> None:
    ensure(hello(repository, context, secrets=[Secret(id="ca", src="/nowhere/ca.pem", optional=True)]))
    (context / "hello").write_text("again\n")
    with pytest.raises(SlipwayError, match=r"is to read /nowhere/ca\.pem, which is not there"):
        ensure(hello(repository, context, secrets=[Secret(id="ca", src="/nowhere/ca.pem")]))


def test_a_failing_build_shows_its_last_lines_and_pushes_nothing(repository: str, context: Path) -> None:
    (context / "Dockerfile").write_text(DOCKERFILE + "RUN echo this-went-wrong >&2; exit 3\n")
    with pytest.raises(SlipwayError, match=f"Building {repository} failed") as failed:
        ensure(hello(repository, context))
    assert "this-went-wrong" in failed.value.details
    assert not docker("images", "--quiet", repository)


def test_a_registry_that_is_down_is_said_before_anything_is_built(context: Path) -> None:
    with pytest.raises(SlipwayError, match=r"The registry 127\.0\.0\.1:9 does not answer"):
        ensure(hello("127.0.0.1:9/t-images/hello", context))
    assert not docker("images", "--quiet", "127.0.0.1:9/t-images/hello")


def test_check_mode_plans_a_push_to_a_registry_that_is_not_up_yet(context: Path) -> None:
    answer, _ = ensure(hello("127.0.0.1:9/t-images/hello", context), check=True)
    assert answer["changed"]


def test_an_image_of_a_debian_package_is_named_after_its_version(registry_reference: str) -> None:
    said = docker("run", "--rm", "--name", "t-images-version", registry_reference, "--version")
    upstream = registry_reference.partition(":")[2].partition("_")[0]
    assert upstream in said
    answer, _ = ensure(registry_image())
    assert not answer["changed"]


# --- The registry stack -------------------------------------------------------------------------------------------


def test_the_registry_runs_with_nothing_that_it_does_not_need(port: int) -> None:
    [container] = json.loads(docker("inspect", f"slipway-{STACK}-registry-1"))
    host = container["HostConfig"]
    assert container["Config"]["User"] == "5000:5000"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] == 128 * 1024 * 1024
    assert host["PortBindings"] == {"5000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    assert container["State"]["Health"]["Status"] == "healthy"


def test_a_second_call_touches_nothing(port: int, place: Path, registry_reference: str) -> None:
    started = docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", f"slipway-{STACK}-registry-1")
    answer = stack.run(StackRequest(name=STACK, files=stack_files(registry_reference, port)), place)
    assert (answer["changed"], answer["msg"]) == (False, f"Stack {STACK}: As declared.")
    assert docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", f"slipway-{STACK}-registry-1") == started


def test_a_changed_config_is_planned_shown_and_then_seen_by_the_container(
    port: int, place: Path, registry_reference: str
) -> None:
    changed = stack_files(registry_reference, port, registry_log_level="debug")
    planned: dict[str, Any] = stack.run(StackRequest(name=STACK, files=changed, check=True), place)
    assert planned["changed"]
    [diff] = planned["diff"]
    assert "level: info" in diff["before"]
    assert "level: debug" in diff["after"]
    assert "level: info" in (place / STACK / "config.yml").read_text()

    answer: dict[str, Any] = stack.run(StackRequest(name=STACK, files=changed), place)
    assert answer["reasons"] == ["registry has not seen its newest config"]
    again = stack.run(StackRequest(name=STACK, files=changed), place)
    assert not again["changed"]
    stack.run(StackRequest(name=STACK, files=stack_files(registry_reference, port)), place)


def test_a_stopped_container_is_started_again(port: int, place: Path, registry_reference: str) -> None:
    stopped = stack.run(StackRequest(name=STACK, state="stopped"), place)
    assert stopped["changed"]
    assert not stack.run(StackRequest(name=STACK, state="stopped"), place)["changed"]
    answer = stack.run(StackRequest(name=STACK, files=stack_files(registry_reference, port)), place)
    assert answer["reasons"] == ["registry is exited"]


def test_files_that_compose_rejects_change_nothing(port: int, place: Path) -> None:
    before = (place / STACK / "compose.yml").read_text()
    with pytest.raises(PreflightError, match="Compose does not accept the files"):
        stack.run(
            StackRequest(name=STACK, files=[StackFile(path="compose.yml", content="services: {x: {imag: y}}")]), place
        )
    assert (place / STACK / "compose.yml").read_text() == before


def test_a_broken_config_is_told_with_the_last_log_lines(port: int, place: Path, registry_reference: str) -> None:
    good = stack_files(registry_reference, port)
    broken = [good[0], StackFile(path="config.yml", content="version: nonsense\n")]
    with pytest.raises(UnhealthyError, match="did not become healthy") as failed:
        stack.run(StackRequest(name=STACK, files=broken), place)
    assert "configuration error" in failed.value.details
    answer = stack.run(StackRequest(name=STACK, files=good), place)
    assert answer["changed"]


def test_a_taken_port_is_said_in_a_sentence(place: Path, registry_reference: str, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        files = stack_files(registry_reference, taken.getsockname()[1])
        with pytest.raises(PreflightError, match="a port that it publishes is taken"):
            stack.run(StackRequest(name=STACK, files=files), place)
    stack.run(StackRequest(name=STACK, files=stack_files(registry_reference, port)), place)


def test_a_file_has_the_mode_and_the_owner_that_it_is_declared_with(
    port: int, place: Path, registry_reference: str
) -> None:
    file = StackFile(path="auth/users", content="operator", mode="0440", uid=5000, gid=5000)
    stack.run(StackRequest(name=STACK, files=[*stack_files(registry_reference, port), file]), place)
    stat = (place / STACK / "auth" / "users").stat()
    assert (oct(stat.st_mode & 0o7777), stat.st_uid, stat.st_gid) == ("0o440", 5000, 5000)
