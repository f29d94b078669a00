"""Releases that take over from one another on real Docker, behind a real edge: what clients see of it, and what not."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.docker

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""


def refused(environment: Environment, act: Callable[[], object], code: int) -> Any:
    with pytest.raises(environment.Refused) as error:
        act()
    assert error.value.code == code
    return error.value


def last(environment: Environment, phase: str) -> Any:
    return next(entry for entry in reversed(environment.ledger()) if entry.phase == phase)


def running(environment: Environment) -> list[str]:
    return sorted(
        container["Config"]["Labels"]["com.docker.compose.service"]
        for container in environment.containers(running=True)
    )


# --- Beside one another ---------------------------------------------------------------------------------------------


def test_a_new_release_takes_over_without_a_request_lost_and_the_one_before_stays_for_the_way_back(
    settled: Environment, poll: Callable[[Environment], Any]
) -> None:
    first = settled.deploy("1.0").id
    with poll(settled) as seen:
        second = settled.deploy("1.1")
    assert seen.failures == []
    assert seen.versions == sorted(seen.versions), "no request went back to the old one"
    assert set(seen.versions) == {"1.0", "1.1"}
    assert last(settled, "activate").unavailable_ms == second.answers["activate"]["unavailable_ms"] == 0
    assert list(last(settled, "activate").phases) == ["start", "switch", "soak", "drain", "stop"]
    states = {
        entry["Config"]["Labels"]["org.slipway.release"]: entry["State"]["Status"] for entry in settled.containers()
    }
    assert states == {first: "exited", second.id: "running"}


def test_no_request_reaches_a_release_that_does_not_pass_its_gate(
    settled: Environment, poll: Callable[[Environment], Any]
) -> None:
    settled.deploy("1.0")
    health = {**settled.services("1.1")["app"]["health"], "start_period": 2}
    with poll(settled) as seen:
        refused(settled, lambda: settled.deploy("1.1", env={"BEHAVIOUR": "never ready"}, health=health), 2)
    assert seen.failures == []
    assert set(seen.versions) == {"1.0"}
    assert (last(settled, "activate").result, last(settled, "activate").unavailable_ms) == ("returned", 0)


def test_a_slow_request_that_the_old_release_has_begun_is_answered_by_it(settled: Environment) -> None:
    settled.deploy("1.0")
    with subprocess.Popen(
        ["curl", "-s", f"http://127.0.0.1:{settled.port}/slow?seconds=4"], stdout=subprocess.PIPE, text=True
    ) as slow:
        time.sleep(0.3)
        settled.deploy("1.1")
        assert slow.stdout is not None
        assert slow.stdout.read() == "at last"
    assert last(settled, "activate").phases["drain"] > 0.2


def test_two_replicas_serve_and_one_that_dies_costs_no_request(
    settled: Environment, poll: Callable[[Environment], Any]
) -> None:
    settled.deploy("1.1", replicas=2)
    assert running(settled) == ["app", "app-2"]
    with poll(settled) as seen:
        docker_kill = settled.containers(running=True)[0]["Id"]
        subprocess.run(["docker", "kill", docker_kill], check=True, capture_output=True)
        time.sleep(1.5)
    assert seen.failures == []
    settled.deploy("1.1")
    assert running(settled) == ["app"]


def test_a_worker_is_never_there_twice_while_the_web_service_overlaps(settled: Environment) -> None:
    def services(version: str) -> dict[str, Any]:
        app = settled.services(version)["app"]
        worker = {key: app[key] for key in ("image", "tag", "user", "env", "config_files", "resources")}
        return {"app": app, "worker": {**worker, "update": "recreate", "stop_grace_period": 1}}

    def deploy(version: str) -> str:
        return str(settled.deploy_services(services(version)).id)

    first = deploy("1.0")
    assert running(settled) == ["app", "worker"]
    second = deploy("1.1")
    assert second != first
    started = {
        (entry["Config"]["Labels"]["org.slipway.release"], entry["Config"]["Labels"]["org.slipway.service"]): entry
        for entry in settled.containers()
    }
    old, new = started[first, "worker"]["State"], started[second, "worker"]["State"]
    assert old["FinishedAt"] < new["StartedAt"], "the old worker had stopped"
    assert started[first, "app"]["State"]["FinishedAt"] > new["StartedAt"], "the old web service had not"


# --- Watched once it serves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [("crashes later", "app died"), ("fails later", r"\d+ of \d+ answers \(\d+ %\) were server errors")],
)
def test_a_release_that_fails_once_it_serves_is_taken_back(
    behaviour: str, complaint: str, settled: Environment, poll: Callable[[Environment], Any]
) -> None:
    first = settled.deploy("1.0").id
    health = {**settled.services("1.1")["app"]["health"], "path": "/health"}
    with poll(settled) as seen:
        error = refused(settled, lambda: settled.deploy("1.1", soak=8, env={"BEHAVIOUR": behaviour}, health=health), 2)
    if behaviour == "crashes later":
        assert len(seen.failures) <= 1, "what it had in hand when it died; the one before takes the others"
    assert re.search(f"It did not bear up once traffic had moved: {complaint}", error.what)
    assert error.do_next.startswith(f"The release before, {first}, serves again.")
    assert (settled.current(), settled.version()) == (first, "1.0")
    assert last(settled, "activate").result == "returned"


def test_a_release_that_stops_keeping_its_promise_is_taken_back_though_it_still_answers_200(
    settled: Environment,
) -> None:
    first = settled.deploy("1.0").id
    health = {**settled.services("1.1")["app"]["health"], "interval": 0.2}
    error = refused(
        settled, lambda: settled.deploy("1.1", soak=8, env={"BEHAVIOUR": "unhealthy later"}, health=health), 2
    )
    assert "It did not bear up once traffic had moved: app: / says status is 'not ready" in error.what
    assert (settled.current(), settled.version()) == (first, "1.0")


# --- Maintenance ------------------------------------------------------------------------------------------------------


def test_maintenance_keeps_users_out_lets_health_through_and_outlives_a_deploy(settled: Environment) -> None:
    health = {**settled.services("1.1")["app"]["health"], "path": "/health"}
    settled.deploy("1.0", health=health)
    on = settled.slipway("maintenance", "on", "--name", settled.name, "--reason", "Moving house", "--retry-after", "60")
    assert on.stdout == f"{settled.name} answers 503 now, its health apart.\n"
    again = settled.slipway("maintenance", "on", "--name", settled.name, "--json")
    assert json.loads(again.stdout)["changed"] is False
    settled.deploy("1.1", health=health)
    address = f"http://127.0.0.1:{settled.port}"
    page = subprocess.run(["curl", "-si", f"{address}/"], capture_output=True, text=True, check=True).stdout
    assert page.startswith("HTTP/1.1 503")
    assert "Retry-After: 60" in page
    assert "Moving house" in page
    code = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{address}/health"]
    assert subprocess.run(code, capture_output=True, text=True, check=True).stdout == "200"
    assert "maintenance" in settled.slipway("status", "--name", settled.name).stdout.lower()
    off = settled.slipway("maintenance", "off", "--name", settled.name)
    assert off.stdout == f"{settled.name} answers again.\n"
    assert settled.version() == "1.1"
    assert [entry.reason for entry in settled.ledger() if entry.phase == "maintenance"] == ["on: Moving house", "off"]


# --- Migrations -------------------------------------------------------------------------------------------------------


def test_a_migration_that_only_adds_is_applied_beside_the_release_that_serves_after_a_verified_backup(
    environment: Environment, poll: Callable[[Environment], Any]
) -> None:
    environment.deploy("1.0")
    with poll(environment) as seen:
        deployed = environment.deploy("2.0")
    assert seen.failures == []
    assert deployed.answers["stage"]["pending"][0]["verdict"] == "safe"
    assert not deployed.answers["migrate"]["deferred"]
    entry = last(environment, "migrate")
    assert (entry.schema_before, entry.schema_after) == ("0001", "0002")
    [backup] = list((environment.folder / "backups").iterdir())
    assert backup.name == entry.backup
    about = json.loads((backup / "backup.json").read_text())
    assert (about["revision"], about["rows"]) == ("0001", {"rows": 0})


def test_an_unsafe_migration_is_refused_and_says_what_it_would_do(environment: Environment) -> None:
    environment.deploy("1.0")
    before = environment.standing()
    error = refused(environment, lambda: environment.deploy("2.0", env={"MIGRATION": "unsafe"}), 1)
    assert error.verb == "stage"
    assert "is not safe for the release that serves: app: " in error.what
    assert "allow_unsafe_migrations=true" in error.do_next
    assert environment.standing() == before
    assert (environment.volume() / "schema").read_text() == "0001"


def test_an_unsafe_migration_of_an_embedded_database_that_is_allowed_waits_until_the_old_release_has_stopped(
    environment: Environment, poll: Callable[[Environment], Any]
) -> None:
    environment.deploy("1.0")
    with poll(environment) as seen:
        deployed = environment.deploy("2.0", unsafe=True, env={"MIGRATION": "unsafe"})
    assert deployed.answers["migrate"]["deferred"]
    assert environment.version() == "2.0"
    assert seen.failures == [], "requests waited at the edge"
    entry = last(environment, "activate")
    assert entry.unavailable_ms >= 1000 * entry.phases["migrate"], "and the ledger says how long"


def test_when_a_release_fails_after_such_a_migration_the_old_one_serves_on_the_database_as_it_was(
    environment: Environment,
) -> None:
    first = environment.deploy("1.0").id
    health = {**environment.services("2.0")["app"]["health"], "start_period": 1.5}
    change = {"env": {"MIGRATION": "unsafe", "BEHAVIOUR": "never ready"}, "health": health}
    error = refused(environment, lambda: environment.deploy("2.0", unsafe=True, **change), 2)
    assert error.do_next.startswith(f"The release before, {first}, serves again.")
    assert environment.version() == "1.0"
    assert (environment.volume() / "schema").read_text() == "0001"


def test_without_a_way_to_back_up_nothing_is_migrated_unless_the_contract_says_so(environment: Environment) -> None:
    environment.deploy("1.0")
    migrate = environment.services("2.0")["app"]["migrate"]
    without = {key: value for key, value in migrate.items() if key != "backup"}
    error = refused(environment, lambda: environment.deploy("2.0", migrate=without), 1)
    assert "its contract says no way to back its database up" in error.what
    environment.deploy("2.0", migrate={**without, "backup": "none"})
    assert environment.version() == "2.0"
    assert not last(environment, "migrate").backup


# --- The way back across a migration ----------------------------------------------------------------------------------


def two_releases(environment: Environment, policy: str) -> tuple[str, str]:
    """The second of which has migrated, and says what a rollback does."""
    first = environment.deploy("1.0").id
    migrate = {**environment.services("2.0")["app"]["migrate"], "on_rollback": policy}
    return first, environment.deploy("2.0", migrate=migrate).id


def test_a_rollback_takes_the_migration_back_with_the_newer_image_where_the_contract_says_down(
    environment: Environment, poll: Callable[[Environment], Any]
) -> None:
    first, _ = two_releases(environment, "down")
    with poll(environment) as seen:
        done = environment.slipway("rollback", "--name", environment.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert (environment.current(), environment.version()) == (first, "1.0")
    assert (environment.volume() / "schema").read_text() == "0001"
    assert seen.failures == [], "requests waited at the edge"


def test_a_rollback_restores_the_backup_only_when_the_loss_is_confirmed_and_says_what_is_lost(
    environment: Environment,
) -> None:
    first, second = two_releases(environment, "restore")
    rows = environment.volume() / "rows"
    rows.write_text("one\ntwo\n")
    refusal = environment.slipway("rollback", "--name", environment.name)
    assert refusal.returncode == 1
    assert "what was written since is lost" in refusal.stderr
    assert f"confirm_data_loss={first}" in refusal.stderr
    assert "rows then" in refusal.stderr
    assert environment.current() == second
    done = environment.slipway("rollback", "--name", environment.name, "--confirm-data-loss", first)
    assert (done.returncode, done.stderr) == (0, "")
    assert (environment.current(), environment.version()) == (first, "1.0")
    assert (environment.volume() / "schema").read_text() == "0001"


def test_a_way_back_that_fails_after_the_schema_was_moved_ends_with_the_newer_release_on_its_own_schema(
    environment: Environment,
) -> None:
    health = {**environment.services("1.0")["app"]["health"], "start_period": 2}
    first = environment.deploy("1.0", health=health).id
    migrate = {**environment.services("2.0")["app"]["migrate"], "on_rollback": "down"}
    second = environment.deploy("2.0", migrate=migrate).id
    (environment.folder / "releases" / first / "config/app/app/config/app.json").chmod(0o000)
    done = environment.slipway("rollback", "--name", environment.name)
    assert done.returncode == 2
    assert f"The release before, {second}, serves again." in done.stderr
    assert environment.version() == "2.0"
    assert (environment.volume() / "schema").read_text() == "0002"


# --- Who may ----------------------------------------------------------------------------------------------------------


def test_a_second_run_is_told_who_is_deploying_and_goes_on_when_that_one_has_ended(settled: Environment) -> None:
    settled.deploy("1.0")
    release = settled.prepare("1.1")
    staged = settled.of_run("stage", release=release)
    other = settled.slipway("maintenance", "on", "--name", settled.name, "--reason", "it is another run")
    assert other.returncode == 1
    assert other.stderr.startswith("alice is deploying here (run by-steps, last seen doing stage)")
    assert "alice (run by-steps" in settled.slipway("lease", "--name", settled.name).stdout
    named = {"name": settled.name, "release": release["manifest"]["id"], "fence": staged["fence"]}
    settled.of_run("activate", **named)
    settled.of_run("verify", **named)
    assert settled.slipway("lease", "--name", settled.name).stdout == f"Nobody is deploying {settled.name}.\n"
    settled.deploy("1.0")


def test_a_lease_that_was_broken_keeps_its_run_from_going_on_and_the_ledger_says_who_broke_it(
    settled: Environment,
) -> None:
    settled.deploy("1.0")
    release = settled.prepare("1.1")
    staged = settled.of_run("stage", release=release)
    assert settled.slipway("lease", "--break", "--name", settled.name).returncode == 64
    broken = settled.slipway("lease", "--break", "--name", settled.name, "--reason", "alice went home")
    assert broken.stdout.startswith(f"The lease on {settled.name} was taken from alice (run by-steps")
    named = {"name": settled.name, "release": release["manifest"]["id"], "fence": staged["fence"]}
    error = refused(settled, lambda: settled.of_run("activate", **named), 1)
    assert error.what.startswith("This run has lost its lease on the environment")
    assert last(settled, "lease").reason == "taken from alice (run by-steps): alice went home"
    assert settled.version() == "1.0"


def test_a_host_where_the_release_serves_already_keeps_no_run_out(settled: Environment) -> None:
    release = settled.prepare("1.0")
    held = settled.of_run("hold", name=settled.name, release=release)
    assert "fence" not in held
    settled.slipway("maintenance", "on", "--name", settled.name, "--reason", "nobody is kept out").check_returncode()
    settled.slipway("maintenance", "off", "--name", settled.name).check_returncode()
    held = settled.of_run("hold", name=settled.name, release=settled.prepare("1.1"))
    refused_by_it = settled.slipway("maintenance", "on", "--name", settled.name, "--reason", "somebody is")
    assert refused_by_it.stderr.startswith("alice is deploying here (run by-steps, last seen doing hold)")
    settled.of_run("return", name=settled.name, fence=held["fence"])


def test_a_host_that_another_run_has_is_waited_for_though_the_release_serves_there(settled: Environment) -> None:
    bobs = {"run": "another", "by": "bob", "name": settled.name, "release": settled.prepare("1.0")}
    settled.of_run("hold", name=settled.name)
    error = refused(settled, lambda: settled.ask("hold", **bobs), 1)
    assert error.what.startswith("alice is deploying here")
    settled.of_run("return", name=settled.name)
    assert "fence" not in settled.ask("hold", **bobs)


def test_giving_a_lease_up_that_has_ended_is_fine_and_leaves_the_next_run_its_own(settled: Environment) -> None:
    fence = settled.of_run("hold", name=settled.name)["fence"]
    settled.of_run("return", name=settled.name, fence=fence)
    assert not settled.of_run("return", name=settled.name, fence=fence)["changed"]
    taken = settled.ask("hold", run="another", by="bob", name=settled.name)["fence"]
    settled.of_run("return", name=settled.name, fence=fence)
    assert "bob (run another" in settled.slipway("lease", "--name", settled.name).stdout
    settled.ask("return", run="another", by="bob", name=settled.name, fence=taken)


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_only_the_newest_good_releases_are_kept_and_failed_ones_push_none_out(environment: Environment) -> None:
    good = [environment.deploy("1.1", keep=2, config={"site": site}).id for site in "ab"]
    refused(environment, lambda: environment.deploy("1.1", keep=2, env={"BEHAVIOUR": "crashes"}), 2)
    good.append(environment.deploy("1.1", keep=2, config={"site": "c"}).id)
    left = sorted(path.name for path in (environment.folder / "releases").iterdir())
    assert left == sorted(good[-2:])
    assert environment.slipway("rollback", "--name", environment.name).returncode == 0
    assert environment.current() == good[1]
