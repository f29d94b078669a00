"""What was given to the fleet, as seen from there: the database, and the registry."""

from __future__ import annotations

import json

from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

testinfra_hosts = ["ansible://database1"]

CLIENTS = """
SELECT json_object_agg(client, encrypted) FROM (
    SELECT host(client_addr) AS client, bool_and(ssl) AS encrypted
    FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = 'semiont' GROUP BY client_addr
) AS clients
"""


def test_every_app_host_uses_the_database_over_tls(host: Host) -> None:
    apps = AnsibleRunner.get_runner(None).get_hosts("app")
    addresses = [AnsibleRunner.get_runner(None).get_variables(app)["ansible_host"] for app in apps]
    clients = host.check_output("runuser -u postgres -- psql --quiet --tuples-only --no-align --command %s", CLIENTS)
    assert json.loads(clients) == dict.fromkeys(addresses, True)


def test_nothing_of_the_kit_is_on_the_given_host(host: Host) -> None:
    assert host.check_output("find /srv /opt /usr/local/bin -maxdepth 1 -name slipway") == ""
