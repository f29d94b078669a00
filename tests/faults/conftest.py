"""The machine that harm is done to, and the environment on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import application
from tests.faults.environment import ROW, Environment
from tests.faults.lab import PROJECT, Lab
from tests.faults.registry import Registry

REPOSITORY = f"{application.REGISTRY}/{PROJECT}-images/app"


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """The registry that the machine pulls from."""
    application.push(REPOSITORY)
    try:
        with Registry() as registry:
            yield registry
    finally:
        application.remove(REPOSITORY)


@pytest.fixture(scope="session")
def lab(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A machine that was provisioned by the kit's own playbooks."""
    lab = Lab(tmp_path_factory.mktemp("lab"), registry.port)
    try:
        lab.boot()
        shop = Environment(lab, REPOSITORY)
        for playbook in ("provision", "edge"):
            shop.play(playbook).ok()
        yield lab
    finally:
        lab.remove()


@pytest.fixture
def shop(lab: Lab, registry: Registry) -> Iterator[Environment]:
    """An environment on which 1.0 serves, at its first revision, and nothing else ever happened."""
    registry.mode = "serves"
    environment = Environment(lab, REPOSITORY)
    environment.destroy()
    environment.deploy("1.0").ok()
    environment.write(ROW)
    yield environment
    environment.leave()
