"""What an inventory says of routes: each mistake gives its one sentence, and nothing can break out of a Caddyfile."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from slipway.contract import decode_services
from slipway.routes import problems


@functools.cache
def pair(name: str, days: int = 9) -> tuple[str, str]:
    """A certificate for `name` that runs out in so many days, and its key; both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    until = datetime.now(UTC) + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(until - timedelta(days=30))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private.decode()


def own(name: str = "shop.example", days: int = 9) -> dict[str, str]:
    certificate, key = pair(name, days)
    return {"mode": "own", "certificate": certificate, "key": key}


def routed(**route: Any) -> dict[str, Any]:
    api = {"image": "r/api", "digest": "sha256:1", "user": "1:1", "port": 8000, "health": {"path": "/ready"}}
    return {"api": {**api, "route": {"hosts": ["shop.example"], **route}}}


def said(services: dict[str, Any]) -> str:
    return " ".join(problems(decode_services(services)))


@pytest.mark.parametrize(
    "route",
    [
        {},
        {"hosts": []},
        {"hosts": ["shop.example", "www.shop.example", "localhost", "192.0.2.7"]},
        {"paths": ["/api/*", "/feed", "/~user/v1.0_a/*"]},
        {"tls": {"mode": "internal"}, "hosts": ["*.shop.example"]},
        {"tls": {"mode": "acme"}},
        {"tls": {"mode": "acme", "email": "ops+shop@shop.example", "directory": "https://ca.example:9000/acme/dir"}},
        {"tls": {"mode": "acme", "directory": "https://ca.example/acme", "ca": pair("ca.example")[0]}},
        {"tls": own()},
        {"tls": own("*.shop.example"), "hosts": ["www.shop.example"]},
        {"tls": own("*.shop.example"), "hosts": ["*.shop.example"]},
        {"max_body": "1GiB", "patience": 0.5, "hsts": 0},
    ],
)
def test_a_route_that_can_be_served_has_no_problems(route: dict[str, Any]) -> None:
    assert said(routed(**route)) == ""


CHAIN = "app_services.api.route.tls"

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "host with a scheme": (
        {"hosts": ["https://shop.example"]},
        "app_services.api.route.hosts has 'https://shop.example', which is no host name. "
        "Write it in lower case, without scheme and port.",
    ),
    "path without a slash": (
        {"paths": ["api/*"]},
        "app_services.api.route.paths has 'api/*', which is no path pattern. Write it like \"/api/*\".",
    ),
    "no path": (
        {"paths": []},
        "app_services.api.route.paths is empty, so nothing would reach the service. Remove the key, or name a path.",
    ),
    "size in another unit": (
        {"max_body": "16m"},
        "app_services.api.route.max_body is '16m', which is no size. Write it like 16MB, 512kB or 1GiB.",
    ),
    "no patience": ({"patience": 0}, "app_services.api.route.patience is 0. Give it more than 0 seconds."),
    "negative hsts": ({"hsts": -1}, "app_services.api.route.hsts is -1. Give it 0 seconds or more."),
    "tls without a name": (
        {"hosts": [], "tls": {"mode": "internal"}},
        f"{CHAIN} is there, and the route has no hosts. Name them in app_services.api.route.hosts.",
    ),
    "own without both": (
        {"tls": {"mode": "own"}},
        f"{CHAIN} is own and lacks certificate and key. Give both as PEM, the key from the vault.",
    ),
    "own without a key": (
        {"tls": {**own(), "key": ""}},
        f"{CHAIN} is own and lacks key. Give both as PEM, the key from the vault.",
    ),
    "certificate that does not parse": (
        {"tls": {**own(), "certificate": "-----BEGIN CERTIFICATE-----\nnone\n"}},
        f"{CHAIN}.certificate is no PEM certificate. Give it whole, with its BEGIN and END lines.",
    ),
    "key that does not parse": (
        {"tls": {**own(), "key": "geheim-geheim"}},
        f"{CHAIN}.key is no PEM key without a password. Give it whole, with its BEGIN and END lines.",
    ),
    "key of another certificate": (
        {"tls": {**own(), "key": pair("else.example")[1]}},
        f"{CHAIN}.key is not the key of its certificate. Give the two that belong together.",
    ),
    "certificate that ran out": (
        {"tls": own(days=-1)},
        f"{CHAIN}.certificate ran out on {datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}. Give a newer one.",
    ),
    "certificate of another name": (
        {"tls": own("else.example")},
        f"{CHAIN}.certificate is for else.example, and not for shop.example. Give one that names it.",
    ),
    "a wildcard covers one level": (
        {"tls": own("*.example"), "hosts": ["www.shop.example"]},
        f"{CHAIN}.certificate is for *.example, and not for www.shop.example. Give one that names it.",
    ),
    "acme for a wildcard": (
        {"tls": {"mode": "acme"}, "hosts": ["*.shop.example"]},
        f"{CHAIN} is acme, which gives no certificate for *.shop.example without access to its DNS. "
        "Name each host, or give a certificate of your own.",
    ),
    "acme by plain http": (
        {"tls": {"mode": "acme", "directory": "http://ca.example/dir"}},
        f"{CHAIN}.directory is no https URL. Write it like https://ca.example/acme/directory.",
    ),
    "acme with a mail that is none": (
        {"tls": {"mode": "acme", "email": "ops"}},
        f"{CHAIN}.email is no mail address. Correct it.",
    ),
    "a ca for nobody": (
        {"tls": {"mode": "acme", "ca": pair("ca.example")[0]}},
        f"{CHAIN}.ca is there without a directory that it could be for. Name the directory, or remove it.",
    ),
    "a ca that does not parse": (
        {"tls": {"mode": "acme", "directory": "https://ca.example/dir", "ca": "none"}},
        f"{CHAIN}.ca is no PEM certificate. Give it whole, with its BEGIN and END lines.",
    ),
    "a key that nobody reads": (
        {"tls": {"mode": "acme", "key": "geheim-geheim"}},
        f"{CHAIN}.key is for mode own, and the mode is acme. Remove it, or correct the mode.",
    ),
    "a directory that nobody asks": (
        {"tls": {"mode": "internal", "directory": "https://ca.example/dir"}},
        f"{CHAIN}.directory is for mode acme, and the mode is internal. Remove it, or correct the mode.",
    ),
}


@pytest.mark.parametrize(("route", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_route_gives_its_one_sentence(route: dict[str, Any], sentence: str) -> None:
    assert said(routed(**route)) == sentence


@pytest.mark.parametrize(("route", "_sentence"), BAD.values(), ids=BAD)
def test_no_sentence_tells_a_key(route: dict[str, Any], _sentence: str) -> None:
    text = said(routed(**route))
    assert "geheim" not in text
    assert "PRIVATE" not in text


@pytest.mark.parametrize("character", list(" \t\n\r{}\"'`#\\$;,()<>|&!^\0\u2028ä"))
def test_nothing_that_a_caddyfile_would_read_otherwise_comes_through(character: str) -> None:
    routes: list[dict[str, Any]] = [
        {"hosts": [f"shop{character}.example"]},
        {"hosts": [f"shop.example{character}"]},
        {"paths": [f"/api{character}/*"]},
        {"paths": [f"/api{character}"]},
        {"tls": {"mode": "acme", "email": f"ops{character}@shop.example"}},
        {"tls": {"mode": "acme", "directory": f"https://ca.example/{character}"}},
        {"max_body": f"16MB{character}"},
    ]
    for route in routes:
        assert said(routed(**route)), route
    services = routed()
    services["api"]["health"]["path"] = f"/ready{character}"
    assert said(services).endswith('which is no path. Write it like "/health".')
    named = {f"api{character}": routed()["api"]}
    assert said(named).endswith("has a name that is none. Use lower-case letters, digits, dashes and underscores.")


def test_a_name_without_a_port_leads_nowhere() -> None:
    services = routed()
    services["api"] |= {"port": None, "health": None}
    assert said(services) == (
        "app_services.api.route has hosts, and the service has no port. Add the port that it listens on."
    )


def test_services_share_a_host_by_path() -> None:
    services = routed() | {"web": {**routed()["api"], "publish": 1, "route": {"hosts": ["shop.example"]}}}
    assert said(services) == (
        "Services api and web both answer shop.example/*. Give one of them other paths in app_services.web.route.paths."
    )
    services["web"]["route"]["paths"] = ["/web/*"]
    assert said(services) == ""


def test_services_that_share_a_host_share_its_certificate() -> None:
    web = {**routed()["api"], "route": {"hosts": ["shop.example"], "paths": ["/web/*"], "tls": {"mode": "internal"}}}
    assert said(routed() | {"web": web}) == (
        "Services api and web share the host shop.example and differ in route.tls or route.hsts. Give both the same."
    )
