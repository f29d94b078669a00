"""How Ansible's modules talk to the engine: one JSON request on stdin, one JSON answer on stdout.

The protocol number changes when a request or an answer changes its meaning; a module that meets an engine of
another number says so in one sentence instead of guessing.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO, TypeVar

import msgspec

from slipway.errors import Exit, SlipwayError, UsageError

PROTOCOL = 1

T = TypeVar("T")


def decode_request(data: bytes, shape: type[T]) -> T:
    """Read a request of the given msgspec `shape`.

    The request is a JSON object whose `protocol` key equals :data:`PROTOCOL`. Raises :class:`UsageError`, which
    names the path of the wrong key and never a value, since a request may carry secrets.
    """
    try:
        request = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UsageError("The request on stdin is not JSON.", "Send one JSON object.") from error
    spoken = request.pop("protocol", None) if isinstance(request, dict) else None
    if spoken != PROTOCOL:
        raise UsageError(
            f"The request speaks protocol {spoken}, this engine speaks {PROTOCOL}.",
            "Install the engine of this kit: run playbooks/provision.yml for this host.",
        )
    try:
        return msgspec.convert(request, shape)
    except msgspec.ValidationError as error:
        raise UsageError(f"The request is wrong: {error}.", "Use the kit and the engine of one version.") from error


def answer(out: TextIO | None = None, /, *, changed: bool, **fields: Any) -> None:
    """Write the answer of a call that did what it was asked."""
    _write(out, {"protocol": PROTOCOL, "ok": True, "changed": changed, **fields})


def refusal(error: SlipwayError, out: TextIO | None = None) -> Exit:
    """Write the answer of a call that failed, and return its exit code."""
    _write(
        out,
        {
            "protocol": PROTOCOL,
            "ok": False,
            "what": error.what,
            "do_next": error.do_next,
            "details": error.details,
            "exit": int(error.exit),
            "serves": error.serves,
        },
    )
    return error.exit


def _write(out: TextIO | None, fields: dict[str, Any]) -> None:
    stream = out or sys.stdout
    stream.write(msgspec.json.encode(fields).decode() + "\n")
    stream.flush()
