"""`slipway contract check`: all that is wrong with a contract in a file, at once, on the machine where it is written.

The file is YAML or JSON: a mapping of services, or one that has it as `app_services`, such as an inventory's `app.yml`.
What stands there as a template (`{{ … }}`) is known to Ansible alone. It is taken for right, and the answer says where.
"""

from __future__ import annotations

import importlib.util
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from slipway import inventory
from slipway.contract import Service, struct_in
from slipway.errors import UsageError

TEMPLATE = re.compile(r"\{\{|\{%")
TEXT = "templated" * 4
"""Starts what stands for a text that is a template. It is long enough for a secret."""
FORMS = {
    "user": "1:1",
    "mode": "0444",
    "path": "/templated",
    "connect": "templated:1",
    "max_body": "1MB",
    "email": "templated@templated.example",
}
"""The same, where a text has to have a form."""
PORTS = ("port", "publish")


class _Unknown:
    """A part that is a template and can be left out."""


UNKNOWN = _Unknown()


class Checked(msgspec.Struct, kw_only=True, frozen=True):
    """What was found."""

    services: list[str]
    problems: list[str]
    warnings: list[str]
    unknown: list[str]
    """Paths of what is a template."""


def check(path: Path) -> Checked:
    """Check the contract in a file. Raises :class:`UsageError` where there is none in it."""
    data = _read(path)
    if isinstance(data, dict) and "app_services" in data:
        data = data["app_services"]
    elif isinstance(data, dict) and not all(isinstance(body, dict) for body in data.values()):
        raise UsageError(
            f"{path} has no app_services, and holds more than services.",
            "Name the file that has it. Without one an inventory deploys the bundled backend, by the kit's contract.",
        )
    if _is_template(data):
        raise UsageError(
            f"app_services in {path} is a template, so what it says is not known here.",
            "Check it with its inventory: ansible-playbook -i INVENTORY playbooks/site.yml --check.",
        )
    unknown = list(_templates(data, "app_services"))
    settled = {str(name): _settled_service(body) for name, body in data.items()} if isinstance(data, dict) else data
    problems, contract = inventory.read_contract(settled)
    return Checked(services=list(contract), problems=problems, warnings=inventory.warnings(contract), unknown=unknown)


def text(path: Path, found: Checked) -> str:
    """What was found, for people."""
    said = [f"{path}: {problem}" for problem in found.problems]
    said += [f"{path}: warning: {warning}" for warning in found.warnings]
    if found.unknown:
        said.append(
            f"{path}: {len(found.unknown)} values are templates, which Ansible fills in, and were taken for right."
        )
    count = len(found.problems)
    if count:
        said.append(f"{path}: {count} problem{'s' * (count > 1)}.")
    else:
        said.append(f"{path}: nothing is wrong with {', '.join(found.services)}.")
    return "\n".join(said)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    try:
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Name a file with a contract.") from error
    if importlib.util.find_spec("yaml") is None:
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise UsageError(
                f"{path} is not JSON ({error}), and nothing on this machine reads YAML.",
                "Check it where the kit is: .venv/bin/python -m slipway.cli contract check FILE.",
            ) from error
    # The engine on a host has none.
    import yaml  # noqa: PLC0415

    class Loader(yaml.SafeLoader):
        """Takes a value with a tag of Ansible's own, such as !vault, for a template."""

    Loader.add_multi_constructor("!", lambda *_: "{{ tagged }}")
    try:
        return yaml.load(content, Loader)  # noqa: S506 - it is a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UsageError(
            f"{path} is not YAML{where}: {getattr(error, 'problem', None) or error}.", "Correct it."
        ) from error


# --- templates --------------------------------------------------------------------------------------------------------


def _is_template(value: object) -> bool:
    return isinstance(value, str) and TEMPLATE.search(value) is not None


def _templates(data: object, path: str) -> Iterator[str]:
    match data:
        case dict():
            for key, value in data.items():
                yield from _templates(value, f"{path}.{key}")
        case list():
            for position, value in enumerate(data):
                yield from _templates(value, f"{path}[{position}]")
        case _ if _is_template(data):
            yield path


def _settled_service(body: object) -> Any:
    """A service with something that does no harm in the place of each template."""
    settled = _settled(body, Service)
    if not isinstance(settled, dict) or not isinstance(body, dict):
        return {} if settled is UNKNOWN else settled
    files = settled.get("config_files")
    if isinstance(files, list):
        contents = {file.get("path"): file.get("content") for file in files if isinstance(file, dict)}
        for file in files:
            if isinstance(file, dict) and str(file.get("content")).startswith(TEXT):
                file.pop("format", None)
            if isinstance(file, dict) and _is_template(body.get("user")):
                file["mode"] = "0444"
        schemas = settled.get("config_schema")
        if isinstance(schemas, list):
            # jsonschema is where the kit is; the engine on a host has none.
            there = importlib.util.find_spec("jsonschema") is not None
            settled["config_schema"] = [
                one
                for one in schemas
                if there and isinstance(one, dict) and not str(contents.get(one.get("path"))).startswith(TEXT)
            ]
    return settled


def _settled(data: Any, shape: Any) -> Any:
    struct, within = struct_in(shape)
    match data:
        case dict() if struct and within is None:
            return _settled_struct(data, struct)
        case dict():
            inner = (struct if within is dict else None) or Any
            found = {key: _settled(value, inner) for key, value in data.items()}
            return {key: value for key, value in found.items() if value is not UNKNOWN}
        case list():
            inner = (struct if within is list else None) or Any
            return [value for value in (_settled(one, inner) for one in data) if value is not UNKNOWN]
        case str() if _is_template(data):
            return f"{TEXT}{_number(data)}" if _takes_text(shape) else UNKNOWN
        case _:
            return data


def _settled_struct(data: dict[str, Any], struct: type[msgspec.Struct]) -> Any:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    found: dict[str, Any] = {}
    for key, value in data.items():
        field = fields.get(key)
        if field and _is_template(value) and key in (*FORMS, *PORTS):
            found[key] = FORMS[key] if key in FORMS else _number(value) % inventory.PORTS.stop or 1
            continue
        settled = _settled(value, field.type if field else Any)
        if settled is not UNKNOWN:
            found[key] = settled
        elif field and field.required:
            if field.type is not int:
                return UNKNOWN
            found[key] = 0
    return found


def _number(template: str) -> int:
    """The same template stands for the same value, and another one most likely for another."""
    return zlib.crc32(template.encode())


def _takes_text(shape: Any) -> bool:
    if shape is Any or shape is str:
        return True
    return any(_takes_text(one) for one in get_args(shape)) if get_origin(shape) not in (dict, list) else False
