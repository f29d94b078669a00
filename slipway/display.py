"""Tables for people, in plain text that also reads well in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The controller lays out tables too, and what looks at Docker takes it 0.1 s to import.
    from slipway.front import FrontStatus, HostStatus
    from slipway.status import Run, ServiceStatus, Status


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under a header, columns as wide as their widest cell, two spaces apart."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )
    return "\n".join(lines)


def status_text(found: Status) -> str:
    """The answer of `slipway status`."""
    head = table(
        ["NAME", "RELEASE", "SCHEMA", "VERDICT"],
        [[found.name, found.release or "-", found.schema or "-", _verdict(found)]],
    )
    parts = [head, *_notices(found)]
    if found.services:
        parts.append(_services(found.services))
    if found.differences:
        parts.append(
            table(
                ["NOT AS DECLARED", "WHAT", "DECLARED", "FOUND"],
                [[one.where, one.field, one.declared or "-", one.found or "-"] for one in found.differences],
            )
        )
    return "\n\n".join(parts)


def _verdict(found: Status) -> str:
    if not found.healthy:
        return f"NOT HEALTHY: {found.complaint}"
    if (count := len(found.differences)) > 0:
        return f"healthy, but NOT AS DECLARED: {count} difference{'s' if count > 1 else ''}"
    return "healthy"


def _notices(found: Status) -> list[str]:
    """What people have to know before they do anything: that it is closed, and that someone is at work."""
    notices = []
    if closed := found.maintenance:
        notices.append(f"In maintenance since {closed.since[:19]}, by {closed.by}: {closed.reason}")
    if lease := found.lease:
        until = f"holds it for {lease.seconds:.0f} s more" if lease.seconds else "is at work now"
        notices.append(f"{lease.by} has the lease (run {lease.run}, {lease.what}) and {until}.")
    notices += found.warnings
    for release, names in found.revoked.items():
        notices.append(f"{release} holds revoked values of {', '.join(names)}; a rollback there uses today's.")
    return ["\n".join(notices)] if notices else []


def _services(services: Mapping[str, ServiceStatus]) -> str:
    return table(
        ["SERVICE", "STATE", "TAG", "DIGEST", "ANSWERS AT", "SINCE (UTC)"],
        [
            [
                name,
                service.state,
                service.tag,
                service.image.partition("@")[2][:19],
                service.url or "-",
                service.since or "-",
            ]
            for name, service in services.items()
        ],
    )


def front_text(found: FrontStatus) -> str:
    """The answer of `slipway status` on a host of the edge tier."""
    verdict = "healthy" if found.healthy else f"NOT HEALTHY: {found.complaint}"
    rows = [[host, one.address, _state(one), one.since[:19] or "-"] for host, one in found.hosts.items()]
    return "\n\n".join(
        [
            table(["NAME", "NAMES", "VERDICT"], [[found.name, " ".join(found.names), verdict]]),
            table(["APP HOST", "ADDRESS", "STATE", "DRAINED (UTC)"], rows),
        ]
    )


def _state(host: HostStatus) -> str:
    if host.since:
        return f"drained by {host.by}" + (f": {host.reason}" if host.reason else "")
    return host.complaint or "answers"


def history_text(runs: Sequence[Run]) -> str:
    """The answer of `slipway history`, newest last."""
    rows = [
        [
            run.at[:19],
            run.verb,
            run.release,
            run.result,
            _phases(run),
            schema(run.schema_before, run.schema_after),
            "-" if run.unavailable_ms is None else f"{run.unavailable_ms} ms",
            run.by,
            run.reason or "-",
        ]
        for run in runs
    ]
    return table(["AT (UTC)", "WHAT", "RELEASE", "RESULT", "PHASES", "SCHEMA", "MISSED", "BY", "REASON"], rows)


def _phases(run: Run) -> str:
    whole = " ".join(f"{phase} {seconds:.1f}s" for phase, seconds in run.phases.items())
    parts = " ".join(f"{part} {seconds:.1f}s" for part, seconds in run.parts.items())
    return f"{whole} ({parts})" if parts else whole


def schema(before: str, after: str) -> str:
    """The revision that a run served on, with the one before where something was migrated."""
    if before in ("", after):
        return after or "-"
    return f"{before} -> {after or '?'}"
