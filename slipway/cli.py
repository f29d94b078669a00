"""The `slipway` program: what an operator types on a host, and what Ansible's modules call.

People use `status`, `history`, `logs`, `rollback`, `revoke`, `maintenance`, `drain`, `lease`, `db`, `backup`,
`backups`, `drill` and `restore`, and where they write a contract `contract check`. The other verbs take one JSON
request on stdin and answer with one JSON object (`slipway.protocol`); they are the same code paths.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import getpass
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from slipway import __version__, protocol
from slipway.deploy import Deploy, Run
from slipway.display import front_text, history_text, status_text
from slipway.edge import Maintenance
from slipway.errors import Exit, SlipwayError, UsageError
from slipway.front import Drained, FrontRequest, Fronts, front_status, only_front
from slipway.network import POOL
from slipway.preflight import PreflightRequest, preflight
from slipway.prune import KEEP
from slipway.registries import Login
from slipway.release import Release
from slipway.schema import Pending
from slipway.status import HistoryRequest, StatusRequest, history, status
from slipway.store import ROOT, Store, environments, only_environment
from slipway.watch import Soak

# Python looks for cycles in all that was imported before it exits, which takes a seventh of the time of a quick call.
atexit.register(gc.freeze)

Handler = Callable[[bytes, Path], dict[str, Any]]
"""Takes the request as it came and the folder of all environments, and gives the fields of the answer."""


class StageRequest(Run):
    """Bring a release to the host."""

    release: Release
    pool: str = POOL
    logins: dict[str, Login] = msgspec.field(default_factory=dict)
    allow_unsafe: bool = False
    migrates: bool = True
    migrates_on: str = ""
    take_over: bool = False


class ReleaseRequest(Run):
    """Do something with a release that is on the host."""

    name: str
    release: str = ""
    allow_unsafe: bool = False
    pending: list[Pending] | None = None
    migrate: bool = False
    schema: str = ""
    previous: str = ""
    reason: str = ""
    terms: Soak = Soak()
    keep: int | None = None


class EnvironmentRequest(Run):
    """Stop or destroy an environment."""

    name: str


class HoldRequest(EnvironmentRequest):
    """Hold an environment, unless a release serves there already."""

    release: Release | None = None


def _preflight(data: bytes, root: Path) -> dict[str, Any]:
    return preflight(protocol.decode_request(data, PreflightRequest), root)


def _fetch(data: bytes, _root: Path) -> dict[str, Any]:
    from slipway import fetch  # noqa: PLC0415 - as below

    return fetch.begin(protocol.decode_request(data, fetch.FetchRequest))


def _stage(data: bytes, root: Path) -> dict[str, Any]:
    request = protocol.decode_request(data, StageRequest)
    deploy = Deploy(Store(request.release.manifest.name, root), request)
    return deploy.stage(
        request.release,
        pool=request.pool,
        logins=request.logins,
        allow_unsafe=request.allow_unsafe,
        migrates=request.migrates,
        migrates_on=request.migrates_on,
        take_over=request.take_over,
    )


def _hold(data: bytes, root: Path) -> dict[str, Any]:
    request = protocol.decode_request(data, HoldRequest)
    return Deploy(Store(request.name, root), request).hold(request.release)


def _on_release(act: Callable[[Deploy, ReleaseRequest], dict[str, Any]]) -> Handler:
    def handle(data: bytes, root: Path) -> dict[str, Any]:
        request = protocol.decode_request(data, ReleaseRequest)
        return act(Deploy(Store(request.name, root), request), request)

    return handle


def _on_environment(act: Callable[[Deploy], dict[str, Any]]) -> Handler:
    def handle(data: bytes, root: Path) -> dict[str, Any]:
        request = protocol.decode_request(data, EnvironmentRequest)
        return act(Deploy(Store(request.name, root), request))

    return handle


def _report(data: bytes, root: Path) -> dict[str, Any]:
    request = protocol.decode_request(data, StatusRequest)
    return {"changed": False, "status": msgspec.to_builtins(status(request.name, root, ask_schema=request.schema))}


def _recount(data: bytes, root: Path) -> dict[str, Any]:
    request = protocol.decode_request(data, HistoryRequest)
    runs = history(request.name, root)[-request.last :]
    return {"changed": False, "runs": msgspec.to_builtins(runs), "text": history_text(runs)}


def _front(data: bytes, root: Path) -> dict[str, Any]:
    return Fronts(root).declare(protocol.decode_request(data, FrontRequest))


def _images(data: bytes, _root: Path) -> dict[str, Any]:
    from slipway import images  # noqa: PLC0415 - building is rare, and its imports are most of a quick call's time

    return images.run(protocol.decode_request(data, images.ImagesRequest))


def _stack(data: bytes, root: Path) -> dict[str, Any]:
    from slipway import stack  # noqa: PLC0415 - as above

    return stack.run(protocol.decode_request(data, stack.StackRequest), root)


def _database(data: bytes, root: Path) -> dict[str, Any]:
    from slipway.database import host  # noqa: PLC0415 - as above

    return host.run(protocol.decode_request(data, host.DatabaseRequest), root)


def _upgrade(data: bytes, root: Path) -> dict[str, Any]:
    from slipway.database import host, upgrade  # noqa: PLC0415 - as above

    return upgrade.upgrade(protocol.decode_request(data, host.DatabaseRequest), root)


def _archive(data: bytes, root: Path) -> dict[str, Any]:
    from slipway.archive import settings  # noqa: PLC0415 - as above

    return settings.declare(protocol.decode_request(data, settings.ArchiveRequest), root)


def _database_backup(data: bytes, root: Path) -> dict[str, Any]:
    from slipway.database import repository  # noqa: PLC0415 - as above

    request = protocol.decode_request(data, repository.BackupRequest)
    return repository.Repository(request.name, root).backup(check=request.check)


def _database_restore(data: bytes, root: Path) -> dict[str, Any]:
    from slipway.database import restore  # noqa: PLC0415 - as above

    return restore.restore(protocol.decode_request(data, restore.RestoreRequest), root)


def _reach(data: bytes, _root: Path) -> dict[str, Any]:
    from slipway.database import reach  # noqa: PLC0415 - as above

    return reach.reach(protocol.decode_request(data, reach.ReachRequest))


HANDLERS: dict[str, Handler] = {
    "preflight": _preflight,
    "fetch": _fetch,
    "hold": _hold,
    "stage": _stage,
    "migrate": _on_release(
        lambda deploy, on: deploy.migrate(on.release, allow_unsafe=on.allow_unsafe, pending=on.pending)
    ),
    "activate": _on_release(
        lambda deploy, on: deploy.activate(
            on.release, terms=on.terms, migrate=on.migrate, schema=on.schema, keep=on.keep
        )
    ),
    "return": _on_release(lambda deploy, on: deploy.give_back(on.release, on.previous, on.reason)),
    "verify": _on_release(lambda deploy, on: deploy.verify(on.release, keep=KEEP if on.keep is None else on.keep)),
    "stop": _on_environment(Deploy.stop),
    "destroy": _on_environment(Deploy.destroy),
    "report": _report,
    "recount": _recount,
    "front": _front,
    "images": _images,
    "stack": _stack,
    "database": _database,
    "upgrade": _upgrade,
    "database-backup": _database_backup,
    "database-restore": _database_restore,
    "reach": _reach,
    "archive": _archive,
}


CONTRACT = "say all that is wrong with a contract in a file; exit 1 when something is"


CHANGING = ("rollback", "revoke", "maintenance", "drain", "backup", "drill", "restore")
"""What people type that changes something."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")


if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[_Parser]
    Adder = Callable[[str, str], argparse.ArgumentParser]


def _runs(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of runs")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="slipway", description="Look at and take back what Slipway deployed to this host.")
    parser.add_argument("--version", action="version", version=f"slipway {__version__} (protocol {protocol.PROTOCOL})")
    parser.add_argument("--root", type=Path, default=ROOT, help="where environments live (default: %(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser, metavar="VERB")

    def people(verb: str, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("--name", "-n", help="the environment (default: the only one on this host)")
        return sub

    def changing(verb: str, text: str) -> argparse.ArgumentParser:
        sub = telling(verb, text)
        sub.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait for another run to end")
        # What a playbook says of itself.
        sub.add_argument("--run", default=uuid.uuid4().hex[:12], help=argparse.SUPPRESS)
        return sub

    def telling(verb: str, text: str) -> argparse.ArgumentParser:
        sub = people(verb, text)
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.add_argument("--by", default="", help=argparse.SUPPRESS)
        sub.add_argument("--check", action="store_true", help="say what would be done, and do nothing")
        return sub

    sub = people("status", "how the environment stands; exit 2 when it is not healthy or not as declared")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = people("history", "what happened, oldest first")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument("--last", type=_runs, default=20, metavar="N", help="how many runs (default: %(default)s)")
    sub = people("logs", "what the containers print")
    sub.add_argument("-f", "--follow", action="store_true", help="go on printing")
    sub.add_argument("--since", metavar="WHEN", help="only from then on: 10m, 2h, or a time in ISO 8601")
    sub.add_argument("service", nargs="?", help="one service (default: all)")
    sub = changing("rollback", "go back to the release before, or to a named one")
    sub.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="watch it for so long once it serves")
    sub.add_argument(
        "--confirm-data-loss", default="", metavar="RELEASE", help="restore the backup from before its migration"
    )
    sub.add_argument("release", nargs="?", default="", help="a release that served before; its first digits are enough")
    # What an inventory says; without one, the range that it has where it says nothing.
    sub.add_argument("--pool", default=POOL, help=argparse.SUPPRESS)
    sub = changing("revoke", "mark older values of secrets as leaked, so that no rollback restores them")
    sub.add_argument("--reason", required=True, metavar="WHY", help="for the ledger")
    sub.add_argument("secrets", nargs="+", metavar="SECRET", help="its name, such as api:env:API_TOKEN")
    sub = changing("maintenance", "answer users with 503 and a page, or let the release answer them again")
    sub.add_argument("--reason", default="", help="what users read on the page")
    sub.add_argument("--retry-after", type=int, default=300, metavar="SECONDS", help="what clients are told")
    sub.add_argument("wanted", choices=["on", "off"])
    sub = telling("drain", "on a host of the edge tier: send an app host no requests, or send it some again")
    sub.add_argument("--reason", default="", help="for whoever finds it drained")
    sub.add_argument("--force", action="store_true", help="also where no other host answers")
    sub.add_argument("host", help="its name in the inventory")
    sub.add_argument("wanted", choices=["on", "off"])
    sub = changing("lease", "who is deploying; --break takes the lease away from a run that will not end")
    sub.add_argument("--break", dest="broken", action="store_true", help="needs a --reason")
    sub.add_argument("--reason", default="", help="for the ledger")

    _archive_options(people, changing)
    _database_options(telling("db", "look into the bundled database of this host, or back it up or take it back"))
    _add_contract(verbs)
    for verb in HANDLERS:
        sub = verbs.add_parser(verb, help=f"for Ansible: {verb}, as JSON from stdin")
        sub.add_argument("--json", action="store_true", required=True, help="request on stdin, answer on stdout")
    return parser


def _archive_options(people: Adder, changing: Adder) -> None:
    changing("backup", "back up the database and the volumes to the archive, now")
    sub = people("backups", "what the archive has, newest first, and when each was last restored to a scratch database")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = changing("drill", "restore the newest backup, or a named one, where nobody is served, to see that it can be")
    sub.add_argument("backup", nargs="?", default="", help="its id; the first digits are enough")
    sub = changing("restore", "put a backup in the place of the live data; users are kept out meanwhile")
    sub.add_argument("--backup", default="", metavar="ID", help="this one; the first digits are enough")
    sub.add_argument("--to", default="", metavar="TIME", help="the newest from then or before; ISO 8601")
    sub.add_argument("--release", default="", metavar="ID", help="the newest of this release, which serves then")
    sub.add_argument("--confirm-data-loss", default="", metavar="ID", help="the backup; what was written since is lost")
    sub.add_argument("--no-keep", action="store_true", help="do not back up what is there now: it is past reading")
    # For playbooks, where an environment has several hosts or takes the data of another one.
    for hidden in ("--source", "--as-it-is", "--stay-closed", "--no-database"):
        sub.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    sub.add_argument("--beside", default="", help=argparse.SUPPRESS)
    sub.add_argument("--step", choices=["all", "choose", "close", "open"], default="all", help=argparse.SUPPRESS)


def _database_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, metavar="FILE", help="where a dump goes (default: standard output)")
    sub.add_argument("--read-only", action="store_true", help="a shell in which nothing can be changed")
    sub.add_argument("--to", metavar="TIME", help="for restore: in ISO 8601 (UTC where it names no zone), or latest")
    sub.add_argument(
        "tool",
        choices=["shell", "dump", "size", "activity", "locks", "backup", "backups", "restore"],
        help="psql; a dump for pg_restore; how large it is; who does what; who waits for whom; "
        "take a backup; what is archived, and to when one can go back; go back",
    )


def _add_contract(verbs: Verbs) -> None:
    contract = verbs.add_parser("contract", help="what is wrong with a contract", description=CONTRACT)
    sub = contract.add_subparsers(dest="act", required=True, parser_class=_Parser, metavar="check").add_parser(
        "check", help=CONTRACT, description=CONTRACT
    )
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument(
        "file", type=Path, metavar="FILE", help="YAML or JSON with app_services, or with the services alone"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one call and return its exit code (:class:`slipway.errors.Exit`)."""
    arguments = argv if argv is not None else sys.argv[1:]
    try:
        return _call(_parser().parse_args(arguments))
    except SlipwayError as error:
        told = error
    except (KeyboardInterrupt, BrokenPipeError):
        return Exit.ERROR
    except OSError as error:
        told = SlipwayError(f"The system refused: {error}.", "Mend that, and run this again.")
    if "--json" in arguments:
        return protocol.refusal(told)
    print(f"{told.what}\n{told.do_next}", file=sys.stderr)  # noqa: T201 - this is the program's voice
    if told.details:
        print(f"\n{told.details}", file=sys.stderr)  # noqa: T201
    return told.exit


def _call(options: argparse.Namespace) -> int:
    if options.verb == "contract":
        return _contract(options)
    _need_root()
    restores = options.verb == "db" and options.tool == "restore"
    if restores or options.verb in HANDLERS or options.verb in CHANGING:
        # A connection that is lost, or Ctrl-C, half-way through a switch must not leave it half-way.
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    if options.verb in HANDLERS:
        protocol.answer(**HANDLERS[options.verb](sys.stdin.buffer.read(), options.root))
        return Exit.OK
    return _people(options)


def _contract(options: argparse.Namespace) -> int:
    from slipway import check  # noqa: PLC0415 - it looks into modules that no other verb needs

    found = check.check(options.file)
    _say(_json(found) if options.json else check.text(options.file, found))
    return Exit.ERROR if found.problems else Exit.OK


def _need_root() -> None:
    if os.geteuid() != 0:
        raise SlipwayError("slipway needs root to see releases and to talk to Docker.", "Run it with sudo.")


def _people(options: argparse.Namespace) -> int:
    name = options.name or _only(options)
    match options.verb:
        case "status" if name in Fronts(options.root).names() and name not in environments(options.root):
            front = front_status(name, options.root)
            _say(_json(front) if options.json else front_text(front))
            return Exit.OK if front.healthy else Exit.UNHEALTHY
        case "status":
            found = status(name, options.root, ask_schema=True)
            _say(_json(found) if options.json else status_text(found))
            return Exit.OK if found.as_declared else Exit.UNHEALTHY
        case "history":
            runs = history(name, options.root)[-options.last :]
            _say(_json(runs) if options.json else history_text(runs))
        case "db" if options.tool in ("backup", "backups", "restore"):
            return _database_archive(name, options)
        case "db":
            from slipway.database import tools  # noqa: PLC0415 - as above

            tools.run(options.tool, name, out=options.out, read_only=options.read_only, root=options.root)
        case verb:
            ACTS[verb](name, options)
    return Exit.OK


def _database_archive(name: str, options: argparse.Namespace) -> int:
    """What people do with the archive of the bundled database."""
    from slipway.database import repository, restore  # noqa: PLC0415 - as above

    if options.tool == "restore":
        if not options.to:
            raise UsageError("A restore needs to know to when.", "Add --to 2026-11-24T18:40:05Z, or --to latest.")
        request = restore.RestoreRequest(name=name, to=options.to, check=options.check)
        answer = restore.restore(request, options.root, (lambda _: None) if options.json else _say)
        _tell(options, answer, answer["msg"])
        return Exit.OK
    of_it = repository.Repository(name, options.root)
    if options.tool == "backup":
        answer = of_it.backup(check=options.check)
        _tell(options, answer, answer["msg"])
        return Exit.OK
    found = of_it.report()
    _say(_json(found) if options.json else found.text(datetime.now(UTC)))
    return Exit.UNHEALTHY if found.warnings else Exit.OK


def _only(options: argparse.Namespace) -> str:
    """The environment that is meant where none is named."""
    if options.verb == "db":
        from slipway.database import tools  # noqa: PLC0415 - as above

        return tools.only_database(options.root)
    balances = Fronts(options.root).names() and not environments(options.root)
    if options.verb == "drain" or (options.verb == "status" and balances):
        return only_front(options.root)
    return only_environment(options.root)


def _deploy(name: str, options: argparse.Namespace) -> Deploy:
    by = options.by or os.environ.get("SUDO_USER") or getpass.getuser()
    run = Run(run=options.run, by=by, wait=options.wait, check=options.check)
    return Deploy(Store(name, options.root), run)


def _tell(options: argparse.Namespace, answer: dict[str, Any], sentence: str) -> None:
    if options.json:
        protocol.answer(**answer)
    else:
        _say(sentence)


def _rollback(name: str, options: argparse.Namespace) -> None:
    def tell(said: str) -> None:
        if said and not options.json:
            _say(said)

    answer = _deploy(name, options).rollback(
        options.release,
        terms=Soak(seconds=options.soak),
        confirmed=options.confirm_data_loss,
        pool=options.pool,
        tell=tell,
    )
    verb, again = "would serve" if options.check else "serves", "" if answer["made_from"] else " again"
    _tell(options, answer, f"{name} {verb} {answer['release']}{again} (before: {answer['previous']}).")


def _revoke(name: str, options: argparse.Namespace) -> None:
    answer = _deploy(name, options).revoke(options.secrets, options.reason)
    _tell(options, answer, answer["said"] or "It was revoked already.")


def _maintenance(name: str, options: argparse.Namespace) -> None:
    deploy = _deploy(name, options)
    wanted = Maintenance(
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        by=options.by or getpass.getuser(),
        reason=options.reason,
        retry_after=options.retry_after,
    )
    answer = deploy.maintenance(wanted if options.wanted == "on" else None)
    done = "answers 503 now, its health apart" if options.wanted == "on" else "answers again"
    already = "" if answer["changed"] else " already"
    _tell(options, answer, f"{name}{already} {done}.")


def _drain(name: str, options: argparse.Namespace) -> None:
    drained = Drained(
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        by=options.by or os.environ.get("SUDO_USER") or getpass.getuser(),
        reason=options.reason,
    )
    wanted = drained if options.wanted == "on" else None
    answer = Fronts(options.root).drain(name, options.host, wanted, force=options.force, check=options.check)
    _tell(options, answer, answer["msg"])


def _backups(name: str, options: argparse.Namespace) -> None:
    from slipway.archive import commands  # noqa: PLC0415 - as above

    found = commands.all_backups(Store(name, options.root))
    _say(_json(found) if options.json else commands.backups_text(found))


def _archived(name: str, options: argparse.Namespace) -> None:
    from slipway.archive import commands  # noqa: PLC0415 - as above

    def read(shape: type[commands.Source]) -> commands.Source:
        return protocol.decode_request(sys.stdin.buffer.read(), shape)

    answer = commands.run(_deploy(name, options), options, read)
    _tell(options, answer, answer.get("msg", ""))


def _lease(name: str, options: argparse.Namespace) -> None:
    if options.broken and not options.reason:
        raise UsageError("Whoever breaks a lease says why.", "Add --reason.")
    deploy = _deploy(name, options)
    lease = deploy.break_lease(options.reason) if options.broken else deploy.leases.read()
    fields = msgspec.to_builtins(lease)
    holder = f"{lease.by} (run {lease.run}, number {lease.fence}, last seen doing {lease.what})"
    if not lease.run:
        sentence = f"Nobody is deploying {name}."
    elif options.broken:
        sentence = f"The lease on {name} was taken from {holder}."
    elif lease.over:
        sentence = f"{holder} was cut off. The next run finishes or undoes what it left."
    else:
        sentence = f"{holder} is deploying {name}, and has the lease until {_clock(lease.expires)} UTC at least."
    _tell(options, {"changed": options.broken and bool(lease.run), "lease": fields}, sentence)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:19]


def _logs(name: str, options: argparse.Namespace) -> None:
    store = Store(name, options.root)
    current = store.current()
    if current is None:
        raise SlipwayError(f"No release of {name} has served yet.", "Deploy one: playbooks/deploy.yml.")
    manifest = store.manifest(current)
    if options.service and options.service not in manifest.services:
        raise UsageError(f"{name} has no service {options.service}.", f"It has {', '.join(manifest.services)}.")
    project = store.project(manifest)
    services = [options.service] if options.service else []
    for text in project.follow(services=services, since=options.since, follow=options.follow):
        sys.stdout.write(text)
        sys.stdout.flush()


ACTS: dict[str, Callable[[str, argparse.Namespace], None]] = {
    "logs": _logs,
    "rollback": _rollback,
    "revoke": _revoke,
    "maintenance": _maintenance,
    "drain": _drain,
    "lease": _lease,
    "backups": _backups,
    **dict.fromkeys(("backup", "drill", "restore"), _archived),
}


def _json(found: object) -> str:
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def _say(text: str) -> None:
    # At once, also into a pipe: what is said before a switch is of use before it.
    print(text, flush=True)  # noqa: T201 - this is the program's voice


if __name__ == "__main__":
    sys.exit(main())
