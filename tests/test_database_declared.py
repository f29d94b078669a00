"""What an inventory may say of its database, and what an application is told of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from slipway import vault
from slipway.database import declared
from slipway.database.declared import Declared, connection, decode, problems, secrets, url_of

ADDRESSES = {"app1": "10.20.0.11", "app2": "10.20.0.12", "db1": "10.20.0.21"}
EXTERNAL = {"mode": "external", "host": "db.example"}
PASSWORD = "p@ss/w:o#r?d%&=+ ü"


def found(data: object, **change: Any) -> str:
    given = {"environment": "shop", "hosts": ["db1"], "apps": ["app1", "app2"], "addresses": ADDRESSES, **change}
    return " ".join(problems(data, **given))


@pytest.mark.parametrize(
    "data",
    [
        {"mode": "embedded"},
        {},
        {"mode": "bundled"},
        {
            "mode": "bundled",
            "name": "shop_1",
            "extensions": ["citext", "uuid-ossp"],
            "url_scheme": "postgresql+asyncpg",
        },
        {"mode": "bundled", "host": "10.20.0.21"},
        {"mode": "bundled", "host": "db1"},
        EXTERNAL,
        {**EXTERNAL, "tls": "require", "owner": "migrator", "port": 6432},
    ],
)
def test_what_is_right_passes(data: dict[str, Any]) -> None:
    assert found(data) == ""


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"mode": "magic"}, "app_database is wrong: Invalid enum value 'magic' - at `$.mode`. Compare it with docs/"),
        ({"mode": "bundled", "pasword": "x"}, "contains unknown field `pasword`"),
        ({"mode": "bundled", "name": "Shop"}, "app_database.name is 'Shop', which cannot be a name."),
        ({"mode": "bundled", "user": "postgres"}, "app_database.user is 'postgres', which cannot be a name."),
        ({"mode": "bundled", "owner": 'a"b'}, "app_database.owner is 'a\"b', which cannot be a name."),
        (
            {"mode": "bundled", "user": "shop", "owner": "shop"},
            "the same role, so the application could change its own",
        ),
        ({"mode": "bundled", "version": 9}, "app_database.version is 9, which is no major version"),
        ({"mode": "bundled", "port": 0}, "app_database.port is 0, which is none."),
        ({"mode": "bundled", "extensions": ["a; DROP"]}, "app_database.extensions has 'a; DROP'"),
        ({"mode": "bundled", "url_scheme": "postgresql://"}, "app_database.url_scheme is none."),
        ({"mode": "bundled", "tls": "disable"}, "app_database.tls is disable, and the bundled database has"),
        ({"mode": "bundled", "ca": "x"}, "app_database.ca is for an external database"),
        (
            {"mode": "bundled", "host": "elsewhere"},
            "app_database.host is elsewhere, which is not the host of the group",
        ),
        ({"mode": "external"}, "there is no host. Name the server in app_database.host."),
        ({**EXTERNAL, "init_sql": "SELECT 1"}, "app_database.init_sql is for a bundled database"),
    ],
)
def test_what_is_wrong_is_said(data: dict[str, Any], sentence: str) -> None:
    assert sentence in found(data)


@pytest.mark.parametrize("hosts", [[], ["db1", "db2"]])
def test_a_bundled_one_has_one_host(hosts: list[str]) -> None:
    assert f"the group database has {len(hosts)} hosts." in found({"mode": "bundled"}, hosts=hosts, addresses={
        **ADDRESSES, "db2": "10.20.0.22"})  # fmt: skip


def test_its_host_and_the_app_hosts_find_each_other() -> None:
    said = found({"mode": "bundled"}, addresses={**ADDRESSES, "app2": "", "db1": ""})
    assert "the database and the app hosts reach db1, app2. Give each host" in said
    assert found(EXTERNAL, addresses={}) == ""


def test_names_follow_from_the_environments() -> None:
    bundled = Declared(mode="bundled")
    assert declared.name_of(bundled, "shop-production") == "shop_production"
    assert declared.user_of(bundled, "shop-production") == "shop_production"
    assert declared.owner_of(bundled, "shop-production") == "shop_production_owner"
    # Whoever else's server it is need not have two roles.
    assert declared.owner_of(decode(EXTERNAL), "shop") == "shop"


def reached(data: dict[str, Any]) -> declared.Connection:
    return connection(
        decode(data),
        environment="shop",
        address="10.20.0.21",
        password=PASSWORD,
        owner_password=f"{PASSWORD}!",
        ca_path="/etc/slipway/ca.crt",
    )


def test_the_url_of_a_bundled_one_verifies_the_server_and_has_each_role_with_its_password() -> None:
    found_ = reached({"mode": "bundled", "url_scheme": "postgresql+asyncpg", "url_options": {"connection_limit": 5}})
    for text, user, password in (
        (found_.url, "shop", PASSWORD),
        (found_.migrations_url, "shop_owner", f"{PASSWORD}!"),
    ):
        url = urlsplit(text)
        assert (url.scheme, url.hostname, url.port, url.path) == ("postgresql+asyncpg", "10.20.0.21", 5432, "/shop")
        assert (unquote(url.username or ""), unquote(url.password or "")) == (user, password)
        assert parse_qs(url.query) == {
            "sslmode": ["verify-full"],
            "sslrootcert": ["/etc/slipway/ca.crt"],
            "connection_limit": ["5"],
        }


@pytest.mark.parametrize(
    ("data", "query"),
    [
        (EXTERNAL, "sslmode=verify-full"),
        ({**EXTERNAL, "ca": "PEM"}, "sslmode=verify-full&sslrootcert=/etc/slipway/ca.crt"),
        ({**EXTERNAL, "tls": "require"}, "sslmode=require"),
        ({**EXTERNAL, "tls": "require", "ca": "PEM"}, "sslmode=require"),
    ],
)
def test_an_external_one_is_verified_by_what_is_said(data: dict[str, Any], query: str) -> None:
    assert urlsplit(reached(data).url).query == query
    assert reached(data).migrations_url == reached(data).url


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    url = url_of("postgresql", user="a", password="b", host="fd00::1", port=1, name="n", options={})
    assert url == "postgresql://a:b@[fd00::1]:1/n"


@pytest.mark.parametrize("data", [{"mode": "bundled"}, EXTERNAL, {**EXTERNAL, "owner": "migrator"}, {}])
def test_its_secrets_are_ones_that_a_vault_can_declare(data: dict[str, Any]) -> None:
    assert vault.declared(secrets(decode(data), "shop")).keys() == secrets(decode(data), "shop").keys()


def test_what_is_generated_for_a_bundled_one_is_given_for_an_external_one() -> None:
    kinds = {name: one["kind"] for name, one in secrets(decode({"mode": "bundled"}), "shop").items()}
    names = ("superuser_password", "owner_password", "password", "replication_password")
    assert kinds == {f"database_{name}": "password" for name in names}
    assert {one["kind"] for one in secrets(decode(EXTERNAL), "shop").values()} == {"given"}
    assert secrets(decode({}), "shop") == {}
