"""An environment on several machines behind an edge tier."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.faults.environment import FOLDER, NAME, Environment, Running
from tests.faults.lab import Lab, Machine

MACHINES = ("app1", "app2", "app3", "edge1")
"""One for each batch, as the role has it where nothing else is said, and the edge tier."""
DATA = f"/var/lib/docker/volumes/{NAME}-data/_data"


class Fleet(Environment):
    """The environment `shop-faults` on all of them. Each has a volume of its own, and there is no database to share."""

    def __init__(self, lab: Lab, repository: str) -> None:
        super().__init__(lab, repository)
        self.app1, self.app2, self.app3 = lab.group("app")

    def start(self, playbook: str, **given: Any) -> Running:
        """Start a playbook; one that wants a contract has that of 1.0 unless another one is given."""
        return super().start(playbook, **{"app_services": self.services("1.0"), **given})

    def services(self, version: str, *, migrate: dict[str, Any] | None = None, **change: Any) -> dict[str, Any]:
        """The application's contract; it only migrates where that is asked for."""
        contract = super().services(version, migrate=migrate, **change)
        if migrate is None:
            del contract["app"]["migrate"]
        return contract

    def other(self) -> tuple[str, str]:
        """The version that serves, and one that does not."""
        old = self.version()
        return old, "1.1" if old == "1.0" else "1.0"

    @contextlib.contextmanager
    def not_ready(self, version: str, machine: Machine) -> Iterator[None]:
        """Have a version of the application not be ready on this machine meanwhile."""
        mark = machine.path(f"{DATA}/not-{version}")
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()

    def currents(self) -> dict[str, str]:
        """Machine -> the release that serves on it."""
        return {machine.name: self.current(machine) for machine in self.lab.group("app")}

    def is_whole(self) -> bool:
        """Whether every machine serves one release, as it declares it, and nobody is at work."""
        for machine in self.lab.group("app"):
            if not machine.path(f"{FOLDER}/current").is_symlink():
                return False
            try:
                machine.run("slipway", "status", "--name", NAME)
            except AssertionError:
                return False
        return len(set(self.currents().values())) == 1

    def serves(self, version: str) -> None:
        """AssertionError unless this version serves on every machine, from one release and as that declares it."""
        assert self.version() == version
        for machine in self.lab.group("app"):
            machine.run("slipway", "status", "--name", NAME)
            assert self.lease(machine)["run"] == "", f"nobody has {machine.name} any more"
        assert len(set(self.currents().values())) == 1, self.currents()
