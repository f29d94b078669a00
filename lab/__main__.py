"""`python -m lab up | down | inventory | ssh`: what `make lab` and molecule call."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab.commands import say
from lab.lab import LABS, Lab
from lab.machines import COUNTED, REGISTRY, choose
from slipway.errors import Exit, SlipwayError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one call; answers its exit code."""
    told = _parser().parse_args(arguments)
    folder = told.folder or LABS / told.name
    lab = Lab(f"slipway-lab-{told.name}", folder, network=told.network)
    try:
        return int(told.act(lab, told))
    except SlipwayError as error:
        sys.stderr.write("".join(f"{line}\n" for line in (error.what, error.do_next, error.details) if line))
        return error.exit


def up(lab: Lab, told: argparse.Namespace) -> Exit:
    """Boot machines and say how to get at them."""
    _need_root()
    began = time.monotonic()
    machines, registry = choose(told.hosts)
    lab.up(machines, engine=told.engine, registry=registry)
    show(lab, told)
    say(f"up in {time.monotonic() - began:.1f} s")
    return Exit.OK


def down(lab: Lab, _: argparse.Namespace) -> Exit:
    """Remove everything."""
    _need_root()
    lab.down()
    return Exit.OK


def show(lab: Lab, _: argparse.Namespace) -> Exit:
    """Print the inventory and how to log in."""
    _need_lab(lab)
    file = _short(lab.inventory)
    lines = [f"ssh {' '.join(_short(Path(word)) for word in lab.ssh_options)} {one.name}" for one in lab.machines()]
    sys.stdout.write("".join([f"# {file}\n", lab.inventory.read_text(), "\n", *(f"{line}\n" for line in lines)]))
    return Exit.OK


def ssh(lab: Lab, told: argparse.Namespace) -> Exit:
    """Log in to a machine, or run a command there."""
    _need_lab(lab)
    os.execvp("ssh", ["ssh", *lab.ssh_options, told.host, *told.command])  # noqa: S606 - it takes this one's place


def _need_root() -> None:
    if os.geteuid():
        raise SlipwayError("Only root can start or remove a lab.", "Type make lab or make lab-down, which see to it.")


def _need_lab(lab: Lab) -> None:
    if not lab.inventory.exists():
        raise SlipwayError(f"There is no lab in {_short(lab.folder)}.", "Start one: make lab.")


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Hosts to provision, in containers.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="mine", help="which lab; each has its own hosts, network and files")
    common.add_argument("--folder", type=Path, help="where it keeps its files; .lab/NAME")
    common.add_argument("--network", default="", help="its network's first three octets; one that is free")
    acts = parser.add_subparsers(required=True)
    adding = acts.add_parser("up", parents=[common], help="start hosts, or add some")
    which = ", ".join([*COUNTED, REGISTRY])
    adding.add_argument("hosts", nargs="*", help=f"how many, with a registry; or which of these: {which}")
    adding.add_argument("--engine", action=argparse.BooleanOptionalAction, default=True, help="with Docker on them")
    adding.set_defaults(act=up)
    acts.add_parser("down", parents=[common], help="remove all of it").set_defaults(act=down)
    acts.add_parser("inventory", parents=[common], help="print it again").set_defaults(act=show)
    reaching = acts.add_parser("ssh", parents=[common], help="log in to a host")
    reaching.add_argument("host")
    reaching.add_argument("command", nargs=argparse.REMAINDER)
    reaching.set_defaults(act=ssh)
    return parser


if __name__ == "__main__":
    sys.exit(main())
