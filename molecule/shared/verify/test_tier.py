"""The edge tier, as users and its operator see it: each of its hosts answers for the names, by app hosts that do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://edge"]

# Goes to this host whatever the name resolves to. Trusts what the kit's own CA has signed, where that is given;
# of a certificate of somebody else's CA it looks at nothing, since that is for the clients to trust.
ASK = """
import http.client, json, ssl, sys
port, name, path, authority = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
connection.connect()
if authority:
    context = ssl.create_default_context(cafile=authority if authority.startswith("/") else None)
    if authority == "any":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection.sock = context.wrap_socket(connection.sock, server_hostname=name)
connection.request("GET", path, headers={"Host": name})
answer = connection.getresponse()
told = {"status": answer.status, "location": answer.getheader("Location", ""), "body": answer.read().decode()}
print(json.dumps(told))
"""


@pytest.fixture(autouse=True)
def _balances(host: Host) -> None:
    if host.ansible.get_variables()["inventory_hostname"] in host.ansible.get_variables()["groups"]["app"]:
        pytest.skip("an app host answers for itself")


@pytest.fixture(scope="module")
def services(host: Host, name: str) -> list[dict[str, Any]]:
    """The contract of those that have names."""
    told = json.loads(host.file(f"/srv/slipway/edge/front/{name}.json").content_string)
    return list(told["services"].values())


def test_all_app_hosts_answer_it(host: Host, status: dict[str, Any]) -> None:
    assert sorted(status["hosts"]) == sorted(host.ansible.get_variables()["groups"]["app"])
    assert {app: one["complaint"] for app, one in status["hosts"].items() if one["complaint"]} == {}


def test_nobody_is_drained(status: dict[str, Any]) -> None:
    assert {app: one["reason"] for app, one in status["hosts"].items() if one["since"]} == {}


def test_each_public_name_answers_through_it(host: Host, services: list[dict[str, Any]]) -> None:
    assert services
    for spec in services:
        health = spec["health"] or {"path": "/", "status": None, "json": {}}
        for public in spec["route"]["hosts"]:
            answer = ask(host, spec["route"]["tls"], public, health["path"])
            assert answer["status"] < 500, public
            assert answer["status"] == health["status"] or not spec["health"], public


def test_where_a_name_has_a_certificate_plain_http_leads_to_it(host: Host, services: list[dict[str, Any]]) -> None:
    for spec in services:
        for public in spec["route"]["hosts"] if spec["route"]["tls"] else ():
            answer = ask(host, None, public, "/")
            assert 300 < answer["status"] < 400
            assert answer["location"].startswith(f"https://{public}")


def test_a_name_that_nobody_has_is_not_found(host: Host) -> None:
    assert ask(host, None, "nobody.invalid", "/")["status"] == 404


def ask(host: Host, tls: dict[str, Any] | None, name: str, path: str) -> dict[str, Any]:
    """What this host of the tier answers to who asks for a name."""
    port = host.ansible.get_variables().get("edge_https_port", 443) if tls else http_port(host)
    answer = host.check_output("python3 -c %s %s %s %s %s", ASK, str(port), name, path, authority(host, tls))
    told: dict[str, Any] = json.loads(answer)
    return told


def http_port(host: Host) -> int:
    """Where it listens for plain HTTP."""
    return int(host.ansible.get_variables().get("edge_http_port", 80))


def authority(host: Host, tls: dict[str, Any] | None) -> str:
    """By whom the certificate has to be signed: a file, `public` for what every host trusts, or `any`."""
    match tls:
        case None:
            return ""
        case {"mode": "internal"}:
            volume = host.check_output("docker volume inspect --format {{.Mountpoint}} slipway-edge")
            return f"{volume}/pki/authorities/local/root.crt"
        case {"mode": "acme", "directory": ""}:
            return "public"
        case _:
            return "any"
