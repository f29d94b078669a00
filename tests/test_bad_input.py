"""Bad input as an operator meets it: one clear sentence, an exit code other than 0, and what runs is left alone."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from slipway.protocol import PROTOCOL

pytestmark = pytest.mark.docker

KIT = Path(__file__).resolve().parents[1]
NAME = "slipway-test-bad"
SLIPWAY = "/opt/slipway/venv/bin/slipway"
FOLDER = Path("/srv/slipway") / NAME
LOCK = KIT / "inventories" / "local" / "images.lock.yml"
SHORT = "hunter2-hunter2"
CONFIG = "/app/config"

Play = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def docker(*arguments: str) -> list[str]:
    """The lines that a Docker command prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


class Container(NamedTuple):
    """A container as it is told apart from one that was touched."""

    id: str
    release: str
    started: str
    running: bool


def containers() -> list[Container]:
    """Every container of the environment."""
    form = '{{.Id}} {{index .Config.Labels "org.slipway.release"}} {{.State.StartedAt}} {{.State.Running}}'
    found = []
    for name in docker("ps", "--all", "--quiet", "--filter", f"label=org.slipway.name={NAME}"):
        container, release, started, running = docker("inspect", "--format", form, name)[0].split()
        found.append(Container(container, release, started, running == "true"))
    return found


def serving() -> Container:
    """The one container that runs."""
    [found] = [container for container in containers() if container.running]
    return found


def kept() -> tuple[list[Path], Path, str]:
    """What the environment keeps on the host: its files, the release that is current, and its ledger."""
    return sorted(FOLDER.rglob("*")), (FOLDER / "current").readlink(), (FOLDER / "ledger.jsonl").read_text()


def destroy() -> None:
    """Remove the environment, and look that nothing of it is left."""
    request = {"protocol": PROTOCOL, "name": NAME, "run": "test", "by": "test"}
    subprocess.run(
        [SLIPWAY, "destroy", "--json"], input=json.dumps(request), check=True, capture_output=True, text=True
    )
    assert containers() == []
    assert docker("volume", "ls", "--quiet", "--filter", f"name=^{NAME}-") == []
    assert docker("network", "ls", "--quiet", "--filter", f"name=^{NAME}-") == []
    assert not FOLDER.exists()


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """Runs playbooks/deploy.yml for an environment that serves, with some variables changed."""
    if not LOCK.exists() or not Path(SLIPWAY).exists():
        pytest.fail("There is no engine or no image on this machine. Run playbooks/site.yml first.")
    port = free_port()

    def run(*options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        given = {"slipway_name": NAME, "backend_publish": port, **variables}
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            "inventories/local",
            "playbooks/deploy.yml",
        ]
        return subprocess.run(
            [*command, *options, "-e", json.dumps(given)],
            cwd=KIT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(KIT / "ansible.cfg")},
            capture_output=True,
            text=True,
            check=False,
        )

    # One that was killed may have left its environment, whose port and releases would not be those of this run.
    destroy()
    try:
        first = run()
        assert first.returncode == 0, first.stdout + first.stderr
        yield run
    finally:
        destroy()


@pytest.fixture
def refused(play: Play) -> Iterator[Callable[..., str]]:
    """Runs the play, which has to fail and to touch nothing, and gives its output in one line."""
    before = containers(), kept()

    def run(*options: str, **variables: Any) -> str:
        done = play(*options, **variables)
        said = " ".join(f"{done.stdout} {done.stderr}".split())
        assert done.returncode != 0, said
        assert "Traceback" not in said
        return said

    yield run
    assert (containers(), kept()) == before
    assert serving().release == kept()[1].name


Refused = Callable[..., str]


def test_no_semiont_json(refused: Refused) -> None:
    assert (
        f"The service backend needs the config file {CONFIG}/semiont.json, and the inventory has none beside it. "
        "Add semiont.json to app_services.backend.config_files."
    ) in refused(backend_project={})


def test_an_unknown_environment(refused: Refused) -> None:
    assert (
        f"The service backend needs the config file {CONFIG}/environments/qa.json, and beside it the inventory has "
        "local.json. Add qa.json to app_services.backend.config_files."
    ) in refused(backend_environment="qa")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"backend_project": {"version": "1.0.0", "colour": "blue"}},
            f"{CONFIG}/semiont.json: $ has the unknown key colour. Remove it, or correct its spelling.",
        ),
        (
            {"backend_settings": {"auth": {"jwtsecret": "x"}}},
            f"{CONFIG}/environments/local.json: $.auth has the unknown key jwtsecret. "
            "Remove it, or correct its spelling.",
        ),
        ({"backend_project": {"projectName": "x"}}, f"{CONFIG}/semiont.json: $ lacks version. Add what is missing."),
        (
            {"backend_settings": {"ai": {"openaiApiKey": 5}}},
            f"{CONFIG}/environments/local.json: $.ai.openaiApiKey is not of type string. Correct the value.",
        ),
        (
            {"backend_database_url": "mysql://db/shop"},
            f"{CONFIG}/environments/local.json: $.database.url does not have the form "
            "postgresql://user:password@host:port/name or sqlite:////absolute/path. Correct the value.",
        ),
    ],
    ids=["unknown key in semiont.json", "unknown key in a section", "missing key", "wrong type", "another database"],
)
def test_a_key_that_is_wrong_is_named_with_its_path(variables: dict[str, Any], sentence: str, refused: Refused) -> None:
    assert sentence in refused(**variables)


def test_json_that_is_cut_short(refused: Refused) -> None:
    cut = {"path": f"{CONFIG}/semiont.json", "content": '{"version": ', "gid": 1001}
    others = "backend_services.backend.config_files | rejectattr('path', 'eq', cut.path)"
    said = refused(
        cut=cut,
        app_services=f"{{{{ backend_services | combine("
        f"{{'backend': {{'config_files': [cut] + ({others})}}}}, recursive=true) }}}}",
    )
    assert f"{CONFIG}/semiont.json: it is not JSON (Input data was truncated)." in said
    assert "Correct the file and run the play again." in said


@pytest.mark.parametrize("options", [(), ("-vvv",)], ids=["quiet", "with -vvv"])
def test_a_short_secret_is_named_and_never_told(options: tuple[str, ...], refused: Refused) -> None:
    said = refused(*options, backend_jwt_secret=SHORT)
    assert (
        f"{CONFIG}/environments/local.json: $.auth.jwtSecret is shorter than 32 characters. Give it a longer value."
    ) in said
    assert SHORT not in said


def test_a_short_fingerprint_key(refused: Refused) -> None:
    said = refused(release_fingerprint_key=SHORT)
    assert "release_fingerprint_key is shorter than 32 characters. Generate a longer one: openssl rand -hex 32." in said
    assert SHORT not in said


def test_a_tag_that_does_not_exist(refused: Refused) -> None:
    assert (
        "The image 127.0.0.1:5000/slipway/backend:9.9.9-build.1 does not exist in its registry. "
        "Push that tag, or set the tag to one that exists."
    ) in refused(backend_tag="9.9.9-build.1")


def test_latest_where_tags_are_immutable(refused: Refused) -> None:
    assert (
        "app_services.backend deploys the moving tag 'latest' in an environment whose tags are immutable. "
        "Name a version, for example 1.4.2-build.7."
    ) in refused(backend_tag="latest", app_image_tag_strategy="immutable")


def test_a_registry_that_does_not_answer(refused: Refused) -> None:
    registry = f"127.0.0.1:{free_port()}"
    assert (
        f"The registry {registry} does not answer. "
        "Start it, or check the network between it and this host, and run the play again."
    ) in refused(backend_image=f"{registry}/slipway/backend", backend_tag="1.0")


def test_a_config_file_that_the_container_cannot_read(refused: Refused) -> None:
    assert (
        f"{CONFIG}/semiont.json would have mode 0400 and owner 0:0, which the container's user 1001:1001 cannot read. "
        "Give it gid 1001 and mode 0440."
    ) in refused(__backend_file={"mode": "0400", "uid": 0, "gid": 0})


def test_a_port_that_is_taken(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = refused(backend_publish=port)
    assert re.search(
        rf"Port {port}, which backend publishes, is taken by \S+, process {os.getpid()}\. "
        r"Stop it, or set app_services\.backend\.publish to a free port\.",
        said,
    )


def test_a_disk_that_is_nearly_full(refused: Refused) -> None:
    assert re.search(
        r"The disk is nearly full: \d+ MB are free on the file system of \S+, 1000000000 MB are needed\. "
        r"Free some space there, or lower release_min_free_mb, and run the play again\.",
        refused(release_min_free_mb=10**9),
    )


def test_a_name_that_cannot_be_one(refused: Refused) -> None:
    assert "'Bad_Name' is not a name of an environment. Use 2 to 41 lower-case letters, digits and dashes" in refused(
        slipway_name="Bad_Name"
    )


def test_a_migration_that_fails_shows_what_it_said_and_the_release_before_is_not_touched(play: Play) -> None:
    # A database in a folder that is not there: right by its schema, wrong in this container.
    before = containers(), kept()[1]
    done = play(backend_database_url="sqlite:////app/nowhere/backend.db")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert f"The migration of {NAME} failed: `migrate up` ended with exit code 1." in said
    assert f"The release {serving().release} still serves. Mend the migration and run the play again." in said
    assert "The lock /app/nowhere/backend.db.migrate.lock cannot be made: No such file or directory." in said
    assert (containers(), kept()[1]) == before


def test_a_release_that_never_becomes_healthy_shows_its_last_lines_and_the_one_before_serves_again(play: Play) -> None:
    # A contract that promises what the image does not answer.
    before = serving()
    promise = "{'json': {'status': 'splendid'}, 'start_period': 3.0}"
    done = play(
        app_services=f"{{{{ backend_services | combine({{'backend': {{'health': {promise}}}}}, recursive=true) }}}}"
    )
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert (
        "The service backend did not become healthy in 3 seconds: "
        "/api/ready says status is 'ready' instead of 'splendid'."
    ) in said
    assert (
        f"The release before, {before.release}, serves again. "
        "Mend what its last lines below tell and run the play again."
    ) in said
    assert "listening on" in said
    assert serving() == before, "it was never stopped"
    assert kept()[1].name == before.release
