"""One deploy on one host: stage, migrate, activate, verify, and the way back.

Each verb can be called again after any interruption and ends in the same state. The release that serves goes on
until the new one has passed its gate and has the traffic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from slipway.daemon import LABEL_ONE_OFF, LABEL_PROJECT, LABEL_SERVICE, Container, Daemon
from slipway.edge import Edge, Maintenance
from slipway.errors import PreflightError, SlipwayError, UnhealthyError
from slipway.gate import Gate
from slipway.lease import SECONDS, HeldError, Lease, Leases
from slipway.ledger import Entry, Ledger, Phase, Result
from slipway.network import POOL, settle, subnet_of
from slipway.owner import Owner, refuse_another
from slipway.plan import Activation, Have, plan_activation, plan_recovery
from slipway.preview import preview
from slipway.prune import prune
from slipway.registries import NO_LOGINS, Logins
from slipway.release import LABEL_NAME, LABEL_RELEASE, LABEL_STACK, Manifest, Release, instances, project_of
from slipway.revoked import Revocation, Revoked, among, kept_secrets, plan_revocation, way_back
from slipway.schema import Pending, Schema, Way
from slipway.status import status
from slipway.store import ARCHIVE_FILE, RESTORING_FILE, Store
from slipway.switch import MAINTENANCE_FILE, Switch, Traffic, gate_of, stop_release
from slipway.watch import Soak

BESIDE_A_RESTORE = ("stop", "destroy", "maintenance")
"""What can be done while data is half restored."""


BACKUP_PATIENCE = 600.0
"""Seconds that a run waits for a backup at least."""


class Run(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which run a call belongs to."""

    run: str
    by: str
    fence: int | None = None
    """The number that the run's first call was given; None for that first call."""
    wait: float = 0.0
    """Seconds to wait for another run to end."""
    lease: float = SECONDS
    """Seconds that the run keeps the lease between two calls."""
    check: bool = False


class Deploy:
    """The verbs of a deploy for one environment on this host."""

    def __init__(self, store: Store, run: Run) -> None:
        self.store = store
        self.ledger = Ledger(store.folder)
        self.leases = Leases(store.folder)
        self.daemon = Daemon()
        self.edge = Edge(store.root)
        self.schema = Schema(store, self.ledger)
        self.revoked = Revoked(store.folder)
        self.traffic = Traffic(store, self.edge)
        self.run = run
        self._fence = run.fence or 0

    # --- hold ------------------------------------------------------------------------------------------------------

    def hold(self, release: Release | None = None) -> dict[str, Any]:
        """Take the lease, or renew it, and do no more than put in order what a run left that is no more.

        A run on several hosts takes it on the first of them before any other, so two runs meet there; but where its
        `release` serves already, that host has nothing for it to do, and no lease is taken. It renews it on the hosts
        that wait for their turn.
        """
        if self.run.check or (release and not self._missing(release) and self._left_serving(release.manifest)):
            return {"changed": False}
        with self.holding("hold", keep=self.run.lease):
            return {"changed": False, "fence": self._fence}

    # --- stage -----------------------------------------------------------------------------------------------------

    def stage(
        self,
        release: Release,
        *,
        pool: str = POOL,
        logins: Logins = NO_LOGINS,
        allow_unsafe: bool = False,
        migrates: bool = True,
        migrates_on: str = "",
        take_over: bool = False,
    ) -> dict[str, Any]:
        """Bring a release to the host and look what it would do to the schema. Touches nothing that runs.

        `logins` are for the registries of its images. `pending` tells what :meth:`migrate` would apply; a step that is
        refused is refused here already. Hosts that share a database have one that `migrates`, and the others do not
        look. `migrates_on` names it where it is none of this run: then nothing may be pending.
        `take_over` is for an environment that another inventory has deployed.
        """
        manifest = release.manifest
        if not take_over:
            refuse_another(self.store, Owner.of(manifest))
        missing = self._missing(release)
        if not missing and self._left_serving(manifest):
            answer = msgspec.to_builtins(status(manifest.name, self.store.root))
            serves = {"serves": True, "status": answer, "current": manifest.id}
            return {"changed": False, "release": manifest.id, "pulled": [], **serves}
        self._refuse_revoked(manifest)
        if self.run.check:
            return self._would_stage(release, missing)
        with self.holding("stage", keep=self.run.lease):
            with self.ledger.phase(self.entry("stage", manifest)):
                if missing:
                    self._bring(release, pool, logins)
                # A host that could send a release no requests takes none, and neither do the others.
                self.edge.started()
                pending = self.schema.plan(manifest) if migrates else []
                self.schema.refuse(manifest, pending, allow_unsafe=allow_unsafe)
                if pending and migrates_on:
                    raise PreflightError(
                        f"{manifest.name} has pending migrations, which are applied on {migrates_on}, where the "
                        "backups of earlier ones are, and this run leaves that host out.",
                        "Run it without --limit, or with that host in it.",
                    )
            if migrates and not pending:
                self.schema.note(manifest, lambda: self.entry("migrate", manifest))
            return {
                "changed": bool(missing),
                "msg": " ".join(one.sentence for one in pending),
                "release": manifest.id,
                "pulled": missing,
                "serves": False,
                "current": self.store.current(),
                "pending": msgspec.to_builtins(pending),
                "schema": self.ledger.schema(),
                "fence": self._fence,
            }

    def _refuse_revoked(self, manifest: Manifest) -> None:
        if revoked := self.revoked.in_release(manifest):
            raise PreflightError(
                f"The value that the inventory has for {', '.join(revoked)} was revoked.",
                "Change it in the vault, and run the play again.",
            )

    def _missing(self, release: Release) -> list[str]:
        """What the host lacks of a release: its folder, images, volumes."""
        manifest = release.manifest
        images = sorted({image for image in manifest.images.values() if self.daemon.image(image) is None})
        volumes = [volume for volume in _volumes(manifest) if not self.daemon.has_volume(volume)]
        folder = [] if self.store.holds(release) else [f"the release folder {manifest.id}"]
        subnet = [] if subnet_of(self.store.path(manifest.id)) else ["a subnet"]
        # A call that was killed may have left the folder and nothing else yet.
        return [*folder, *subnet, *images, *volumes]

    def _would_stage(self, release: Release, missing: list[str]) -> dict[str, Any]:
        manifest = release.manifest
        pending: list[Pending] = []
        if not missing:
            pending = self.schema.plan(manifest)
        plan = self._plan(manifest)
        said = [f"Would bring {', '.join(missing)}." if missing else "All of it is on the host."]
        said += [one.sentence for one in pending] or ["What is pending is known once it is on the host."][
            : bool(missing)
        ]
        return {
            "changed": True,
            "msg": " ".join([*said, _in_order(manifest, plan)]),
            "release": manifest.id,
            "serves": False,
            "missing": missing,
            "pending": msgspec.to_builtins(pending),
            "diff": preview(self.store, release),
            **self._say(plan, manifest.id),
        }

    def _bring(self, release: Release, pool: str, logins: Logins) -> None:
        # Imported where there is something to bring: it takes as long as all else of a call that finds nothing to do.
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        manifest = release.manifest
        lacking = [image for image in sorted(set(manifest.images.values())) if self.daemon.image(image) is None]
        # At once: neither a registry nor Compose is kept waiting by the other.
        with ThreadPoolExecutor() as pulls:
            pulled = [pulls.submit(self.daemon.pull, image, logins) for image in lacking]
            self._place(release, pool)
        for image in pulled:
            image.result()
        project = self.store.project(manifest)
        for volume, body in _volumes(manifest).items():
            project.ensure_volume(volume, body, {LABEL_NAME: manifest.name, LABEL_STACK: "app"})

    def _place(self, release: Release, pool: str) -> None:
        if self.store.holds(release):
            return
        manifest = release.manifest
        folder = self.store.place(release)
        try:
            settle(self.store.root, folder, manifest.project, self.daemon, pool)
            self.store.project(manifest, folder).validate()
        except SlipwayError:
            self.store.drop(folder)
            raise
        self.store.keep(folder)

    # --- migrate ---------------------------------------------------------------------------------------------------

    def migrate(
        self, release_id: str, *, allow_unsafe: bool = False, pending: list[Pending] | None = None
    ) -> dict[str, Any]:
        """Bring the schema to what the release needs, in its own image; the release that serves is left alone.

        `pending` is what :meth:`stage` has told in the same run, which nobody else has changed since.

        `deferred` says that it is for :meth:`activate` to do, with the old release stopped: the database is embedded,
        and the old release cannot share it with a schema that does more than grow.
        """
        if self.run.check:
            return {"changed": True, "deferred": False}
        manifest = self.store.manifest(release_id)
        with self.holding("migrate", keep=self.run.lease):
            pending = self.schema.plan(manifest) if pending is None else pending
            self.schema.refuse(manifest, pending, allow_unsafe=allow_unsafe)
            steps = [step for one in pending for step in one.steps]
            if self.running() and any(one.embedded and one.verdict != "safe" for one in pending):
                said = "It does more than add to a database that both releases would share: the old one stops for it."
                return {"changed": False, "msg": said, "deferred": True, "pending": steps}
            schema = self.schema.apply(manifest, pending, lambda: self.entry("migrate", manifest), self._still_serves())
        return {"changed": bool(pending), "deferred": False, "pending": steps, "schema": schema}

    # --- activate --------------------------------------------------------------------------------------------------

    def activate(
        self, release_id: str, *, terms: Soak, migrate: bool = False, schema: str = "", keep: int | None = None
    ) -> dict[str, Any]:
        """Make the release serve, and drain and stop the one before. `migrate` does first what was deferred to here.

        A container of it that runs and does not answer as promised is replaced. When it fails its gate or its soak,
        the one before serves again, and :class:`UnhealthyError` says why, with the last lines of the release that
        failed. `schema` is where another host has brought the database that they share. `keep` says that the run ends
        here, where no other host can fail: then :meth:`verify` is part of it.
        """
        if self.run.check and release_id not in self.store.ids():
            return {"changed": True, "stop": [], "start": release_id, "previous": self.store.current()}
        manifest = self.store.manifest(release_id)
        if self.run.check:
            return self._say(self._plan(manifest), release_id)
        with self.holding("activate", keep=self.run.lease if keep is None else 0.0):
            plan = self._plan(manifest)
            if plan.nothing and (failing := self._gate(manifest).look()):
                self._clear(manifest, list(failing))
                plan = self._plan(manifest)
            said = self._say(plan, release_id)
            if not plan.nothing:
                way = self._deferred(manifest) if migrate else None
                entry = self.switch("activate", manifest, plan, terms, way, schema=schema)
                said["unavailable_ms"] = entry.unavailable_ms
                said["msg"] = _missed(said["unavailable_ms"])
            if keep is not None:
                said |= self._end(manifest, keep)
        return said

    def _clear(self, manifest: Manifest, containers: list[str]) -> None:
        """Stop and remove these containers of a release, by their names in Compose."""
        self.store.project(manifest).stop(containers)
        for name in containers:
            self.daemon.remove_containers({LABEL_PROJECT: manifest.project, LABEL_SERVICE: name})

    def _deferred(self, manifest: Manifest) -> Way:
        """The migration that has to wait until the old release has stopped, and how it is taken back."""
        pending = self.schema.plan(manifest)
        stands = "The old release was stopped for it."

        def there() -> str:
            return self.schema.apply(manifest, pending, lambda: self.entry("migrate", manifest), stands)

        return Way(there, lambda: self.schema.take_back(manifest, self.run.run))

    def switch(
        self,
        phase: Phase,
        manifest: Manifest,
        plan: Activation,
        terms: Soak,
        way: Way | None,
        *,
        schema: str = "",
        reason: str = "",
        backup: str = "",
        data_age: float = 0.0,
    ) -> Entry:
        """Make a release serve by its plan (:class:`slipway.switch.Switch`); what the ledger has of it."""
        self.need_edge(manifest)
        entry = self.entry(phase, manifest)
        entry.reason, entry.backup, entry.data_age = reason, backup, data_age
        # Where the schema stays, unless the switch has to move it.
        entry.schema_after = schema or self.ledger.schema()
        with self.ledger.phase(entry):
            Switch(
                manifest,
                plan,
                entry,
                store=self.store,
                edge=self.edge,
                daemon=self.daemon,
                way=way,
                tidy=lambda: self._tidy(manifest.id, entry.previous),
            ).run(terms)
        return entry

    def need_edge(self, manifest: Manifest) -> None:
        """Raise :class:`PreflightError` where nothing could send traffic to a release that answers."""
        if any(spec.port for spec in manifest.services.values()) and not self.edge.exists():
            raise PreflightError(
                "There is no edge on this host that could send traffic to a release.",
                "Run playbooks/edge.yml for it.",
            )

    def _say(self, plan: Activation, release_id: str) -> dict[str, Any]:
        return {
            "changed": not plan.nothing,
            "stop": list(plan.stop),
            "start": release_id if plan.start else None,
            "previous": self.store.current(),
        }

    def _tidy(self, *keep: str) -> None:
        """Remove containers and networks of all releases but those to keep; a way back makes them anew."""
        # Tidying decides nothing; the next switch tries again, and what hinders one release keeps no other.
        with suppress(SlipwayError):
            for release_id in {found.release for found in self.daemon.containers(self.store.name)} - set(keep):
                with suppress(SlipwayError):
                    self.daemon.remove_containers({LABEL_NAME: self.store.name, LABEL_RELEASE: release_id})
                    project = project_of(self.store.name, release_id)
                    self.daemon.remove_networks({LABEL_NAME: self.store.name, LABEL_PROJECT: project})

    # --- another host failed -------------------------------------------------------------------------------------

    def give_back(self, release_id: str, previous: str, reason: str) -> dict[str, Any]:
        """End the run on this host because another one failed: where `previous` served before it, it serves again.

        The database stays where the migration has brought it, since the hosts that were not switched share it. A host
        on which nothing served before keeps the release: there is nothing to return to.

        With no `previous` the lease is given up and no more, also where it has ended by itself.
        """
        if not previous and not self.leases.is_of(self.run.run, self.run.fence):
            return {"changed": False, "release": self.store.current()}
        with self.holding("return"):
            here = self.store.current()
            if here != release_id or previous in ("", release_id):
                return {"changed": False, "release": here}
            manifest = self.store.manifest(previous)
            said = self._say(self._plan(manifest), previous)
            entry = self.switch("return", manifest, self._plan(manifest), Soak(), None, reason=reason)
            said["unavailable_ms"] = entry.unavailable_ms
            return {**said, "release": previous, "msg": f"{previous} serves again."}

    # --- verify ----------------------------------------------------------------------------------------------------

    def verify(self, release_id: str, *, keep: int) -> dict[str, Any]:
        """Check that the release serves as declared, forget what is older than the newest `keep` good releases, and
        give up the lease: the run is over."""
        if self.run.check:
            return {"changed": False}
        manifest = self.store.manifest(release_id)
        with self.holding("verify"):
            return {"changed": False, **self._end(manifest, keep)}

    def _end(self, manifest: Manifest, keep: int) -> dict[str, Any]:
        if wrong := self._complaint(manifest):
            raise UnhealthyError(
                f"{manifest.name} does not serve as declared: {wrong}.",
                f"Run the deploy again; slipway logs --name {manifest.name} shows what it prints.",
            )
        removed = prune(self.store, self.ledger, self.daemon, keep=keep, root=self.store.root)
        kept = self.store.ids()
        self.schema.backups.prune(lambda backup: backup.release in kept)
        # The run is over, so nobody holds the lease any more.
        self.leases.free()
        return {
            "release": manifest.id,
            "status": msgspec.to_builtins(status(manifest.name, self.store.root)),
            **removed,
        }

    def _complaint(self, manifest: Manifest) -> str:
        if (current := self.store.current()) != manifest.id:
            return f"release {current} is current and not {manifest.id}"
        if not self.traffic.goes_to(manifest):
            return f"the edge sends traffic to {self.edge.release(manifest.name) or 'none'} or on other terms"
        gate = self._gate(manifest)
        images = {one.name: manifest.images[one.service] for one in instances(manifest.services)}
        for name, container in gate.containers().items():
            image = self.daemon.image(images[name]) if name in images else None
            if image is None or image["Id"] != container.image:
                return f"the service {name} runs another image than {images.get(name, 'any declared')}"
        return next(iter(gate.look().values()), "")

    def _gate(self, manifest: Manifest) -> Gate:
        return gate_of(self.store, self.daemon, manifest)

    # --- the way back ----------------------------------------------------------------------------------------------

    def rollback(
        self,
        release_id: str,
        *,
        terms: Soak,
        confirmed: str = "",
        pool: str = POOL,
        tell: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Go back to a release that served before: the newest such one, or the one named (its first digits do).

        `confirmed` is the id of the release for which the loss of what was written since is accepted. `tell` is called
        before anything is switched, with what happens to secrets, if something does.
        """
        current = self.store.current()
        wanted = self._target(release_id)
        if self.run.check:
            back = way_back(self.store, wanted, self.revoked)
            tell(back.said)
            return {**self._say(self._plan(back.manifest), back.manifest.id), **back.answer, "previous": current}
        with self.holding("rollback"):
            back = way_back(self.store, wanted, self.revoked)
            target = back.manifest
            tell(back.said)
            self._have_images(target)
            if back.made and self._missing(back.made):
                self._bring(back.made, pool, NO_LOGINS)
            newer = self.store.manifest(current) if current in self.store.ids() and current else None
            way = self.schema.way_to(target, newer, confirmed=confirmed, stands=self._still_serves())
            plan = self._plan(target)
            said = self._say(plan, target.id)
            if not plan.nothing:
                entry = self.switch("rollback", target, plan, terms, way, reason=back.reason)
                said["unavailable_ms"] = entry.unavailable_ms
        return {**said, **back.answer, "previous": current}

    def _have_images(self, manifest: Manifest) -> None:
        """Images of kept releases are kept. One that somebody removed is pulled, if that goes without a login."""
        for image in sorted({image for image in manifest.images.values() if self.daemon.image(image) is None}):
            try:
                self.daemon.pull(image, NO_LOGINS)
            except PreflightError as error:
                raise PreflightError(
                    f"The image {image} of release {manifest.id} is no longer on this host, and it could not be pulled "
                    f"without a login. {self._still_serves()}",
                    "Deploy its tag with playbooks/deploy.yml, or pull it by hand and go back again.",
                    details=f"{error.what}\n{error.details}".strip(),
                ) from error

    def _target(self, release_id: str) -> Manifest:
        current = self.store.current()
        here = set(self.store.ids())
        # A current release that does not run is one to go back to as well.
        serving = current if current in here and self.serves(self.store.manifest(current)) else None
        good = [release for release in self.ledger.good_releases() if release != serving and release in here]
        chosen = [release for release in good if release.startswith(release_id)]
        if not chosen:
            wanted = f"release {release_id}" if release_id else "release before this one"
            raise PreflightError(
                f"{self.store.name} has no {wanted} to go back to.",
                f"Releases that served and are kept: {', '.join(good) or 'none'}.",
            )
        if release_id and len(chosen) > 1:
            raise PreflightError(f"{release_id} stands for several releases.", f"Name one: {', '.join(chosen)}.")
        return self.store.manifest(chosen[0])

    # --- stop and remove -------------------------------------------------------------------------------------------

    def stop(self) -> dict[str, Any]:
        """Stop what runs; data, releases and `current` stay, so that the next deploy starts it again."""
        running = self.running()
        if not running or self.run.check:
            return {"changed": bool(running), "stop": sorted(running)}
        with self.holding("stop"):
            self.edge.remove(self.store.name)
            for release_id in sorted(running):
                with self.ledger.phase(self.entry("stop", release_id)):
                    stop_release(self.store, self.daemon, release_id)
        return {"changed": True, "stop": sorted(running)}

    def destroy(self) -> dict[str, Any]:
        """Remove the environment from this host: containers, networks, volumes with their data, releases, ledger."""
        ids = self.store.ids()
        if not self.store.folder.exists() or self.run.check:
            return {"changed": self.store.folder.exists(), "removed": ids}
        with self.holding("destroy"):
            self.edge.remove(self.store.name)
            mine = {LABEL_NAME: self.store.name}
            self.daemon.remove_containers(mine)
            self.daemon.remove_networks(mine)
            self.daemon.remove_volumes(mine)
            self._forget_archive()
            self.store.remove()
        return {"changed": True, "removed": ids}

    def _forget_archive(self) -> None:
        """Have no backup be started any more; those that lie at the target stay."""
        if not (self.store.folder / ARCHIVE_FILE).exists():
            return
        from slipway.archive.settings import ArchiveRequest, declare  # noqa: PLC0415 - for environments that have one

        declare(ArchiveRequest(name=self.store.name), self.store.root)

    # --- maintenance -----------------------------------------------------------------------------------------------

    def maintenance(self, wanted: Maintenance | None) -> dict[str, Any]:
        """Have the edge answer 503 for the environment, or let its release answer again."""
        current = self.store.current()
        if current is None:
            raise PreflightError(
                f"No release of {self.store.name} has served yet.", "Deploy one: playbooks/deploy.yml."
            )
        manifest = self.store.manifest(current)
        path = self.store.folder / MAINTENANCE_FILE
        changed = path.exists() != bool(wanted) or not self.traffic.goes_to(manifest)
        if not changed or self.run.check:
            return {"changed": changed}
        self.need_edge(manifest)
        with self.holding("maintenance"):
            if wanted:
                self.keep_out(manifest, wanted)
            else:
                self.let_in(manifest)
            entry = self.entry("maintenance", manifest.id)
            entry.reason = f"on: {wanted.reason}" if wanted else "off"
            self.ledger.append(entry)
        return {"changed": True}

    def keep_out(self, manifest: Manifest, told: Maintenance) -> None:
        """Have the edge answer users with a page. The caller holds the environment."""
        path = self.store.folder / MAINTENANCE_FILE
        beside = path.with_name(f".{MAINTENANCE_FILE}")
        beside.write_bytes(msgspec.json.encode(told))
        beside.replace(path)
        self.traffic.send_to(manifest)

    def let_in(self, manifest: Manifest) -> None:
        """Have the release answer users again. The caller holds the environment."""
        (self.store.folder / MAINTENANCE_FILE).unlink(missing_ok=True)
        self.traffic.send_to(manifest)

    def bring_up(self, manifest: Manifest) -> None:
        """Start a release that was stopped, and wait for its gate. The caller holds the environment."""
        settle(self.store.root, self.store.path(manifest.id), manifest.project, self.daemon)
        self.store.project(manifest).start()
        self._gate(manifest).wait()

    # --- secrets ---------------------------------------------------------------------------------------------------

    def revoke(self, secrets: Sequence[str], reason: str) -> dict[str, Any]:
        """Mark every value of these secrets that releases on this host hold, other than today's, as revoked.

        The answer names, for each secret, the releases that hold a value which is marked now.
        """
        plan, answer = self._revocation(secrets)
        if not plan or self.run.check:
            return answer
        with self.holding("revoke"):
            # What is current may have changed while this call waited for the lock.
            plan, answer = self._revocation(secrets)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.revoked.add(
                Revocation(secret=name, fingerprint=value, at=now, by=self.run.by, reason=reason)
                for name, values in plan.items()
                for value in values
            )
            entry = self.entry("revoke", self.store.current() or "")
            entry.reason = f"{', '.join(plan)}: {reason}"
            self.ledger.append(entry)
        return answer

    def _revocation(self, secrets: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, Any]]:
        """Secret -> fingerprints to mark, and what to answer."""
        kept = kept_secrets(self.store)
        current = self.store.current()
        if current not in kept:
            raise PreflightError(
                f"No release of {self.store.name} serves, so nobody can tell today's secrets from older ones.",
                "Deploy one: playbooks/deploy.yml.",
            )
        plan = plan_revocation(secrets, today=kept[current], kept=kept.values(), revoked=self.revoked)
        where = {name: [one for one in kept if among(kept[one], values)] for name, values in plan.items()}
        done = "Would be revoked" if self.run.check else "Revoked"
        said = [
            f"{done}: {name} as it is in {', '.join(ids)}. A rollback there uses today's value."
            for name, ids in where.items()
        ]
        return plan, {"changed": bool(plan), "revoked": where, "said": "\n".join(said)}

    # --- the lease -------------------------------------------------------------------------------------------------

    def break_lease(self, reason: str) -> Lease:
        """Take the lease away from whoever has it; the answer is what it was."""
        with self.store.lock():
            lease = self.leases.free()
            entry = self.entry("lease", self.store.current() or "")
            entry.reason = f"taken from {lease.by} (run {lease.run}): {reason}"
            self.ledger.append(entry)
        return lease

    @contextmanager
    def holding(self, what: str, *, keep: float = 0.0) -> Iterator[None]:
        """Hold the environment for one call; after it the run keeps the lease for `keep` seconds.

        A call that fails gives the lease up: the run is over on this host.
        """
        self._await_others()
        with self.store.lock():
            left = self.leases.enter(run=self.run.run, by=self.run.by, what=what, fence=self.run.fence)
            self._fence = self.leases.read().fence
            try:
                if left:
                    self._recover(left)
                if what not in ("restore", *BESIDE_A_RESTORE):
                    self._refuse_half_restored()
                yield
            except BaseException:
                # What went wrong counts, not that a full disk or a removed folder takes no note of it.
                with suppress(OSError):
                    self.leases.free()
                raise
            if keep:
                self.leases.leave(keep)
            elif self.store.folder.exists():
                self.leases.free()

    def _refuse_half_restored(self) -> None:
        path = self.store.folder / RESTORING_FILE
        if not path.exists():
            return
        backup = msgspec.json.decode(path.read_bytes())["backup"]
        raise PreflightError(
            f"A restore of {self.store.name} to the backup {backup} was begun and has not ended, so its data may be "
            "half of what it was and half of what it is to be.",
            f"End it: slipway restore --name {self.store.name} --backup {backup} --confirm-data-loss {backup}, or "
            "playbooks/restore.yml where it has several hosts.",
        )

    def _await_others(self) -> None:
        began = time.monotonic()
        while (held := self.leases.read()).run not in ("", self.run.run) and not held.over:
            # A backup begins by itself, and nobody's deploy fails for that.
            wait = max(self.run.wait, BACKUP_PATIENCE) if held.what in ("backup", "drill") else self.run.wait
            if time.monotonic() >= began + wait:
                raise HeldError(held)
            self.leases.wait_for(0.25)

    def _recover(self, left: Lease) -> None:
        """Finish or undo what a run left that is no more."""
        self.daemon.remove_containers({LABEL_NAME: self.store.name, LABEL_ONE_OFF: "True"})
        plan = plan_recovery(self._have())
        if plan.point:
            self.store.point(plan.point)
        for stray in plan.stop:
            stop_release(self.store, self.daemon, stray)
        undone: list[tuple[str, Result, str]] = [(stray, "returned", "it was undone") for stray in plan.stop]
        finished: list[tuple[str, Result, str]] = [(plan.point, "good", "it was finished")] if plan.point else []
        nothing: tuple[str, Result, str] = (self.store.current() or "", "failed", "nothing of it had to be undone")
        for release_id, result, done in [*finished, *undone] or [nothing]:
            entry = self.entry("recover", release_id)
            entry.result = result
            entry.reason = f"{left.by} (run {left.run}) was cut off while doing {left.what}; {done}."
            entry.schema_after = self.ledger.schema()
            self.ledger.append(entry)

    # --- how it stands ---------------------------------------------------------------------------------------------

    def _plan(self, manifest: Manifest) -> Activation:
        containers = {one.name for one in instances(manifest.services)}
        return plan_activation(
            manifest.id, containers=containers, routed=self.traffic.goes_to(manifest), have=self._have()
        )

    def _have(self) -> Have:
        running = {release: {one.service for one in found} for release, found in self.running().items()}
        return Have(current=self.store.current(), edge=self.edge.release(self.store.name), running=running)

    def running(self) -> dict[str, list[Container]]:
        found: dict[str, list[Container]] = {}
        for container in self.daemon.containers(self.store.name):
            if not container.one_off and container.state in ("running", "restarting"):
                found.setdefault(container.release, []).append(container)
        return found

    def _left_serving(self, manifest: Manifest) -> bool:
        """Whether a release serves as declared, and no other run has the host.

        What serves while one has it may not be what serves after it. Where one broke off, the host is put in order
        first, also where that one got as far as this one would.
        """
        return self.serves(manifest) and self.leases.read().run in ("", self.run.run)

    def serves(self, manifest: Manifest) -> bool:
        """Whether a release serves as declared."""
        return not self._complaint(manifest) and self._plan(manifest).nothing

    def _still_serves(self) -> str:
        current = self.store.current()
        return f"The release {current} still serves." if current else "No release has served before."

    def entry(self, phase: Phase, release: Manifest | str) -> Entry:
        manifest = release if isinstance(release, Manifest) else None
        return Entry(
            run=self.run.run,
            by=self.run.by,
            fence=self._fence,
            phase=phase,
            release=manifest.id if manifest else str(release),
            previous=self.store.current() or "",
            images=manifest.images if manifest else {},
            fingerprints=manifest.fingerprints if manifest else {},
        )


def _in_order(manifest: Manifest, plan: Activation) -> str:
    """What an activation would do, for people."""
    stop = f", drain and stop {', '.join(plan.stop)}" if plan.stop else ""
    single = [name for name, spec in manifest.services.items() if spec.update == "recreate"]
    instead = f" ({', '.join(single)} only once the old one has stopped)" if single and plan.stop else ""
    return f"Then start {manifest.id}{instead}, gate it, switch the edge to it{stop}."


def _missed(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    if milliseconds == 0:
        return "Clients were served all the while."
    return f"Clients were not served for {milliseconds} ms."


def _volumes(manifest: Manifest) -> dict[str, Any]:
    """Name on the host -> what the contract says, of every volume."""
    return {
        f"{manifest.name}-{volume}": body
        for service in manifest.services.values()
        for volume, body in service.volumes.items()
    }
