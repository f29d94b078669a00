"""The database schema of an environment: what is pending, whether the release that serves can live with it, and the
way there and back, never without a verified backup unless the contract says so.

Everything is done by commands of the application's own image, as its own user (`contract.Migrate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Literal

import msgspec

from slipway import once, safety
from slipway.backups import Backup, Backups, age, compare
from slipway.contract import Backup as Commands
from slipway.contract import Migrate
from slipway.errors import CommandError, PreflightError, UnhealthyError
from slipway.lease import Leases
from slipway.ledger import Entry, Ledger
from slipway.pace import Pace
from slipway.release import Manifest, config_path
from slipway.revisions import NONE, UNTOLD, planned, revision_of
from slipway.store import Store

MOST_STEPS = 100
"""Steps down after which a way back is given up, where the contract has a command for one step."""

Verdict = Literal["safe", "unsafe", "unknown"]


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What a release would do to the schema of one service."""

    service: str
    steps: list[str]
    """Revisions, in the order in which they would be applied."""
    verdict: Verdict
    """Whether the release that serves can go on while they are applied, and after."""
    findings: list[str]
    """Why not: a sentence each."""
    embedded: bool
    """Whether the database is a file that old and new release would share."""

    @property
    def sentence(self) -> str:
        """What is pending, for people."""
        verdict = {
            "safe": "It only adds, so the release that serves goes on meanwhile.",
            "unsafe": f"It is not safe for the release that serves: {' '.join(self.findings)}",
            "unknown": "Nobody can tell whether the release that serves survives it: the contract gives no SQL.",
        }
        return f"To migrate for {self.service}: {', '.join(self.steps)}. {verdict[self.verdict]}"


class Way(msgspec.Struct, frozen=True):
    """How the schema is brought to what a release can run on, and how that is taken back.

    Both answer the revision that the schema is at then.
    """

    there: Callable[[], str]
    back: Callable[[], str]


class Schema:
    """The schema of the environment in `store`."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self.backups = Backups(store.folder)

    def plan(self, manifest: Manifest) -> list[Pending]:
        """What is pending, with nothing changed. Raises :class:`UnhealthyError` when an image cannot tell."""
        found = []
        for service, contract in _migrating(manifest):
            # For a database that nobody has made yet all that the image brings is pending, and needs no asking.
            steps = [UNTOLD] if self._unmade(manifest, service) else self._pending(manifest, service)
            if steps:
                found.append(self._judged(manifest, service, contract, steps))
        return found

    def _judged(self, manifest: Manifest, service: str, contract: Migrate, steps: list[str]) -> Pending:
        verdict: Verdict = "unknown"
        findings = []
        if self._store.current() is None:
            # Nothing serves that could suffer.
            verdict = "safe"
        elif (sql := self._sql(manifest, service, contract, steps)) and (dialect := _dialect(contract)):
            findings = [finding.sentence for finding in safety.judge(sql, dialect)]
            verdict = "unsafe" if findings else "safe"
        embedded = contract.dialect == "sqlite"
        return Pending(service=service, steps=steps, verdict=verdict, findings=findings, embedded=embedded)

    def _sql(self, manifest: Manifest, service: str, contract: Migrate, steps: list[str]) -> str:
        """What would run; empty where nobody can tell."""
        if contract.once:
            folder = self._store.path(manifest.id)
            paths = [path for path in contract.once if once.name(path) in steps]
            return "\n".join((folder / config_path(service, path)).read_text() for path in paths)
        return self._run(manifest, service, contract.sql) if contract.sql and contract.dialect else ""

    def refuse(self, manifest: Manifest, pending: list[Pending], *, allow_unsafe: bool) -> None:
        """Raise :class:`PreflightError` for steps that may not be applied as things are; nothing has been changed."""
        unsafe = [f"{one.service}: {sentence}" for one in pending for sentence in one.findings]
        if unsafe and not allow_unsafe:
            raise PreflightError(
                f"A pending migration of {manifest.name} is not safe for the release that serves: {unsafe[0]}",
                "Split it into steps that only add, or accept what it does with allow_unsafe_migrations=true.",
                details="\n".join(unsafe[1:]),
            )
        for one in pending:
            if self._store.current() and _contract(manifest, one.service).backup is None:
                raise PreflightError(
                    f"{one.service} has pending migrations, and its contract says no way to back its database up.",
                    f"State the commands in app_services.{one.service}.migrate.backup, or write backup: none there.",
                )

    def apply(self, manifest: Manifest, pending: list[Pending], record: Callable[[], Entry], stands: str) -> str:
        """Back up, verify the backup, and apply what is pending; the answer is the revision that it leads to.

        `record` makes an entry for the ledger, `stands` is the sentence on what serves meanwhile. Raises
        :class:`UnhealthyError`, which says what state the schema is in.
        """
        reached = self._ledger.schema()
        for one in pending:
            contract = _contract(manifest, one.service)
            with self._ledger.phase(record()) as entry:
                unmade = self._unmade(manifest, one.service)
                entry.schema_before = NONE if unmade else self.revision(manifest, one.service)
                if contract.backup != "none" and entry.schema_before != NONE:
                    entry.backup = self.back_up(manifest, one.service, entry.schema_before).id
                try:
                    reached = entry.schema_after = self._up(manifest, one.service)
                except CommandError as error:
                    at = entry.schema_after = self._revision_after_failure(manifest, one.service)
                    raise UnhealthyError(
                        f"The migration of {manifest.name} failed: {error.what} {_where(entry.schema_before, at)}",
                        f"{stands} Mend the migration and run the play again.",
                        details=error.details,
                    ) from error
        return reached

    def take_back(self, manifest: Manifest, run: str) -> str:
        """Restore the backups that `run` took, where the schema has moved since; nothing was written meanwhile.

        The answer is the revision that the schema is at then.
        """
        revision = self._ledger.schema()
        taken = [entry.backup for entry in self._ledger.entries() if entry.run == run and entry.backup]
        for backup in self.backups.list():
            if backup.id in taken:
                revision = self.revision(manifest, backup.service)
                if revision != backup.revision:
                    revision = self.restore(manifest, backup.service, backup)
        return revision

    def note(self, manifest: Manifest, record: Callable[[], Entry]) -> None:
        """With nothing pending: find out where the schema is when the ledger does not know.

        It does not after a migration that failed or was cut off; and somebody may have moved it by hand before the
        first deploy.
        """
        migrations = [entry for entry in self._ledger.entries() if entry.phase in ("migrate", "recover")]
        if migrations and migrations[-1].phase == "migrate" and migrations[-1].result == "good":
            return
        for service, _ in _migrating(manifest):
            entry = record()
            entry.schema_after = self.revision(manifest, service)
            self._ledger.append(entry)

    def revision(self, manifest: Manifest, service: str) -> str:
        """The revision that the database is at. Raises :class:`UnhealthyError` when the image cannot tell."""
        with _told(service):
            return self._revision(manifest, service)

    def _revision(self, manifest: Manifest, service: str) -> str:
        contract = _contract(manifest, service)
        if contract.once:
            done = self._applied(manifest, service)
            return done[-1] if done else NONE
        return revision_of(self._run(manifest, service, contract.status), contract)

    def _pending(self, manifest: Manifest, service: str) -> list[str]:
        """The revisions that the image would apply. Raises :class:`UnhealthyError` when it cannot tell."""
        with _told(service):
            return self._plan(manifest, service)

    def _plan(self, manifest: Manifest, service: str) -> list[str]:
        """As :meth:`_pending`. Raises :class:`CommandError` also where the schema is ahead of the image."""
        contract = _contract(manifest, service)
        if contract.plan and not contract.once:
            return self._planned(manifest, service, contract)
        return self._state(manifest, service)[1]

    def _state(self, manifest: Manifest, service: str) -> tuple[str, list[str]]:
        """The revision that the database is at, and those that the image would apply."""
        contract = _contract(manifest, service)
        if contract.once:
            done = self._applied(manifest, service)
            return done[-1] if done else NONE, [once.name(path) for path in once.pending(done, contract.once)]
        if contract.plan:
            return self._both(manifest, service, contract)
        left = [UNTOLD]
        at = self._revision(manifest, service)
        if contract.head:
            head = revision_of(self._run(manifest, service, contract.head), contract)
            left = [] if at == head else [head]
        return at, left

    def _both(self, manifest: Manifest, service: str, contract: Migrate) -> tuple[str, list[str]]:
        """What `status` and `plan` tell, asked at once; where that did not work, one after the other."""
        # Imported where it is needed, since most calls migrate nothing.
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        with ThreadPoolExecutor() as asking:
            status = asking.submit(
                self._store.project(manifest).run, service, contract.status, contract, beside_another=True
            )
            try:
                left = self._planned(manifest, service, contract)
                return revision_of(status.result(), contract), left
            except CommandError:
                # There are programs of which one locks the other out.
                status.exception()
        left = self._planned(manifest, service, contract)
        return self._revision(manifest, service), left

    def _unmade(self, manifest: Manifest, service: str) -> bool:
        """Whether nobody has made the database yet: it is a file on a volume, and there is none on any of them."""
        volumes = [f"{manifest.name}-{volume}" for volume in manifest.services[service].volumes]
        if _contract(manifest, service).dialect != "sqlite" or self._store.current() is not None:
            return False
        return bool(volumes) and self._store.project(manifest).has_empty(volumes)

    def _planned(self, manifest: Manifest, service: str, contract: Migrate) -> list[str]:
        code = 0
        try:
            said = self._run(manifest, service, contract.plan)
        except CommandError as error:
            if error.code is None or error.code != contract.pending_exit:
                raise
            said, code = error.said, error.code
        try:
            return planned(said, code, contract)
        except CommandError as error:
            details = self._store.project(manifest).redacted(said)
            raise CommandError(error.what, error.do_next, details=details) from error

    def _applied(self, manifest: Manifest, service: str) -> list[str]:
        """The SQL files that have been applied, by their names."""
        return once.applied(self._psql(manifest, service, once.PSQL, once.STATE), _contract(manifest, service).once)

    def _psql(self, manifest: Manifest, service: str, arguments: Sequence[str], script: str) -> str:
        contract = _contract(manifest, service)
        with_psql = msgspec.structs.replace(contract, entrypoint=contract.entrypoint or "psql")
        return self._store.project(manifest).run_script(service, list(arguments), with_psql, script)

    def _up(self, manifest: Manifest, service: str) -> str:
        """Apply what is pending, and see that it has been: there are programs that fail and say nothing.

        The answer is the revision that the schema is at then.
        """
        contract = _contract(manifest, service)
        said = ""
        if contract.once:
            for path in once.pending(self._applied(manifest, service), contract.once):
                self._psql(manifest, service, once.to_apply(path), once.APPLY)
        else:
            said = self._run(manifest, service, contract.up)
        at, left = self._state(manifest, service)
        if left not in ([], [UNTOLD]):
            raise CommandError(
                f"`{' '.join(contract.up)}` ended well and left {', '.join(left)} to be applied.",
                "Its output is below.",
                details=self._store.project(manifest).redacted(said),
            )
        return at

    def back_up(self, manifest: Manifest, service: str, revision: str, backups: Backups | None = None) -> Backup:
        """Take a backup and verify it: restored to a scratch database, opened, counted.

        It goes to `backups`, or where those before migrations are. Raises :class:`UnhealthyError`.
        """
        contract, commands = _contract(manifest, service), _backup(manifest, service)
        project = self._store.project(manifest)
        # A deploy waits for it. One that goes to an archive nobody waits for.
        pace = None if backups is None else self._pace()
        try:
            return (backups or self.backups).take(
                release=self._store.current() or manifest.id,
                revision=revision,
                service=service,
                create=lambda out: project.run_to(service, commands.create, contract, out, pace),
                verify=lambda source: self._verified(manifest, service, source, pace),
            )
        except CommandError as error:
            raise UnhealthyError(
                f"The backup of {service} failed: {error.what}",
                "Nothing was changed. Mend what its output tells and run this again.",
                details=error.details,
            ) from error

    def verify(self, manifest: Manifest, service: str, source: BinaryIO) -> dict[str, int]:
        """Restore a backup to a scratch database; table -> rows there. Raises :class:`UnhealthyError`."""
        try:
            return self._verified(manifest, service, source, self._pace())
        except CommandError as error:
            raise UnhealthyError(
                f"The backup of {service} could not be restored to a scratch database: {error.what}",
                "Its output is below.",
                details=error.details,
            ) from error

    def _pace(self) -> Pace:
        """Of what nobody waits for, unless a run comes to wait for it."""
        return Pace(Leases(self._store.folder).awaited)

    def _verified(self, manifest: Manifest, service: str, source: BinaryIO, pace: Pace | None) -> dict[str, int]:
        contract, command = _contract(manifest, service), _backup(manifest, service).verify
        return _rows(self._store.project(manifest).run_from(service, command, contract, source, pace))

    def revision_in(self, manifest: Manifest, service: str, source: BinaryIO) -> str:
        """The revision that a backup is at; empty where the contract has no command that tells."""
        contract, command = _contract(manifest, service), _backup(manifest, service).status
        if not command:
            return ""
        with _told(service):
            said = self._store.project(manifest).run_from(service, command, contract, source, self._pace())
            return revision_of(said, contract)

    def backed_up(self, manifest: Manifest) -> list[str]:
        """The services whose database is backed up."""
        return [name for name, contract in _migrating(manifest) if contract.backup not in (None, "none")]

    # --- the way back ----------------------------------------------------------------------------------------------

    def way_to(self, target: Manifest, newer: Manifest | None, *, confirmed: str, stands: str) -> Way | None:
        """How the schema comes to what the older release `target` can run on; None where it can as it is.

        `newer` is the release that is left. Raises :class:`PreflightError` where the contract has no way, or where
        data would be lost and `confirmed` does not name the release.
        """
        ways = []
        for service, error in self._too_far_ahead(target):
            promised = newer.services.get(service) if newer else None
            policy = promised.migrate.on_rollback if promised and promised.migrate else "refuse"
            revision = self._served_on(target)
            match policy:
                case "down" if newer and revision:
                    ways.append(self._down(newer, service, revision))
                case "restore" if newer and revision:
                    ways.append(self._restore(target, newer, service, revision, confirmed))
                case "skip":
                    pass
                case _:
                    raise PreflightError(
                        f"The release {target.id} cannot run on the database as it is now: {error.what}",
                        f"{stands} Take the migration back with the newer release first, "
                        "or say in migrate.on_rollback how.",
                        details=error.details,
                    ) from error
        if not ways:
            return None
        return Way(_all([way.there for way in ways]), _all([way.back for way in ways]))

    def _too_far_ahead(self, target: Manifest) -> Iterator[tuple[str, CommandError]]:
        if (now := self._ledger.schema()) and now == self._served_on(target):
            # It has served on this very schema.
            return
        for service, _ in _migrating(target):
            try:
                self._plan(target, service)
            except CommandError as error:
                yield service, error

    def _served_on(self, manifest: Manifest) -> str:
        """The revision that a release served on last, or the one that it was made from, which has the same image."""
        return self._ledger.schema_under(manifest.id) or self._ledger.schema_under(manifest.made_from)

    def _down(self, newer: Manifest, service: str, revision: str) -> Way:
        contract = _contract(newer, service)
        command = [part.replace("{revision}", revision) for part in contract.down]

        def there() -> str:
            if command != contract.down:
                return self._command(newer, service, command)
            return self._step_down(newer, service, revision)

        return Way(there, lambda: self._command(newer, service, contract.up))

    def _step_down(self, manifest: Manifest, service: str, revision: str) -> str:
        """Go down step by step until the schema is at `revision`."""
        command = _contract(manifest, service).down
        at = self.revision(manifest, service)
        for _ in range(MOST_STEPS):
            if at == revision:
                return at
            before, at = at, self._command(manifest, service, command)
            if at in (before, NONE):
                break
        if at == revision:
            return at
        raise UnhealthyError(
            f"`{' '.join(command)}` does not lead to {revision}, where the older release was: the schema of {service} "
            f"is at {at} now.",
            "Bring it there by hand, and go back again.",
        )

    def _restore(self, target: Manifest, newer: Manifest, service: str, revision: str, confirmed: str) -> Way:
        backup = self.backups.find(service, revision)
        if backup is None:
            raise PreflightError(
                f"There is no backup of {service} from when its schema was at {revision}.",
                "Go back by another way: migrate.on_rollback of the release that serves names it.",
            )
        now = self.count(newer, service)
        lost = [f"{table}: {then} rows then, {today} now" for table, then, today in compare(backup.rows, now)]
        if confirmed != target.id:
            raise PreflightError(
                f"Going back to {target.id} restores the backup {backup.id}, which is {age(backup)} old; "
                "what was written since is lost.",
                f"To go on, run it again with confirm_data_loss={target.id}.",
                details="\n".join(lost) or "The number of rows is the same in every table.",
            )
        kept = self.back_up(newer, service, self._ledger.schema())
        return Way(lambda: self.restore(newer, service, backup), lambda: self.restore(newer, service, kept))

    def count(self, manifest: Manifest, service: str) -> dict[str, int]:
        """Rows of each table of the live database."""
        if service not in self.backed_up(manifest):
            return {}
        return _rows(self._run(manifest, service, _backup(manifest, service).count))

    def restore(self, manifest: Manifest, service: str, backup: Backup, backups: Backups | None = None) -> str:
        """Put a backup in the place of the live database, which nothing may use meanwhile; its revision.

        It lies among `backups`, or with those before migrations.
        """
        command = _backup(manifest, service).restore
        with (backups or self.backups).open(backup) as source:
            try:
                self._store.project(manifest).run_from(service, command, _contract(manifest, service), source)
            except CommandError as error:
                raise _unmoved(service, error) from error
        return backup.revision

    def anonymises(self, manifest: Manifest, service: str) -> bool:
        """Whether the contract has a command for :meth:`anonymise`."""
        return bool(_backup(manifest, service).anonymise)

    def anonymise(self, manifest: Manifest, service: str) -> None:
        """Take out of the live database what nobody may see outside of the environment that it came from."""
        self._command(manifest, service, _backup(manifest, service).anonymise)

    # --- how -------------------------------------------------------------------------------------------------------

    def _command(self, manifest: Manifest, service: str, command: list[str]) -> str:
        try:
            self._run(manifest, service, command)
        except CommandError as error:
            raise _unmoved(service, error) from error
        return self.revision(manifest, service)

    def _run(self, manifest: Manifest, service: str, command: list[str]) -> str:
        return self._store.project(manifest).run(service, command, _contract(manifest, service))

    def _revision_after_failure(self, manifest: Manifest, service: str) -> str:
        try:
            return self.revision(manifest, service)
        except UnhealthyError:
            return ""


@contextmanager
def _told(service: str) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise UnhealthyError(
            f"{service} could not tell where its schema is: {error.what}",
            "Nothing was migrated. Mend what its output tells and run the play again.",
            details=error.details,
        ) from error


def _dialect(contract: Migrate) -> safety.Dialect | None:
    return "postgresql" if contract.once else contract.dialect


def _all(acts: list[Callable[[], str]]) -> Callable[[], str]:
    def act() -> str:
        return [one() for one in acts][-1]

    return act


def _unmoved(service: str, error: CommandError) -> UnhealthyError:
    return UnhealthyError(
        f"The schema of {service} could not be moved: {error.what}",
        "Mend what its output tells.",
        details=error.details,
    )


def _where(before: str, now: str) -> str:
    if not now:
        return f"The schema was at {before} before, and where it is now could not be found out."
    return f"The schema is at {now} as before." if now == before else f"The schema was at {before} and is at {now} now."


def _rows(text: str) -> dict[str, int]:
    try:
        return msgspec.json.decode(text, type=dict[str, int])
    except msgspec.MsgspecError as error:
        raise CommandError(
            "It did not print a JSON object of tables and their number of rows.",
            "Compare the commands of migrate.backup with docs/configure.md.",
        ) from error


def _migrating(manifest: Manifest) -> Iterator[tuple[str, Migrate]]:
    for name, spec in manifest.services.items():
        if spec.migrate is not None:
            yield name, spec.migrate


def _backup(manifest: Manifest, service: str) -> Commands:
    """The commands that back up the database of a service. Raises :class:`PreflightError` where there are none."""
    commands = _contract(manifest, service).backup
    if commands is None or commands == "none":
        raise PreflightError(
            f"The contract of {service} says no way to back its database up.",
            f"State the commands in app_services.{service}.migrate.backup.",
        )
    return commands


def _contract(manifest: Manifest, service: str) -> Migrate:
    contract = manifest.services[service].migrate
    assert contract is not None  # noqa: S101 - callers choose services that have one
    return contract
