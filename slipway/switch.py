"""The switch: a release comes to serve beside the one that does, or everything stays as it was.

    start beside the old one -> gate -> the edge switches -> soak -> drain -> stop the old one, which stays for rollback

No request reaches the new release before it has passed its gate, and the old one goes on until it has nothing left to
answer. Services with `update: recreate` are the exception: the old one's stops before the new one's starts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec

from slipway.daemon import Daemon
from slipway.edge import Edge, Maintenance, Site, certificates, site
from slipway.errors import SlipwayError, UnhealthyError
from slipway.gate import Gate
from slipway.ledger import Entry
from slipway.network import addresses, settle
from slipway.plan import Activation, waves
from slipway.release import LABEL_NAME, LABEL_RELEASE, Manifest, instances
from slipway.schema import Way
from slipway.store import Store
from slipway.watch import AccessLog, Prober, Soak, drain, soak

MAINTENANCE_FILE = "maintenance.json"


class Traffic:
    """Where the edge sends the requests for one environment."""

    def __init__(self, store: Store, edge: Edge) -> None:
        self._store = store
        self._edge = edge

    def goes_to(self, manifest: Manifest) -> bool:
        """Whether it goes to this release, on the release's own terms."""
        return self._edge.site(manifest.name) == self._wanted(manifest)

    def send_to(self, manifest: Manifest, behind: Manifest | None = None) -> None:
        """Send it to this release, and to the one `behind` where this one takes none.

        Raises :class:`SlipwayError`, with everything as it was.
        """
        if wanted := self._wanted(manifest, behind):
            # Where there is an edge tier, it ends TLS, and no key has to lie here too.
            files = {} if self._edge.tier() else certificates(self._store.path(manifest.id))
            self._edge.apply(manifest.name, wanted, files)
        else:
            self._edge.remove(manifest.name)

    def _wanted(self, manifest: Manifest, behind: Manifest | None = None) -> Site | None:
        """The site of this release; None where it has nothing to answer, or no address on this host yet."""
        upstreams = self._listening(manifest)
        if not upstreams:
            return None
        return site(manifest, upstreams, self.maintenance(), self._edge.tier(), self._listening(behind))

    def _listening(self, manifest: Manifest | None) -> dict[str, list[str]]:
        """Service -> where its replicas listen."""
        upstreams: dict[str, list[str]] = {}
        if manifest is None:
            return upstreams
        where = addresses(self._store.path(manifest.id), manifest)
        for one in instances(manifest.services):
            if where and (port := manifest.services[one.service].port):
                upstreams.setdefault(one.service, []).append(f"{where[one.name]}:{port}")
        return upstreams

    def maintenance(self) -> Maintenance | None:
        """What users are told while they are kept out; None while they are not."""
        try:
            return msgspec.json.decode((self._store.folder / MAINTENANCE_FILE).read_bytes(), type=Maintenance)
        except FileNotFoundError:
            return None


class Switch:
    """One activation of `manifest` on this host, by its plan."""

    def __init__(
        self,
        manifest: Manifest,
        plan: Activation,
        entry: Entry,
        *,
        store: Store,
        edge: Edge,
        daemon: Daemon,
        way: Way | None = None,
        tidy: Callable[[], None],
    ) -> None:
        """`way` moves the schema in a manner that no other release may see: all are stopped before it.

        `tidy` removes what neither this release nor the one before needs; it comes last, however the switch ends.
        """
        self._manifest = manifest
        self._plan = plan
        self._entry = entry
        self._store = store
        self._edge = edge
        self._daemon = daemon
        self._way = way
        self._tidy = tidy
        self._moved = False
        self._traffic = Traffic(store, edge)
        self._began = datetime.now(UTC)

    def run(self, terms: Soak) -> None:
        """Make the release serve, or raise :class:`UnhealthyError` with the one before serving again."""
        with self._probed():
            try:
                if self._way:
                    with self._timed("migrate"):
                        self._move_schema(self._way)
                if self._plan.start:
                    with self._timed("start"):
                        self._start()
                log = AccessLog(self._edge.log(self._manifest.name))
                # With nothing to return to there is nothing to find out in time.
                watched = terms.seconds > 0 and self._plan.fall_back is not None
                beside = self._beside() if watched else None
                with self._timed("switch"):
                    self._traffic.send_to(self._manifest, beside)
                    self._store.point(self._manifest.id)
                switched = time.monotonic()
                with self._timed("soak"):
                    if watched:
                        self._soak(log, terms, switched)
                    if beside:
                        self._traffic.send_to(self._manifest)
            except SlipwayError as error:
                undone = self._undone(error)
                self._tidy()
                raise undone from error
            with self._timed("drain"):
                self._drain(switched)
            with self._timed("stop"):
                self._stop()

    @contextmanager
    def _probed(self) -> Iterator[None]:
        """Measure what clients miss, where there is something to miss."""
        if self._edge.release(self._manifest.name) is None or not self._plan.fall_back:
            yield
            return
        services = self._store.manifest(self._plan.fall_back).services.values()
        prober = Prober(
            (spec.host_port, spec.health.path if spec.health else "/") for spec in services if spec.host_port
        )
        try:
            with prober:
                yield
        finally:
            self._entry.unavailable_ms = round(prober.missed * 1000)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._entry.phases[phase] = round(time.monotonic() - began, 3)

    def _move_schema(self, way: Way) -> None:
        project = self._store.project(self._manifest)
        settle(self._store.root, self._store.path(self._manifest.id), self._manifest.project, self._daemon)
        # Made before the old ones stop, so that they are missed for as short as can be.
        project.create()
        self._hold_requests()
        for old in self._plan.stop:
            stop_release(self._store, self._daemon, old)
        self._moved = True
        self._entry.schema_before = self._entry.schema_after
        self._entry.schema_after = way.there()

    def _start(self) -> None:
        manifest = self._manifest
        settle(self._store.root, self._store.path(manifest.id), manifest.project, self._daemon)
        project = self._store.project(manifest)
        running = {name: spec for name, spec in manifest.services.items() if spec.kind != "job"}
        beside = {name for name, spec in running.items() if spec.update == "overlap"}
        self._start_in_turn(beside)
        rest = running.keys() - beside
        if rest:
            # Made before the old ones stop, so that they are missed for the length of a start and no longer.
            project.create()
            if any(manifest.services[name].port for name in rest):
                self._hold_requests()
            for old in self._plan.stop:
                self._stop_singletons(old, rest)
            self._start_in_turn(rest)

    def _hold_requests(self) -> None:
        """Have them wait; but whoever is kept out is told so."""
        if self._traffic.maintenance() is None:
            self._edge.hold(self._manifest.name)

    def _start_in_turn(self, services: Collection[str]) -> None:
        """Start these services, each when those it needs have passed the gate."""
        project, gate = self._store.project(self._manifest), self._gate(self._manifest)
        for wave in waves({name: self._manifest.services[name].needs for name in services}):
            project.start(_containers(self._manifest, wave))
            gate.wait(wave)

    def _stop_singletons(self, old: str, rest: set[str]) -> None:
        if old not in self._store.ids():
            stop_release(self._store, self._daemon, old)
            return
        manifest = self._store.manifest(old)
        single = {name for name, spec in manifest.services.items() if spec.update == "recreate" or name in rest}
        if single:
            self._store.project(manifest).stop(_containers(manifest, single))

    def _beside(self) -> Manifest | None:
        """The release before, where it still runs and can take what the new one does not accept."""
        before = self._plan.fall_back
        if before is None or self._moved or before not in self._plan.stop or before not in self._store.ids():
            return None
        manifest = self._store.manifest(before)
        overlaps = all(spec.update == "overlap" for spec in manifest.services.values() if spec.port)
        return manifest if overlaps else None

    def _soak(self, log: AccessLog, terms: Soak, switched: float) -> None:
        health = self._gate(self._manifest).watch()
        if wrong := soak(switched + terms.seconds, lambda: health() or log.complaint(terms)):
            raise UnhealthyError(f"It did not bear up once traffic had moved: {wrong}.", "")

    def _drain(self, switched: float) -> None:
        for old in self._plan.stop:
            if old not in self._store.ids():
                continue
            manifest = self._store.manifest(old)
            where = addresses(self._store.path(old), manifest)
            ports = {one.name: manifest.services[one.service].port for one in instances(manifest.services)}
            targets = [(address, port) for name, address in where.items() if (port := ports[name])]
            patience = max(
                (spec.drain_seconds for spec in manifest.services.values() if spec.kind != "job"), default=0.0
            )
            drain(targets, switched + patience)

    def _stop(self) -> None:
        # An old release takes its time to end what it does; what is older still goes meanwhile.
        tidying = threading.Thread(target=self._tidy)
        tidying.start()
        try:
            for old in self._plan.stop:
                stop_release(self._store, self._daemon, old)
        finally:
            tidying.join()

    def _undone(self, error: SlipwayError) -> UnhealthyError:
        """Take everything back, and say what was wrong and how it stands now."""
        manifest = self._manifest
        project = self._store.project(manifest)
        logs = project.logs(since=self._began)
        how_it_stands, serves = self._return_to(self._plan.fall_back)
        undone = UnhealthyError(
            f"The release {manifest.id} of {manifest.name} failed and was stopped. {error.what}",
            f"{how_it_stands} Mend what its last lines below tell and run the play again.",
            details=f"{error.details}\n{logs}".strip(),
        )
        undone.serves = serves
        return undone

    def _return_to(self, release_id: str | None) -> tuple[str, str]:
        """Have the release before serve again where there is one; how things stand then, and what serves."""
        failed = self._store.project(self._manifest)
        if release_id is None:
            # The way back goes on whatever the failed one does.
            with suppress(SlipwayError):
                failed.stop()
            if self._entry.previous:
                return "It is the release that served, so there is none to return to and none serves now.", ""
            with suppress(SlipwayError):
                self._edge.remove(self._manifest.name)
            self._store.point(None)
            return "No release served before, so none serves now.", ""
        try:
            manifest = self._store.manifest(release_id)
            gate = self._gate(manifest)
            running = {name for name, found in gate.containers().items() if found.state == "running"}
            routed = {name for name, spec in manifest.services.items() if spec.port}
            if running and running >= set(_containers(manifest, routed)):
                # It still runs beside the failed one: traffic first.
                self._send_back(manifest)
            with suppress(SlipwayError):
                failed.stop()
            if self._way and self._moved:
                self._entry.schema_after = self._way.back()
            if not running >= {one.name for one in instances(manifest.services)}:
                settle(self._store.root, self._store.path(release_id), manifest.project, self._daemon)
                self._store.project(manifest).start()
                gate.wait()
            self._send_back(manifest)
        except SlipwayError as error:
            return f"The release before, {release_id}, was to serve again and does not: {error.what}", ""
        self._entry.result = "returned"
        return f"The release before, {release_id}, serves again.", release_id

    def _send_back(self, manifest: Manifest) -> None:
        self._traffic.send_to(manifest)
        self._store.point(manifest.id)

    def _gate(self, manifest: Manifest) -> Gate:
        return gate_of(self._store, self._daemon, manifest)


def gate_of(store: Store, daemon: Daemon, manifest: Manifest) -> Gate:
    """The gate of a release that lies in the store."""
    return Gate(
        manifest,
        daemon,
        addresses=addresses(store.path(manifest.id), manifest),
        redacted=lambda text: store.project(manifest).redacted(text),
    )


def stop_release(store: Store, daemon: Daemon, release_id: str) -> None:
    """Stop a release, also one whose folder is gone: its containers are known by their labels."""
    if release_id in store.ids():
        store.project(store.manifest(release_id)).stop()
        return
    daemon.stop_containers({LABEL_NAME: store.name, LABEL_RELEASE: release_id})


def _containers(manifest: Manifest, services: Collection[str]) -> list[str]:
    return [one.name for one in instances(manifest.services) if one.service in services]
