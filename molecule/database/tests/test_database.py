"""The bundled PostgreSQL on its host, as its clients, an operator and an attacker see it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

testinfra_hosts = ["ansible://database1"]

CONTAINER = "slipway-semiont-shared-database-postgres-1"
INSPECTOR = "slipway-semiont-shared-database-inspector-1"
PORT = 5432
CLIENTS = """
SELECT json_object_agg(client, encrypted) FROM (
    SELECT host(client_addr) AS client, bool_and(ssl) AS encrypted
    FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = 'semiont' GROUP BY client_addr
) AS clients
"""
OWNERS = """
SELECT json_build_object(
    'tables', (SELECT json_agg(DISTINCT tableowner) FROM pg_tables WHERE schemaname = 'public'),
    'creates', has_schema_privilege('semiont', 'public', 'CREATE'),
    'extensions', (SELECT json_agg(extname ORDER BY extname) FROM pg_extension))
"""


@pytest.fixture(scope="module")
def container(host: Host) -> dict[str, Any]:
    """As the engine describes it."""
    [found] = json.loads(host.check_output(f"docker inspect {CONTAINER}"))
    told: dict[str, Any] = found
    return told


def address(name: str) -> str:
    """Where a host of the lab is."""
    return str(AnsibleRunner.get_runner(None).get_variables(name)["ansible_host"])


def ask(host: Host, statement: str) -> Any:
    """What it answers to its administrator."""
    said = host.check_output("docker exec %s psql --quiet --tuples-only --no-align --command %s", CONTAINER, statement)
    return json.loads(said)


def test_it_listens_on_its_private_address_alone(host: Host) -> None:
    listening = [one for one in host.socket.get_listening_sockets() if one.endswith(f":{PORT}")]
    assert listening == [f"tcp://{address('database1')}:{PORT}"]


def test_the_page_to_look_into_it_is_on_loopback_alone(host: Host) -> None:
    listening = [one for one in host.socket.get_listening_sockets() if one.endswith(":8081")]
    assert listening == ["tcp://127.0.0.1:8081"]
    assert "Adminer" in host.check_output("docker exec %s wget -q -O - http://127.0.0.1:8081/", INSPECTOR)


def test_every_app_host_uses_it_over_tls(host: Host) -> None:
    assert ask(host, CLIENTS) == {address("app1"): True, address("app2"): True}


def test_from_elsewhere_nobody_gets_in_whatever_he_knows(host: Host) -> None:
    for user in ("semiont", "semiont_owner", "postgres"):
        tried = host.run(
            "docker exec %s psql --host %s --username %s --command 'SELECT 1'", CONTAINER, address("database1"), user
        )
        assert "pg_hba.conf rejects connection" in tried.stderr, user


def test_the_owner_has_the_tables_and_the_application_makes_none(host: Host) -> None:
    assert ask(host, OWNERS) == {
        "tables": ["semiont_owner"],
        "creates": False,
        "extensions": ["citext", "plpgsql"],
    }


def test_what_a_new_database_is_filled_with_is_there_once(host: Host) -> None:
    assert ask(host, "SELECT json_agg(code) FROM currencies") == ["EUR"]


def test_it_runs_as_nobody_special_and_may_do_nothing_special(container: dict[str, Any]) -> None:
    settings = container["HostConfig"]
    assert container["Config"]["User"] == "999:999"
    assert container["State"]["Health"]["Status"] == "healthy"
    assert settings["ReadonlyRootfs"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert "no-new-privileges:true" in settings["SecurityOpt"]
    assert settings["Memory"] == 256 * 1024**2
    assert settings["PidsLimit"] > 0
    assert "@sha256:" in container["Config"]["Image"]


def test_its_volume_is_named_by_its_major_version(container: dict[str, Any]) -> None:
    volumes = [mount["Name"] for mount in container["Mounts"] if mount["Type"] == "volume"]
    # A restore puts one with its moment in the place of the first.
    assert [re.sub(r"-\d{14}$", "", name) for name in volumes] == ["semiont-shared-database-17"]


def test_no_secret_shows_in_docker_inspect_or_in_its_log(host: Host, container: dict[str, Any]) -> None:
    secret = host.file("/srv/slipway/semiont-shared-database/secrets/superuser").content_string
    assert len(secret) >= 32
    assert secret not in json.dumps(container)
    assert secret not in host.check_output(f"docker logs {CONTAINER} 2>&1")


def test_nobody_but_root_looks_into_its_folder(host: Host) -> None:
    folder = host.file("/srv/slipway/semiont-shared-database")
    assert (folder.user, folder.mode) == ("root", 0o700)


def test_an_operator_sees_how_it_stands(host: Host) -> None:
    assert "documents" in host.check_output("slipway db size")
    assert "semiont_owner" not in host.check_output("slipway db activity")
    assert "(0 rows)" in host.check_output("slipway db locks")
