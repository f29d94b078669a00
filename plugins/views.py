"""How an environment stands and what happened to it over all of its hosts: one table, and one document for programs.

All of it is pure. It takes what the engine answered for each host, and knows the hosts that gave no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from slipway.display import schema, table

Report = Mapping[str, Any]
"""The registered result of `slipway_status` or `slipway_history` on one host."""

NAMED = 3
"""Up to so many hosts are named; more are counted."""


def verdict(status: Mapping[str, Any]) -> str:
    """One word, and why where it is not good."""
    if status["complaint"]:
        return f"NOT HEALTHY: {status['complaint']}"
    return "healthy, but NOT AS DECLARED" if status["differences"] else "healthy"


# --- how it stands ---------------------------------------------------------------------------------------------------


def status_view(name: str, reports: Mapping[str, Report], members: Sequence[str]) -> dict[str, Any]:
    """How the environment `name` stands on the hosts that were asked (`reports`), of those that it has (`members`).

    `text` is for people, `document` for programs, `problems` maps each host where something is not well to what it is
    and what to do.
    """
    found = {host: report["status"] for host, report in reports.items() if "status" in report}
    problems = {
        host: told for host, report in reports.items() if (told := _problem(name, host, report, split=_split(found)))
    }
    headline = _headline(name, reports, found, members)
    document = {
        "name": name,
        "well": not problems,
        "headline": headline,
        "hosts": [
            {
                "host": host,
                "well": host not in problems,
                "verdict": _verdict(report),
                "problem": problems.get(host, ""),
                "status": report.get("status"),
            }
            for host, report in reports.items()
        ],
        "not_asked": _not_asked(reports, members),
    }
    parts = [headline, _standing(reports, found), _differences(found), _revoked(found)]
    return {"text": "\n\n".join(filter(None, parts)), "document": document, "problems": problems}


def headline(name: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """How an environment stands on hosts that all answered, in one sentence."""
    return _headline(name, {host: {"status": status} for host, status in found.items()}, found, list(found))


def _headline(
    name: str, reports: Mapping[str, Report], found: Mapping[str, Mapping[str, Any]], members: Sequence[str]
) -> str:
    asked = len(reports)
    (most, first), *others = _serving(found) or [("", [])]
    if len(first) == asked:
        told = [f"{'all ' if asked > 1 else ''}{_hosts(asked)} {_serve(first)} {most or 'nothing'}"]
    else:
        told = [f"{len(first)} of {_hosts(asked)} {_serve(first)} {most or 'nothing'}"] if first else []
    told += [f"{_names(hosts)} {_serve(hosts)} {release or 'nothing'}" for release, hosts in others]
    if silent := [host for host, report in reports.items() if report.get("unreachable")]:
        told.append(f"{_names(silent)} {_are(silent)} unreachable")
    if unknown := [host for host in reports if host not in found and host not in silent]:
        told.append(f"{_names(unknown)} could not say how {'it stands' if len(unknown) == 1 else 'they stand'}")
    if sick := [host for host, status in found.items() if status["complaint"]]:
        told.append(f"NOT HEALTHY on {_names(sick)}")
    if drifted := [host for host, status in found.items() if status["differences"]]:
        told.append(f"NOT AS DECLARED on {_names(drifted)}")
    if rest := _not_asked(reports, members):
        told.append(f"{_names(rest)} {'was' if len(rest) == 1 else 'were'} not asked")
    return f"{name}: {'PARTIAL: ' if others else ''}{', '.join(told)}."


def _serving(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Release -> the hosts that serve it, the one that most serve first."""
    serving: dict[str, list[str]] = {}
    for host, status in found.items():
        serving.setdefault(status["release"], []).append(host)
    return sorted(serving.items(), key=lambda one: (-len(one[1]), one[0] == ""))


def _split(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Where hosts serve different releases: host -> what it serves, and what the others do."""
    (_, first), *others = _serving(found) or [("", [])]
    if not others:
        return {}
    # Where no release is that of most hosts, each of them is one of the parts.
    parts = others if len(first) > len(others[0][1]) else _serving(found)
    return {
        host: f"{host} serves {release or 'nothing'}, others {_rest(found, release)}."
        for release, hosts in parts
        for host in hosts
    }


def _rest(found: Mapping[str, Mapping[str, Any]], release: str) -> str:
    told = [
        f"{other or 'nothing'} ({len(hosts)} of {_hosts(len(found))})"
        for other, hosts in _serving(found)
        if other != release
    ]
    return ", ".join(told)


def _problem(name: str, host: str, report: Report, *, split: Mapping[str, str]) -> str:
    if (status := report.get("status")) is None:
        # Without an engine there is nothing to look at in check mode, and nothing wrong with that.
        return _no_answer(host, report) if report.get("failed") or report.get("unreachable") else ""
    told = []
    if status["complaint"]:
        told.append(f"{name} is not healthy: {status['complaint']}. See slipway logs on the host.")
    if status["differences"]:
        told.append(
            f"{name} is not as its release declares it. What differs stands below; docs/troubleshooting.md says how to "
            "put it right."
        )
    if host in split:
        told.append(f"{split[host]} Deploy without --limit, so that all hosts serve one release.")
    return " ".join(told)


def _no_answer(host: str, report: Report) -> str:
    if report.get("unreachable"):
        said = str(report.get("msg", "")).strip().rstrip(".")
        return f"{host} does not answer: {said}. See that it is up and that SSH leads there."
    return str(report.get("msg", "It did not say how it stands. Run it again with -v."))


def _verdict(report: Report) -> str:
    if "status" in report:
        return verdict(report["status"])
    if report.get("unreachable"):
        return "unreachable"
    return f"unknown: {str(report.get('msg', 'it did not say')).partition('. ')[0].rstrip('.')}"


def _standing(reports: Mapping[str, Report], found: Mapping[str, Mapping[str, Any]]) -> str:
    services = list(dict.fromkeys(one for status in found.values() for one in status["services"]))
    closed = any(status["maintenance"] for status in found.values())
    held = any(status["lease"] for status in found.values())
    header = ["HOST", "RELEASE", "SCHEMA", *(one.upper() for one in services)]
    header += ["MAINTENANCE"] * closed + ["LEASE"] * held + ["VERDICT"]
    rows = []
    for host, report in reports.items():
        status = found.get(host, {})
        row = [host, status.get("release") or "-", status.get("schema") or "-"]
        row += [_service(status.get("services", {}).get(one)) for one in services]
        if closed:
            row.append(_closed(status.get("maintenance")))
        if held:
            row.append(_held(status.get("lease")))
        rows.append([*row, _verdict(report)])
    return table(header, rows)


def _service(service: Mapping[str, str] | None) -> str:
    return f"{service['state']} {service['tag']}" if service else "-"


def _closed(maintenance: Mapping[str, Any] | None) -> str:
    return f"{maintenance['by']}: {maintenance['reason']}" if maintenance else "-"


def _held(lease: Mapping[str, Any] | None) -> str:
    return f"{lease['by']}: {lease['what']}" if lease else "-"


def _differences(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [host, one["where"], one["field"], one["declared"] or "-", one["found"] or "-"]
        for host, status in found.items()
        for one in status["differences"]
    ]
    return table(["HOST", "NOT AS DECLARED", "WHAT", "DECLARED", "FOUND"], rows) if rows else ""


def _revoked(found: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(
        f"{host}: {release} holds revoked values of {', '.join(names)}; a rollback there uses today's."
        for host, status in found.items()
        for release, names in status.get("revoked", {}).items()
    )


# --- what happened ---------------------------------------------------------------------------------------------------


def history_view(name: str, reports: Mapping[str, Report], last: int) -> dict[str, Any]:
    """What happened to the environment `name` on the hosts that were asked: the `last` runs, the newest last.

    A run is one line, whichever hosts it was on. `problems` maps each host that could not say to what is wrong.
    """
    runs = _runs(reports)[-last:]
    problems = {
        host: _no_answer(host, report)
        for host, report in reports.items()
        if report.get("failed") or report.get("unreachable")
    }
    document = {"name": name, "complete": not problems, "problems": problems, "runs": runs}
    return {"text": _happened(reports, runs, list(problems)), "document": document, "problems": problems}


def _happened(reports: Mapping[str, Report], runs: Sequence[Mapping[str, Any]], silent: Sequence[str]) -> str:
    if len(reports) == 1 and not silent:
        # There is room for its phases, as `slipway history` tells them.
        return "".join(str(report.get("text", "")) for report in reports.values())
    header = ["AT (UTC)", "RUN", "BY", "WHAT", "RELEASE", "SCHEMA", "MISSED", "RESULT", "REASON"]
    missing = [f"What happened on {host} is not known, so it is missing here." for host in silent]
    return "\n\n".join(
        filter(None, [table(header, [_run_row(run, list(reports)) for run in runs]), "\n".join(missing)])
    )


def _runs(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    runs: dict[tuple[str, str, str], dict[str, Any]] = {}
    for host, report in reports.items():
        for one in report.get("runs", []):
            shared = {key: one[key] for key in ("at", "run", "by", "verb", "release")}
            run = runs.setdefault((one["run"], one["verb"], one["release"]), {**shared, "hosts": {}})
            run["at"] = min(run["at"], one["at"])
            run["hosts"][host] = {key: value for key, value in one.items() if key == "at" or key not in shared}
    return sorted(runs.values(), key=lambda run: str(run["at"]))


def _run_row(run: Mapping[str, Any], members: Sequence[str]) -> list[str]:
    hosts: Mapping[str, Mapping[str, Any]] = run["hosts"]
    results = _by_value({host: one["result"] for host, one in hosts.items()})
    if len(results) == 1 and len(hosts) == len(members):
        result = f"{next(iter(results))} on all {len(members)}" if len(members) > 1 else next(iter(results))
    else:
        result = ", ".join(f"{value} on {' '.join(on)}" for value, on in results.items())
    reasons = _by_value({host: one["reason"] for host, one in hosts.items() if one["reason"]})
    reason = "; ".join(f"{' '.join(on)}: {value}" if len(on) < len(hosts) else value for value, on in reasons.items())
    missed = [one["unavailable_ms"] for one in hosts.values() if one["unavailable_ms"] is not None]
    return [
        run["at"][:19],
        run["run"],
        run["by"],
        run["verb"],
        run["release"],
        ", ".join(dict.fromkeys(schema(one["schema_before"], one["schema_after"]) for one in hosts.values())),
        f"{max(missed)} ms" if missed else "-",
        result,
        reason or "-",
    ]


def _by_value(values: Mapping[str, str]) -> dict[str, list[str]]:
    by: dict[str, list[str]] = {}
    for host, value in values.items():
        by.setdefault(value, []).append(host)
    return by


# --- words -----------------------------------------------------------------------------------------------------------


def _not_asked(reports: Mapping[str, Report], members: Iterable[str]) -> list[str]:
    return [host for host in members if host not in reports]


def _hosts(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"


def _names(hosts: Sequence[str]) -> str:
    if len(hosts) > NAMED:
        return f"{hosts[0]} and {len(hosts) - 1} more"
    return " and ".join(filter(None, [", ".join(hosts[:-1]), hosts[-1]]))


def _serve(hosts: Sequence[str]) -> str:
    return "serves" if len(hosts) == 1 else "serve"


def _are(hosts: Sequence[str]) -> str:
    return "is" if len(hosts) == 1 else "are"
