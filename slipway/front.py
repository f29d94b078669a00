"""The edge tier: a host that balances the names of an environment over its app hosts, and takes one out for work.

What such a host needs to know lies in /srv/slipway/edge/front/<name>.json: the contract of the services that have
names, where the app hosts are, and which of them are drained. The site in the edge is made from that and from nothing
else, so a host stays drained whatever is deployed, until somebody takes it back.

Nothing here needs the lease: no release is touched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from slipway import __version__
from slipway.contract import Service
from slipway.edge import DIAL, Edge, Site, balanced
from slipway.errors import PreflightError, SlipwayError, UsageError
from slipway.gate import complaint, fetch
from slipway.network import established
from slipway.release import NAME, Manifest, known
from slipway.store import ROOT, hold
from slipway.watch import drain


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """An app host gets no requests. `since` is a time in ISO 8601."""

    since: str
    by: str
    reason: str = ""


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """What a host of the edge tier knows of an environment."""

    name: str
    services: dict[str, Service]
    """The contract of those that have names, without config files and secrets."""
    fingerprints: dict[str, str]
    """File that the edge reads -> HMAC-SHA256 of its content under the environment's key."""
    hosts: dict[str, str]
    """App host by its name in the inventory -> its private address."""
    drained: dict[str, Drained] = {}

    @property
    def serving(self) -> dict[str, str]:
        """The hosts that get requests."""
        return {host: address for host, address in self.hosts.items() if host not in self.drained}

    @property
    def drain_seconds(self) -> float:
        """How long requests that a host has begun may take."""
        return max(spec.drain_seconds for spec in self.services.values())


class FrontRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway front --json` reads."""

    name: str
    services: dict[str, Service] = {}
    fingerprints: dict[str, str] = {}
    certificates: dict[str, str] = {}
    """File that the edge reads -> its content."""
    hosts: dict[str, str] = {}
    state: Literal["present", "absent"] = "present"
    check: bool = False


class HostStatus(msgspec.Struct, kw_only=True):
    """How an app host stands, seen from here. `complaint` is empty when it answers as promised."""

    address: str
    complaint: str = ""
    since: str = ""
    """Since when it is drained; empty when it is not."""
    by: str = ""
    reason: str = ""


class FrontStatus(msgspec.Struct, kw_only=True):
    """How the tier stands on this host."""

    name: str
    names: list[str]
    hosts: dict[str, HostStatus]
    complaint: str = ""

    @property
    def healthy(self) -> bool:
        """Whether all hosts that get requests answer them."""
        return not self.complaint


def site_of(front: Front) -> Site:
    """The site of the edge for what the tier knows."""
    manifest = Manifest(
        name=front.name,
        environment="",
        id="",
        kit=__version__,
        images={},
        tags={},
        fingerprints=front.fingerprints,
        services=front.services,
    )
    return balanced(manifest, list(front.serving.values()))


def declared(request: FrontRequest, before: Front | None) -> Front:
    """What the inventory says now; what is drained stays so, as long as there is a host of that name."""
    drained = before.drained if before else {}
    return Front(
        name=request.name,
        services=request.services,
        fingerprints=request.fingerprints,
        hosts=request.hosts,
        drained={host: why for host, why in drained.items() if host in request.hosts},
    )


class Fronts:
    """What this host balances."""

    def __init__(self, root: Path = ROOT) -> None:
        self._edge = Edge(root)
        self._folder = self._edge.front("").parent

    def names(self) -> list[str]:
        """The environments."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def read(self, name: str) -> Front | None:
        """What is known of an environment; None where this host does not balance it."""
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a name of an environment.",
                "Use 2 to 41 lower-case letters, digits and dashes, a letter first.",
            )
        try:
            data = msgspec.json.decode(self._edge.front(name).read_bytes())
        except FileNotFoundError:
            return None
        # Another version of the kit may have written it.
        return msgspec.convert(known(data, Front), Front)

    def need(self, name: str) -> Front:
        """What is known of an environment. Raises :class:`PreflightError` where this host does not balance it."""
        if front := self.read(name):
            return front
        raise PreflightError(
            f"This host balances no environment {name}.",
            f"It balances {', '.join(self.names()) or 'none'}; playbooks/front.yml tells a host of the edge tier.",
        )

    # --- what is declared ------------------------------------------------------------------------------------------

    def declare(self, request: FrontRequest) -> dict[str, Any]:
        """Make the edge balance an environment as the inventory says, or not at all."""
        name = request.name
        if request.check and not self._edge.exists():
            return {"changed": request.state == "present", "msg": "There is no edge here yet that could balance it."}
        if request.state == "absent" or not request.services:
            return self._forget(name, check=request.check)
        certificates = {file: text.encode() for file, text in request.certificates.items()}
        with self._alone():
            before = self.read(name)
            front = declared(request, before)
            changed = before != front or not self._runs(front, certificates)
            diff = self._diff(name, site_of(front))
            if changed and not request.check:
                self._apply(front, certificates)
        return {"changed": changed, "msg": _said(front), "diff": diff, "drained": sorted(front.drained)}

    def _forget(self, name: str, *, check: bool) -> dict[str, Any]:
        there = self.read(name) is not None
        if there and not check:
            with self._alone():
                self._edge.remove(name)
        return {"changed": there, "msg": f"{name} is not balanced here.", "diff": [], "drained": []}

    # --- taking a host out -----------------------------------------------------------------------------------------

    def drain(
        self, name: str, host: str, wanted: Drained | None, *, force: bool = False, check: bool = False
    ) -> dict[str, Any]:
        """Send a host no more requests and wait until it has answered those that it has; or send it some again.

        It waits for as long as the contract gives them (`drain_seconds`). Where no other host answers, or the one to
        be taken back does not, it refuses, unless forced.
        """
        with self._alone():
            front = self.need(name)
            if host not in front.hosts:
                raise UsageError(f"{name} has no app host {host}.", f"It has {', '.join(front.hosts)}.")
            already = front.drained.get(host)
            changed = bool(already) != bool(wanted)
            if changed:
                if not force:
                    (_refuse_last if wanted else _refuse_dead)(front, host)
                others = {one: why for one, why in front.drained.items() if one != host}
                drained = {**others, host: wanted} if wanted else others
                front = msgspec.structs.replace(front, drained=drained)
                if not check:
                    self._apply(front, self._edge.certificates(name))
        left = 0
        if wanted and not check:
            left = _wait(front, host)
        reason = (already or wanted or Drained(since="", by="")).reason
        kept = f" {left} are still under way after {front.drain_seconds:g} s." if left else ""
        if changed and check:
            said = f"{host} would get {'no' if wanted else 'some'} requests."
        else:
            said = f"{host} {'now' if changed else 'already'} gets {'no ' if wanted else ''}requests."
        return {
            "changed": changed,
            "msg": f"{said}{kept}",
            "left": left,
            "reason": reason,
        }

    # --- the edge --------------------------------------------------------------------------------------------------

    def _alone(self) -> Any:
        """Keep others from changing what is balanced here: the edge's own lock is on its whole folder."""
        if not self._edge.exists():
            raise SlipwayError("There is no edge on this host.", "Run playbooks/edge.yml for it.")
        return hold(self._folder.parent / "entry")

    def _runs(self, front: Front, certificates: Mapping[str, bytes]) -> bool:
        there = self._edge.site(front.name) == site_of(front) and self._edge.certificates(front.name) == certificates
        return there and self._edge.agrees()

    def _apply(self, front: Front, certificates: Mapping[str, bytes]) -> None:
        data = msgspec.json.format(msgspec.json.encode(front), indent=2)
        self._edge.apply(front.name, site_of(front), certificates, {self._edge.front(front.name): data})

    def _diff(self, name: str, wanted: Site) -> list[dict[str, str]]:
        there = self._edge.site(name) or Site(entry="", switch="")
        parts = (("entry", there.entry, wanted.entry), ("switch", there.switch, wanted.switch))
        return [
            {"path": f"{part}/{name}.caddy", "before": before, "after": after}
            for part, before, after in parts
            if before != after
        ]


def only_front(root: Path = ROOT) -> str:
    """The one environment that this host balances. Raises :class:`UsageError` when there is none, or more than one."""
    match Fronts(root).names():
        case [name]:
            return name
        case []:
            raise SlipwayError("This host balances nothing.", "Run playbooks/front.yml for a host of the edge tier.")
        case names:
            raise UsageError(f"This host balances several environments: {', '.join(names)}.", "Name one with --name.")


def front_status(name: str, root: Path = ROOT) -> FrontStatus:
    """Look at all app hosts of an environment from here."""
    front = Fronts(root).need(name)
    hosts = {}
    for host, address in front.hosts.items():
        why = front.drained.get(host)
        hosts[host] = HostStatus(
            address=address,
            complaint=wrong_with(front, address),
            since=why.since if why else "",
            by=why.by if why else "",
            reason=why.reason if why else "",
        )
    serving = {host: hosts[host].complaint for host in front.serving}
    found = next((f"{host}: {wrong}" for host, wrong in serving.items() if wrong), "")
    return FrontStatus(
        name=name,
        names=sorted({public for spec in front.services.values() for public in spec.route.hosts}),
        hosts=hosts,
        complaint=found if serving else "no app host gets requests",
    )


def wrong_with(front: Front, address: str) -> str:
    """What keeps an app host from serving; an empty string when nothing does."""
    for spec in front.services.values():
        port = spec.host_port or 0
        health = spec.health
        answer = fetch(address, port, health.path if health else "/", health.timeout if health else DIAL)
        if wrong := complaint(answer, health, "") if health else answer.error:
            return wrong
    return ""


def _refuse_last(front: Front, host: str) -> None:
    others = {other: wrong_with(front, address) for other, address in front.serving.items() if other != host}
    if any(not wrong for wrong in others.values()):
        return
    how = "; ".join(f"{other}: {wrong}" for other, wrong in others.items()) or "all others are drained"
    raise PreflightError(
        f"Without {host} nobody would answer for {front.name} ({how}).",
        "Have another app host serve first, or force it and let users get errors meanwhile.",
    )


def _refuse_dead(front: Front, host: str) -> None:
    if wrong := wrong_with(front, front.hosts[host]):
        raise PreflightError(
            f"{host} does not answer for {front.name} yet ({wrong}).",
            "Look there with slipway status, or force it: no request goes to a host that fails its checks.",
        )


def _wait(front: Front, host: str) -> int:
    """How many connections to the host are left when there are none any more, or when the time is over."""
    targets = [(front.hosts[host], spec.host_port) for spec in front.services.values() if spec.host_port]
    # A request that was given its way just before the reload may still be connecting.
    time.sleep(DIAL)
    drain(targets, time.monotonic() + front.drain_seconds)
    return established(targets)


def _said(front: Front) -> str:
    drained = f", without {', '.join(sorted(front.drained))}" if front.drained else ""
    return f"{front.name} is balanced over {', '.join(front.serving) or 'no host'}{drained}."
