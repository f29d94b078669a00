"""The secrets that an environment needs, and what its vault is to hold: for the controller alone, and all of it pure.

An inventory declares its secrets by name, `app_secrets`. What is declared and not there is generated, of the kind that
was declared; what is there is never overwritten. A rotation makes a new value and notes a keyed fingerprint of the old
one beside it, so that a value that leaked can be told when somebody puts it back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from slipway import documents
from slipway.contract import decode_services
from slipway.errors import PreflightError
from slipway.inventory import MIN_SECRET
from slipway.release import File, config_path
from slipway.secrets import held

VAULT = Path("group_vars/all/vault.yml")
"""Where an environment keeps its secrets, below the folder of its inventory."""
PASSWORD = Path(".secrets/vault_password")
"""The password of that file. Git ignores it."""
CLIENT = Path(".secrets/vault-client")
"""A program that prints the password instead; Ansible calls it with `--vault-id <environment>`."""
RETIRED = "slipway_retired"
"""The variable in the vault with what is known of older values."""
PRODUCTION = "production"
"""The environment whose secrets stand nowhere else."""
HEADER = """\
---
# The secrets of this environment, encrypted with the password of its vault; docs/secrets.md tells how to use them.
"""
LENGTH = 64
"""Characters of a generated `key`."""
PASSWORD_LENGTH = 43
"""Characters of a generated `password`: 256 bits."""
TELLING = 12
"""A shorter value is compared as a whole only: in a longer text it would be found by chance."""
SHORTEST = 6
"""A shorter value is not compared: it is no secret."""

Kind = Literal["hex32", "password", "fernet", "key", "given"]
FORM: Mapping[Kind, str] = {
    "hex32": "64 hexadecimal digits",
    "password": f"{MIN_SECRET} or more of letters, digits and -._~",
    "fernet": "32 bytes in URL-safe base64",
    "key": f"{MIN_SECRET} characters or more",
    "given": "text",
}
"""What each kind consists of, in words."""


class Declared(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A secret that the environment needs."""

    kind: Kind
    """`given` comes from somebody else and is never generated."""
    previous: str = ""
    """The variable that has the value before, where the application takes both while people still use the old one."""
    note: str = ""
    """What people have to do where it is given or rotated: where it comes from, what has to be told of it."""


class Retired(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A value that a secret once had, by a keyed fingerprint."""

    name: str
    key: str
    """Of the fingerprint; each has its own."""
    fingerprint: str
    at: str
    """When it was replaced; UTC, ISO 8601."""
    revoked: bool = False
    reason: str = ""


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """What is to be done, by names."""

    generate: list[str] = []
    rotate: list[str] = []
    revoke: list[str] = []
    missing: list[str] = []
    """Those that somebody has to give."""

    @property
    def changes(self) -> bool:
        """Whether the vault has to be written."""
        return bool(self.generate or self.rotate or self.revoke)


# --- how it is opened -------------------------------------------------------------------------------------------------


def password_source(environment: Path) -> Path | None:
    """The file or the program that has the password of the environment whose inventory is this folder."""
    return next((path for path in (environment / CLIENT, environment / PASSWORD) if path.is_file()), None)


def no_password(environment: Path) -> PreflightError:
    """The vault is encrypted, and nobody said with what."""
    return PreflightError(
        f"The vault of {environment.name} is encrypted, and there is no password for it.",
        f"Get it from whoever made the vault and put it into {shown(environment / PASSWORD)}, or run the command with "
        f"--vault-id {environment.name}@FILE.",
    )


def wrong_password(environment: Path, source: Path | None) -> PreflightError:
    """The vault does not open."""
    where = f"what {shown(source)} says" if source else "the password that was given"
    return PreflightError(
        f"The vault of {environment.name} cannot be opened with {where}.",
        f"Put the right password there, or run the command with --vault-id {environment.name}@FILE.",
    )


def unreadable_password(environment: Path, source: Path, why: str) -> PreflightError:
    """The file or the program with the password gives none."""
    return PreflightError(
        f"The password of the vault of {environment.name} cannot be had from {shown(source)}: {why.rstrip('.')}.",
        "Mend that file, or make it executable where it is a program.",
    )


def shown(path: Path) -> str:
    """A path as people would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# --- what is declared -------------------------------------------------------------------------------------------------


def declared(data: object) -> dict[str, Declared]:
    """Read `app_secrets`: name -> kind, or name -> mapping. Raises :class:`PreflightError`."""
    try:
        found = msgspec.convert(data, dict[str, Kind | Declared])
    except msgspec.ValidationError as error:
        raise PreflightError(f"app_secrets is wrong: {error}.", "Compare it with docs/secrets.md.") from error
    secrets_ = {name: Declared(kind=one) if isinstance(one, str) else one for name, one in found.items()}
    for name, one in secrets_.items():
        for variable in filter(None, (name, one.previous)):
            if not variable.isidentifier() or variable == RETIRED:
                raise PreflightError(
                    f"app_secrets has {variable!r}, which cannot be the name of a variable.",
                    "Use letters, digits and underscores, a letter first.",
                )
        if one.previous in secrets_:
            raise PreflightError(
                f"app_secrets.{name}.previous is {one.previous}, which is declared as a secret of its own.",
                "Name a variable that is not: it is filled by a rotation alone.",
            )
    return secrets_


def uses_bundled_backend(services: object) -> bool:
    """Whether `app_services`, as the inventory writes it, names the bundled backend's contract."""
    return "backend_services" in str(services)


def make(kind: Kind) -> str:
    """A new value, of 256 bits or more."""
    match kind:
        case "hex32":
            return secrets.token_hex(32)
        case "fernet":
            return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        case "password" | "key":
            # No character that a URL or a shell would want to have escaped.
            alphabet = string.ascii_letters + string.digits
            return "".join(secrets.choice(alphabet) for _ in range(PASSWORD_LENGTH if kind == "password" else LENGTH))
        case "given":
            raise ValueError(kind)


def is_of(kind: Kind, value: str) -> bool:
    """Whether a value is what its kind promises."""
    match kind:
        case "hex32":
            return bool(re.fullmatch("[0-9a-fA-F]{64}", value))
        case "password":
            return bool(re.fullmatch(rf"[\w.~-]{{{MIN_SECRET},}}", value, re.ASCII))
        case "fernet":
            return bool(re.fullmatch("[0-9A-Za-z_-]{43}=", value))
        case "key":
            return len(value) >= MIN_SECRET
        case "given":
            return bool(value)


# --- what is to be done -----------------------------------------------------------------------------------------------


def plan(
    want: Mapping[str, Declared],
    have: Mapping[str, Any],
    *,
    elsewhere: Collection[str] = (),
    rotate: Iterable[str] = (),
    revoke: Iterable[str] = (),
) -> Plan:
    """Decide what the vault lacks and what is to change in it.

    `have` is what the vault holds, `elsewhere` are names that have a value in another file of the inventory. Raises
    :class:`PreflightError` for a name that cannot be rotated or revoked.
    """
    rotate, revoke = list(dict.fromkeys(rotate)), list(dict.fromkeys(revoke))
    for name in [*rotate, *revoke]:
        if name not in want:
            raise PreflightError(
                f"This environment declares no secret {name}.", f"Those that it does: {', '.join(sorted(want))}."
            )
    absent = [name for name in want if not have.get(name) and name not in elsewhere]
    for name in rotate:
        if want[name].kind == "given":
            raise PreflightError(
                f"{name} is given by others, so no value is made for it.",
                "Get the new one and put it into the vault with `ansible-vault edit`.",
            )
        if name in elsewhere and not have.get(name):
            raise PreflightError(
                f"{name} does not stand in the vault, so it is not rotated there.",
                "Change it where the inventory has it, or remove it there and run the play again.",
            )
    older = {one.name for one in retired(have)}
    turning = [name for name in rotate if name not in absent]
    for name in revoke:
        if name not in older and name not in turning:
            raise PreflightError(
                f"No older value of {name} is known that could be revoked.",
                f"Rotate it in the same run: -e rotate={name} -e revoke={name}.",
            )
    open_ = {one.name for one in retired(have) if not one.revoked}
    return Plan(
        generate=[name for name in absent if want[name].kind != "given"],
        rotate=turning,
        revoke=[name for name in revoke if name in turning or name in open_],
        missing=[name for name in absent if want[name].kind == "given"],
    )


def changes(
    todo: Plan,
    want: Mapping[str, Declared],
    have: Mapping[str, Any],
    *,
    at: str,
    reason: str = "",
    new: Callable[[Kind], str] = make,
) -> dict[str, Any]:
    """The variables of the vault that get another value. Values are secrets: show none of it."""
    fresh: dict[str, Any] = {name: new(want[name].kind) for name in [*todo.generate, *todo.rotate]}
    past = retired(have)
    for name in todo.rotate:
        past.append(_retire(name, str(have[name]), at))
        if want[name].previous:
            fresh[want[name].previous] = str(have[name])
    for name in todo.revoke:
        past = [
            msgspec.structs.replace(one, revoked=True, reason=reason) if one.name == name and not one.revoked else one
            for one in past
        ]
        if want[name].previous:
            fresh[want[name].previous] = ""
    if todo.rotate or todo.revoke:
        fresh[RETIRED] = msgspec.to_builtins(past)
    return fresh


def retired(have: Mapping[str, Any]) -> list[Retired]:
    """What the vault notes of older values, oldest first. Raises :class:`PreflightError`."""
    try:
        return msgspec.convert(have.get(RETIRED) or [], list[Retired])
    except msgspec.ValidationError as error:
        raise PreflightError(
            f"{RETIRED} in the vault was edited by hand, and cannot be read: {error}.",
            "Take the file as it was before, from your version control.",
        ) from error


def _retire(name: str, value: str, at: str) -> Retired:
    key = secrets.token_hex(16)
    return Retired(name=name, key=key, fingerprint=_fingerprint(key, value), at=at)


def _fingerprint(key: str, value: str) -> str:
    return hmac.new(bytes.fromhex(key), value.encode(), hashlib.sha256).hexdigest()


# --- the file ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Takes a value under a tag of Ansible's, such as !vault or !unsafe, for text."""


def _as_text(loader: yaml.SafeLoader, _tag: str, node: yaml.Node) -> Any:
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_multi_constructor("!", _as_text)


def read(text: str) -> dict[str, Any]:
    """The variables of a file of an inventory. Raises :class:`PreflightError`, which tells nothing of what it holds."""
    try:
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise PreflightError(
            f"The vault is no YAML{f' in line {mark.line + 1}' if mark else ''}.",
            "Mend it with `ansible-vault edit`.",
        ) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise PreflightError("The vault is no list of names with values.", "Mend it with `ansible-vault edit`.")
    return found


def edit(text: str, fresh: Mapping[str, Any]) -> str:
    """Put values into the text of a vault. What people wrote around them, comments and order, stays."""
    before, document = read(text), yaml.compose(text, Loader=_Loader)
    spans = {key.value: node for key, node in document.value} if before and document else {}
    kept = text if before else HEADER
    for name, node in sorted(spans.items(), key=lambda item: item[1].start_mark.index, reverse=True):
        if name in fresh:
            start, end = node.start_mark.index, node.end_mark.index
            was = kept[start:end]
            # A block of text ends with its last line; an empty value stands right behind the colon.
            space, tail = " " if kept[start - 1] == ":" else "", was[len(was.rstrip()) :]
            kept = f"{kept[:start]}{space}{_laid_out(fresh[name])}{tail}{kept[end:]}"
    added = "".join(f"{name}: {_laid_out(value)}\n" for name, value in fresh.items() if name not in spans)
    edited = kept.rstrip("\n") + "\n" + added
    with suppress(PreflightError):
        if read(edited) == before | dict(fresh):
            return edited
    raise PreflightError(
        "The vault is laid out in a way that the kit cannot change without harm.",
        "Write each secret as `name: value` on a line of its own, with `ansible-vault edit`.",
    )


def _laid_out(value: Any) -> str:
    """A value as YAML that needs no indentation: JSON is YAML, and quotes keep digits a text."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(one)}" for one in value) + "\n]"
    return json.dumps(value)


# --- what keeps it from being deployed --------------------------------------------------------------------------------


def problems(
    want: Mapping[str, Declared],
    values: Mapping[str, str],
    past: Iterable[Retired],
    *,
    checked: Collection[str],
    command: str,
) -> list[str]:
    """Say what is missing, of another kind than declared, or was revoked. No sentence tells a value.

    `values` are those of the inventory, whatever file they are from. `checked` are the names whose form is looked at;
    of the others, the contract says what they have to be. `command` is what the operator types for this environment.
    """
    found = []
    absent = [name for name, one in want.items() if not values.get(name) and one.kind != "given"]
    if absent:
        found.append(f"{listed(absent)} {_is(absent)} missing. Generate {_it(absent)}: {command}.")
    for name, one in want.items():
        value = values.get(name, "")
        if not value:
            if one.kind == "given":
                found.append(given(name, one))
        elif name in checked and not is_of(one.kind, value):
            found.append(
                f"{name} is not of its kind {one.kind}: {FORM[one.kind]}. "
                f"Rotate it ({command} -e rotate={name}), or declare it as key or given in app_secrets."
            )
    past = [one for one in past if one.revoked]
    spots = {name: name for name in want} | {one.previous: name for name, one in want.items() if one.previous}
    for variable, name in spots.items():
        value = values.get(variable, "")
        hit = next((one for one in past if value and one.fingerprint == _fingerprint(one.key, value)), None)
        if hit:
            why = f" ({hit.reason})" if hit.reason else ""
            found.append(
                f"{variable} has a value that was revoked{why} and replaced on {hit.at[:10]}. "
                f"Give it a new one: {command} -e rotate={name}."
            )
    return found


def given(name: str, one: Declared) -> str:
    """Say that a secret is missing that somebody has to give."""
    parts = [
        f"{name} is given by others, and is not there.",
        one.note,
        "Put it into the vault with `ansible-vault edit`.",
    ]
    return " ".join(filter(None, parts))


def texts(data: Any) -> Iterator[str]:
    """Every text in a file of an inventory, apart from what the vault notes of older values."""
    match data:
        case Mapping():
            for key, value in data.items():
                if key != RETIRED:
                    yield from texts(value)
        case list():
            for value in data:
                yield from texts(value)
        case str():
            yield data


def shared(values: Mapping[str, str], others: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Name -> the environments that have the value, or a text with it inside. `others` is environment -> its texts."""
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        if len(value) < SHORTEST:
            continue
        for environment, there in others.items():
            if value in there or (len(value) >= TELLING and any(value in text for text in there)):
                found.setdefault(name, []).append(environment)
    return found


# --- what comes next --------------------------------------------------------------------------------------------------


def places(services: object, value: str) -> list[str]:
    """The names by which the hosts know a value: `slipway revoke` and playbooks/revoke.yml take them."""
    contract = decode_services(services)
    files = [
        File(
            path=config_path(service, config.path),
            content=config.content
            if isinstance(config.content, str)
            else documents.lay_out(config.path, config.content),
        )
        for service, spec in contract.items()
        for config in spec.config_files
    ]
    found = held(files, {service: spec.secret_env for service, spec in contract.items()})
    return sorted(name for name, one in found.items() if one == value)


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _it(names: Collection[str]) -> str:
    return "it" if len(names) == 1 else "them"
