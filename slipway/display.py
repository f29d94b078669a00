"""Tables for people, in plain text that also reads well in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from slipway.status import Run, Status


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
    verdict = "healthy" if found.healthy else f"NOT HEALTHY: {found.complaint}"
    head = table(
        ["NAME", "RELEASE", "SCHEMA", "VERDICT"],
        [[found.name, found.release or "-", found.schema or "-", verdict]],
    )
    if not found.services:
        return head
    services = table(
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
            for name, service in found.services.items()
        ],
    )
    return f"{head}\n\n{services}"


def history_text(runs: Sequence[Run]) -> str:
    """The answer of `slipway history`, newest last."""
    rows = [
        [
            run.at[:19],
            run.verb,
            run.release,
            run.result,
            " ".join(f"{phase} {seconds:.1f}s" for phase, seconds in run.phases.items()),
            run.by,
            run.reason or "-",
        ]
        for run in runs
    ]
    return table(["AT (UTC)", "WHAT", "RELEASE", "RESULT", "PHASES", "BY", "REASON"], rows)
