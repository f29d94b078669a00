"""An environment over all of its hosts, as a table and as a document."""

from __future__ import annotations

import re
from typing import Any

import pytest

from plugins.views import headline, history_view, status_view

ONE, TWO = "0123456789abcdef", "fedcba9876543210"
MEMBERS = ["app1", "app2", "app3"]
SILENT = {"unreachable": True, "msg": "ssh: connect to host app2 port 22: Connection refused"}
BARE = {"failed": True, "msg": "There is no engine at /opt/slipway. Run playbooks/provision.yml for this host."}


def status(**change: object) -> dict[str, Any]:
    service = {"state": "running healthy", "tag": "1.4.2", "image": "r/api@sha256:01", "url": "", "since": ""}
    return {
        "status": {
            "name": "shop",
            "environment": "production",
            "release": ONE,
            "schema": "0002",
            "complaint": "",
            "services": {"api": service},
            "differences": [],
            "lease": None,
            "maintenance": None,
            "revoked": {},
            **change,
        }
    }


def view(*reports: dict[str, Any], members: list[str] = MEMBERS) -> dict[str, Any]:
    return status_view("shop", dict(zip(MEMBERS, reports, strict=False)), members)


def test_all_hosts_are_one_table_under_what_the_environment_serves() -> None:
    shown = view(status(), status(), status())
    assert shown["text"].splitlines() == [
        f"shop: all 3 hosts serve {ONE}.",
        "",
        "HOST  RELEASE           SCHEMA  API                    VERDICT",
        f"app1  {ONE}  0002    running healthy 1.4.2  healthy",
        f"app2  {ONE}  0002    running healthy 1.4.2  healthy",
        f"app3  {ONE}  0002    running healthy 1.4.2  healthy",
    ]
    assert shown["problems"] == {}
    assert shown["document"]["well"] is True


HEADLINES = {
    "hosts that serve different releases": (
        [status(), status(), status(release=TWO)],
        f"PARTIAL: 2 of 3 hosts serve {ONE}, app3 serves {TWO}.",
    ),
    "a host that has never served": (
        [status(), status(), status(release="", complaint="no release has served yet")],
        f"PARTIAL: 2 of 3 hosts serve {ONE}, app3 serves nothing, NOT HEALTHY on app3.",
    ),
    "a host that does not answer": (
        [status(), SILENT, status()],
        f"2 of 3 hosts serve {ONE}, app2 is unreachable.",
    ),
    "a host without an engine": (
        [status(), BARE, status()],
        f"2 of 3 hosts serve {ONE}, app2 could not say how it stands.",
    ),
    "hosts none of which answers": ([SILENT, SILENT, SILENT], "app1, app2 and app3 are unreachable."),
    "a host that was left out by --limit": (
        [status(), status()],
        f"all 2 hosts serve {ONE}, app3 was not asked.",
    ),
    "hosts that are not well": (
        [status(complaint="it is sick"), status(differences=[{}]), status(complaint="it is sick")],
        f"all 3 hosts serve {ONE}, NOT HEALTHY on app1 and app3, NOT AS DECLARED on app2.",
    ),
}


@pytest.mark.parametrize(("reports", "told"), HEADLINES.values(), ids=HEADLINES)
def test_the_headline_tells(reports: list[dict[str, Any]], told: str) -> None:
    for report in reports:
        for one in report.get("status", {}).get("differences", []):
            one.update(where="api", field="memory", declared="1", found="2")
    assert view(*reports)["document"]["headline"] == f"shop: {told}"


def test_the_headline_of_many_hosts_counts_them() -> None:
    found = {f"web{number:02}": status(release=TWO if number > 12 else ONE)["status"] for number in range(1, 21)}
    assert headline("shop", found) == f"shop: PARTIAL: 12 of 20 hosts serve {ONE}, web13 and 7 more serve {TWO}."


def test_one_host_alone_serves() -> None:
    assert headline("shop", {"here": status()["status"]}) == f"shop: 1 host serves {ONE}."


def test_a_host_that_does_not_answer_is_a_row() -> None:
    lines = view(status(), SILENT, BARE)["text"].splitlines()
    assert lines[4].split() == ["app2", "-", "-", "-", "unreachable"]
    assert lines[5].split(maxsplit=4) == ["app3", "-", "-", "-", "unknown: There is no engine at /opt/slipway"]


def test_each_host_that_is_not_well_is_told_what_and_what_to_do() -> None:
    shown = view(status(complaint="the container of api is exited"), SILENT, BARE)
    assert shown["problems"] == {
        "app1": "shop is not healthy: the container of api is exited. See slipway logs on the host.",
        "app2": "app2 does not answer: ssh: connect to host app2 port 22: Connection refused. See that it is up and "
        "that SSH leads there.",
        "app3": BARE["msg"],
    }


def test_a_split_fleet_is_a_problem_of_the_hosts_that_are_fewer() -> None:
    assert view(status(), status(), status(release=TWO))["problems"] == {
        "app3": f"app3 serves {TWO}, others {ONE} (2 of 3 hosts). Deploy without --limit, so that all hosts serve one "
        "release."
    }


def test_where_no_release_is_that_of_most_hosts_it_is_a_problem_of_all() -> None:
    assert set(view(status(), status(release=TWO))["problems"]) == {"app1", "app2"}


def test_a_bare_host_in_check_mode_is_not_a_problem() -> None:
    assert view({"changed": True, "msg": "The engine is not installed yet."})["problems"] == {}


def test_maintenance_and_a_lease_have_a_column_where_there_is_one() -> None:
    closed = {"since": "2025-01-01T12:00:00", "by": "bob", "reason": "New disks.", "retry_after": 60}
    held = {"run": "7f3a", "by": "alice", "what": "activate", "fence": 3, "seconds": 0}
    lines = view(status(maintenance=closed), status(lease=held))["text"].splitlines()
    assert lines[2].split() == ["HOST", "RELEASE", "SCHEMA", "API", "MAINTENANCE", "LEASE", "VERDICT"]
    assert lines[3].endswith("bob: New disks.  -                healthy")
    assert lines[4].endswith("-                alice: activate  healthy")


def test_what_is_not_as_declared_and_what_was_revoked_stand_below_with_their_host() -> None:
    drifted = status(differences=[{"where": "api", "field": "memory", "declared": "1 MiB", "found": ""}])
    text = view(status(), drifted, status(revoked={TWO: ["api:env:TOKEN"]}))["text"]
    assert text.splitlines()[-4:] == [
        "HOST  NOT AS DECLARED  WHAT    DECLARED  FOUND",
        "app2  api              memory  1 MiB     -",
        "",
        f"app3: {TWO} holds revoked values of api:env:TOKEN; a rollback there uses today's.",
    ]


def test_the_document_tells_the_same_of_each_host() -> None:
    document = view(status(), SILENT)["document"]
    assert (document["name"], document["well"], document["not_asked"]) == ("shop", False, ["app3"])
    assert [(one["host"], one["well"], one["verdict"]) for one in document["hosts"]] == [
        ("app1", True, "healthy"),
        ("app2", False, "unreachable"),
    ]
    assert document["hosts"][0]["status"] == status()["status"]
    assert document["hosts"][1]["status"] is None
    assert "Connection refused" in document["hosts"][1]["problem"]


# --- what happened ---------------------------------------------------------------------------------------------------


def run(number: int, **change: object) -> dict[str, Any]:
    return {
        "at": f"2025-01-01T12:{number:02}:00.000+00:00",
        "run": f"run-{number}",
        "by": "alice",
        "verb": "deploy",
        "release": ONE,
        "result": "good",
        "phases": {"stage": 0.5},
        "parts": {},
        "schema_before": "",
        "schema_after": "0002",
        "unavailable_ms": None,
        "reason": "",
        **change,
    }


def happened(*of_hosts: list[dict[str, Any]], last: int = 20) -> dict[str, Any]:
    told = zip(MEMBERS, of_hosts, strict=False)
    reports = {host: {"runs": runs, "text": "as the host lays it out"} for host, runs in told}
    return history_view("shop", reports, last)


def cells(shown: dict[str, Any]) -> list[list[str]]:
    return [re.split(" {2,}", line) for line in shown["text"].splitlines()]


def test_a_run_is_one_line_whichever_hosts_it_was_on() -> None:
    sick = run(2, result="returned", reason="It is sick.", unavailable_ms=150)
    shown = happened([run(1), run(2, unavailable_ms=0)], [run(1), sick], [run(1)])
    assert cells(shown) == [
        ["AT (UTC)", "RUN", "BY", "WHAT", "RELEASE", "SCHEMA", "MISSED", "RESULT", "REASON"],
        ["2025-01-01T12:01:00", "run-1", "alice", "deploy", ONE, "0002", "-", "good on all 3", "-"],
        [
            "2025-01-01T12:02:00",
            "run-2",
            "alice",
            "deploy",
            ONE,
            "0002",
            "150 ms",
            "good on app1, returned on app2",
            "app2: It is sick.",
        ],
    ]


def test_a_reason_that_all_hosts_give_is_given_once() -> None:
    closed = run(1, verb="maintenance", reason="on: New disks.")
    assert cells(happened([closed], [closed]))[1][-2:] == ["good on all 2", "on: New disks."]


def test_a_migration_on_one_host_is_told_beside_what_the_others_serve_on() -> None:
    migrated = run(1, schema_before="0001")
    assert cells(happened([migrated], [run(1)]))[1][5] == "0001 -> 0002, 0002"


def test_the_newest_is_last_and_older_ones_are_left_out() -> None:
    shown = happened([run(3), run(1)], [run(2), run(4)], last=3)
    assert [line[1] for line in cells(shown)[1:]] == ["run-2", "run-3", "run-4"]
    assert [one["run"] for one in shown["document"]["runs"]] == ["run-2", "run-3", "run-4"]


def test_the_document_has_what_each_host_says_of_a_run() -> None:
    document = happened([run(1, phases={"stage": 1.5})], [run(1, result="failed")])["document"]
    [one] = document["runs"]
    assert document["complete"] is True
    assert (one["run"], one["verb"], one["by"], one["release"]) == ("run-1", "deploy", "alice", ONE)
    assert one["hosts"]["app1"]["phases"] == {"stage": 1.5}
    assert one["hosts"]["app2"]["result"] == "failed"


def test_a_host_that_cannot_say_is_told_to_be_missing() -> None:
    shown = history_view("shop", {"app1": {"runs": [run(1)], "text": ""}, "app2": SILENT}, 20)
    assert shown["text"].splitlines()[-1] == "What happened on app2 is not known, so it is missing here."
    assert list(shown["problems"]) == ["app2"]
    assert shown["document"]["complete"] is False
    assert "good on app1" in shown["text"]


def test_one_host_alone_tells_it_with_all_its_phases() -> None:
    assert happened([run(1)])["text"] == "as the host lays it out"
