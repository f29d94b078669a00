"""Deploys on real Docker: what goes well, what goes wrong, and what is killed in the middle of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.store import BEGUN_FILE

pytestmark = pytest.mark.docker

Environment = Any
"""The class of tests/engine/conftest.py, which a test file cannot import."""

SECRET = "never-to-be-seen-0123456789-abcdefghij"


def refused(environment: Environment, act: Callable[[], object], code: int) -> Any:
    with pytest.raises(environment.Refused) as error:
        act()
    assert error.value.code == code
    assert SECRET not in str(error.value)
    return error.value


def serves_alone(environment: Environment, version: str) -> None:
    """Exactly one release runs, it is current, it is `version`, and nothing half-done lies about."""
    [container] = environment.containers(running=True)
    assert container["Config"]["Labels"]["org.slipway.release"] == environment.current()
    assert environment.version() == version
    assert environment.slipway("status", "--name", environment.name).returncode == 0
    assert not [entry["Name"] for entry in environment.containers() if entry["Name"].endswith("-once")]
    assert not list((environment.folder / "releases").glob(".*"))


def left_of(kind: str, environment: Environment) -> list[str]:
    """Names of the volumes or networks of an environment."""
    listed = subprocess.run(
        ["docker", kind, "ls", "--format", "{{.Name}}", "--filter", f"name=^{environment.name}-"],
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(listed.stdout.split())


# --- What goes well -----------------------------------------------------------------------------------------------


def test_a_first_deploy_serves_and_a_second_one_touches_nothing(environment: Environment) -> None:
    first = environment.deploy("1.0")
    assert first.changed == ["stage", "migrate", "activate"]
    serves_alone(environment, "1.0")
    before = environment.standing()
    again = environment.deploy("1.0")
    assert again.changed == []
    assert again.id == first.id
    assert environment.standing() == before
    assert [(entry.phase, entry.result) for entry in environment.ledger()] == [
        ("stage", "good"),
        ("migrate", "good"),
        ("activate", "good"),
    ]


def test_a_release_is_not_staged_where_an_edge_that_was_begun_does_not_come_up(
    environment: Environment, tmp_path: Path
) -> None:
    bare = type(environment)(environment.name, tmp_path, environment.port)
    failed = {"what": "A port is taken.", "do_next": "Free it.", "details": "its last words", "exit": 2}
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / BEGUN_FILE).write_text(json.dumps(failed))
    services = environment.services("1.0")
    release = bare.release(services, environment.preflight(services)["digests"])
    told = refused(bare, lambda: bare.of_run("stage", release=release), 2)
    assert (told.what, told.details) == ("A port is taken.", "its last words")
    assert told.do_next == "Free it. Then run playbooks/site.yml again."
    assert bare.containers() == []
    assert [(entry.phase, entry.result) for entry in bare.ledger()] == [("stage", "failed")]


def test_a_first_migration_takes_three_containers_and_no_question_before_it(environment: Environment) -> None:
    began = f"{time.time():.9f}"
    environment.deploy("1.0")
    filters = ("event=create", "label=com.docker.compose.oneoff=True", f"label=org.slipway.name={environment.name}")
    told = subprocess.run(
        ["docker", "events", "--since", began, "--until", f"{time.time():.9f}"]
        + [word for one in filters for word in ("--filter", one)]
        + ["--format", "{{.Actor.Attributes.name}}"],
        check=True,
        capture_output=True,
        text=True,
    )
    events = told.stdout.split()
    assert len(events) == 3
    assert len(set(events)) == 2
    [entry] = [entry for entry in environment.ledger() if entry.phase == "migrate"]
    assert (entry.schema_before, entry.schema_after) == ("none", "0001")


def test_a_program_that_stands_no_other_beside_it_is_asked_by_itself(environment: Environment) -> None:
    environment.deploy("1.0", env={"MIGRATION": "alone"})
    serves_alone(environment, "1.0")
    assert [entry.schema_after for entry in environment.ledger() if entry.phase == "migrate"] == ["0001"]


def test_a_container_runs_locked_down(serving: Environment) -> None:
    [container] = serving.containers(running=True)
    host = container["HostConfig"]
    assert container["Config"]["User"] == "1001:1001"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (64 * 1024**2, 200, 10**9)
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
    assert host["PortBindings"] == {}, "only the edge listens"


def test_a_release_folder_is_plain_compose_and_only_root_and_the_application_read_its_secrets(
    serving: Environment,
) -> None:
    folder = serving.folder / "current"
    listed = subprocess.run(
        ["docker", "compose", "ps", "--services"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert listed.stdout.split() == ["app"]
    config = folder / "config/app/app/config/app.json"
    assert (config.stat().st_mode & 0o777, config.stat().st_uid, config.stat().st_gid) == (0o440, 0, 1001)
    assert (folder / "compose.yml").stat().st_mode & 0o777 == 0o400
    assert serving.folder.stat().st_mode & 0o777 == 0o700


def test_a_new_tag_replaces_the_container_and_keeps_the_data(settled: Environment) -> None:
    first = settled.deploy("1.0")
    (settled.volume() / "note").write_text('{"text": "kept"}')
    second = settled.deploy("1.1")
    assert second.id != first.id
    assert second.changed == ["stage", "activate"]
    serves_alone(settled, "1.1")
    assert (settled.volume() / "note").read_text() == '{"text": "kept"}'
    assert settled.ledger()[-1].previous == first.id


def test_a_change_of_config_is_a_new_release_of_the_same_image_and_arrives_as_it_was_written(
    settled: Environment,
) -> None:
    first = settled.deploy("1.0")
    second = settled.deploy("1.0", config={"site": "Café ${NOT_EXPANDED} 5$"}, env={"PRICE": "5$ or ${PRICE} or $$"})
    assert second.id != first.id
    text = (settled.folder / "current/config/app/app/config/app.json").read_text()
    assert json.loads(text)["site"] == "Café ${NOT_EXPANDED} 5$"
    [container] = settled.containers(running=True)
    assert "PRICE=5$ or ${PRICE} or $$" in container["Config"]["Env"]
    assert len({entry.images["app"] for entry in settled.ledger()[-2:]}) == 1


def test_a_check_foretells_the_deploy_and_changes_nothing(serving: Environment) -> None:
    before = serving.standing(), serving.ledger(), sorted(serving.folder.rglob("*"))
    release = serving.prepare("2.0")
    named = {"name": serving.name, "release": release["manifest"]["id"]}
    assert serving.of_run("stage", release=release, check=True)["changed"]
    assert serving.of_run("migrate", **named, check=True)["changed"]
    assert serving.of_run("activate", **named, check=True)["previous"] == serving.current()
    assert not serving.of_run("verify", **named, check=True)["changed"]
    assert (serving.standing(), serving.ledger(), sorted(serving.folder.rglob("*"))) == before


def test_an_environment_is_removed_without_a_trace_and_another_on_the_same_host_is_not_touched(
    serving: Environment, environment: Environment
) -> None:
    before = serving.standing()
    release = environment.deploy("1.1").id
    assert environment.of_run("destroy", name=environment.name)["removed"] == [release]
    assert environment.containers() == []
    assert not environment.folder.exists()
    assert left_of("volume", environment) == left_of("network", environment) == []
    assert not environment.of_run("destroy", name=environment.name)["changed"]
    assert serving.standing() == before
    assert serving.version() == "1.0"


def test_history_and_logs_tell_what_happened(serving: Environment) -> None:
    history = serving.slipway("history", "--name", serving.name).stdout
    assert re.search(rf"deploy +{serving.current()} +good +stage \d+\.\ds migrate \d+\.\ds activate", history)
    logs = serving.slipway("logs", "--name", serving.name)
    assert "starting with {" in logs.stdout
    assert SECRET not in logs.stdout
    assert serving.slipway("logs", "--name", serving.name, "shop").stderr.startswith(
        f"{serving.name} has no service shop."
    )


# --- What goes wrong: the release before still serves --------------------------------------------------------------


@pytest.fixture
def still_serves(serving: Environment) -> Iterator[Environment]:
    """The environment on which 1.0 serves, and does afterwards."""
    before = serving.current()
    yield serving
    assert serving.current() == before
    serves_alone(serving, "1.0")


def test_a_failing_migration_is_shown_and_the_old_release_serves_all_the_while(
    still_serves: Environment, poll: Callable[[Environment], Any]
) -> None:
    before = still_serves.standing()
    with poll(still_serves) as seen:
        error = refused(still_serves, lambda: still_serves.deploy("2.0", env={"MIGRATION": "fails"}), 2)
    assert (error.verb, error.what) == (
        "migrate",
        f"The migration of {still_serves.name} failed: `migrate up` ended with exit code 1. "
        "The schema is at 0001 as before.",
    )
    assert error.do_next == (
        f"The release {still_serves.current()} still serves. Mend the migration and run the play again."
    )
    assert "column shop.price does not exist" in error.details
    assert "[redacted]" in error.details
    assert not seen.failures
    assert set(seen.versions) == {"1.0"}
    assert still_serves.standing() == before
    last = still_serves.ledger()[-1]
    assert (last.phase, last.result, last.schema_before) == ("migrate", "failed", "0001")
    assert "exit code 1" in last.reason


def test_a_migration_sees_what_it_alone_is_told_and_none_of_that_is_shown(still_serves: Environment) -> None:
    owner = "never-to-be-seen-owner-0123456789-$x-${y}"
    migrate = {
        **still_serves.services("2.0")["app"]["migrate"],
        "secret_env": {"MIGRATION": "fails"},
        "config_files": [
            {"path": "/app/config/app.json", "content": {"runs_as": "owner", "password": owner}, "gid": 1001}
        ],
    }
    error = refused(still_serves, lambda: still_serves.deploy("2.0", migrate=migrate), 2)
    assert "column shop.price does not exist" in error.details
    assert '"runs_as": "owner"' in error.details
    assert owner not in "".join(still_serves.said)


def test_a_migration_that_hangs_is_ended_after_its_time(still_serves: Environment) -> None:
    migrate = {**still_serves.services("2.0")["app"]["migrate"], "timeout": 1.5}
    error = refused(still_serves, lambda: still_serves.deploy("2.0", env={"MIGRATION": "hangs"}, migrate=migrate), 2)
    assert "`migrate up` took longer than 1.5 seconds and was ended." in error.what


def test_a_release_that_never_becomes_healthy_is_taken_back_with_its_last_logs(still_serves: Environment) -> None:
    health = {**still_serves.services("1.1")["app"]["health"], "start_period": 1.5}
    error = refused(
        still_serves, lambda: still_serves.deploy("1.1", env={"BEHAVIOUR": "never ready"}, health=health), 2
    )
    assert error.verb == "activate"
    assert "did not become healthy in 1.5 seconds: / answered 503 instead of 200: " in error.what
    assert error.do_next == (
        f"The release before, {still_serves.current()}, serves again. "
        "Mend what its last lines below tell and run the play again."
    )
    assert "starting with {" in error.details
    last = still_serves.ledger()[-1]
    assert (last.phase, last.result) == ("activate", "returned")
    assert SECRET not in last.reason


def test_a_release_that_dies_at_its_start_fails_without_waiting_for_its_time(still_serves: Environment) -> None:
    # "Dies again and again" is what is said before its time is over; after it, that it did not become healthy.
    error = refused(still_serves, lambda: still_serves.deploy("1.1", env={"BEHAVIOUR": "crashes"}), 2)
    assert re.search(r"The service app dies again and again: (exit code 1|restarted \d times)\.", error.what)
    assert "no such module: shop" in error.details


def test_an_image_that_says_it_is_another_version_is_taken_back(still_serves: Environment) -> None:
    health = {**still_serves.services("1.1")["app"]["health"], "start_period": 1.5}
    error = refused(
        still_serves, lambda: still_serves.deploy("1.1", env={"BEHAVIOUR": "wrong version"}, health=health), 2
    )
    assert "/ says version is '0.0' instead of '1.1'" in error.what


def test_a_port_that_is_taken_after_preflight_is_told_and_the_old_release_serves_on(still_serves: Environment) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        port = thief.getsockname()[1]
        release = still_serves.prepare("1.1", publish=port)
        thief.listen()
        named = {"name": still_serves.name, "release": release["manifest"]["id"]}
        still_serves.of_run("stage", release=release)
        error = refused(still_serves, lambda: still_serves.of_run("activate", **named), 2)
    assert re.search(rf"The edge cannot listen on 127\.0\.0\.1:{port}: \w+, process \d+\.", error.what)
    assert "serves again" in error.do_next


def test_a_compose_file_that_compose_refuses_is_not_staged(still_serves: Environment) -> None:
    release = still_serves.prepare("1.1", resources={"memory": "much"})
    error = refused(still_serves, lambda: still_serves.of_run("stage", release=release), 1)
    assert error.what == "Compose does not accept the rendered file."
    assert error.details
    assert not (still_serves.folder / "releases" / release["manifest"]["id"]).exists()


def test_a_first_release_that_fails_leaves_none_serving_and_says_so(environment: Environment) -> None:
    error = refused(environment, lambda: environment.deploy("1.0", env={"BEHAVIOUR": "crashes"}), 2)
    assert error.do_next.startswith("No release served before, so none serves now.")
    assert environment.containers(running=True) == []
    assert environment.ledger()[-1].result == "failed"
    environment.deploy("1.0")
    serves_alone(environment, "1.0")


def test_no_secret_is_told_by_docker_inspect_ledger_manifest_or_any_word_of_the_engine(serving: Environment) -> None:
    health = {**serving.services("1.1")["app"]["health"], "start_period": 1}
    change = {"env": {"BEHAVIOUR": "never ready"}, "health": health}
    refused(serving, lambda: serving.deploy("1.1", **change), 2)
    for verb in (["status"], ["status", "--json"], ["history"], ["history", "--json"], ["logs"]):
        serving.slipway(*verb, "--name", serving.name)
    told = [json.dumps(serving.containers()), (serving.folder / "ledger.jsonl").read_text(), *serving.said]
    told += [path.read_text() for name in ("manifest.json", "compose.yml") for path in serving.folder.rglob(name)]
    assert len(told) > 10
    assert not [text for text in told if SECRET in text]
    assert any("[redacted]" in text for text in told), "the application did print it"


# --- The way back ---------------------------------------------------------------------------------------------------


def test_rollback_goes_to_the_release_before_or_to_a_named_one_that_has_no_container_any_more(
    settled: Environment,
) -> None:
    first, second, third = (settled.deploy("1.1", config={"site": site}).id for site in "abc")
    # A daemon has address space for some thirty networks, so only the last two releases keep theirs.
    assert left_of("network", settled) == sorted(f"{settled.name}-{release[:8]}_default" for release in (second, third))
    assert {entry["Config"]["Labels"]["org.slipway.release"] for entry in settled.containers()} == {second, third}
    done = settled.slipway("rollback", "--name", settled.name)
    assert (done.returncode, done.stdout) == (0, f"{settled.name} serves {second} again (before: {third}).\n")
    assert settled.slipway("rollback", "--name", settled.name, first[:6]).returncode == 0
    assert settled.current() == first
    serves_alone(settled, "1.1")
    assert [(entry.phase, entry.release) for entry in settled.ledger()][-2:] == [
        ("rollback", second),
        ("rollback", first),
    ]
    unknown = settled.slipway("rollback", "--name", settled.name, "ffffffffffff")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith(f"{settled.name} has no release ffffffffffff to go back to.")


def test_a_rollback_across_a_migration_is_refused_by_the_older_image_itself(environment: Environment) -> None:
    first = environment.deploy("1.0").id
    environment.deploy("2.0")
    before = environment.standing()
    done = environment.slipway("rollback", "--name", environment.name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"The release {first} cannot run on the database as it is now: `migrate plan` ended")
    assert "Can't locate revision 0002" in done.stderr
    assert environment.standing() == before
    serves_alone(environment, "2.0")


# --- Stopped, mended, removed ---------------------------------------------------------------------------------------


def test_what_is_stopped_keeps_its_data_and_the_next_deploy_starts_it(settled: Environment) -> None:
    release = settled.deploy("1.0").id
    (settled.volume() / "note").write_text('{"text": "kept"}')
    assert settled.of_run("stop", name=settled.name)["stop"] == [release]
    assert not settled.of_run("stop", name=settled.name)["changed"]
    assert settled.containers(running=True) == []
    assert settled.slipway("status", "--name", settled.name).returncode == 2
    assert settled.deploy("1.0").changed == ["activate"]
    serves_alone(settled, "1.0")
    assert (settled.volume() / "note").exists()


@pytest.mark.parametrize("harm", ["stop", "rm"])
def test_a_container_that_was_stopped_or_removed_by_hand_is_told_and_mended(harm: str, settled: Environment) -> None:
    settled.deploy("1.0")
    [container] = settled.containers(running=True)
    subprocess.run(["docker", *(["rm", "-f"] if harm == "rm" else ["stop"]), container["Id"]], check=True)
    status = settled.slipway("status", "--name", settled.name)
    assert status.returncode == 2
    assert "NOT HEALTHY: the " in status.stdout
    settled.deploy("1.0")
    serves_alone(settled, "1.0")


def test_a_container_that_runs_and_no_longer_answers_is_replaced_by_the_next_deploy(settled: Environment) -> None:
    settled.deploy("1.0", stop_grace_period=1)
    [hangs] = settled.containers(running=True)
    os.kill(hangs["State"]["Pid"], signal.SIGSTOP)
    assert settled.slipway("status", "--name", settled.name).returncode == 2
    settled.deploy("1.0", stop_grace_period=1)
    serves_alone(settled, "1.0")
    [replaced] = settled.containers(running=True)
    assert replaced["Id"] != hangs["Id"]


def test_a_release_that_no_longer_starts_says_that_there_is_none_to_return_to(settled: Environment) -> None:
    release = settled.deploy("1.0").id
    settled.of_run("stop", name=settled.name)
    (settled.folder / "current/config/app/app/config/app.json").chmod(0o000)
    named = {"name": settled.name, "release": release}
    error = refused(settled, lambda: settled.of_run("activate", **named), 2)
    assert error.do_next.startswith("It is the release that served, so there is none to return to")
    settled.deploy("1.0")
    serves_alone(settled, "1.0")


# --- Killed in the middle: the next run ends well, without hand work ------------------------------------------------


def killed_then_deployed(environment: Environment, version: str, **change: Any) -> None:
    environment.deploy(version, **change)
    serves_alone(environment, version)


def test_a_stage_that_was_killed_before_its_folder_was_whole(settled: Environment) -> None:
    release = settled.prepare("1.1")
    settled.kill_before("slipway.project:Project.validate", "stage", release=release)
    assert (settled.folder / "releases" / f".staging-{release['manifest']['id']}").exists()
    assert settled.version() == "1.0"
    killed_then_deployed(settled, "1.1")


def test_a_stage_that_was_killed_before_it_made_the_volume(environment: Environment) -> None:
    release = environment.prepare("1.0")
    environment.kill_before("slipway.project:Project.ensure_volume", "stage", release=release)
    assert (environment.folder / "releases" / release["manifest"]["id"]).exists()
    killed_then_deployed(environment, "1.0")
    volume = environment.volume()
    assert (volume.stat().st_uid, volume.stat().st_gid) == (1001, 1001)


def test_a_migration_that_was_killed(environment: Environment) -> None:
    environment.deploy("1.0")
    change = {"env": {"MIGRATION": "hangs once"}}
    release = environment.prepare("2.0", **change)
    environment.of_run("stage", release=release)
    named = {"name": environment.name, "release": release["manifest"]["id"]}
    environment.kill_when((environment.volume() / "hung").exists, "migrate", **named)
    assert environment.version() == "1.0"
    killed_then_deployed(environment, "2.0", **change)
    assert (environment.volume() / "schema").read_text() == "0002"


@pytest.mark.parametrize("wanted", ["1.1", "1.0"])
def test_an_activation_that_was_killed_between_the_switch_and_the_stop(wanted: str, settled: Environment) -> None:
    settled.deploy("1.0")
    release = settled.prepare("1.1")
    settled.of_run("stage", release=release)
    named = {"name": settled.name, "release": release["manifest"]["id"]}
    settled.kill_when(lambda: settled.version() == "1.1", "activate", terms={"seconds": 5}, **named)
    assert settled.version() == "1.1", "traffic stays where it was when the call was killed"
    killed_then_deployed(settled, wanted)
    assert "recover" in [entry.phase for entry in settled.ledger()]


@pytest.mark.parametrize("wanted", ["1.1", "1.0"])
def test_an_activation_that_was_killed_before_the_new_release_was_healthy(wanted: str, settled: Environment) -> None:
    settled.deploy("1.0")
    slow = {"env": {"BEHAVIOUR": "slow"}}
    release = settled.prepare("1.1", **slow)
    settled.of_run("stage", release=release)
    release_id = release["manifest"]["id"]

    def started() -> bool:
        return any(
            container["Config"]["Labels"]["org.slipway.release"] == release_id
            for container in settled.containers(running=True)
        )

    settled.kill_when(started, "activate", name=settled.name, release=release_id)
    killed_then_deployed(settled, wanted, **(slow if wanted == "1.1" else {}))


def test_a_destroy_that_was_killed_is_finished_by_the_next_one(environment: Environment) -> None:
    environment.deploy("1.0")
    environment.kill_before("slipway.daemon:Daemon.remove_volumes", "destroy", name=environment.name)
    assert environment.containers() == []
    environment.of_run("destroy", name=environment.name)
    assert not environment.folder.exists()
    assert environment.containers() == []


def test_a_second_call_waits_for_the_first_one_and_then_finds_nothing_to_do(settled: Environment) -> None:
    release = settled.prepare("1.1", env={"BEHAVIOUR": "slow"})
    settled.of_run("stage", release=release)
    named = {"name": settled.name, "release": release["manifest"]["id"]}
    with subprocess.Popen(settled.command("activate", "--json"), stdin=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        first.stdin.write(json.dumps({"protocol": 1, "run": "by-steps", "by": "alice", **named}))
        first.stdin.close()
        lock = settled.folder / "lock"
        deadline = time.monotonic() + 20
        while lock.read_text() != f"{first.pid}\n":
            assert first.poll() is None, "the first call ended before it was seen to hold the lock"
            assert time.monotonic() < deadline, "the first call never took the lock"
            time.sleep(0.01)
        second = settled.of_run("activate", **named)
        assert first.wait() == 0
    assert not second["changed"]
    serves_alone(settled, "1.1")
