"""Who may connect to the bundled PostgreSQL, as its pg_hba.conf says it. All of it is pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from slipway.errors import UsageError

HEADER = """\
# Who may connect, and how. Do not edit: playbooks/database.yml writes it.
# The administrator, inside of the container alone.
local  all          postgres  peer
local  replication  postgres  peer
"""
FOOTER = """\
# Nobody else.
local  all          all  reject
host   all          all  all  reject
host   replication  all  all  reject
"""


def rules(
    *,
    database: str,
    owner: str,
    user: str,
    clients: Sequence[str],
    replicas: Sequence[str] = (),
    inspector: str = "",
) -> str:
    """The text of pg_hba.conf: `clients` over TLS with their passwords, `replicas` too, and nobody else.

    Both are addresses or networks; `inspector` is the address that the page to look into the database comes from, and
    empty where there is none. The owner may reach every database, since a backup is verified in a scratch one.
    """
    lines = []
    for network in map(network_of, clients):
        lines.append(f"hostssl  all  {_name(owner)}  {network}  scram-sha-256\n")
        lines.append(f"hostssl  {_name(database)}  {_name(user)}  {network}  scram-sha-256\n")
    lines += [f"hostssl  replication  replication  {network_of(one)}  scram-sha-256\n" for one in replicas]
    if inspector:
        lines.append(f"hostssl  {_name(database)}  inspector  {network_of(inspector)}  scram-sha-256\n")
    said = "# Over TLS, with a password.\n" if lines else ""
    return HEADER + said + "".join(lines) + FOOTER


def network_of(text: str) -> str:
    """An address or a network as pg_hba.conf wants it, `10.20.0.11` -> `10.20.0.11/32`. Raises UsageError."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise UsageError(
            f"{text!r} is neither an address nor a network from which the database could be reached.",
            "Correct host_private_address of the host, or database_clients.",
        ) from error


def _name(text: str) -> str:
    """Quoted: `all`, `replication` and names of groups mean something else without."""
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
