"""Whether the release that serves can go on while a migration runs and after it: judged from the migration's SQL.

A migration is expand-only when it only adds what the release that serves does not look at. PostgreSQL's SQL is
judged by squawk (https://squawkhq.com), SQLite's by a list of the forms that only add. What neither knows is a
finding too: a form that nobody thought of must not pass for a safe one.

What a statement does to an object that the same SQL has created is never a finding: nobody uses that object yet.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from slipway.errors import SlipwayError

Dialect = Literal["sqlite", "postgresql"]

SQUAWK_PATIENCE = 30.0
"""Seconds; it takes a hundredth of one."""

TAILS = {
    # The first of these that fits a statement is what is said of it.
    "ban-drop-column": "the release that serves may still read it.",
    "ban-drop-table": "the release that serves may still use it.",
    "ban-drop-database": "the release that serves lives in it.",
    "ban-drop-schema": "the release that serves may still use what is in it.",
    "ban-drop-view": "the release that serves may still read it.",
    "ban-drop-sequence": "the release that serves may still take numbers from it.",
    "ban-drop-type": "the release that serves may still use it.",
    "ban-drop-domain": "the release that serves may still use it.",
    "ban-drop-function": "the release that serves may still call it.",
    "ban-drop-extension": "the release that serves may still use what is in it.",
    "require-concurrent-index-deletion": "the table is locked, and the release that serves may need the index.",
    "ban-drop-index": "the release that serves may need it to answer in time, or to keep rows unique.",
    "ban-drop-constraint": "the release that serves may count on it.",
    "ban-drop-default": "the release that serves may write rows without that value.",
    "ban-drop-not-null": "the release that serves may read NULL where it expects a value.",
    "ban-drop-generated-expression": "the release that serves may count on the value that was generated.",
    "ban-alter-row-level-security": "the release that serves may see other rows than before.",
    "ban-drop-trigger": "the release that serves may count on what it does.",
    "ban-disable-trigger": "the release that serves may count on what it does.",
    "ban-drop-policy": "the release that serves may see other rows than before.",
    "ban-create-policy": "the release that serves may see other rows than before.",
    "ban-alter-policy-condition": "the release that serves may see other rows than before.",
    "ban-alter-policy-roles": "the release that serves may see other rows than before.",
    "ban-revoke": "the release that serves may lose a right that it needs.",
    "renaming-column": "the release that serves knows it by its old name.",
    "renaming-table": "the release that serves knows it by its old name.",
    "renaming-object": "the release that serves knows it by its old name.",
    "ban-set-schema": "the release that serves looks for it where it was.",
    "changing-column-type": "the table is locked and rewritten, and the release that serves expects the old type.",
    "adding-required-field": "the release that serves writes rows without it, and they would be refused.",
    "adding-not-nullable-field": "the table is locked while it is read, and the release that serves may write NULL.",
    "adding-field-with-default": "the table is locked while every row is rewritten.",
    "adding-serial-primary-key-field": "the table is locked while the key is built.",
    "adding-foreign-key-constraint": "both tables are locked against writing while every row is checked.",
    "disallowed-unique-constraint": "the table is locked while its index is built.",
    "constraint-missing-not-valid": "the table is locked while every row is checked.",
    "require-concurrent-index-creation": "the table is locked against writing while the index is built.",
    "require-concurrent-partition-detach": "the table is locked, and the release that serves may use the partition.",
    "require-concurrent-reindex": "the table is locked against writing while the index is built.",
    "ban-detach-inheritance": "the release that serves no longer finds its rows in the parent.",
    "ban-truncate-cascade": "the rows that the release that serves uses are deleted.",
    "ban-alter-domain-with-add-constraint": "rows of the release that serves may be refused.",
    "ban-new-write-restriction": "rows of the release that serves may be refused.",
    "ban-replace-view-function": "the release that serves expects what it did before.",
    "ban-alter-generated-expression": "the release that serves expects the value as it was.",
    "ban-alter-identity": "the release that serves may count on how its numbers are made.",
    "ban-alter-sequence-values": "the release that serves may be given numbers that are taken.",
    "ban-add-composite-attribute": "the release that serves reads values of another shape.",
    "ban-alter-view-options": "the release that serves expects what it did before.",
    "ban-alter-function-options": "the release that serves expects what it did before.",
    "ban-alter-extension": "the release that serves may count on the version as it is.",
    "ban-replica-identity": "its rows may no longer be changed where it is published.",
    "ban-alter-role-options": "the release that serves may run as that role.",
    "ban-alter-database-options": "it changes what every connection starts with.",
    "ban-alter-system-options": "it changes the server for all who use it.",
    "syntax-error": "it cannot be read as PostgreSQL, so none of this SQL was judged.",
    # The kit's own, for what squawk does not look at and for SQLite.
    "rewriting-table": "the table is locked while it is rewritten.",
    "replacing-table": "a copy takes its place, and what the release that serves writes meanwhile is lost.",
    "changing-rows": "it changes rows under the release that serves.",
    "not-judged": "it is no form that is known to leave the release that serves alone.",
}
"""Rule -> what it means for the release that serves. Opt-in rules of squawk that stand here are switched on."""

PASSED_OVER = {
    # How a column is best declared is the authors' taste, and no matter to the release that serves.
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-text-field",
    "prefer-timestamp-tz",
    "ban-char-field",
    "identifier-too-long",
    "require-enum-value-ordering",
    # A constraint of a domain that is made here meets no row yet.
    "ban-create-domain-with-constraint",
    # Whether a migration can be run twice: each runs once, whole or not at all.
    "prefer-robust-stmts",
    # Applications set them on the connection, which their SQL does not show.
    "require-lock-timeout",
    "require-statement-timeout",
    # Where transactions begin and end is for the tool that runs the SQL; PostgreSQL refuses what cannot be.
    "transaction-nesting",
    "ban-uncommitted-transaction",
    "ban-concurrent-index-creation-in-transaction",
    # PostgreSQL refuses it before anything has changed.
    "ban-duplicate-column-assignments",
}
"""What squawk says and is not refused."""

OWN = {"syntax-error", "rewriting-table", "replacing-table", "changing-rows", "not-judged"}
"""Those of `TAILS` that squawk cannot be asked for."""

VERSION_TABLE = "alembic_version"
"""Where Alembic notes the revision; nobody else reads or writes it."""

HARMLESS = {"BEGIN", "START", "COMMIT", "END", "SAVEPOINT", "RELEASE", "ANALYZE", "INSERT"}
"""Statements that change nothing for the release that serves. An INSERT only adds."""
HARMLESS_HERE = {
    "sqlite": HARMLESS | {"SELECT", "EXPLAIN"},
    "postgresql": HARMLESS | {"COMMENT", "GRANT", "SET", "RESET", "REINDEX"},
}
"""As well, by dialect. In PostgreSQL a SELECT may call anything; a REINDEX that locks is squawk's to find."""
EXPANDING = {
    "sqlite": {"TABLE", "VIEW", "INDEX", "TRIGGER"},
    "postgresql": {
        *("TABLE", "VIEW", "INDEX", "TRIGGER", "SEQUENCE", "TYPE", "DOMAIN", "SCHEMA", "EXTENSION", "FUNCTION"),
        *("PROCEDURE", "AGGREGATE", "COLLATION", "CAST", "OPERATOR", "STATISTICS", "PUBLICATION", "ROLE", "USER"),
    },
}
"""What may be created beside the release that serves. A trigger is how two shapes of a table are kept alike."""
ALTERED = {"TABLE", "VIEW", "INDEX", "SEQUENCE", "TYPE", "DOMAIN", "FUNCTION", "PROCEDURE", "DEFAULT"}
"""What squawk looks into when it is altered."""
REWRITES = {("SET", "LOGGED"), ("SET", "UNLOGGED"), ("SET", "TABLESPACE"), ("SET", "ACCESS")}
"""How an ALTER TABLE begins that copies the whole table, and that squawk passes over."""
PRAGMAS = {
    *("foreign_keys", "foreign_key_check", "foreign_key_list", "defer_foreign_keys", "busy_timeout"),
    *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo"),
}
"""Those that only read, or set something of the migration's own connection; others are of the file, which the release
that serves has open."""
SERIALS = {"SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"}
"""Types whose values are numbered row by row."""
CONSTRAINTS = {"CONSTRAINT", "CHECK", "UNIQUE", "PRIMARY", "FOREIGN", "EXCLUDE"}

TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
      | (?P<literal>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | \d[\w.]*)
      | (?P<name>"(?:[^"]|"")*" | `[^`]*` | \[\w[^\]]*\] | \w+)
      | (?P<space>\s+)
      | (?P<mark>.)""",
    re.DOTALL | re.VERBOSE,
)
MODIFIERS = {
    *("OR", "REPLACE", "TEMP", "TEMPORARY", "GLOBAL", "LOCAL", "UNLOGGED", "VIRTUAL", "MATERIALIZED", "RECURSIVE"),
    *("UNIQUE", "CONSTRAINT", "FOREIGN"),
}
"""What may stand between CREATE, ALTER or DROP and the kind of the object."""
NOISE = {"IF", "NOT", "EXISTS", "ONLY", "CONCURRENTLY"}
"""What may stand between the kind of an object and its name."""
VALUES_FOLLOW = {"SET", "VALUES", "SELECT", "WHERE", "USING", "AS", "WITH"}
"""Words that a statement is cut off at, where it is no ALTER."""
LONGEST = 10
"""Words of a statement that are shown."""


class Finding(msgspec.Struct, frozen=True):
    """A statement that the release that serves may not survive."""

    statement: str
    """Its first words, and never a value."""
    rule: str
    """A key of `TAILS`: squawk's name for it, in both dialects, or the kit's own."""
    sentence: str


def judge(sql: str, dialect: Dialect) -> list[Finding]:
    """Judge the SQL of a migration. An empty list says that it is expand-only.

    Where the contract names no dialect, nobody can tell. Raises :class:`SlipwayError` when squawk, which judges
    PostgreSQL, cannot be run.
    """
    if dialect == "sqlite":
        return list(_findings(_statements(sql, sqlite3.complete_statement), _sqlite))
    statements = _statements(sql)
    said = _squawk(statements)
    for number, complaints in said.items():
        if any(rule == "syntax-error" for _, rule in complaints):
            return [_finding(statements[number], statements[number].actions[0], "syntax-error")]
    return list(_findings(statements, partial(_postgresql, said)))


# --- Statements ---------------------------------------------------------------------------------------------------


class _Token(NamedTuple):
    kind: str
    text: str
    at: int
    end: int
    """Where it begins and has ended in the statement's `line`."""

    @property
    def word(self) -> str:
        return self.text.upper() if self.kind == "name" else self.text


class _Action(NamedTuple):
    """What a statement does: all of it, or one of the things that an ALTER TABLE does in a row."""

    tokens: Sequence[_Token]

    @property
    def outer(self) -> list[str]:
        """Its words outside of parentheses."""
        return [token.word for token, depth in _with_depth(self.tokens) if depth == 0]

    @property
    def listed(self) -> set[str]:
        """The names in its first parentheses: the columns of an index or a key, and of a check whatever it calls."""
        inner: set[str] = set()
        for token, depth in _with_depth(self.tokens):
            if depth > 0 and token.kind == "name":
                inner.add(_folded(token.text))
            elif depth == 0 and inner:
                break
        return inner

    @property
    def adds_column(self) -> bool:
        return self.outer[:1] == ["ADD"] and not CONSTRAINTS.intersection(self.outer[1:2])


class _Statement:
    """One statement, without its comments."""

    def __init__(self, tokens: Sequence[_Token], line: str) -> None:
        self.tokens = tokens
        self.line = line
        """It on one line, in ASCII and with every value made the same."""
        self.words = [token.word for token in tokens]
        self.verb = self.words[0]
        self.kind, after = self._kind()
        self.name, after = self._name(after)
        """What it creates, alters, drops or writes to, as the database compares names."""
        self.table = self.name
        if self.kind in ("INDEX", "TRIGGER", "POLICY") and "ON" in self.words:
            self.table, _ = self._name(self.words.index("ON") + 1)
        several = [token for token, depth in _with_depth(tokens[after:]) if depth == 0 and token.text == ","]
        self.several = bool(several) and self.verb in ("DROP", "TRUNCATE")
        self.actions = [_Action(tokens)]
        self.head: Sequence[_Token] = []
        """What all actions have in common: `ALTER TABLE t`."""
        if (self.verb, self.kind) == ("ALTER", "TABLE") and (actions := list(_split(tokens[after:]))):
            self.head, self.actions = tokens[:after], actions

    def _kind(self) -> tuple[str, int]:
        at = 1
        if self.verb in ("CREATE", "ALTER", "DROP"):
            while self.words[at : at + 1] and self.words[at] in MODIFIERS:
                at += 1
            return "".join(self.words[at : at + 1]), at + 1
        while self.words[at : at + 1] and self.words[at] in ("INTO", "FROM", "TABLE"):
            at += 1
        if self.words[at : at + 1] == ["OR"]:
            # INSERT OR REPLACE INTO t, UPDATE OR IGNORE t
            at += 3 if self.words[at + 2 : at + 3] == ["INTO"] else 2
        return "", at

    def _name(self, at: int) -> tuple[str, int]:
        """The name, and where it has ended."""
        while self.words[at : at + 1] and self.words[at] in NOISE:
            at += 1
        parts: list[str] = []
        while at < len(self.tokens) and (token := self.tokens[at]).kind == "name" and token.word != "ON":
            parts.append(_folded(token.text))
            at += 1
            if self.words[at : at + 1] != ["."]:
                break
            at += 1
        if len(parts) > 1 and parts[0] in ("public", "main"):
            parts = parts[1:]
        return ".".join(parts), at


def _statements(sql: str, complete: Callable[[str], bool] | None = None) -> list[_Statement]:
    """Split SQL; `complete` tells whether a text that ends in a semicolon is a whole statement, and not half a trigger.

    Without it each one is.
    """
    found: list[_Statement] = []
    tokens: list[_Token] = []
    line, begin = "", 0
    # On a line of its own, since the last one may be a comment.
    for match in TOKEN.finditer(f"{sql}\n;"):
        kind, text = str(match.lastgroup), match[0]
        if text == ";" and (complete is None or match.end() > len(sql) or complete(sql[begin : match.end()])):
            if tokens:
                found.append(_Statement(tokens, line))
            tokens, line, begin = [], "", match.end()
        elif kind in ("comment", "space"):
            line = f"{line} "
        else:
            begun, line = len(line), line + _shown(kind, text)
            tokens.append(_Token(kind, text, begun, len(line)))
    return found


def _shown(kind: str, text: str) -> str:
    """A token as squawk is shown it: values are none of its business, and its positions count one way or another."""
    if kind == "literal":
        # Nothing in the quotes: squawk reads what stands there as SQL where it is the body of a function.
        return "1" if text[0].isdigit() else "''"
    return re.sub(r"[^ -~]", "x", text)


def _with_depth(tokens: Iterable[_Token]) -> Iterator[tuple[_Token, int]]:
    """Each token with the number of parentheses that it stands in; a parenthesis stands in itself."""
    depth = 0
    for token in tokens:
        depth += token.text == "("
        yield token, depth
        depth -= token.text == ")"


def _split(tokens: Sequence[_Token]) -> Iterator[_Action]:
    """Split at the commas that stand in no parentheses."""
    commas = [at for at, (token, depth) in enumerate(_with_depth(tokens)) if depth == 0 and token.text == ","]
    for begin, end in pairwise([-1, *commas, len(tokens)]):
        if part := tokens[begin + 1 : end]:
            yield _Action(part)


def _folded(name: str) -> str:
    return name[1:-1] if name.startswith(('"', "`", "[")) else name.lower()


# --- Judging ------------------------------------------------------------------------------------------------------


class _New:
    """What the SQL so far has made, which the release that serves does not know."""

    def __init__(self) -> None:
        self._objects: set[tuple[str, str]] = set()
        """Kind and name."""
        self._columns: dict[str, set[str]] = {}

    def holds(self, statement: _Statement) -> bool:
        """Whether the statement is about something new."""
        concerned = {(statement.kind, statement.name), ("TABLE", statement.table)}
        return not statement.several and not self._objects.isdisjoint(concerned)

    def columns_only(self, table: str, action: _Action) -> bool:
        """Whether an index or a constraint is about new columns alone: in rows of the old release they are NULL."""
        return bool(action.listed) and action.listed <= self._columns.get(table, set())

    def learn(self, statement: _Statement) -> None:
        """Take in what a statement has made."""
        # What is created only if it does not exist, or replaced, may have been there.
        maybe_old = {"EXISTS", "REPLACE"}.intersection(statement.words[:6])
        if statement.verb == "CREATE" and statement.name and not maybe_old:
            self._objects.add((statement.kind, statement.name))
        for action in statement.actions:
            if (name := _renamed_to(action)) and ("TABLE", statement.name) in self._objects:
                self._objects.add(("TABLE", name))
            if action.adds_column and not {"DEFAULT", "GENERATED", "EXISTS"}.intersection(action.outer):
                column = next((token.text for token in action.tokens[1:] if token.word != "COLUMN"), "")
                self._columns.setdefault(statement.table, set()).add(_folded(column))


Rule = Callable[[int, _Statement, _Action, _New], str]
"""Number of the statement, it, one of its actions, what is new -> the rule that it breaks, or an empty string."""


def _findings(statements: Sequence[_Statement], rule_of: Rule) -> Iterator[Finding]:
    new = _New()
    replaced = {_renamed_to(action) for statement in statements for action in statement.actions}
    for number, statement in enumerate(statements):
        for action in statement.actions:
            rule = "" if new.holds(statement) else rule_of(number, statement, action, new)
            if rule == "ban-drop-table" and statement.name in replaced:
                # Batch mode in Alembic's words: a copy was filled and takes its name. One sentence for all of it.
                rule = "replacing-table"
            if rule:
                yield _finding(statement, action, rule)
        new.learn(statement)


def _renamed_to(action: _Action) -> str:
    match list(action.tokens):
        case [first, second, name, *_] if (first.word, second.word) == ("RENAME", "TO"):
            return _folded(name.text)
    return ""


def _sqlite(_: int, statement: _Statement, action: _Action, new: _New) -> str:
    match statement.verb, statement.kind:
        case "CREATE", "INDEX" if "UNIQUE" in statement.words[:3] and not new.columns_only(statement.table, action):
            return "ban-new-write-restriction"
        case "CREATE", "TRIGGER" if "RAISE" in statement.words:
            return "ban-new-write-restriction"
        case "ALTER", "TABLE":
            return _sqlite_alters(action)
        case "DROP", kind:
            rule = f"ban-drop-{kind.lower()}"
            return rule if rule in TAILS else "not-judged"
        case "PRAGMA", _ if statement.name.rpartition(".")[2] in PRAGMAS:
            return ""
    return _form("sqlite", statement)


def _sqlite_alters(action: _Action) -> str:
    match action.outer:
        case ["ADD", *words] if action.adds_column:
            return "adding-required-field" if _required(words) else ""
        case ["DROP", *_]:
            return "ban-drop-column"
        case ["RENAME", "TO", *_]:
            return "renaming-table"
        case ["RENAME", *_]:
            return "renaming-column"
    return "not-judged"


def _required(words: Sequence[str]) -> bool:
    return ("NOT", "NULL") in pairwise(words) and "DEFAULT" not in words


def _postgresql(
    said: Mapping[int, list[tuple[int, str]]], number: int, statement: _Statement, action: _Action, new: _New
) -> str:
    begin, end = action.tokens[0].at, action.tokens[-1].end
    broken = {rule for column, rule in said.get(number, []) if begin <= column < end} - PASSED_OVER
    if action.adds_column or new.columns_only(statement.table, action):
        # Rows without the column stay allowed, unless another rule says otherwise.
        broken.discard("ban-new-write-restriction")
    if broken:
        # A rule of a newer squawk has no words here yet.
        return next((rule for rule in TAILS if rule in broken), "not-judged")
    if tuple(action.outer[:2]) in REWRITES or (action.adds_column and SERIALS.intersection(action.outer)):
        return "rewriting-table"
    if statement.verb == "ALTER" and statement.kind in ALTERED:
        return ""
    return _form("postgresql", statement)


def _form(dialect: Dialect, statement: _Statement) -> str:
    """Judge by the form alone."""
    if statement.table == VERSION_TABLE and statement.verb in ("UPDATE", "DELETE"):
        return ""
    overwrites = "REPLACE" in statement.words[:3] or {"CONFLICT", "UPDATE"} <= set(statement.words)
    if statement.verb in ("UPDATE", "DELETE", "TRUNCATE", "MERGE", "REPLACE") or (
        statement.verb == "INSERT" and overwrites
    ):
        return "changing-rows"
    if statement.verb == "CREATE" and statement.kind in EXPANDING[dialect]:
        return ""
    return "" if statement.verb in HARMLESS_HERE[dialect] else "not-judged"


def _finding(statement: _Statement, action: _Action, rule: str) -> Finding:
    excerpt = _excerpt([*statement.head, *action.tokens])
    return Finding(excerpt, rule, f"{excerpt}: {TAILS[rule]}")


def _excerpt(tokens: Sequence[_Token]) -> str:
    """The first words, up to where a value could stand: it may be a secret."""
    text, before = "", ""
    for token in tokens[:LONGEST]:
        cut_off = token.word in VALUES_FOLLOW and tokens[0].word != "ALTER"
        if (text and cut_off) or before == "DEFAULT" or not (token.kind == "name" or token.text == "."):
            break
        text += token.text if "." in (token.text, before) else f" {token.text}"
        before = token.word
    return text.strip() or "(no words)"


# --- squawk -------------------------------------------------------------------------------------------------------


class _Complaint(msgspec.Struct):
    line: int
    column: int
    rule_name: str


def _squawk(statements: Sequence[_Statement]) -> dict[int, list[tuple[int, str]]]:
    """Ask squawk: number of the statement -> where in its line, and the rule that is broken there."""
    if not statements:
        return {}
    # From stdin and without comments: nothing is written to a disk, and a migration cannot switch off its own judge.
    # The configuration is named so that one that lies about on the host has no say.
    arguments = ["--reporter=json", "--config=/dev/null", *(f"--include={rule}" for rule in TAILS if rule not in OWN)]
    try:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("squawk")), *arguments],
            input="".join(f"{statement.line};\n" for statement in statements),
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=SQUAWK_PATIENCE,
        )
        complaints = msgspec.json.decode(done.stdout, type=list[_Complaint])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        raise SlipwayError(
            "The migration could not be judged: squawk did not run.",
            "Install the engine anew: playbooks/provision.yml.",
            details=str(error),
        ) from error
    said: dict[int, list[tuple[int, str]]] = {}
    for complaint in complaints:
        said.setdefault(min(complaint.line, len(statements) - 1), []).append((complaint.column, complaint.rule_name))
    return said
