"""The `slipway` program: what an operator types on a host, and what Ansible's modules call.

People use `status`, `history`, `logs` and `rollback`. The other verbs take one JSON request on stdin and answer
with one JSON object (`slipway.protocol`); they are the same code paths.
"""

from __future__ import annotations

import argparse
import getpass
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from slipway import __version__, protocol
from slipway.deploy import Deploy, ReleaseRequest, StageRequest
from slipway.display import history_text, status_text
from slipway.errors import Exit, SlipwayError, UsageError
from slipway.preflight import PreflightRequest, preflight
from slipway.status import NameRequest, history, status
from slipway.store import ROOT, Store, only_environment

Handler = Callable[[bytes, Path], dict[str, Any]]
"""Takes the request as it came and the folder of all environments, and gives the fields of the answer."""


class EnvironmentRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Stop or destroy an environment."""

    name: str
    run: str
    by: str
    check: bool = False


def _preflight(data: bytes, root: Path) -> dict[str, Any]:
    return preflight(protocol.decode_request(data, PreflightRequest), root)


def _stage(data: bytes, root: Path) -> dict[str, Any]:
    request = protocol.decode_request(data, StageRequest)
    name = request.release.manifest.name
    return Deploy(name, run=request.run, by=request.by, check=request.check, root=root).stage(request.release)


def _on_release(act: Callable[[Deploy, str], dict[str, Any]]) -> Handler:
    def handle(data: bytes, root: Path) -> dict[str, Any]:
        request = protocol.decode_request(data, ReleaseRequest)
        deploy = Deploy(request.name, run=request.run, by=request.by, check=request.check, root=root)
        return act(deploy, request.release)

    return handle


def _on_environment(act: Callable[[Deploy], dict[str, Any]]) -> Handler:
    def handle(data: bytes, root: Path) -> dict[str, Any]:
        request = protocol.decode_request(data, EnvironmentRequest)
        return act(Deploy(request.name, run=request.run, by=request.by, check=request.check, root=root))

    return handle


def _report(data: bytes, root: Path) -> dict[str, Any]:
    request = protocol.decode_request(data, NameRequest)
    return {"changed": False, "status": msgspec.to_builtins(status(request.name, root))}


def _images(data: bytes, _root: Path) -> dict[str, Any]:
    from slipway import images  # noqa: PLC0415 - building is rare, and its imports are most of a quick call's time

    return images.run(protocol.decode_request(data, images.ImagesRequest))


def _stack(data: bytes, root: Path) -> dict[str, Any]:
    from slipway import stack  # noqa: PLC0415 - as above

    return stack.run(protocol.decode_request(data, stack.StackRequest), root)


HANDLERS: dict[str, Handler] = {
    "preflight": _preflight,
    "stage": _stage,
    "migrate": _on_release(Deploy.migrate),
    "activate": _on_release(Deploy.activate),
    "verify": _on_release(Deploy.verify),
    "stop": _on_environment(Deploy.stop),
    "destroy": _on_environment(Deploy.destroy),
    "report": _report,
    "images": _images,
    "stack": _stack,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")


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

    sub = people("status", "how the environment stands; exit 2 when it is not healthy")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = people("history", "what happened, oldest first")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument("--last", type=_runs, default=20, metavar="N", help="how many runs (default: %(default)s)")
    sub = people("logs", "what the containers print")
    sub.add_argument("-f", "--follow", action="store_true", help="go on printing")
    sub.add_argument("--since", metavar="WHEN", help="only from then on: 10m, 2h, or a time in ISO 8601")
    sub.add_argument("service", nargs="?", help="one service (default: all)")
    sub = people("rollback", "go back to the release before, or to a named one")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument("release", nargs="?", help="a release that served before; its first digits are enough")

    for verb in HANDLERS:
        sub = verbs.add_parser(verb, help=f"for Ansible: {verb}, as JSON from stdin")
        sub.add_argument("--json", action="store_true", required=True, help="request on stdin, answer on stdout")
    return parser


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
    _need_root()
    if options.verb in HANDLERS or options.verb == "rollback":
        # A connection that is lost, or Ctrl-C, half-way through a switch must not leave it half-way.
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    if options.verb in HANDLERS:
        protocol.answer(**HANDLERS[options.verb](sys.stdin.buffer.read(), options.root))
        return Exit.OK
    return _people(options)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise SlipwayError("slipway needs root to see releases and to talk to Docker.", "Run it with sudo.")


def _people(options: argparse.Namespace) -> int:
    name = options.name or only_environment(options.root)
    match options.verb:
        case "status":
            found = status(name, options.root)
            _say(_json(found) if options.json else status_text(found))
            return Exit.OK if found.healthy else Exit.UNHEALTHY
        case "history":
            runs = history(name, options.root)[-options.last :]
            _say(_json(runs) if options.json else history_text(runs))
        case "logs":
            _logs(name, options)
        case "rollback":
            operator = os.environ.get("SUDO_USER") or getpass.getuser()
            deploy = Deploy(name, run=uuid.uuid4().hex[:12], by=operator, root=options.root)
            answer = deploy.rollback(options.release)
            if options.json:
                protocol.answer(**answer)
            else:
                _say(f"{name} serves {answer['release']} again (before: {answer['previous']}).")
    return Exit.OK


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


def _json(found: object) -> str:
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def _say(text: str) -> None:
    print(text)  # noqa: T201 - this is the program's voice


if __name__ == "__main__":
    sys.exit(main())
