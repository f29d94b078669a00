"""Which login is for which image, and what a registry's refusal means. Docker's words are those of engine 26.1."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from slipway.daemon import Daemon
from slipway.errors import PreflightError
from slipway.registries import Login, authorization, logins_of, refusal, registry_of

PASSWORD = "hunter2-hunter2"
HOST = "registry.example:5000"
IMAGE = f"{HOST}/shop/api:1.4.2"
LOGINS = {
    HOST: Login(username="deploy", password=PASSWORD),
    "registry.example": Login(username="another", password="another"),
    "docker.io": Login(username="hub", password="hub"),
}


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("registry.example:5000/shop/api:1.4.2", "registry.example:5000"),
        ("registry.example/shop/api@sha256:0a", "registry.example"),
        ("registry.example:443/shop/api", "registry.example:443"),
        ("127.0.0.1:5000/slipway/backend:dev", "127.0.0.1:5000"),
        ("[2001:db8::1]:5000/shop/api", "[2001:db8::1]:5000"),
        ("localhost/shop/api", "localhost"),
        ("Registry/shop/api", "Registry"),
        ("shop/api:1.4.2", "docker.io"),
        ("nginx", "docker.io"),
        ("nginx:1.27", "docker.io"),
        ("docker.io/library/nginx", "docker.io"),
        ("index.docker.io/library/nginx", "docker.io"),
    ],
)
def test_a_reference_belongs_to_the_registry_that_docker_would_ask(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry


@pytest.mark.parametrize(
    ("reference", "user"),
    [
        (IMAGE, "deploy"),
        ("registry.example/shop/api:1.4.2", "another"),
        ("shop/api:1.4.2", "hub"),
        ("index.docker.io/shop/api:1.4.2", "hub"),
    ],
)
def test_a_registry_is_shown_its_own_login(reference: str, user: str) -> None:
    shown = json.loads(base64.urlsafe_b64decode(authorization(reference, LOGINS)["X-Registry-Auth"]))
    assert shown == {
        "username": user,
        "password": LOGINS[registry_of(reference)].password,
        "serveraddress": registry_of(reference),
    }


@pytest.mark.parametrize(
    "reference",
    [
        "registry.example:5001/shop/api",
        "registry.example.evil.example/shop/api",
        "evil.example/registry.example:5000/shop/api",
        "sub.registry.example/shop/api",
        "127.0.0.1:5000/shop/api",
    ],
)
def test_a_registry_is_shown_no_login_of_another_one(reference: str) -> None:
    assert authorization(reference, LOGINS) == {}


def test_a_password_of_any_characters_arrives_as_it_is() -> None:
    password = "pä§s\"'\\ {{x}} $1\t?>~"
    header = authorization(IMAGE, {HOST: Login(username="ü", password=password)})["X-Registry-Auth"]
    assert header.isascii()
    assert json.loads(base64.urlsafe_b64decode(header))["password"] == password


def test_a_registry_that_wants_no_login_is_none_of_the_engines_business() -> None:
    registries = [
        {"host": HOST, "username": "deploy", "password": PASSWORD, "ca": "PEM"},
        {"host": "mirror.example", "username": "", "password": "", "ca": "PEM"},
    ]
    assert msgspec.convert(logins_of(registries), dict[str, Login]) == {HOST: LOGINS[HOST]}


def test_a_login_that_is_printed_does_not_tell_its_password() -> None:
    login = LOGINS[HOST]
    assert PASSWORD not in f"{login} {login!r} {LOGINS}"
    with pytest.raises(msgspec.ValidationError) as wrong:
        msgspec.convert({HOST: {"username": 1, "password": PASSWORD}}, dict[str, Login])
    assert PASSWORD not in str(wrong.value)


class Mirrored(Daemon):
    """A daemon that has a mirror of docker.io, and can be asked nothing else."""

    def _get(self, path: str, **_: str) -> Any:
        return {"/info": {"RegistryConfig": {"Mirrors": ["https://mirror.example/"]}}}[path]


@pytest.mark.parametrize("reference", ["shop/api:1.4.2", "docker.io/shop/api@sha256:0a"])
def test_the_login_of_docker_io_is_not_shown_to_a_mirror(reference: str) -> None:
    daemon = Mirrored(Path("/nowhere"))
    for ask in (daemon.registry_digest, daemon.pull, daemon.push):
        with pytest.raises(PreflightError) as refused:
            ask(reference, LOGINS)
        assert refused.value.what == (
            "Docker would show the login of docker.io to its mirror https://mirror.example/ as well."
        )
        assert refused.value.do_next == (
            "Take the mirror out of docker_registry_mirrors, or docker.io out of docker_registries."
        )


def test_a_mirror_is_no_concern_of_other_registries_and_of_pulls_without_a_login() -> None:
    daemon = Mirrored(Path("/nowhere"))
    for reference, logins in ((IMAGE, LOGINS), ("shop/api:1.4.2", {})):
        with pytest.raises(PreflightError, match="The Docker daemon does not answer on /nowhere"):
            daemon.registry_digest(reference, logins)


WRONG = (
    f"The registry {HOST} does not accept the login of deploy: "
    "the password is wrong or has expired, or there is no such user any more.",
    f"Correct the login of {HOST} in docker_registries, and run the play again.",
)
DENIED = (
    f"The registry {HOST} does not let deploy read {IMAGE}: "
    "the password is wrong or has expired, or that user has no right to it.",
    f"Correct the password of {HOST} in docker_registries, or have the right granted, and run the play again.",
)
MISSING = (
    f"The image {IMAGE} does not exist in its registry.",
    "Push that tag, or set the tag to one that exists.",
)
UNTRUSTED = (
    f"This host does not trust the certificate of the registry {HOST}.",
    "Put the certificate of its CA into docker_registries, as ca, and run playbooks/provision.yml.",
)
OTHER_NAME = (
    f"The certificate of the registry {HOST} is not for that name.",
    "Name the registry as its certificate does, or have the name added to the certificate, and run the play again.",
)
OUT_OF_DATE = (
    f"The certificate of the registry {HOST} has run out, or is not valid yet.",
    "Renew it, or set the clock of this host right, and run the play again.",
)
BAD_CERTIFICATE = (
    f"The certificate of the registry {HOST} is not a good one.",
    "Have it made anew, and run the play again.",
)
PLAIN = (
    f"The registry {HOST} speaks plain HTTP, and Docker asks it over TLS.",
    "Give it a certificate, or name it in docker_insecure_registries, and run playbooks/provision.yml.",
)
UNKNOWN_NAME = (
    f"This host cannot find the address of the registry {HOST}.",
    "Correct the name, or the name servers of this host, and run the play again.",
)
TOO_MANY = (
    f"The registry {HOST} has had too many requests from this host.",
    "Wait, or give it a login with a higher limit in docker_registries, and run the play again.",
)
GET = f'Get "https://{HOST}/v2/": '
TLS = f"{GET}tls: failed to verify certificate: "
REFUSALS = {
    "a wrong password, asked for a digest": (401, "unauthorized: authentication required", WRONG),
    "a wrong password, pulling": (500, "unauthorized: authentication required", WRONG),
    "a wrong password, told by a token server": (500, f"{GET}unauthorized: incorrect username or password", WRONG),
    "no right": (403, "denied: requested access to the resource is denied", DENIED),
    "no right, pulling": (
        404,
        f"pull access denied for {HOST}/shop/api, repository does not exist or may require 'docker login': denied: ",
        DENIED,
    ),
    "an expired token, told as a denial": (500, f"{GET}denied: denied", DENIED),
    "no right, told by a token": (500, "insufficient_scope: authorization failed", DENIED),
    "no tag": (404, "manifest unknown: manifest unknown", MISSING),
    "no digest, pulling": (404, f"manifest for {IMAGE} not found: manifest unknown: manifest unknown", MISSING),
    "no repository": (500, "name unknown: repository name not known to registry", MISSING),
    "no CA": (500, f"{TLS}x509: certificate signed by unknown authority", UNTRUSTED),
    "another name": (500, f"{TLS}x509: certificate is valid for other.example, not registry.example", OTHER_NAME),
    "no address in the certificate": (
        500,
        f"{TLS}x509: cannot validate certificate for 192.0.2.7 because it doesn't contain any IP SANs",
        OTHER_NAME,
    ),
    "an old certificate": (
        500,
        f"{TLS}x509: certificate has expired or is not yet valid: current time … is after …",
        OUT_OF_DATE,
    ),
    "a certificate for something else": (
        500,
        f"{TLS}x509: certificate specifies an incompatible key usage",
        BAD_CERTIFICATE,
    ),
    "plain HTTP": (500, f"{GET}http: server gave HTTP response to HTTPS client", PLAIN),
    "plain HTTP, another server": (500, f"{GET}tls: first record does not look like a TLS handshake", PLAIN),
    "an unknown name": (500, f"{GET}dial tcp: lookup registry.example on 192.0.2.53:53: no such host", UNKNOWN_NAME),
    "a name server that is silent": (
        500,
        f"{GET}dial tcp: lookup registry.example on 192.0.2.53:53: read udp 192.0.2.2:1->192.0.2.53:53: i/o timeout",
        UNKNOWN_NAME,
    ),
    "a limit": (429, "toomanyrequests: You have reached your pull rate limit.", TOO_MANY),
    "a limit, pulling": (500, "toomanyrequests: ", TOO_MANY),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_each_refusal_is_one_sentence_and_one_on_what_to_do(case: str) -> None:
    status, reason, (what, do_next) = REFUSALS[case]
    error = refusal(IMAGE, LOGINS, status, reason)
    assert error
    assert (error.what, error.do_next, error.details) == (what, do_next, reason)
    assert PASSWORD not in str(error)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "unauthorized: authentication required"),
        (403, "denied: requested access to the resource is denied"),
        (500, f'Head "https://{HOST}/v2/shop/api/manifests/1.4.2": no basic auth credentials'),
    ],
)
def test_a_registry_that_wants_a_login_and_has_none_is_told_apart(status: int, reason: str) -> None:
    others = {host: login for host, login in LOGINS.items() if host != HOST}
    error = refusal(IMAGE, others, status, reason)
    assert error
    assert error.what == f"The registry {HOST} wants a login for {IMAGE}, and docker_registries has none for it."
    assert error.do_next == "Give it one there, with the password from the vault, and run the play again."


@pytest.mark.parametrize(
    "reason",
    [
        f"{GET}dial tcp 192.0.2.7:5000: connect: connection refused",
        f"{GET}dial tcp 192.0.2.7:5000: connect: no route to host",
        f"{GET}dial tcp 192.0.2.7:5000: i/o timeout",
        f"{GET}net/http: TLS handshake timeout",
        f"{GET}net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
        "received unexpected HTTP status: 500 Internal Server Error",
        "unexpected EOF",
        "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
    ],
)
def test_a_registry_that_did_not_answer_refused_nothing(reason: str) -> None:
    assert refusal(IMAGE, LOGINS, 500, reason) is None


@pytest.mark.parametrize("image", ["unauthorized.example/denied/x509:toomanyrequests", f"{HOST}/denied/not found"])
def test_names_are_not_taken_for_the_reason(image: str) -> None:
    repository = image.rpartition(":")[0] if image.endswith("requests") else image
    reason = f'Head "https://{repository}/manifests/1": dial tcp {registry_of(image)}: connect: connection refused'
    assert refusal(image, LOGINS, 500, reason) is None
