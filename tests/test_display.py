"""Tables that a person reads, and that read well in a pipe."""

from __future__ import annotations

from slipway.display import history_text, status_text, table
from slipway.status import Run, ServiceStatus, Status


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


def test_history_tells_each_run_with_its_phases() -> None:
    run = Run(
        at="2025-01-01T12:00:00.000+00:00",
        run="1",
        by="alice",
        verb="deploy",
        release="0123456789abcdef",
        result="returned",
        phases={"stage": 0.51, "activate": 2.0},
        reason="It is sick.",
    )
    assert history_text([run]).splitlines()[1] == (
        "2025-01-01T12:00:00  deploy  0123456789abcdef  returned  stage 0.5s activate 2.0s  alice  It is sick."
    )
