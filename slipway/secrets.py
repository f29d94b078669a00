"""The secrets of a release by name, so that people can say which one they mean.

    api:/app/config/app.json#auth.jwtSecret     a value of a JSON config file that is secret by its key
    api:/app/config/app.json#database.url       of a URL, its password
    api:env:API_TOKEN                           secret_env
    api:tls:key                                 the key of the certificate that the edge shows for it

    api:/app/.env#SMTP_TOKEN                    the same of an .env file that the kit laid out

Any other file may hold secrets too; nothing tells where, so they have no names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from slipway import documents
from slipway.redact import Place, Secret, find, passwords
from slipway.release import CERTIFICATES, CONFIG, File

_PLAIN = re.compile(r"[\w-]+")


def held(files: Iterable[File], secret_env: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Name -> value of every secret. `secret_env` is service -> variable -> value. What is empty is no secret."""
    found = {env_name(service, name): value for service, env in secret_env.items() for name, value in env.items()}
    for file in files:
        found |= {name: value_of(secret) for name, secret in in_file(file).items()}
        if is_key(file):
            found[key_name(file)] = file.content
    return {name: value for name, value in found.items() if value}


def env_name(service: str, variable: str) -> str:
    """The name of a secret environment variable."""
    return f"{service}:env:{variable}"


def is_key(file: File) -> bool:
    """Whether the file is the key of a certificate."""
    path = PurePosixPath(file.path)
    return path.parts[0] == CERTIFICATES and path.suffix == ".key"


def key_name(file: File) -> str:
    """The name of the key of a certificate, by its file or by that of the certificate."""
    return f"{PurePosixPath(file.path).stem}:tls:key"


def in_file(file: File) -> dict[str, Secret]:
    """Name -> secret of a config file; nothing for a file that holds no document."""
    document = read(file)
    if document is None:
        return {}
    _, service, path = file.path.split("/", 2)
    return {f"{service}:/{path}#{_dotted(secret.at)}": secret for secret in find(document)}


def read(file: File) -> Any:
    """The document of a config file, an object or a list; None for any other file."""
    return documents.read(file.path, file.content) if file.path.startswith(f"{CONFIG}/") else None


def value_of(secret: Secret) -> str:
    """What is secret of it: all of the text, or the password as it is written in the URL."""
    return secret.text if secret.whole else next(passwords(secret.text))


def with_value(secret: Secret, value: str) -> str:
    """The text with another value in the place of what is secret; the rest of a URL stays."""
    if secret.whole:
        return value
    where = urlsplit(secret.text).netloc
    user, _, host = where.rpartition("@")
    return secret.text.replace(where, f"{user.partition(':')[0]}:{value}@{host}", 1)


def put(document: Any, at: Place, text: str) -> None:
    """Put a text into a document, in the place of the one that stands there."""
    *way, last = at
    for step in way:
        document = document[step]
    document[last] = text


def _dotted(at: Place) -> str:
    return "".join(_steps(at)).removeprefix(".")


def _steps(at: Place) -> Iterator[str]:
    for step in at:
        if isinstance(step, int):
            yield f"[{step}]"
        elif _PLAIN.fullmatch(step):
            yield f".{step}"
        else:
            # So that the key "a.b" is another one than b under a.
            yield f"[{msgspec.json.encode(step).decode()}]"
