"""Who may connect: the text of pg_hba.conf."""

from __future__ import annotations

import pytest

from slipway.database.access import rules
from slipway.errors import UsageError


def lines(**change: object) -> list[list[str]]:
    given = {"database": "shop", "owner": "shop_owner", "user": "shop", "clients": ["10.20.0.11"], **change}
    text = rules(**given)  # type: ignore[arg-type]  # each case changes one
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def test_clients_get_in_over_tls_with_a_password_and_nobody_else_does() -> None:
    found = lines()
    assert found == [
        ["local", "all", "postgres", "peer"],
        ["local", "replication", "postgres", "peer"],
        ["hostssl", "all", '"shop_owner"', "10.20.0.11/32", "scram-sha-256"],
        ["hostssl", '"shop"', '"shop"', "10.20.0.11/32", "scram-sha-256"],
        ["local", "all", "all", "reject"],
        ["host", "all", "all", "all", "reject"],
        ["host", "replication", "all", "all", "reject"],
    ]


def test_without_clients_nobody_gets_in_from_outside() -> None:
    assert {line[-1] for line in lines(clients=[]) if line[0] != "local"} == {"reject"}


def test_the_page_to_look_into_it_comes_from_its_own_host_alone() -> None:
    [line] = [line for line in lines(inspector="10.20.0.21") if "inspector" in line]
    assert line == ["hostssl", '"shop"', "inspector", "10.20.0.21/32", "scram-sha-256"]


def test_standby_servers_replicate_and_do_nothing_else() -> None:
    [line] = [line for line in lines(replicas=["10.20.0.22"]) if "10.20.0.22/32" in line]
    assert line == ["hostssl", "replication", "replication", "10.20.0.22/32", "scram-sha-256"]


@pytest.mark.parametrize(
    ("address", "written"), [("10.20.0.0/24", "10.20.0.0/24"), ("fd00::1", "fd00::1/128"), ("10.2.3.4", "10.2.3.4/32")]
)
def test_a_client_is_an_address_or_a_network(address: str, written: str) -> None:
    assert sum(written in line for line in lines(clients=[address])) == 2


@pytest.mark.parametrize("address", ["", "all", "samenet", "db.example", "10.20.0.11/24", "0.0.0.0/0 trust"])
def test_what_is_neither_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="neither an address nor a network"):
        lines(clients=[address])


def test_a_name_cannot_end_its_quotes() -> None:
    assert '"a""b"' in {word for line in lines(user='a"b') for word in line}
