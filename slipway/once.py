"""SQL files that may run once: psql applies each in one transaction with the note that it has been.

A table of the database itself holds the notes, so that they go where its rows go. The note is written before the file
and marked as done after it. A file that fails leaves no note, since all of it is rolled back, unless it has committed
something on its own: then the note stays, is not done, and nobody runs the file a second time.

The texts here are scripts for psql, which comes with every PostgreSQL. All of it is pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from slipway.errors import CommandError

TABLE = "slipway_once"
PSQL = (
    *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"),
    *(f"--set=slipway_table={TABLE}", "--file=-"),
)
"""Arguments with which psql reads one of the scripts from stdin."""
STATE = r"""
SELECT to_regclass(:'slipway_table') IS NOT NULL AS slipway_any \gset
\if :slipway_any
SELECT CASE WHEN done THEN 'done ' ELSE 'begun ' END || file FROM :slipway_table ORDER BY at, file;
\endif
"""
"""Prints a line for each file that was noted, in the order in which they were applied."""
APPLY = r"""
-- The file may leave another search path behind.
SELECT quote_ident(current_schema()) || '.' || :'slipway_table' AS slipway_table \gset
BEGIN;
CREATE TABLE IF NOT EXISTS :slipway_table (
    file text PRIMARY KEY,
    done boolean NOT NULL DEFAULT false,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO :slipway_table (file) VALUES (:'slipway_file');
\i :slipway_path
UPDATE :slipway_table SET done = true WHERE file = :'slipway_file';
COMMIT;
"""
"""Applies one file, whole or not at all, and never twice."""


def name(path: str) -> str:
    """What a file is noted as."""
    return posixpath.basename(path)


def applied(said: str, files: Sequence[str]) -> list[str]:
    """The files that have been applied, from what `STATE` printed; `files` are those that the release has.

    Raises :class:`CommandError` where one was begun and not finished, or is not of this release.
    """
    states = [line.partition(" ")[::2] for line in said.splitlines() if line.strip()]
    done = [file for state, file in states if state == "done"]
    for state, file in states:
        if state != "done":
            raise CommandError(
                f"{file} committed a part of what it does and then failed, so it cannot be run again.",
                f"Finish or undo it by hand, then set done to true in the table {TABLE}, or delete its row there.",
            )
    if unknown := [file for file in done if file not in map(name, files)]:
        raise CommandError(
            f"{', '.join(unknown)} was applied to the database, which this release does not know.",
            "Deploy a release that has it in migrate.once.",
        )
    return done


def pending(done: Sequence[str], files: Sequence[str]) -> list[str]:
    """The files of the release that are still to be applied, as paths."""
    return [path for path in files if name(path) not in done]


def to_apply(path: str) -> list[str]:
    """Arguments with which psql reads `APPLY` for the file at `path`."""
    return [*PSQL, f"--set=slipway_file={name(path)}", f"--set=slipway_path={path}"]
