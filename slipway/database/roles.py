"""Roles, rights, extensions and the database itself: what is there, what is declared, and the SQL between the two.

The owner has the database and its schema, and migrates. The runtime role reads and writes rows, and nothing else: what
the owner makes later is open to it by default privileges. Nobody else gets in. All of this module is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from slipway.database import scram
from slipway.errors import PreflightError

REPLICATION = "replication"
INSPECTOR = "inspector"
TABLES = ("SELECT", "INSERT", "UPDATE", "DELETE")
SEQUENCES = ("USAGE", "SELECT", "UPDATE")
FILLED = "slipway.filled"
"""A setting of the database that says that its init_sql has run."""


class Role(msgspec.Struct, kw_only=True, frozen=True):
    """A role as the server has it."""

    password: str | None = None
    """The verifier."""
    login: bool = False
    superuser: bool = False
    createdb: bool = False
    createrole: bool = False
    replication: bool = False
    bypassrls: bool = False

    @property
    def attributes(self) -> str:
        """As CREATE ROLE and ALTER ROLE take them."""
        said = {
            "LOGIN": self.login,
            "SUPERUSER": self.superuser,
            "CREATEDB": self.createdb,
            "CREATEROLE": self.createrole,
            "REPLICATION": self.replication,
            "BYPASSRLS": self.bypassrls,
        }
        return " ".join(word if on else f"NO{word}" for word, on in said.items())


class Inside(msgspec.Struct, kw_only=True, frozen=True):
    """What is to be seen in the database alone."""

    extensions: list[str]
    available: list[str]
    """Extensions that the server could make."""
    schema_owner: str
    uses: bool
    """Whether the runtime role may use the schema."""
    creates: bool
    """Whether it may make something in it."""
    closed: int
    """Tables, views and sequences of the owner's on which it lacks a right."""
    defaults: list[str]
    """Kinds of objects (`r`, `S`, `n`) that it gets rights on when the owner makes one."""
    filled: bool


class Have(msgspec.Struct, kw_only=True, frozen=True):
    """What the server has."""

    loaded: float
    """When it read its files, in seconds since 1970."""
    pending: list[str]
    """Settings that it takes over only when it starts, and has not yet."""
    roles: dict[str, Role]
    database_owner: str | None
    public: list[str]
    """Databases that every role may connect to."""
    connects: bool
    """Whether the runtime role may connect to the database."""
    reads: bool
    """Whether the inspector may, and read all of it."""
    inside: Inside | None = None


class Want(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What is declared."""

    name: str
    owner: str
    user: str
    extensions: list[str] = []
    init_sql: str = ""
    inspector: bool = False
    """Whether there is a role for people that reads everything."""


class Step(msgspec.Struct, frozen=True):
    """One thing to do: what people are told, and the SQL, which holds no password."""

    what: str
    sql: str


QUESTION = """\
\\set QUIET on
\\pset format unaligned
\\pset tuples_only on
SELECT json_build_object(
  'loaded', extract(epoch FROM pg_conf_load_time()),
  'pending', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object(
      'password', rolpassword, 'login', rolcanlogin, 'superuser', rolsuper, 'createdb', rolcreatedb,
      'createrole', rolcreaterole, 'replication', rolreplication, 'bypassrls', rolbypassrls)), '{}')
    FROM pg_authid WHERE rolname IN (:'owner', :'user', 'replication', 'inspector', current_user)),
  'database_owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = :'name'),
  'public', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database
    WHERE datname IN (:'name', 'postgres', 'template1') AND EXISTS (
      SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)),
  'connects', coalesce((SELECT has_database_privilege(r.oid, d.oid, 'CONNECT')
    FROM pg_roles r, pg_database d WHERE rolname = :'user' AND datname = :'name'), false),
  'reads', coalesce((SELECT has_database_privilege(r.oid, d.oid, 'CONNECT') AND EXISTS (
      SELECT FROM pg_auth_members WHERE member = r.oid AND pg_get_userbyid(roleid) = 'pg_read_all_data')
    FROM pg_roles r, pg_database d WHERE rolname = 'inspector' AND datname = :'name'), false));
SELECT EXISTS (SELECT FROM pg_database WHERE datname = :'name')
   AND (SELECT count(*) = 2 FROM pg_roles WHERE rolname IN (:'owner', :'user')) AS there \\gset
\\if :there
\\connect :"name"
SELECT json_build_object(
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
  'available', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions),
  'schema_owner', (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'),
  'uses', coalesce(has_schema_privilege(:'user', to_regnamespace('public'), 'USAGE'), false),
  'creates', coalesce(has_schema_privilege(:'user', to_regnamespace('public'), 'CREATE'), false),
  'closed', (SELECT count(*) FROM pg_class
    WHERE relnamespace = to_regnamespace('public') AND pg_get_userbyid(relowner) = :'owner' AND (
      (relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT (
        has_table_privilege(:'user', oid, 'SELECT') AND has_table_privilege(:'user', oid, 'INSERT') AND
        has_table_privilege(:'user', oid, 'UPDATE') AND has_table_privilege(:'user', oid, 'DELETE'))) OR
      (relkind = 'S' AND NOT (
        has_sequence_privilege(:'user', oid, 'USAGE') AND has_sequence_privilege(:'user', oid, 'SELECT') AND
        has_sequence_privilege(:'user', oid, 'UPDATE'))))),
  'defaults', (SELECT coalesce(json_agg(DISTINCT defaclobjtype), '[]')
    FROM pg_default_acl, aclexplode(defaclacl)
    WHERE pg_get_userbyid(defaclrole) = :'owner' AND defaclnamespace = 0 AND pg_get_userbyid(grantee) = :'user'),
  'filled', current_setting('slipway.filled', true) IS NOT NULL);
\\endif
"""
"""For psql, connected to the database `postgres`, with the variables name, owner and user: prints :class:`Have` as
JSON, and in a second line :class:`Inside`, where it is there."""


def read(said: str) -> Have:
    """The answer to :data:`QUESTION`."""
    first, _, second = said.strip().partition("\n")
    have = msgspec.json.decode(first, type=Have)
    return msgspec.structs.replace(have, inside=msgspec.json.decode(second, type=Inside) if second.strip() else None)


def plan(want: Want, have: Have, passwords: Mapping[str, str]) -> list[Step]:
    """What has to be done, in this order, by psql on the database `postgres`.

    `passwords` has those of the roles `owner`, `user`, `replication` and of the superuser, by those words. Raises
    :class:`PreflightError` where an extension is not to be had.
    """
    roles = {
        want.owner: (Role(login=True, createdb=True), passwords["owner"]),
        want.user: (Role(login=True), passwords["user"]),
        REPLICATION: (Role(login=True, replication=True), passwords["replication"]),
    }
    steps = [step for name, (role, password) in roles.items() for step in _role(name, role, password, have)]
    superuser = have.roles.get("postgres")
    if superuser and not scram.matches(passwords["superuser"], superuser.password):
        steps.append(_password("postgres", passwords["superuser"]))
    return [*steps, *_database(want, have), *_inspector(want, have, passwords), *_inside(want, have)]


def _role(name: str, want: Role, password: str, have: Have) -> Iterator[Step]:
    there = have.roles.get(name)
    if there is None:
        yield Step(f"the role {name} is made", f"CREATE ROLE {quoted(name)} {want.attributes};")
    elif msgspec.structs.replace(there, password=None) != want:
        yield Step(
            f"the role {name} gets the rights that it should have", f"ALTER ROLE {quoted(name)} {want.attributes};"
        )
    if there is None or not scram.matches(password, there.password):
        yield _password(name, password)


def _password(name: str, password: str) -> Step:
    return Step(
        f"the role {name} gets its password", f"ALTER ROLE {quoted(name)} PASSWORD {literal(scram.verifier(password))};"
    )


def _database(want: Want, have: Have) -> Iterator[Step]:
    name, owner, user = quoted(want.name), quoted(want.owner), quoted(want.user)
    public = set(have.public)
    if have.database_owner is None:
        yield Step(f"the database {want.name} is made", f"CREATE DATABASE {name} OWNER {owner};")
        public.add(want.name)
    elif have.database_owner != want.owner:
        yield Step(f"the database {want.name} gets its owner", f"ALTER DATABASE {name} OWNER TO {owner};")
    for one in sorted(public):
        yield Step(f"the database {one} is closed to other roles", f"REVOKE ALL ON DATABASE {quoted(one)} FROM PUBLIC;")
    if not have.connects or want.name in public:
        yield Step(f"{want.user} may connect", f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {user};")


def _inspector(want: Want, have: Have, passwords: Mapping[str, str]) -> Iterator[Step]:
    there = have.roles.get(INSPECTOR)
    if not want.inspector:
        if there and there.login:
            yield Step("the inspector is kept out", f"ALTER ROLE {INSPECTOR} NOLOGIN;")
        return
    yield from _role(INSPECTOR, Role(login=True), passwords[INSPECTOR], have)
    if not have.reads:
        yield Step(
            "the inspector may read",
            f"GRANT pg_read_all_data TO {INSPECTOR};\n"
            f"GRANT CONNECT ON DATABASE {quoted(want.name)} TO {INSPECTOR};\n"
            f"ALTER ROLE {INSPECTOR} SET default_transaction_read_only = on;\n"
            f"ALTER ROLE {INSPECTOR} SET statement_timeout = '30s';",
        )


def _inside(want: Want, have: Have) -> Iterator[Step]:
    there = have.inside
    owner, user = quoted(want.owner), quoted(want.user)
    steps: list[Step] = []
    if there is None or there.schema_owner != want.owner:
        steps.append(Step("the schema gets its owner", f"ALTER SCHEMA public OWNER TO {owner};"))
    if there is None or there.creates:
        steps.append(Step("only the owner changes the schema", f"REVOKE CREATE ON SCHEMA public FROM PUBLIC, {user};"))
    if there is None or not there.uses:
        steps.append(Step(f"{want.user} may use the schema", f"GRANT USAGE ON SCHEMA public TO {user};"))
    steps += _extensions(want.extensions, there)
    kinds = {
        "r": f"GRANT {', '.join(TABLES)} ON TABLES",
        "S": f"GRANT {', '.join(SEQUENCES)} ON SEQUENCES",
        "n": "GRANT USAGE ON SCHEMAS",
    }
    steps += [
        Step(
            f"{want.user} gets rights on what the owner will make",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} {grant} TO {user};",
        )
        for kind, grant in kinds.items()
        if there is None or kind not in there.defaults
    ]
    if there and there.closed:
        steps.append(
            Step(
                f"{want.user} gets its rights on what is there",
                f"GRANT {', '.join(TABLES)} ON ALL TABLES IN SCHEMA public TO {user};\n"
                f"GRANT {', '.join(SEQUENCES)} ON ALL SEQUENCES IN SCHEMA public TO {user};",
            )
        )
    if want.init_sql and not (there and there.filled):
        steps.append(
            Step(
                "init_sql is run",
                f"SET LOCAL ROLE {owner};\n{want.init_sql}\n;RESET ROLE;\n"
                f"ALTER DATABASE {quoted(want.name)} SET {FILLED} = 'yes';",
            )
        )
    if steps:
        # All of it or nothing.
        yield Step("", f"\\connect {quoted(want.name)}\nBEGIN;")
        yield from steps
        yield Step("", "COMMIT;")


def _extensions(wanted: Sequence[str], there: Inside | None) -> Iterator[Step]:
    missing = [one for one in wanted if there is None or one not in there.extensions]
    if there and (lacking := [one for one in missing if one not in there.available]):
        raise PreflightError(
            f"The image of the database has no extension {', '.join(lacking)}.",
            "Take it out of app_database.extensions, or give database_image an image that has it.",
        )
    for one in missing:
        yield Step(f"the extension {one} is made", f"CREATE EXTENSION IF NOT EXISTS {quoted(one)};")


def quoted(name: str) -> str:
    """As a name in SQL."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """As a text in SQL."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
