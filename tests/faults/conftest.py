"""The machines that harm is done to, and the environments on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import application
from tests.faults.environment import ROW, Environment
from tests.faults.fleet import MACHINES, Fleet
from tests.faults.lab import FLEET_NETWORK, FLEET_PROJECT, PROJECT, Lab
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


@pytest.fixture(scope="session")
def fleet_lab(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three machines behind an edge tier of one, provisioned by the kit's own playbooks, with 1.0 on them."""
    folder = tmp_path_factory.mktemp("fleet")
    lab = Lab(folder, registry.port, machines=MACHINES, engine=True, project=FLEET_PROJECT, network=FLEET_NETWORK)
    try:
        lab.boot()
        Fleet(lab, REPOSITORY).play("site").ok()
        yield lab
    finally:
        lab.remove()


@pytest.fixture
def fleet(fleet_lab: Lab, registry: Registry) -> Iterator[Fleet]:
    """A fleet on which one release serves everywhere: that of the case before, where it has left the fleet whole."""
    registry.mode = "serves"
    fleet = Fleet(fleet_lab, REPOSITORY)
    if not fleet.is_whole():
        fleet.destroy()
        fleet.deploy("1.0", variables={"release_serial": "100%"}).ok()
    yield fleet
    fleet.leave()
