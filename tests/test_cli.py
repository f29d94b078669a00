"""The program, run as an operator and as a module run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slipway import __version__
from slipway.cli import HANDLERS
from slipway.ledger import Entry, Ledger


def slipway(root: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slipway.cli", "--root", str(root), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_tells_its_version_and_its_protocol(tmp_path: Path) -> None:
    done = slipway(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"slipway {__version__} (protocol 1)\n")


def test_help_names_every_verb(tmp_path: Path) -> None:
    said = slipway(tmp_path, "--help").stdout
    assert all(verb in said for verb in ["status", "history", "logs", "rollback", "revoke", *HANDLERS])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "The following arguments are required: VERB."),
        (["bogus"], "Argument VERB: invalid choice: 'bogus'"),
        (["status", "--bogus"], "Unrecognized arguments: --bogus."),
        (["stage"], "The following arguments are required: --json."),
        (["history", "--last", "many"], "Argument --last: many is not a number of runs."),
        (["history", "--last", "0"], "Argument --last: 0 is not a number of runs."),
        (["revoke", "api:env:TOKEN"], "The following arguments are required: --reason."),
        (["status", "--name", "../etc"], "'../etc' is not a name of an environment."),
    ],
)
def test_a_wrong_call_ends_with_64_and_says_what_is_wrong(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = slipway(tmp_path, *arguments)
    assert done.returncode == 64
    assert done.stdout == ""
    assert done.stderr.startswith(sentence)
    assert "Traceback" not in done.stderr


def test_nothing_deployed_yet_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    done = slipway(tmp_path, "status")
    assert done.returncode == 1
    assert done.stderr == "Nothing has been deployed to this host yet.\nDeploy something: playbooks/site.yml.\n"


@pytest.mark.parametrize("verb", ["status", "history"])
def test_a_name_that_is_not_there_is_an_error_with_the_names_that_are(verb: str, tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    done = slipway(tmp_path, verb, "--name", "shpo")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "There is no environment shpo on this host.\nThis host has shop.\n"


def test_a_name_that_never_served_is_unhealthy(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    done = slipway(tmp_path, "status", "--name", "shop")
    assert done.returncode == 2
    assert "NOT HEALTHY: no release has served yet" in done.stdout


def test_status_as_json_is_data(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    done = slipway(tmp_path, "status", "--name", "shop", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["complaint"] == "no release has served yet"


def test_history_before_the_first_run_is_a_header_and_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    assert slipway(tmp_path, "history", "--name", "shop").stdout.startswith("AT (UTC)")
    assert json.loads(slipway(tmp_path, "history", "--name", "shop", "--json").stdout) == []


def test_logs_before_the_first_release_say_so(tmp_path: Path) -> None:
    done = slipway(tmp_path, "logs", "--name", "shop")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "No release of shop has served yet.")


def test_the_history_for_ansible_is_data_and_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    for run in ("run-1", "run-2"):
        Ledger(tmp_path / "shop").append(Entry(run=run, by="alice", phase="activate", release="r1"))
    request = {"protocol": 1, "name": "shop", "last": 1}
    answer = json.loads(slipway(tmp_path, "recount", "--json", stdin=json.dumps(request)).stdout)
    assert [run["run"] for run in answer["runs"]] == ["run-2"]
    assert answer["text"] + "\n" == slipway(tmp_path, "history", "--name", "shop", "--last", "1").stdout


def refused(root: Path, verb: str, request: str) -> str:
    done = slipway(root, verb, "--json", stdin=request)
    refusal = json.loads(done.stdout)
    assert done.returncode == refusal["exit"] == 64
    assert refusal["ok"] is False
    assert "never-to-be-told" not in done.stdout + done.stderr
    assert list(root.iterdir()) == [], "a refused request leaves nothing behind"
    return f"{refusal['what']} {refusal['do_next']}"


@pytest.mark.parametrize("verb", HANDLERS)
def test_a_wrong_request_is_refused_in_json_by_every_verb(verb: str, tmp_path: Path) -> None:
    said = refused(tmp_path, verb, '{"protocol": 1, "surprise": "never-to-be-told"}')
    assert said.startswith("The request is wrong: Object ")


def test_a_request_that_is_not_json_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "activate", "") == "The request on stdin is not JSON. Send one JSON object."


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "stage", '{"protocol": 99}') == (
        "The request speaks protocol 99, this engine speaks 1. "
        "Install the engine of this kit: run playbooks/provision.yml for this host."
    )


@pytest.mark.parametrize("arguments", [["--name", "shop"], ["--name", "shop", "--json"]])
def test_rollback_without_anything_to_go_back_to_is_refused(arguments: list[str], tmp_path: Path) -> None:
    done = slipway(tmp_path, "rollback", *arguments)
    assert done.returncode == 1
    assert "shop has no release before this one to go back to." in done.stdout + done.stderr


def test_revoking_where_nothing_serves_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = slipway(tmp_path, "revoke", "api:env:TOKEN", "--reason", "It leaked.", "--name", "shop")
    assert done.returncode == 1
    assert done.stderr.startswith("No release of shop serves, so nobody can tell today's secrets from older ones.")
    assert list(tmp_path.iterdir()) == []


def test_a_release_that_is_not_there_is_refused(tmp_path: Path) -> None:
    request = {"protocol": 1, "name": "shop", "release": "0123456789abcdef", "run": "r", "by": "alice"}
    done = slipway(tmp_path, "activate", "--json", stdin=json.dumps(request))
    assert done.returncode == 1
    assert json.loads(done.stdout)["what"] == "There is no release 0123456789abcdef of shop on this host."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["status"], ["report", "--json"]])
def test_it_needs_root_and_says_so(arguments: list[str]) -> None:
    # The interpreter may lie where only root reaches it, so the process gives root away once it runs.
    script = "import os, sys; from slipway.cli import main; os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "slipway needs root to see releases and to talk to Docker." in done.stdout + done.stderr
    assert "Run it with sudo." in done.stdout + done.stderr


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "shop/releases").mkdir(parents=True)
    script = f"{sys.executable} -m slipway.cli --root {tmp_path} history --name shop | head -c 0"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_what_the_system_refuses_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("not a folder")
    request = {"protocol": 1, "name": "shop", "release": "r1", "run": "r", "by": "b"}
    done = slipway(tmp_path, "verify", "--json", stdin=json.dumps(request))
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert answer["what"].startswith("The system refused: ")
