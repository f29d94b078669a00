"""Images that behave like four real programs, a PostgreSQL for them, and environments of the examples' contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.postgres import Postgres
from tests.conformance.programs import DATABASES, LISTEN, PEERS, build_system, build_tools
from tests.engine.conftest import EDGE, REGISTRY, Environment, backend_image, docker, forget, free_port
from tests.inventory_copies import copy, variables

HERE = Path(__file__).parent
PREFIX = "conf-"
REPOSITORY = f"{REGISTRY}/{PREFIX}images"
TOOLS = f"{PREFIX}tools"
POSTGRES_PORT = 54331
NETWORK = f"{PREFIX}neurondb"


@pytest.fixture(scope="session")
def tools() -> Iterator[str]:
    """The image that most of the others start from."""
    build_tools(TOOLS)
    yield TOOLS
    for name in (*LISTEN, *PEERS):
        forget(f"{REPOSITORY}/{name}")
    docker("image", "rm", "--force", TOOLS, check=False)


@pytest.fixture(scope="session")
def bridge() -> str:
    """The address of this host that containers of every network reach."""
    return docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")


@pytest.fixture(scope="session")
def postgres(bridge: str) -> Iterator[Postgres]:
    """A server that lets NeuronIP in without TLS, and the others only with it."""
    rules = ["hostnossl neuronip neuronip 0.0.0.0/0 scram-sha-256", "hostssl all all 0.0.0.0/0 scram-sha-256"]
    server = Postgres(bridge, POSTGRES_PORT, rules, tls=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class System:
    """An example that is deployed on this machine, with images that behave like the real ones."""

    def __init__(self, name: str, environment: Environment, services: dict[str, Any], postgres: Postgres) -> None:
        self.name = name
        self.environment = environment
        self.postgres = postgres
        self.contract = services
        """As the example has it; a test may change its own."""
        self.ports = {service: free_port() for service, spec in services.items() if spec.get("port")}

    def services(self, version: str) -> dict[str, Any]:
        """Its contract, with images of ours and what a machine without public names cannot have taken out."""
        changed: dict[str, Any] = {}
        for service, spec in self.contract.items():
            own = service in ("backend", "api")
            image = f"{REPOSITORY}/{self.name if own else service}"
            here: dict[str, Any] = {
                "tag": version if own else "1.0",
                "drain_seconds": 1.0,
                "route": {},
            }
            if service in self.ports:
                here["publish"] = self.ports[service]
            if spec.get("kind") == "job":
                # The kit's own image has a psql.
                image, _, here["tag"] = backend_image().rpartition(":")
                here |= {"user": "1001:1001", "config_files": [{**one, "gid": 1001} for one in spec["config_files"]]}
            if "networks" in spec:
                here["networks"] = [NETWORK]
            if "health" in spec:
                here["health"] = {**spec["health"], "start_period": 20.0}
            changed[service] = {**spec, "image": image, **here}
        return changed

    def deploy(self, version: str, **change: Any) -> Any:
        return self.environment.deploy_services({**self.services(version), **change}, unsafe=True)

    @property
    def port(self) -> int:
        return self.ports["backend" if "backend" in self.ports else "api"]

    def schema(self) -> str:
        return self.environment.ledger()[-1].schema_after


SETTINGS = {
    "clearsplit": {"clearsplit_database_host": "{bridge}", "clearsplit_database_port": "{port}"},
    "semiont": {"semiont_database_host": "{bridge}", "semiont_database_port": "{port}"},
    "todo": {"todo_database_host": "{bridge}", "todo_database_port": "{port}"},
    "neuronip": {"neuronip_database_host": "postgres", "neuronip_database_port": "5432"},
}
"""What an operator fills in."""

Make = Callable[[str], System]


@pytest.fixture(scope="session")
def make_system(
    tools: str, postgres: Postgres, bridge: str, neurondb: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Make]:
    """Makes a system from its example: copied, filled in, its secrets generated, its role and database made."""
    root = tmp_path_factory.mktemp("srv")
    if not (EDGE / "switch.caddyfile").exists():
        pytest.fail("There is no edge on this machine. Run playbooks/edge.yml first.")
    (root / "edge").symlink_to(EDGE)
    made: list[System] = []

    def make(name: str) -> System:
        build_system(name, tools, REPOSITORY)
        inventory = copy(name, tmp_path_factory.mktemp("inventories"))
        filled_in = {
            variable: value.format(bridge=bridge, port=POSTGRES_PORT) for variable, value in SETTINGS[name].items()
        }
        password = f"{name}_database_password"
        found = variables(inventory, "app_services", password, **filled_in)
        postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{found[password]}'")
        postgres.execute(f"CREATE DATABASE {DATABASES[name]} OWNER {name}")
        environment = Environment(f"{PREFIX}{name}", root, 0)
        # A run that was killed may have left containers and volumes of that name.
        environment.clear()
        made.append(System(name, environment, found["app_services"], postgres))
        return made[-1]

    yield make
    for system in made:
        system.environment.clear()


@pytest.fixture(scope="session")
def neurondb(bridge: str) -> Iterator[str]:
    """The network on which NeuronDB answers to the name `postgres`: a forwarder to the server of this test."""
    relay = f"{PREFIX}postgres"
    docker("rm", "--force", relay, check=False)
    docker("network", "create", NETWORK, check=False)
    program = (HERE / "relay.py").read_text()
    run = ["run", "--detach", "--name", relay, "--network", NETWORK, "--network-alias", "postgres"]
    docker(*run, "--entrypoint", "/usr/bin/python3", backend_image(), "-c", program, bridge, str(POSTGRES_PORT))
    yield NETWORK
    docker("rm", "--force", relay)
    docker("network", "rm", NETWORK)
