"""One deploy on one host: stage, migrate, activate, verify, and the way back.

Each verb can be called again after any interruption and ends in the same state. The old release serves until a
new one has been staged and the database has been migrated; when the new one does not pass its gate, the old one
is started again and passes its own gate before the call ends.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from slipway.daemon import Container, Daemon
from slipway.errors import CommandError, PreflightError, SlipwayError, UnhealthyError
from slipway.gate import Gate
from slipway.ledger import Entry, Ledger, Phase
from slipway.plan import Activation, plan_activation
from slipway.release import LABEL_NAME, LABEL_STACK, Manifest, Release, project_of
from slipway.status import status
from slipway.store import ROOT, Store

NO_SCHEMA = "none"


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every request of a deploy says: which run it belongs to and who started that."""

    run: str
    by: str
    check: bool = False


class StageRequest(_Request):
    """Bring a release to the host."""

    release: Release


class ReleaseRequest(_Request):
    """Do something with a release that is on the host."""

    name: str
    release: str


class Deploy:
    """The verbs of a deploy for one environment on this host."""

    def __init__(self, name: str, *, run: str, by: str, check: bool = False, root: Path = ROOT) -> None:
        self.store = Store(name, root)
        self.ledger = Ledger(self.store.folder)
        self.daemon = Daemon()
        self._root = root
        self._run = run
        self._by = by
        self._check = check

    def stage(self, release: Release) -> dict[str, Any]:
        """Write the release folder, pull its images by digest and make its volumes. Touches nothing that runs."""
        manifest = release.manifest
        pulls = sorted({image for image in manifest.images.values() if self.daemon.image(image) is None})
        held = self.store.holds(release)
        volumes = {
            f"{manifest.name}-{volume}": body
            for service in manifest.services.values()
            for volume, body in service.volumes.items()
        }
        # A call that was killed may have left the folder and no volume yet.
        if held and not pulls and all(map(self.daemon.has_volume, volumes)):
            return {"changed": False, "release": manifest.id, "pulled": [], **self._serving(manifest)}
        if self._check:
            return {"changed": True, "release": manifest.id, "pulled": pulls, "serves": False}
        with self.store.lock(), self.ledger.phase(self._entry("stage", manifest)):
            if not held:
                folder = self.store.place(release)
                try:
                    self.store.project(manifest, folder).validate()
                except SlipwayError:
                    self.store.drop(folder)
                    raise
                self.store.keep(folder)
            project = self.store.project(manifest)
            for image in pulls:
                project.pull(image)
            for volume, body in volumes.items():
                project.ensure_volume(volume, body, {LABEL_NAME: manifest.name, LABEL_STACK: "app"})
        return {"changed": True, "release": manifest.id, "pulled": pulls, "serves": False}

    def _serving(self, manifest: Manifest) -> dict[str, Any]:
        """Whether the release serves as declared already, so that the steps after this one have nothing to do."""
        if self._complaint(manifest) or not self._plan(manifest.id).nothing:
            return {"serves": False}
        return {"serves": True, "status": msgspec.to_builtins(status(manifest.name, self._root))}

    def migrate(self, release_id: str) -> dict[str, Any]:
        """Bring the schema to what the release needs, in its own image; the running release is left alone.

        The answer holds `pending`, the revisions that were (in check mode: would be) applied, and `schema`, the
        revision the database is at. Raises :class:`UnhealthyError` with the migration's output when it fails.
        """
        if self._check and release_id not in self.store.ids():
            return {"changed": True, "pending": ["unknown until the release is staged"], "schema": ""}
        manifest = self.store.manifest(release_id)
        migrating = {name: spec for name, spec in manifest.services.items() if spec.migrate is not None}
        if not migrating or self._serves(manifest):
            return {"changed": False, "pending": [], "schema": self.ledger.schema()}
        with self.store.lock():
            return self._migrate(manifest, list(migrating))

    def _migrate(self, manifest: Manifest, services: list[str]) -> dict[str, Any]:
        project = self.store.project(manifest)
        pending: list[str] = []
        schema = ""
        for name in services:
            contract = manifest.services[name].migrate
            assert contract is not None  # noqa: S101 - the caller chose services that have one
            entry = self._entry("migrate", manifest)
            try:
                steps = project.run(name, contract.plan, contract).split("\n")
                steps = [step.strip() for step in steps if step.strip()]
                if not steps:
                    schema = _last_line(project.run(name, contract.status, contract))
                    if schema != self.ledger.schema() and not self._check:
                        # A call that was killed, or someone by hand, moved it and could not record it.
                        entry.schema_after = schema
                        self.ledger.append(entry)
                    continue
                pending += steps
                if self._check:
                    continue
                with self.ledger.phase(entry):
                    entry.schema_before = _last_line(project.run(name, contract.status, contract))
                    project.run(name, contract.up, contract)
                    schema = entry.schema_after = _last_line(project.run(name, contract.status, contract))
            except CommandError as error:
                if not entry.at and not self._check:
                    # It failed before there was a phase to record: the plan itself could not be had.
                    entry.result, entry.reason = "failed", error.what
                    self.ledger.append(entry)
                raise UnhealthyError(
                    f"The migration of {manifest.name} failed: {error.what}",
                    f"{self._still_serves()} Mend the migration and run the play again.",
                    details=error.details,
                ) from error
        return {"changed": bool(pending), "pending": pending, "schema": schema}

    def activate(self, release_id: str, phase: Phase = "activate") -> dict[str, Any]:
        """Make the release serve: stop the old one, start the new one, gate it, point `current` at it.

        When the gate fails the new release is stopped, the old one is started again and gated, and
        :class:`UnhealthyError` says why, with the last lines of the release that failed.
        """
        if self._check and release_id not in self.store.ids():
            return {"changed": True, "stop": [], "start": release_id, "previous": self.store.current()}
        manifest = self.store.manifest(release_id)
        plan = self._plan(release_id)
        if plan.nothing or self._check:
            return self._say(plan, release_id)
        with self.store.lock():
            # What runs may have changed while this call waited for the lock.
            plan = self._plan(release_id)
            said = self._say(plan, release_id)
            if not plan.nothing:
                entry = self._entry(phase, manifest)
                with self.ledger.phase(entry):
                    self._switch(manifest, plan, entry)
        return said

    def _say(self, plan: Activation, release_id: str) -> dict[str, Any]:
        return {
            "changed": not plan.nothing,
            "stop": list(plan.stop),
            "start": release_id if plan.start else None,
            "previous": self.store.current(),
        }

    def _switch(self, manifest: Manifest, plan: Activation, entry: Entry) -> None:
        project = self.store.project(manifest)
        began = datetime.now(UTC)
        project.create()
        try:
            for old in plan.stop:
                self.store.project(self.store.manifest(old)).stop()
            project.start()
            self._gate(manifest).wait()
        except SlipwayError as error:
            logs = project.logs(since=began)
            # The way back is tried whatever the failed one does.
            with suppress(SlipwayError):
                project.stop()
            how_it_stands = self._return_to(plan.fall_back, entry)
            self._tidy(manifest.id, entry.previous)
            raise UnhealthyError(
                f"The release {manifest.id} of {manifest.name} failed and was stopped. {error.what}",
                f"{how_it_stands} Mend what its last lines below tell and run the play again.",
                details=f"{error.details}\n{logs}".strip(),
            ) from error
        self.store.point(manifest.id)
        self._tidy(manifest.id, entry.previous)

    def _tidy(self, *keep: str) -> None:
        """Remove containers and networks of all releases but those to keep; a way back makes them anew.

        A daemon has address space for some thirty networks, and each release has one.
        """
        projects = self.daemon.projects()
        for release_id in set(self.store.ids()) - set(keep):
            if project_of(self.store.name, release_id) in projects:
                # Tidying decides nothing; the next switch tries again.
                with suppress(SlipwayError):
                    self.store.project(self.store.manifest(release_id)).remove()

    def _return_to(self, release_id: str | None, entry: Entry) -> str:
        """Start the release before again where there is one, and say how things stand now."""
        if release_id is None:
            if entry.previous:
                return "It is the release that served, so there is none to return to and none serves now."
            return "No release served before, so none serves now."
        try:
            manifest = self.store.manifest(release_id)
            self.store.project(manifest).start()
            self._gate(manifest).wait()
        except SlipwayError as error:
            return f"The release before, {release_id}, was to serve again and does not: {error.what}"
        entry.result = "returned"
        return f"The release before, {release_id}, serves again."

    def verify(self, release_id: str) -> dict[str, Any]:
        """Check that the release serves as declared: current, its own images, its promises kept."""
        if self._check:
            return {"changed": False}
        manifest = self.store.manifest(release_id)
        if wrong := self._complaint(manifest):
            raise UnhealthyError(
                f"{manifest.name} does not serve as declared: {wrong}.",
                f"Run the deploy again; slipway logs --name {manifest.name} shows what it prints.",
            )
        return {"changed": False, "release": release_id}

    def _complaint(self, manifest: Manifest) -> str:
        if (current := self.store.current()) != manifest.id:
            return f"release {current} is current and not {manifest.id}"
        gate = self._gate(manifest)
        for service, container in gate.containers().items():
            image = self.daemon.image(manifest.images[service])
            if image is None or image["Id"] != container.image:
                return f"the service {service} runs another image than {manifest.images[service]}"
        return gate.look()

    def rollback(self, release_id: str | None) -> dict[str, Any]:
        """Go back to a release that served before: the newest such one, or the one named (its first digits do)."""
        current = self.store.current()
        here = set(self.store.ids())
        # A current release that does not run is one to go back to as well.
        serving = current if current in here and self._serves(self.store.manifest(current)) else None
        good = [release for release in self.ledger.good_releases() if release != serving and release in here]
        chosen = [release for release in good if release.startswith(release_id or "")]
        if not chosen:
            wanted = f"release {release_id}" if release_id else "release before this one"
            raise PreflightError(
                f"{self.store.name} has no {wanted} to go back to.",
                f"Releases that served and are kept: {', '.join(good) or 'none'}.",
            )
        if release_id and len(chosen) > 1:
            raise PreflightError(f"{release_id} stands for several releases.", f"Name one: {', '.join(chosen)}.")
        target = self.store.manifest(chosen[0])
        with self.store.lock():
            self._schema_fits(target)
        answer = self.activate(target.id, phase="rollback")
        return {**answer, "release": target.id, "previous": current}

    def _schema_fits(self, target: Manifest) -> None:
        """Refuse a rollback across a migration: ask the older image itself what it thinks of the schema."""
        project = self.store.project(target)
        for name, service in target.services.items():
            if service.migrate is None:
                continue
            try:
                project.run(name, service.migrate.plan, service.migrate)
            except CommandError as error:
                raise PreflightError(
                    f"The release {target.id} cannot run on the database as it is now: {error.what}",
                    f"{self._still_serves()} Take the migration back with the newer release first.",
                    details=error.details,
                ) from error

    def stop(self) -> dict[str, Any]:
        """Stop what runs; data, releases and `current` stay, so that the next deploy starts it again."""
        running = self._running()
        if not running or self._check:
            return {"changed": bool(running), "stop": sorted(running)}
        with self.store.lock():
            for release_id in sorted(running):
                manifest = self.store.manifest(release_id)
                with self.ledger.phase(self._entry("stop", manifest)):
                    self.store.project(manifest).stop()
        return {"changed": True, "stop": sorted(running)}

    def destroy(self) -> dict[str, Any]:
        """Remove the environment from this host: containers, networks, volumes with their data, releases, ledger."""
        ids = self.store.ids()
        if not self.store.folder.exists() or self._check:
            return {"changed": self.store.folder.exists(), "removed": ids}
        with self.store.lock():
            for release_id in ids:
                self.store.project(self.store.manifest(release_id)).remove()
            if ids:
                self.store.project(self.store.manifest(ids[0])).remove_volumes(self.store.name)
            self.store.remove()
        return {"changed": True, "removed": ids}

    def _plan(self, want: str) -> Activation:
        manifest = self.store.manifest(want)
        running = self._running()
        services = {container.service for container in running.get(want, [])}
        whole = {want} if services >= manifest.services.keys() else set()
        return plan_activation(want=want, current=self.store.current(), whole=whole, running=running.keys())

    def _running(self) -> dict[str, list[Container]]:
        found: dict[str, list[Container]] = {}
        for container in self.daemon.containers(self.store.name):
            if not container.one_off and container.state in ("running", "restarting"):
                found.setdefault(container.release, []).append(container)
        return found

    def _serves(self, manifest: Manifest) -> bool:
        """Whether this release already serves, so that its schema is known to be right."""
        return self._plan(manifest.id).nothing

    def _still_serves(self) -> str:
        current = self.store.current()
        return f"The release {current} still serves." if current else "No release has served before."

    def _gate(self, manifest: Manifest) -> Gate:
        return Gate(manifest, self.daemon, lambda text: self.store.project(manifest).redacted(text))

    def _entry(self, phase: Phase, manifest: Manifest) -> Entry:
        return Entry(
            run=self._run,
            by=self._by,
            phase=phase,
            release=manifest.id,
            previous=self.store.current() or "",
            images=manifest.images,
        )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else NO_SCHEMA
