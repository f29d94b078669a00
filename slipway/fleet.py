"""The order across hosts: which of them take a release at a time, and how a run ended on each. All of it is pure.

lease of the first host -> stage on all -> migrate on one -> activate batch by batch, the first of which is the canary
a failure anywhere -> no further batch, and every host that was switched goes back
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from slipway.errors import UsageError

Size = int | str
"""Hosts in a batch: a number, or a share of all hosts such as `30%`."""

Result = Literal[
    "deployed", "as it was", "failed", "returned", "not returned", "kept", "not reached", "lost", "not as declared"
]

WORK_SECONDS = 30.0
"""How long a batch may take on top of what is waited for by design."""


NEW: tuple[Result, ...] = ("deployed", "not returned", "kept", "not as declared")
"""Where the new release serves at the end."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended on one host. `before` and `after` are releases, empty for none."""

    host: str
    before: str
    after: str
    result: Result
    do_next: str = ""

    @property
    def well(self) -> bool:
        """Whether it ended as it was meant to."""
        return self.result in ("deployed", "as it was")


def batches(hosts: Sequence[str], sizes: Size | Sequence[Size]) -> list[list[str]]:
    """Cut `hosts` into batches as Ansible's `serial` does: one size after the other, the last one for all the rest.

    Raises :class:`UsageError` for a size that is none.
    """
    wanted = [sizes] if isinstance(sizes, int | str) else list(sizes)
    counts = [_count(size, len(hosts)) for size in wanted] or [len(hosts)]
    rest, found = list(hosts), []
    while rest:
        count = counts.pop(0) if len(counts) > 1 else counts[0]
        found.append(rest[:count])
        rest = rest[count:]
    return found


def _count(size: Size, of: int) -> int:
    text = str(size).strip()
    number = text.removesuffix("%")
    if not number.isdecimal() or int(number) == 0:
        raise UsageError(
            f"release_serial has the batch size {size!r}, which is none.",
            "Give a number of hosts, a share such as 30%, or a list of those.",
        )
    # At least one host, however small the share, as Ansible has it.
    return max(1, int(number) * of // 100) if text.endswith("%") else int(number)


def lease_seconds(*, soak: float, drains: Sequence[float]) -> float:
    """How long hosts keep the lease of a run while they wait for a batch: it soaks, and drains as its services do."""
    return WORK_SECONDS + soak + max(drains, default=0.0)


def outcome(
    host: str,
    *,
    name: str,
    staged: Mapping[str, Any] | None = None,
    activated: Mapping[str, Any] | None = None,
    returned: Mapping[str, Any] | None = None,
    verified: Mapping[str, Any] | None = None,
) -> Outcome:
    """Say how a run ended on a host from what its steps answered; None where a step was never reached."""
    stage, activation, way_back = staged or {}, activated or {"skipped": True}, returned or {"skipped": True}
    verdict = verified or {}
    before, release = str(stage.get("current") or ""), str(stage.get("release") or "")
    results: list[tuple[Any, Result]] = [
        (stage.get("serves"), "as it was"),
        (activation.get("skipped"), "not reached"),
        (activation.get("unreachable"), "lost"),
        (activation.get("failed"), "failed"),
        (verdict.get("failed") or verdict.get("unreachable"), "not as declared"),
        (way_back.get("skipped"), "deployed"),
        (way_back.get("failed") or way_back.get("unreachable"), "not returned"),
        (not way_back.get("changed"), "kept"),
    ]
    result: Result = next((result for holds, result in results if holds), "returned")
    serves = activation.get("serves")
    known = {**dict.fromkeys(NEW, release), "lost": "?", "failed": before if serves is None else str(serves)}
    after = known.get(result, before)
    do_next = {
        "lost": f"When {host} is back, run the play again: it finishes or undoes what it finds there.",
        "failed": f"On {host}: slipway status --name {name} tells how it stands. Mend that, and run the play again.",
        "not returned": f"On {host}: slipway status --name {name}, then slipway rollback --name {name}.",
        "not as declared": f"On {host}: slipway status --name {name} tells what differs. Then run the play again.",
    }
    stands = result == "failed" and after == before
    advice = "" if stands else do_next.get(result, "")
    return Outcome(host=host, before=before, after=after, result=result, do_next=advice)


def summary(name: str, outcomes: Sequence[Outcome]) -> str:
    """What an operator reads at the end: a sentence, a table of the hosts, and what is left to do."""
    # Imported here: what it brings along is of no use to the rest.
    from slipway.display import table  # noqa: PLC0415

    rows = [[one.host, one.before[:16] or "-", one.after[:16] or "-", one.result] for one in outcomes]
    parts = [_headline(name, outcomes), table(["HOST", "BEFORE", "AFTER", "RESULT"], rows)]
    parts += sorted({one.do_next for one in outcomes if one.do_next})
    return "\n".join(parts)


def _headline(name: str, outcomes: Sequence[Outcome]) -> str:
    if all(one.well for one in outcomes):
        return f"{name} is deployed on {len(outcomes)} hosts."
    if odd := [one.host for one in outcomes if one.result == "not as declared"]:
        return f"{name} is deployed on {len(outcomes)} hosts, and not as declared on {', '.join(odd)}."
    failed = [one.host for one in outcomes if one.result in ("failed", "lost")]
    head = f"{name} is not deployed: it failed on {', '.join(failed)}"
    if len({one.after for one in outcomes}) > 1:
        return f"{head}, and the hosts are not all on one release."
    if any(one.after != one.before for one in outcomes):
        return f"{head}, and none serves there now."
    return f"{head}. Every host serves what it served before."
