"""`semiont.json` and `environments/<env>.json`: what they may hold, and reading them strictly.

The two files are the only place for secrets; `${VAR}` in a value is replaced from the process environment, `$${`
stands for a literal `${`. Problems are collected, so that one run names all of them, each with its path.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from backend.errors import ConfigError

MIN_SECRET: Final = 32
"""Characters that auth.jwtSecret has at least: an HS256 key shorter than the hash weakens the signature."""

Text = Annotated[str, Meta(min_length=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Secret = Annotated[str, Meta(min_length=MIN_SECRET)]
DatabaseUrl = Annotated[
    str,
    Meta(
        # A value that starts with ${ is expanded before it is looked at here, so the schema lets it pass.
        pattern=r"^(postgres(ql)?(\+asyncpg)?://.|sqlite(\+aiosqlite)?:///.|\$\{)",
        description="postgresql://user:password@host:port/name or sqlite:////absolute/path",
    ),
]
Elsewhere = dict[str, Any]
"""A part that other programs of the project read; this one only lets it pass."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    def __repr__(self) -> str:
        """Only the name: sections hold secrets, and a repr ends up in logs and tracebacks."""
        return f"{type(self).__name__}(...)"


class Project(_Section, frozen=True):
    """The content of semiont.json."""

    version: Text
    project: str | Elsewhere | UnsetType = UNSET
    project_name: str | UnsetType = UNSET
    site: Elsewhere | UnsetType = UNSET


class Database(_Section, frozen=True):
    """Where documents are kept."""

    url: DatabaseUrl


class Auth(_Section, frozen=True):
    """Keys of tokens and of sign-in."""

    jwt_secret: Secret
    previous_jwt_secret: Secret | UnsetType = UNSET
    google_client_id: str | UnsetType = UNSET
    google_client_secret: str | UnsetType = UNSET

    @property
    def jwt_secrets(self) -> tuple[str, ...]:
        """What a token may be signed with, the newest first: after a rotation the tokens of yesterday still count."""
        older = () if isinstance(self.previous_jwt_secret, UnsetType) else (self.previous_jwt_secret,)
        return (self.jwt_secret, *older)


class Ai(_Section, frozen=True):
    """Keys of AI services."""

    openai_api_key: str | UnsetType = UNSET
    anthropic_api_key: str | UnsetType = UNSET


class Graph(_Section, frozen=True):
    """Where the graph database answers."""

    type: Text | UnsetType = UNSET
    endpoint: Text | UnsetType = UNSET
    port: Port | UnsetType = UNSET


class Environment(_Section, frozen=True):
    """The content of environments/<env>.json."""

    database: Database
    auth: Auth
    ai: Ai | UnsetType = UNSET
    graph: Graph | UnsetType = UNSET
    name: Text | UnsetType = UNSET
    platform: Elsewhere | UnsetType = UNSET
    services: Elsewhere | UnsetType = UNSET
    site: Elsewhere | UnsetType = UNSET
    app: Elsewhere | UnsetType = UNSET
    env: Elsewhere | UnsetType = UNSET
    deployment: Elsewhere | UnsetType = UNSET
    resources: Elsewhere | UnsetType = UNSET


class Config(msgspec.Struct, frozen=True):
    """Both files, decoded, and where they were read."""

    project: Project
    environment: Environment
    environment_name: str
    environment_path: Path


SCHEMAS: Final[Mapping[str, type[_Section]]] = {"semiont": Project, "environment": Environment}
_S = TypeVar("_S", bound=_Section)


def load(environ: Mapping[str, str]) -> Config:
    """Read the files that SEMIONT_ROOT and SEMIONT_ENV name; raises ConfigError with every problem of a file."""
    root, name = (_required(environ, key) for key in ("SEMIONT_ROOT", "SEMIONT_ENV"))
    project_path = Path(root) / "semiont.json"
    project = _decode(project_path, Project, environ, _missing_project)
    path = _environment_path(Path(root), name)
    environment = _decode(path, Environment, environ, _missing_environment)
    return Config(project=project, environment=environment, environment_name=name, environment_path=path)


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `semiont` (semiont.json) or `environment` (environments/<env>.json)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(SCHEMAS[name])}


def schema_text(name: str) -> str:
    """The same as the text that `backend config schema` prints and app/schema/ holds."""
    return json.dumps(schema(name), indent=2, sort_keys=True)


def _required(environ: Mapping[str, str], key: str) -> str:
    if value := environ.get(key):
        return value
    examples = {"SEMIONT_ROOT": "the directory that holds semiont.json", "SEMIONT_ENV": "the name of the environment"}
    raise ConfigError(f"{key} is not set.", f"Set it to {examples[key]}.")


def _environment_path(root: Path, name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"SEMIONT_ENV is {name!r}, which cannot be the name of a file.",
            "Use letters, digits, dots, dashes and underscores.",
        )
    return root / "environments" / f"{name}.json"


def _missing_project(path: Path) -> ConfigError:
    return ConfigError(
        f"There is no {path}.", "Mount the directory that holds semiont.json and set SEMIONT_ROOT to its path."
    )


def _missing_environment(path: Path) -> ConfigError:
    try:
        known = sorted(entry.stem for entry in path.parent.glob("*.json"))
    except OSError:
        known = []
    holds = f"there are: {', '.join(known)}" if known else "there is none"
    return ConfigError(
        f'There is no environment "{path.stem}" in {path.parent} ({holds}).',
        f"Set SEMIONT_ENV to one that exists, or add {path.name} there.",
    )


def _decode(path: Path, cls: type[_S], environ: Mapping[str, str], missing: Callable[[Path], ConfigError]) -> _S:
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path) from None
    except PermissionError:
        raise _unreadable(path) from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a directory, not a file.", "Docker makes one where a mounted file is missing; mount the file."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    try:
        raw = json.loads(text, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}.",
            "Correct it there and start again.",
        ) from None
    except (_TwinKeyError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be used: {error}.", "Correct it there and start again.") from None
    problems: list[str] = []
    value = _expand(raw, environ, "", problems)
    problems += _problems(value, cls, "")
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ConfigError(f"{path} has {count}: {'; '.join(problems)}.", "Correct it there and start again.")
    return msgspec.convert(value, cls)


def _unreadable(path: Path) -> ConfigError:
    """Name the first path on the way that is closed to this process, with its mode and owner."""
    for candidate in (*reversed(path.parents), path):
        try:
            status = candidate.stat()
        except OSError:
            break
        if not os.access(candidate, os.R_OK if candidate == path else os.X_OK, effective_ids=True):
            break
    kind = "file" if candidate == path else "directory"
    return ConfigError(
        f"{path} cannot be read: the {kind} {candidate} has mode {stat.S_IMODE(status.st_mode):04o} and owner "
        f"{status.st_uid}:{status.st_gid}, and this process is uid {os.geteuid()}.",
        f"Give uid {os.geteuid()} the right to read it, for example chown {os.geteuid()} and mode 0400 for a file.",
    )


class _TwinKeyError(ValueError):
    pass


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice and keeps the last: in a file with secrets that hides a mistake."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _TwinKeyError(f'the key "{key}" stands twice in one object')
        result[key] = value
    return result


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _expand(value: Any, environ: Mapping[str, str], path: str, problems: list[str]) -> Any:
    """`value` with `${VAR}` replaced in every string; a variable that is not set becomes a problem."""
    if isinstance(value, dict):
        return {key: _expand(item, environ, _join(path, key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environ, f"{path}[{index}]", problems) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        if (found := environ.get(match[1])) is None:
            problems.append(f"{path} uses ${{{match[1]}}}, which is not set in the environment")
            return match[0]
        return found

    return re.sub(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}", replace, value)


def _problems(value: Any, cls: type[_Section], path: str) -> Iterator[str]:
    """What keeps `value` from being a `cls`, each with its path and without the value itself."""
    if not isinstance(value, dict):
        yield f"{path or 'the file'} is not an object"
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
    for key in value.keys() - fields.keys():
        near = difflib.get_close_matches(key, fields, n=1)
        yield f"{_join(path, key)} is not a known key" + (f" (did you mean {near[0]}?)" if near else "")
    for key, field in fields.items():
        if key not in value:
            if field.required:
                yield f"{_join(path, key)} is missing"
            continue
        kinds = [kind for kind in (field.type, *get_args(field.type)) if isinstance(kind, type)]
        section = next((kind for kind in kinds if issubclass(kind, _Section)), None)
        if section is not None:
            yield from _problems(value[key], section, _join(path, key))
        elif (complaint := _complaint(value[key], field.type)) is not None:
            yield f"{_join(path, key)} {complaint}"


def _complaint(value: Any, kind: Any) -> str | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if kind is Secret and isinstance(value, str):
            return f"has {len(value)} characters and needs {MIN_SECRET} or more"
        if kind is DatabaseUrl and isinstance(value, str):
            return "starts neither with postgresql:// nor with sqlite:///"
        expected = str(error).split(" - at ", 1)[0]
        return f"is wrong: {expected[0].lower()}{expected[1:]}"
    return None
