"""The `backend` program. Answers go to stdout, everything else to stderr; exit codes: 0, 1 error, 64 usage."""

from __future__ import annotations

import argparse
import asyncio
import atexit
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, TextIO

from backend import config, logs
from backend.backups import Backups
from backend.errors import BackendError, BackupError, UsageError
from backend.version import version

DAY: Final = 86_400
"""Seconds that a token may last at most."""
MAX_SUBJECT: Final = 200
"""Characters that a document's `created_by` can hold."""

_logger = logging.getLogger("backend")

# Python looks for cycles in all that was imported before it exits, which takes a quarter of the time of a short verb.
atexit.register(gc.freeze)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].upper()}{message[1:]}.", f"See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command and return its exit code."""
    # The kernel drops a signal for PID 1, which this is in a container, unless it is handled. Until uvicorn or a backup
    # handles it in its own way, there is nothing to finish: the database rolls back what was not committed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    os.umask(0o077)  # an SQLite file has what the API asks a token for
    serving = False
    try:
        arguments = _parser().parse_args(argv)
        logs.configure(environ)
        serving = arguments.run is _serve
        return int(arguments.run(arguments, environ))
    except BackendError as error:
        if serving:
            _logger.critical("%s", error)  # in the format that the collector of this log expects
        else:
            print(f"backend: {error}", file=sys.stderr)  # noqa: T201 - this is the program's answer
        return error.exit_code
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="backend", description="Documents over HTTP, configured by the files under SEMIONT_ROOT.")
    parser.add_argument("--version", action="version", version=version())
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")

    serve = verbs.add_parser("serve", help="answer HTTP requests until a signal")
    serve.set_defaults(run=_serve)

    migrating = verbs.add_parser("migrate", help="move the schema, or tell where it is")
    migrating.set_defaults(run=_migrate)
    migrate = migrating.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
    up = migrate.add_parser("up", help="apply what is pending")
    up.add_argument("revision", nargs="?", default="head", help="stop at this revision (default: the newest)")
    down = migrate.add_parser("down", help="take the newest revision back")
    down.add_argument(
        "revision", nargs="?", default="-1", help="go back to this revision; `base`, or `none`, takes all back"
    )
    migrate.add_parser("sql", help="print the SQL that `up` would run; nothing when nothing is pending")
    migrate.add_parser("status", help="print the current revision, or none")
    migrate.add_parser("plan", help="print what is pending, one revision per line")

    backups = verbs.add_parser("backup", help="save the database, check what was saved, put it back")
    backups.set_defaults(run=_backup)
    backup = backups.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
    backup.add_parser("create", help="write a backup of the live database to stdout")
    backup.add_parser("verify", help="restore the backup on stdin to a scratch database and print the rows per table")
    backup.add_parser("status", help="print the revision that the backup on stdin is at, or none")
    backup.add_parser("anonymise", help="put other texts and names in the place of those in the live database")
    backup.add_parser("count", help="print the rows per table of the live database")
    backup.add_parser("restore", help="put the backup on stdin in the place of the live database")

    files = verbs.add_parser("config", help="check the files, or print their schemas").add_subparsers(
        required=True, metavar="VERB", title="verbs"
    )
    files.add_parser("check", help="name everything that is wrong with the files").set_defaults(run=_config_check)
    schema = files.add_parser("schema", help="print the JSON Schema of a file")
    schema.add_argument("file", choices=sorted(config.SCHEMAS), help="semiont.json or environments/<env>.json")
    schema.set_defaults(run=_config_schema)

    token = verbs.add_parser("token", help="print a short-lived Bearer token")
    token.add_argument("--subject", default="operator", help="who it speaks for (default: operator)")
    token.add_argument("--ttl", type=int, default=900, help="seconds until it ends, at most a day (default: 900)")
    token.set_defaults(run=_token)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - stdout is where a command answers


def _serve(_arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from backend import serving  # noqa: PLC0415 - half of the time that a short verb would take

    return serving.run(environ)


def _migrate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from backend.migrate import Migrations  # noqa: PLC0415 - as above

    url = config.load(environ).environment.database.url

    async def answer() -> list[str]:
        migrations = Migrations(url)
        try:
            match arguments.verb:
                case "up":
                    return [f"applied {step.id} {step.message}" for step in await migrations.up(arguments.revision)]
                case "down":
                    target = "base" if arguments.revision == "none" else arguments.revision
                    took = [f"took back {step.id} {step.message}" for step in await migrations.down(target)]
                    return took or [f"nothing to take back: the schema is at {await migrations.current() or 'none'}"]
                case "sql":
                    # It says that it runs the revisions, which here it only seems to do.
                    logging.getLogger("alembic").setLevel(logging.WARNING)
                    return await migrations.sql()
                case "plan":
                    return [f"{step.id} {step.message}" for step in await migrations.pending()]
                case _:
                    return [await migrations.current() or "none"]
        finally:
            await migrations.database.close()

    for line in asyncio.run(answer()):
        _say(line)
    return 0


def _backup(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # Unlike other verbs it has files and databases of its own to remove.
    signal.signal(signal.SIGTERM, _leave)
    url = config.load(environ).environment.database.url
    backups = _backups(url)
    match arguments.verb:
        case "create":
            _refuse_terminal(sys.stdout, "written", "backend backup create > backup")
            try:
                backups.create(sys.stdout.buffer)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise BackupError(f"The backup cannot be written: {error.strerror}.", "Free space for it.") from None
        case "verify":
            _refuse_terminal(sys.stdin, "read", "backend backup verify < backup")
            _say(json.dumps(backups.verify(sys.stdin.buffer)))
        case "status":
            _refuse_terminal(sys.stdin, "read", "backend backup status < backup")
            _say(backups.status(sys.stdin.buffer) or "none")
        case "anonymise":
            _say(f"anonymised {asyncio.run(_anonymised(url))} documents")
        case "count":
            _say(json.dumps(backups.count()))
        case _:
            _refuse_terminal(sys.stdin, "read", "backend backup restore < backup")
            backups.restore(sys.stdin.buffer)
            _say("restored")
    return 0


async def _anonymised(url: str) -> int:
    from backend import documents  # noqa: PLC0415 - as above
    from backend.database import Database  # noqa: PLC0415 - as above

    database = Database(url)
    try:
        return await documents.anonymise(database)
    finally:
        await database.close()


def _backups(url: str) -> Backups:
    from backend.database import Database  # noqa: PLC0415 - as above

    path = Database(url).path
    if path is None:
        from backend.backups_postgres import PostgresBackups  # noqa: PLC0415 - as above

        return PostgresBackups(url)
    from backend.backups_sqlite import SqliteBackups  # noqa: PLC0415 - as above

    return SqliteBackups(path)


def _leave(_signal: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what was begun is being removed; a second one would disturb that
    raise SystemExit(128 + signal.SIGTERM)


def _refuse_terminal(stream: TextIO, done: str, example: str) -> None:
    if stream.isatty():
        raise UsageError(f"A backup is not {done} at a terminal.", f"Use a file or a pipe: `{example}`.")


def _config_check(_arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from backend.database import Database  # noqa: PLC0415 - as above

    loaded = config.load(environ)
    Database(loaded.environment.database.url)  # connects to nothing; refuses what it could never connect to
    _say(f'The configuration of environment "{loaded.environment_name}" can be used.')
    return 0


def _config_schema(arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    _say(config.schema_text(arguments.file))
    return 0


def _token(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from backend import tokens  # noqa: PLC0415 - as above

    if not 0 < arguments.ttl <= DAY:
        raise UsageError(f"A token cannot last {arguments.ttl} seconds.", f"Give --ttl from 1 to {DAY}.")
    if not 0 < len(arguments.subject) <= MAX_SUBJECT or not arguments.subject.isprintable():
        raise UsageError(
            "A token cannot speak for this subject.",
            f"Give --subject from 1 to {MAX_SUBJECT} characters that can be printed.",
        )
    _say(tokens.mint(config.load(environ).environment.auth.jwt_secret, subject=arguments.subject, ttl=arguments.ttl))
    return 0
