"""The part of `slipway.inventory` that is about routes: may the edge be told this, and would it be understood?

Everything here is pure but for the clock, which certificates run out by. What an inventory says of a route becomes
part of a Caddyfile, where a space, a quote or a brace would mean something else; so it is held to a narrow form here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from slipway.contract import Service, Tls

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SERVICE = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PATH = re.compile(r"/[A-Za-z0-9._~/-]*\*?")
HEALTH_PATH = re.compile(r"/[A-Za-z0-9._~/%-]*(\?[A-Za-z0-9._~/%&=+-]*)?")
DIRECTORY = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?")
EMAIL = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+")


def problems(contract: Mapping[str, Service]) -> Iterator[str]:
    """Say all that keeps the routes of `contract` from being served, a sentence or two each, without a value that
    may be secret.
    """
    for name, service in contract.items():
        yield from _forms(name, service)
        yield from _tls(name, service)
    yield from _shared(contract)


def _forms(name: str, service: Service) -> Iterator[str]:
    where, route = f"app_services.{name}.route", service.route
    if not SERVICE.fullmatch(name):
        yield f"The service {name!r} has a name that is none. Use lower-case letters, digits, dashes and underscores."
    if service.port is None and route.hosts:
        yield f"{where} has hosts, and the service has no port. Add the port that it listens on."
    for host in route.hosts:
        if not HOST.fullmatch(host):
            yield f"{where}.hosts has {host!r}, which is no host name. Write it in lower case, without scheme and port."
    for path in route.paths:
        if not PATH.fullmatch(path):
            yield f'{where}.paths has {path!r}, which is no path pattern. Write it like "/api/*".'
    if not route.paths:
        yield f"{where}.paths is empty, so nothing would reach the service. Remove the key, or name a path."
    if service.health and not HEALTH_PATH.fullmatch(service.health.path):
        yield f'app_services.{name}.health.path is {service.health.path!r}, which is no path. Write it like "/health".'
    try:
        _ = route.max_body_bytes
    except ValueError:
        yield f"{where}.max_body is {route.max_body!r}, which is no size. Write it like 16MB, 512kB or 1GiB."
    for key, seconds in (("answer_timeout", route.answer_timeout), ("patience", route.patience)):
        if seconds <= 0:
            yield f"{where}.{key} is {seconds:g}. Give it more than 0 seconds."
    if route.hsts < 0:
        yield f"{where}.hsts is {route.hsts:g}. Give it 0 seconds or more."


def _tls(name: str, service: Service) -> Iterator[str]:
    where, tls = f"app_services.{name}.route.tls", service.route.tls
    if tls is None:
        return
    if not service.route.hosts:
        yield f"{where} is there, and the route has no hosts. Name them in app_services.{name}.route.hosts."
    if tls.mode == "acme":
        yield from _acme(name, service, tls)
    else:
        for key in ("directory", "email", "ca"):
            if getattr(tls, key):
                yield f"{where}.{key} is for mode acme, and the mode is {tls.mode}. Remove it, or correct the mode."
    if tls.mode == "own":
        yield from _own(where, service, tls)
    else:
        for key in ("certificate", "key"):
            if getattr(tls, key):
                yield f"{where}.{key} is for mode own, and the mode is {tls.mode}. Remove it, or correct the mode."


def _acme(name: str, service: Service, tls: Tls) -> Iterator[str]:
    where = f"app_services.{name}.route.tls"
    for host in service.route.hosts:
        if host.startswith("*."):
            yield (
                f"{where} is acme, which gives no certificate for {host} without access to its DNS. "
                "Name each host, or give a certificate of your own."
            )
    if tls.directory and not DIRECTORY.fullmatch(tls.directory):
        yield f"{where}.directory is no https URL. Write it like https://ca.example/acme/directory."
    if tls.email and not EMAIL.fullmatch(tls.email):
        yield f"{where}.email is no mail address. Correct it."
    if tls.ca and not tls.directory:
        yield f"{where}.ca is there without a directory that it could be for. Name the directory, or remove it."
    if tls.ca and not _certificates(tls.ca):
        yield f"{where}.ca is no PEM certificate. Give it whole, with its BEGIN and END lines."


def _own(where: str, service: Service, tls: Tls) -> Iterator[str]:
    missing = [key for key in ("certificate", "key") if not getattr(tls, key)]
    if missing:
        yield f"{where} is own and lacks {' and '.join(missing)}. Give both as PEM, the key from the vault."
        return
    # Imported here because it takes a tenth of a second, and Ansible loads its filters anew for each task.
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    chain = _certificates(tls.certificate)
    if not chain:
        yield f"{where}.certificate is no PEM certificate. Give it whole, with its BEGIN and END lines."
        return
    try:
        key = load_pem_private_key(tls.key.encode(), None)
    except (ValueError, TypeError):
        yield f"{where}.key is no PEM key without a password. Give it whole, with its BEGIN and END lines."
        return
    leaf = chain[0]
    if key.public_key() != leaf.public_key():
        yield f"{where}.key is not the key of its certificate. Give the two that belong together."
    if (until := leaf.not_valid_after_utc) < datetime.now(UTC):
        yield f"{where}.certificate ran out on {until:%Y-%m-%d}. Give a newer one."
    names = _names(leaf)
    for host in service.route.hosts:
        if host not in names and f"*.{host.partition('.')[2]}" not in names:
            yield (
                f"{where}.certificate is for {', '.join(names) or 'no name'}, and not for {host}. "
                "Give one that names it."
            )


def _certificates(pem: str) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - as above

    try:
        return load_pem_x509_certificates(pem.encode())
    except ValueError:
        return []


def _names(certificate: Certificate) -> list[str]:
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName  # noqa: PLC0415

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return [*names.get_values_for_type(DNSName), *map(str, names.get_values_for_type(IPAddress))]


def _shared(contract: Mapping[str, Service]) -> Iterator[str]:
    """Services may share a host. Then each path leads to one of them, and all have the host's one `tls` and `hsts`."""
    first: dict[str, str] = {}
    taken: dict[tuple[str, str], str] = {}
    for name, service in contract.items():
        for host in service.route.hosts:
            other = first.setdefault(host, name)
            theirs = contract[other].route
            if (theirs.tls, theirs.hsts) != (service.route.tls, service.route.hsts):
                yield (
                    f"Services {other} and {name} share the host {host} and differ in route.tls or route.hsts. "
                    "Give both the same."
                )
            for path in service.route.paths:
                owner = taken.setdefault((host, path), name)
                if owner != name:
                    yield (
                        f"Services {owner} and {name} both answer {host}{path}. "
                        f"Give one of them other paths in app_services.{name}.route.paths."
                    )
