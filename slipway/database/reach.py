"""Whether an app host reaches the database, and finds there what the application needs. Nothing is changed."""

from __future__ import annotations

from typing import Any

import msgspec

from slipway.database import wire
from slipway.errors import PreflightError

WRONG_LOGIN = "28P01"
NO_RULE = "28000"
NO_DATABASE = "3D000"
TOO_MANY = "53300"
BUSY = "57P03"
"""SQLSTATEs. Source: PostgreSQL's documentation, appendix A."""

BRING_UP = {True: "playbooks/database.yml brings it up", False: "see that it runs and lets this host in"}
CERTIFY = {
    True: "Run playbooks/database.yml, which renews its certificate and fetches its authority's.",
    False: "Give its own name in app_database.host, and the authority of its certificate in app_database.ca; where it "
    "has none, set app_database.tls to require or, in a network of your own, to disable.",
}
TELL_PASSWORD = {
    True: "Run playbooks/database.yml, which tells it today's.",
    False: "Correct database_password, or database_owner_password, in the vault.",
}
LET_IN = {
    True: "Run playbooks/database.yml, which lets the hosts of the group app in.",
    False: "Let an administrator allow this host, these roles and TLS there.",
}
"""What to do, by whether it is a bundled one."""


class ReachRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `slipway reach --json` reads."""

    host: str
    port: int
    name: str
    user: str
    password: str
    owner: str
    owner_password: str
    tls: wire.Tls
    ca: str = ""
    version: int
    """The major version that it has at least."""
    extensions: list[str] = []
    bundled: bool = False
    check: bool = False


class Found(msgspec.Struct, kw_only=True, frozen=True):
    """What a server tells of itself, asked as the owner."""

    version: int
    """As PostgreSQL numbers itself: 170002."""
    creates: bool
    """Whether the owner may make tables in the schema."""
    extensions: list[str]
    available: list[str]
    writes: bool
    """Whether it is no standby server."""


QUESTION = """
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'creates', coalesce(has_schema_privilege(coalesce(current_schema(), 'public'), 'CREATE'), false),
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
  'available', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions),
  'writes', NOT pg_is_in_recovery())
"""


def reach(request: ReachRequest) -> dict[str, Any]:
    """Log in as both roles and look. The answer holds `version`. Raises :class:`PreflightError`."""
    if request.bundled and not request.ca:
        raise PreflightError(
            "The certificate of the database's authority is not known here, so nobody could verify the server.",
            "Run playbooks/database.yml, which fetches it.",
        )
    try:
        if request.owner != request.user:
            with _session(request, request.user, request.password):
                pass
        with _session(request, request.owner, request.owner_password) as told:
            found = msgspec.convert(told.ask(QUESTION)[0][0], type=Found)
    except wire.WireError as error:
        raise _explained(request, error) from error
    if complaint := complain(request, found):
        raise PreflightError(*complaint)
    return {"changed": False, "version": f"{found.version // 10000}.{found.version % 10000}"}


def complain(request: ReachRequest, found: Found) -> tuple[str, str] | None:
    """What is wrong with a server that lets both roles in, and what to do; None where it does."""
    where = _where(request)
    major = found.version // 10000
    if major < request.version:
        return (
            f"The database {where} is PostgreSQL {major}, and app_database.version asks for {request.version}.",
            "Upgrade the server, or correct app_database.version.",
        )
    if not found.writes:
        return (
            f"The database {where} is a standby server, on which nothing can be changed.",
            "Name the primary in app_database.host.",
        )
    if not found.creates:
        return (
            f"The role {request.owner} may not make tables in the database {where}, so no migration could.",
            f'Let an administrator run `GRANT CREATE ON SCHEMA public TO "{request.owner}"` there.',
        )
    if missing := [one for one in request.extensions if one not in found.extensions]:
        if lacking := [one for one in missing if one not in found.available]:
            return (
                f"The server of {where} does not have the extension {', '.join(lacking)}.",
                "Have its provider or administrator install it, or take it out of app_database.extensions.",
            )
        return (
            f"The database {where} lacks the extension {', '.join(missing)}.",
            f'Let an administrator run `CREATE EXTENSION "{missing[0]}"` in it.',
        )
    return None


def _session(request: ReachRequest, user: str, password: str) -> Any:
    return wire.session(
        host=request.host,
        port=request.port,
        user=user,
        password=password,
        database=request.name,
        tls=request.tls,
        ca=request.ca,
    )


def _where(request: ReachRequest) -> str:
    return f"{request.name} on {request.host}:{request.port}"


def _explained(request: ReachRequest, error: wire.WireError) -> PreflightError:
    """An error as what is wrong and what to do, without what the server says about somebody's password."""
    where = f"the database {_where(request)}"
    reached = {
        "connect": (
            f"This host cannot reach {where}: {error.said}.",
            f"Check app_database.host and port, and any firewall between; {BRING_UP[request.bundled]}.",
        ),
        "tls": (
            f"The connection to {where} cannot be encrypted as app_database.tls asks: {error.said}.",
            CERTIFY[request.bundled],
        ),
    }
    refused = {
        WRONG_LOGIN: (
            f"{where.capitalize()} does not take the password of one of the roles {request.user}, {request.owner}.",
            TELL_PASSWORD[request.bundled],
        ),
        NO_RULE: (f"{where.capitalize()} does not let this host in: {error.said}.", LET_IN[request.bundled]),
        NO_DATABASE: (f"There is no database {_where(request)}.", "Have it made there, or correct app_database.name."),
        TOO_MANY: (
            f"{where.capitalize()} has no connection left.",
            "See who holds them (slipway db activity on its host), and run the play again.",
        ),
        BUSY: (f"{where.capitalize()} is just starting or stopping.", "Wait a moment, and run the play again."),
    }
    unknown = (f"{where.capitalize()} does not answer as it should: {error.said}.", "Look into its log.")
    return PreflightError(*(reached.get(error.stage) or refused.get(error.code, unknown)))
