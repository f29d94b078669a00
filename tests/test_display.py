"""Tables that a person reads, and that read well in a pipe."""

from __future__ import annotations

import re

import pytest

from slipway.display import history_text, status_text, table
from slipway.drift import Difference
from slipway.edge import Maintenance
from slipway.status import Holder, Run, ServiceStatus, Status


def status(**change: object) -> Status:
    service = ServiceStatus(
        state="running healthy",
        tag="1.4.2",
        image="r/api@sha256:0123456789abcdef0123",
        url="http://127.0.0.1:4000",
        since="2025-01-01T12:00:00",
    )
    fields: dict[str, object] = {
        "name": "shop",
        "environment": "production",
        "release": "0123456789abcdef",
        "schema": "0002",
        "complaint": "",
        "services": {"api": service},
    }
    return Status(**{**fields, **change})  # type: ignore[arg-type]  # each case changes one field


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_the_end() -> None:
    assert table(["A", "LONG"], [["wide", "x"], ["b", ""]]) == "A     LONG\nwide  x\nb"


def test_a_table_without_rows_is_its_header() -> None:
    assert table(["A", "B"], []) == "A  B"


def test_status_of_a_healthy_environment() -> None:
    assert status_text(status()).splitlines() == [
        "NAME  RELEASE           SCHEMA  VERDICT",
        "shop  0123456789abcdef  0002    healthy",
        "",
        "SERVICE  STATE            TAG    DIGEST               ANSWERS AT             SINCE (UTC)",
        "api      running healthy  1.4.2  sha256:0123456789ab  http://127.0.0.1:4000  2025-01-01T12:00:00",
    ]


def test_status_of_a_sick_environment_says_why() -> None:
    assert "NOT HEALTHY: the service api has no container" in status_text(
        status(complaint="the service api has no container")
    )


def test_status_before_the_first_deploy_is_one_line() -> None:
    text = status_text(status(release="", schema="", complaint="no release has served yet", services={}))
    assert text.splitlines() == [
        "NAME  RELEASE  SCHEMA  VERDICT",
        "shop  -        -       NOT HEALTHY: no release has served yet",
    ]


def test_status_of_an_environment_that_drifted_tells_each_difference() -> None:
    differences = [Difference("api", "memory", "64 MiB", "128 MiB"), Difference("api", "network bridge", "absent", "")]
    lines = status_text(status(differences=differences)).splitlines()
    assert lines[1].endswith("healthy, but NOT AS DECLARED: 2 differences")
    assert lines[-3:] == [
        "NOT AS DECLARED  WHAT            DECLARED  FOUND",
        "api              memory          64 MiB    128 MiB",
        "api              network bridge  absent    -",
    ]


def test_one_difference_is_one() -> None:
    text = status_text(status(differences=[Difference("edge", "route", "r2", "r1")]))
    assert "NOT AS DECLARED: 1 difference\n" in text


def test_who_is_at_work_and_that_it_is_closed_stand_above_the_services() -> None:
    holder = Holder(run="7f3a", by="alice", what="activate", fence=3, seconds=0)
    closed = Maintenance(since="2025-01-01T12:00:00+00:00", by="bob", reason="New disks.", retry_after=60)
    assert status_text(status(lease=holder, maintenance=closed)).splitlines()[2:6] == [
        "",
        "In maintenance since 2025-01-01T12:00:00, by bob: New disks.",
        "alice has the lease (run 7f3a, activate) and is at work now.",
        "",
    ]


def test_a_release_that_holds_what_was_revoked_is_named() -> None:
    text = status_text(status(revoked={"0123456789abcdef": ["api:env:TOKEN", "api:tls:key"]}))
    assert "0123456789abcdef holds revoked values of api:env:TOKEN, api:tls:key; a rollback there uses today's." in text


def test_a_lease_between_two_calls_tells_how_long_it_holds() -> None:
    holder = Holder(run="7f3a", by="alice", what="stage", fence=3, seconds=41.6)
    assert "alice has the lease (run 7f3a, stage) and holds it for 42 s more." in status_text(status(lease=holder))


def run(**change: object) -> Run:
    fields: dict[str, object] = {
        "at": "2025-01-01T12:00:00.000+00:00",
        "run": "1",
        "by": "alice",
        "verb": "deploy",
        "release": "0123456789abcdef",
        "result": "good",
        "phases": {"stage": 0.51, "activate": 2.0},
    }
    return Run(**{**fields, **change})  # type: ignore[arg-type]  # each case changes one field


def history(**change: object) -> dict[str, str]:
    """The one line of a history by its columns, whose cells are two blanks or more apart."""
    header, line = history_text([run(**change)]).splitlines()
    return dict(zip(re.split(" {2,}", header), re.split(" {2,}", line), strict=True))


def test_history_tells_each_run_with_its_phases() -> None:
    assert history(result="returned", reason="It is sick.") == {
        "AT (UTC)": "2025-01-01T12:00:00",
        "WHAT": "deploy",
        "RELEASE": "0123456789abcdef",
        "RESULT": "returned",
        "PHASES": "stage 0.5s activate 2.0s",
        "SCHEMA": "-",
        "MISSED": "-",
        "BY": "alice",
        "REASON": "It is sick.",
    }


def test_history_tells_what_activating_consisted_of() -> None:
    line = history(parts={"start": 1.2, "drain": 0.3})
    assert line["PHASES"] == "stage 0.5s activate 2.0s (start 1.2s drain 0.3s)"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("0001", "0002", "0001 -> 0002"),
        ("0001", "0001", "0001"),
        ("", "0002", "0002"),
        ("0001", "", "0001 -> ?"),
    ],
)
def test_history_tells_the_schema_before_and_after(before: str, after: str, shown: str) -> None:
    assert history(schema_before=before, schema_after=after)["SCHEMA"] == shown


@pytest.mark.parametrize(("missed", "shown"), [(0, "0 ms"), (150, "150 ms"), (None, "-")])
def test_history_tells_for_how_long_clients_were_not_served(missed: int | None, shown: str) -> None:
    assert history(unavailable_ms=missed)["MISSED"] == shown
