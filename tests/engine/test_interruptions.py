"""What reaches a call from outside while it switches, and must not leave it half-way."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from slipway.protocol import PROTOCOL
from tests.engine.conftest import Environment

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGINT], ids=["the connection is lost", "Ctrl-C is pressed"])
def test_a_switch_goes_on_when(sent: signal.Signals, environment: Environment) -> None:
    environment.deploy("1.0")
    release = environment.prepare("1.1", env={"BEHAVIOUR": "slow"})
    environment.of_run("stage", release=release)
    release_id = release["manifest"]["id"]
    request = {"protocol": PROTOCOL, "run": "by-steps", "by": "alice", "name": environment.name, "release": release_id}
    with subprocess.Popen(
        environment.command("activate", "--json"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as call:
        assert call.stdin is not None
        call.stdin.write(json.dumps(request))
        call.stdin.close()
        while not any(release_id in json.dumps(found["Config"]["Labels"]) for found in environment.containers()):
            assert call.poll() is None, "it ended before the signal"
        call.send_signal(sent)
        assert call.wait(timeout=30) == 0
    assert environment.current() == release_id
    assert environment.version() == "1.1"
