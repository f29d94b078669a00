"""Data shaping for the order across hosts; see slipway.fleet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from slipway import fleet
from slipway.errors import SlipwayError

HostVars = Mapping[str, Mapping[str, Any]]


def slipway_batches(hosts: Sequence[str], sizes: fleet.Size | Sequence[fleet.Size]) -> list[list[str]]:
    """Cut hosts into batches as Ansible's `serial` does."""
    try:
        return fleet.batches([str(host) for host in hosts], sizes)
    except SlipwayError as error:
        raise AnsibleFilterError(f"{error.what} {error.do_next}") from error


def slipway_answered(hosts: Sequence[str], hostvars: HostVars, step: str, key: str) -> bool:
    """Whether a step of the role was answered on every host with this key, which a failure does not have."""
    return all(key in (hostvars[host].get(f"__release_{step}") or {}) for host in hosts)


def slipway_missing(hosts: Sequence[str], hostvars: HostVars) -> list[str]:
    """The hosts on which the release does not serve as declared already, by what staging said."""
    return [host for host in hosts if not hostvars[host]["__release_stage"].get("serves")]


def slipway_went_wrong(hosts: Sequence[str], hostvars: HostVars) -> list[str]:
    """The hosts on which activating failed, or that were lost meanwhile."""
    answers = {host: hostvars[host].get("__release_activate") or {} for host in hosts}
    return [host for host, answer in answers.items() if answer.get("failed") or answer.get("unreachable")]


def slipway_fleet_table(hosts: Sequence[str], hostvars: HostVars, name: str) -> str:
    """How a run ended on each host, as an operator reads it."""
    return fleet.summary(str(name), _outcomes(hosts, hostvars, name))


def slipway_fleet_well(hosts: Sequence[str], hostvars: HostVars, name: str) -> bool:
    """Whether it ended well on all of them."""
    return all(one.well for one in _outcomes(hosts, hostvars, name))


def _outcomes(hosts: Sequence[str], hostvars: HostVars, name: str) -> list[fleet.Outcome]:
    # What a run does last on a host depends on how it went on the others.
    last = "returned" if slipway_went_wrong(hosts, hostvars) else "verified"
    steps = {"staged": "stage", "activated": "activate", last: "end"}
    return [
        fleet.outcome(
            str(host), name=str(name), **{key: hostvars[host].get(f"__release_{step}") for key, step in steps.items()}
        )
        for host in hosts
    ]


class FilterModule:
    """What Ansible finds in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        filters = (
            slipway_answered,
            slipway_batches,
            slipway_fleet_table,
            slipway_fleet_well,
            slipway_missing,
            slipway_went_wrong,
        )
        return {function.__name__: function for function in filters}
