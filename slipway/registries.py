"""Registries that want a login: which login is for which image, and what a registry's refusal means.

Nothing here touches a disk or the network. A login comes with the request on stdin and goes on to the Docker daemon in
a header of the one call that needs it (`slipway.daemon`). `docker login` is not used: it would write the password into
a file first, in however short-lived a folder, and a kill at the wrong moment would leave it there. With a header there
is no such moment, and Docker gets the login of the one registry that it is to ask and of no other.
"""

from __future__ import annotations

import base64
import http
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec

from slipway.errors import PreflightError

DOCKER_HUB = "docker.io"
AGAIN = "and run the play again."


class Login(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who reads from a registry."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Without the password, wherever this is printed."""
        return f"Login(username={self.username!r})"


class NoImageError(PreflightError):
    """The registry answers, and has no such image."""


class Registry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One entry of the inventory's `docker_registries`."""

    host: str
    """Written as image references write it."""
    username: str = ""
    password: str = ""
    ca: str = ""
    """PEM; what its certificate is signed with, where that is no CA that the host knows."""


Logins = Mapping[str, Login]
"""Registry, written as image references write it -> its login."""
NO_LOGINS: Logins = MappingProxyType({})


def registry_of(reference: str) -> str:
    """The registry that Docker asks for the image `reference`.

    Source: Docker's own rule. What stands before the first slash is a registry when it has a dot, a colon or a capital
    letter in it, or is `localhost`; otherwise it belongs to the name of an image of docker.io.
    """
    first, slash, _ = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        return DOCKER_HUB
    return DOCKER_HUB if first == "index.docker.io" else first


def logins_of(registries: Sequence[Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The logins among the inventory's `docker_registries`, as a request to the engine has them."""
    return {
        entry["host"]: {"username": entry["username"], "password": entry["password"]}
        for entry in registries
        if entry["username"]
    }


def authorization(reference: str, logins: Logins) -> dict[str, str]:
    """The header that lets the daemon read `reference`; none where its registry has no login.

    Source: Docker Engine API, `X-Registry-Auth`.
    """
    registry = registry_of(reference)
    login = logins.get(registry)
    if login is None:
        return {}
    body = {"username": login.username, "password": login.password, "serveraddress": registry}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(msgspec.json.encode(body)).decode()}


def refusal(
    reference: str, logins: Logins, status: int, reason: str, *, to: Literal["read", "push"] = "read"
) -> PreflightError | None:
    """What it means that the daemon answered `status` and `reason` when it was to read, or push, `reference`.

    None where the registry did not answer, or something else went wrong. The daemon tells most of it in words alone
    (a wrong password comes as 401 or 500, whichever call it is), so the words are looked at.
    """
    registry = registry_of(reference)
    # A registry or an image may well be called `denied`.
    said = re.sub(r'"https?://[^"]*"', "", reason).replace(reference.partition("@")[0], "").replace(registry, "")
    found = _too_many(registry, status, said) or _not_let_in(reference, logins, status, said, to=to)
    if not found and _is_not_there(status, said):
        return NoImageError(
            f"The image {reference} does not exist in its registry.",
            "Push that tag, or set the tag to one that exists.",
            details=reason,
        )
    found = found or _not_trusted(registry, said) or _not_known(registry, said)
    return PreflightError(*found, details=reason) if found else None


Sentences = tuple[str, str] | None


def _too_many(registry: str, status: int, said: str) -> Sentences:
    if status != http.HTTPStatus.TOO_MANY_REQUESTS and "toomanyrequests" not in said:
        return None
    return (
        f"The registry {registry} has had too many requests from this host.",
        f"Wait, or give it a login with a higher limit in docker_registries, {AGAIN}",
    )


def _not_let_in(reference: str, logins: Logins, status: int, said: str, *, to: str) -> Sentences:
    denied = status == http.HTTPStatus.FORBIDDEN or "denied" in said or "insufficient_scope" in said
    unknown = status == http.HTTPStatus.UNAUTHORIZED or "unauthorized" in said or "no basic auth" in said
    if not denied and not unknown:
        return None
    registry = registry_of(reference)
    login = logins.get(registry)
    if login is None:
        return (
            f"The registry {registry} wants a login for {reference}, and docker_registries has none for it.",
            f"Give it one there, with the password from the vault, {AGAIN}",
        )
    if denied:
        return (
            f"The registry {registry} does not let {login.username} {to} {reference}: "
            "the password is wrong or has expired, or that user has no right to it.",
            f"Correct the password of {registry} in docker_registries, or have the right granted, {AGAIN}",
        )
    return (
        f"The registry {registry} does not accept the login of {login.username}: "
        "the password is wrong or has expired, or there is no such user any more.",
        f"Correct the login of {registry} in docker_registries, {AGAIN}",
    )


def _is_not_there(status: int, said: str) -> bool:
    words = ("manifest unknown", "name unknown", "not found")
    return status == http.HTTPStatus.NOT_FOUND or any(word in said for word in words)


def _not_trusted(registry: str, said: str) -> Sentences:
    if "HTTP response to HTTPS client" in said or "does not look like a TLS handshake" in said:
        return (
            f"The registry {registry} speaks plain HTTP, and Docker asks it over TLS.",
            "Give it a certificate, or name it in docker_insecure_registries, and run playbooks/provision.yml.",
        )
    if "x509: " not in said:
        return None
    if "unknown authority" in said:
        return (
            f"This host does not trust the certificate of the registry {registry}.",
            "Put the certificate of its CA into docker_registries, as ca, and run playbooks/provision.yml.",
        )
    if "expired or is not yet valid" in said:
        return (
            f"The certificate of the registry {registry} has run out, or is not valid yet.",
            f"Renew it, or set the clock of this host right, {AGAIN}",
        )
    if "valid for" in said or "SANs" in said:
        return (
            f"The certificate of the registry {registry} is not for that name.",
            f"Name the registry as its certificate does, or have the name added to the certificate, {AGAIN}",
        )
    return f"The certificate of the registry {registry} is not a good one.", f"Have it made anew, {AGAIN}"


def _not_known(registry: str, said: str) -> Sentences:
    if "no such host" not in said and ": lookup " not in said:
        return None
    return (
        f"This host cannot find the address of the registry {registry}.",
        f"Correct the name, or the name servers of this host, {AGAIN}",
    )
