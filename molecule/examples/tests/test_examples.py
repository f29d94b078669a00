"""The applications as their users come to them, after all that has befallen them: by their public names, over TLS."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://app"]

# Goes to this host whatever the name resolves to, and trusts what its edge's own authority has signed.
ASK = """
import http.client, ssl, sys
name, path, authority = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", 443, timeout=10)
connection.connect()
connection.sock = ssl.create_default_context(cafile=authority).wrap_socket(connection.sock, server_hostname=name)
connection.request("GET", path, headers={"Host": name})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
NAMES = {
    # Example -> what a user asks for, the status of the answer, and what its body has.
    "clearsplit-production": [("api.clearsplit.example", "/", 200, {"version": "1.0"})],
    "semiont-production": [
        ("api.semiont.example", "/api/health", 200, {"status": "operational", "database": "connected"}),
        ("semiont.example", "/", 200, {"version": "1.0"}),
    ],
    "neuronip-production": [
        ("neuronip.example", "/health", 200, {"status": "warning"}),
        # Everything else is the frontend's, which knows nothing of a user.
        ("neuronip.example", "/api/v1", 200, {"uid": 0}),
        ("neuronip.example", "/", 200, {"version": "1.0"}),
    ],
    "todo-production": [
        ("api.todo.example", "/health", 200, {"status": "healthy"}),
        # Prometheus reads it on the host; the name does not have it.
        ("api.todo.example", "/metrics", 404, {}),
        ("auth.todo.example", "/", 200, {"version": "1.0"}),
    ],
}


@pytest.fixture(scope="module")
def name(host: Host) -> str:
    """The environment."""
    return str(host.ansible.get_variables()["slipway_name"])


def test_each_name_leads_to_its_service(host: Host, name: str) -> None:
    volume = host.check_output("docker volume inspect --format {{.Mountpoint}} slipway-edge")
    for public, path, status, wanted in NAMES[name]:
        told = host.check_output(
            "python3 -c %s %s %s %s", ASK, public, path, f"{volume}/pki/authorities/local/root.crt"
        )
        code, _, body = told.partition(" ")
        assert int(code) == status, f"{public}{path}"
        answer: dict[str, Any] = json.loads(body) if wanted else {}
        assert {key: answer.get(key) for key in wanted} == wanted, f"{public}{path}"


def test_its_history_tells_what_befell_it(host: Host, name: str) -> None:
    """Deployed, upgraded, two upgrades that failed, and back."""
    runs = json.loads(host.check_output(f"slipway history --name {name} --json"))
    assert [(run["verb"], run["result"]) for run in runs] == [
        ("deploy", "good"),
        ("deploy", "good"),
        ("deploy", "returned"),
        ("deploy", "failed"),
        ("rollback", "good"),
    ]
    assert [run["unavailable_ms"] for run in runs[1:3]] == [0, 0]
