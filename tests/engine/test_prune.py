"""What is kept of an environment that is deployed again and again, and what is left of everybody else's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.long]

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""

MIGRATE = {**{verb: ["migrate", verb] for verb in ("up", "plan", "status")}, "backup": "none"}
IDLE = ["-c", "import time; time.sleep(600)"]
"""Arguments of Python that keep a container running."""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def deploy(environment: Environment, version: str, note: str = "", **change: Any) -> Any:
    """A release of its own for each note."""
    return environment.deploy(version, migrate=MIGRATE, env={"NOTE": note, **change.pop("env", {})}, **change)


def releases(environment: Environment) -> set[str]:
    return {path.name for path in (environment.folder / "releases").iterdir()}


def image(deployed: Any, environment: Environment) -> str:
    return str(next(entry.images["app"] for entry in environment.ledger() if entry.release == deployed.id))


def is_here(reference: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False).returncode == 0


@pytest.fixture
def neighbour(make_environment: Callable[[], Environment]) -> Iterator[Environment]:
    """Another environment on the same host."""
    fresh = make_environment()
    yield fresh
    fresh.clear()


@pytest.fixture
def own(environment: Environment) -> Iterator[str]:
    """The tag of an image that no other environment on this machine has."""
    repository = environment.services("1.0")["app"]["image"]
    tagged = f"{repository}:1.0-own"
    build = ["docker", "build", "--quiet", f"--tag={tagged}", "-"]
    subprocess.run(build, input=f"FROM {repository}:1.0\nLABEL own=yes\n", check=True, capture_output=True, text=True)
    docker("push", "--quiet", tagged)
    yield "1.0-own"
    # So that it is known again by its digest, by which it is taken out of the registry with the others.
    docker("push", "--quiet", tagged)


def test_the_newest_good_releases_stay_and_the_others_go_with_their_containers_and_networks(
    environment: Environment,
) -> None:
    first, second, third = (deploy(environment, "1.0", note, keep=2) for note in "abc")
    assert third.answers["verify"]["removed"] == [first.id]
    assert releases(environment) == {second.id, third.id}
    labelled = {found["Config"]["Labels"]["org.slipway.release"] for found in environment.containers()}
    assert labelled == {second.id, third.id}
    networks = docker("network", "ls", "--format={{.Name}}", f"--filter=label=org.slipway.name={environment.name}")
    assert len(networks.split()) == 2
    assert environment.volume().is_dir()
    environment.slipway("rollback", "--name", environment.name)
    assert environment.current() == second.id


def test_a_failed_release_pushes_no_good_one_out_and_goes_with_the_next_good_one(environment: Environment) -> None:
    first, second = (deploy(environment, "1.0", note, keep=2) for note in "ab")
    with pytest.raises(environment.Refused):
        deploy(environment, "1.0", "failed", keep=2, env={"BEHAVIOUR": "crashes"})
    [failed] = releases(environment) - {first.id, second.id}
    third = deploy(environment, "1.0", "c", keep=2)
    assert set(third.answers["verify"]["removed"]) == {first.id, failed}
    assert releases(environment) == {second.id, third.id}


def test_an_image_goes_with_the_last_release_of_any_environment_that_needs_it(
    environment: Environment, neighbour: Environment, own: str
) -> None:
    old = deploy(environment, own)
    shared = image(old, environment)
    kept = deploy(neighbour, own)
    standing = neighbour.standing()

    deploy(environment, "1.1", "a")
    last = deploy(environment, "1.1", "b", keep=1)
    assert last.answers["verify"]["removed"] == [old.id]
    assert last.answers["verify"]["removed_images"] == []
    assert is_here(shared)
    assert neighbour.standing() == standing
    assert neighbour.version() == "1.0"
    assert releases(neighbour) == {kept.id}

    deploy(neighbour, "1.1", "a")
    last = deploy(neighbour, "1.1", "b", keep=1)
    assert last.answers["verify"]["removed_images"] == [shared]
    assert not is_here(shared)
    assert is_here(image(last, neighbour))


def test_what_is_not_the_kits_stays_as_it_is(environment: Environment) -> None:
    old = deploy(environment, "1.0")
    theirs = image(old, environment)
    bystander = f"{environment.name}-bystander"
    docker("create", f"--name={bystander}", theirs)
    try:
        deploy(environment, "1.1", "a")
        last = deploy(environment, "1.1", "b", keep=1)
        assert last.answers["verify"]["removed"] == [old.id]
        assert last.answers["verify"]["removed_images"] == []
        assert is_here(theirs)
        assert docker("container", "inspect", "--format={{.State.Status}}", bystander) == "created"
    finally:
        docker("rm", bystander)


def test_a_release_whose_network_somebody_else_is_in_waits_until_that_has_gone(environment: Environment) -> None:
    old = deploy(environment, "1.0")
    theirs = image(old, environment)
    guest = f"{environment.name}-guest"
    deploy(environment, "1.0", "a")
    docker(
        "run",
        "--detach",
        f"--name={guest}",
        f"--network={environment.name}-{old.id[:8]}_default",
        "--entrypoint=/usr/bin/python3.13",
        theirs,
        *IDLE,
    )
    try:
        assert deploy(environment, "1.0", "b", keep=1).answers["verify"]["removed"] == []
        assert old.id in releases(environment)
    finally:
        docker("rm", "--force", guest)
    assert old.id in deploy(environment, "1.0", "c", keep=1).answers["verify"]["removed"]
