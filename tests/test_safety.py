"""What a migration does to the release that serves, as its SQL tells."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.errors import SlipwayError
from slipway.safety import OWN, PASSED_OVER, TAILS, Dialect, judge


def rules(sql: str, dialect: Dialect) -> list[str]:
    return [finding.rule for finding in judge(sql, dialect)]


def test_a_finding_says_what_the_statement_does_to_the_release_that_serves() -> None:
    [finding] = judge("ALTER TABLE documents DROP COLUMN author;", "postgresql")
    assert finding.statement == "ALTER TABLE documents DROP COLUMN author"
    assert finding.rule == "ban-drop-column"
    assert finding.sentence == "ALTER TABLE documents DROP COLUMN author: the release that serves may still read it."


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("sql", ["", " \n", ";;", "-- nothing; at all", "/* nothing; */ ;"])
def test_no_sql_breaks_nothing(sql: str, dialect: Dialect) -> None:
    assert rules(sql, dialect) == []


# --- forms that both dialects have --------------------------------------------------------------------------------

ONLY_ADDS = [
    "CREATE TABLE tags (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS tags (id INTEGER)",
    "CREATE VIEW recent AS SELECT id FROM documents WHERE title <> 'a;b'",
    "ALTER TABLE documents ADD COLUMN author VARCHAR(80)",
    "ALTER TABLE documents ADD COLUMN state VARCHAR(20) DEFAULT 'draft' NOT NULL",
    'ALTER TABLE "documents" ADD "author" TEXT NULL',
    "ALTER TABLE documents ADD COLUMN pages INTEGER CHECK (pages IS NOT NULL)",
    "INSERT INTO tags (id, name) VALUES (1, 'a;b')",
    "INSERT INTO tags (id) SELECT id FROM documents",
    "INSERT INTO alembic_version (version_num) VALUES ('0001')",
    "UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001'",
    "DELETE FROM alembic_version WHERE alembic_version.version_num = '0001'",
    "BEGIN; CREATE TABLE tags (id INTEGER); COMMIT;",
    "-- Running upgrade 0001 -> 0002; it's safe\nCREATE TABLE tags (id INTEGER) /* DROP TABLE documents; */",
    # What is new to the release that serves, whatever is done to it.
    "CREATE TABLE tags (id INTEGER); CREATE UNIQUE INDEX ix ON tags (id); DROP INDEX ix; DROP TABLE tags",
    'CREATE TABLE "Tags" (id INTEGER); ALTER TABLE "Tags" RENAME COLUMN id TO number; UPDATE "Tags" SET number = 1',
    "CREATE TABLE tags (id INTEGER); ALTER TABLE tags RENAME TO labels; ALTER TABLE labels DROP COLUMN id",
    "CREATE VIEW recent AS SELECT 1; DROP VIEW recent",
]

BREAKS = {
    "ALTER TABLE documents DROP COLUMN author": "ban-drop-column",
    "ALTER TABLE documents RENAME COLUMN author TO writer": "renaming-column",
    "ALTER TABLE documents RENAME author TO writer": "renaming-column",
    "ALTER TABLE documents RENAME TO papers": "renaming-table",
    "ALTER TABLE documents ADD COLUMN author TEXT NOT NULL": "adding-required-field",
    "DROP TABLE documents": "ban-drop-table",
    "DROP TABLE IF EXISTS documents": "ban-drop-table",
    "DROP VIEW recent": "ban-drop-view",
    "UPDATE documents SET author = 'x'": "changing-rows",
    "DELETE FROM documents": "changing-rows",
    "INSERT INTO documents (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET title = 'x'": "changing-rows",
    "VACUUM FULL documents": "not-judged",
    "WITH old AS (SELECT 1) DELETE FROM documents": "not-judged",
    # It may be there already, with rows.
    "CREATE TABLE IF NOT EXISTS tags (id INTEGER); DROP TABLE tags": "ban-drop-table",
    # Only one of the two is new.
    "CREATE TABLE tags (id INTEGER); DROP TABLE tags, documents": "ban-drop-table",
    # What is new is a view, and no table of that name.
    "CREATE VIEW documents AS SELECT 1; DROP TABLE documents": "ban-drop-table",
    "CREATE TABLE x.tags (id INTEGER); DROP TABLE tags": "ban-drop-table",
    # Neither a comment nor a string ends a statement, and neither hides one.
    "-- it's;\nDROP TABLE documents -- it's": "ban-drop-table",
    "SELECT 'a''b;' /* ' */; DROP TABLE documents": "ban-drop-table",
    "/* squawk-ignore-file */ -- squawk-ignore ban-drop-table\nDROP TABLE documents": "ban-drop-table",
}


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("sql", ONLY_ADDS)
def test_the_release_that_serves_can_go_on_with(sql: str, dialect: Dialect) -> None:
    assert judge(sql, dialect) == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("sql", BREAKS)
def test_the_release_that_serves_may_not_survive(sql: str, dialect: Dialect) -> None:
    assert BREAKS[sql] in rules(sql, dialect)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_column_that_is_new_may_be_unique_since_the_old_release_writes_none(dialect: Dialect) -> None:
    def restricts(column: str) -> bool:
        index = f"CREATE UNIQUE INDEX {'CONCURRENTLY ' if dialect == 'postgresql' else ''}ix ON documents"
        return "ban-new-write-restriction" in rules(f"{column}; {index} (number)", dialect)

    assert not restricts("ALTER TABLE documents ADD COLUMN number INTEGER")
    assert restricts("ALTER TABLE documents ADD COLUMN number INTEGER DEFAULT 7")
    assert restricts("ALTER TABLE documents ADD COLUMN other INTEGER")


# --- SQLite -------------------------------------------------------------------------------------------------------

TRIGGER = "CREATE TRIGGER sync AFTER INSERT ON documents BEGIN INSERT INTO search VALUES (new.id); {} END"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX ix_title ON documents (title)",
        "CREATE VIRTUAL TABLE search USING fts5(title)",
        TRIGGER.format("UPDATE search SET n = 1;"),
        "PRAGMA foreign_keys=OFF",
        'PRAGMA main.table_xinfo("documents")',
        "SELECT sql FROM sqlite_master",
        "ALTER TABLE [documents] ADD COLUMN `state` TEXT NOT NULL DEFAULT ''",
    ],
)
def test_sqlite_lets_the_release_that_serves_go_on_with(sql: str) -> None:
    assert judge(sql, "sqlite") == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE UNIQUE INDEX ix_title ON documents (title)", "ban-new-write-restriction"),
        (TRIGGER.format("SELECT RAISE(ABORT, 'no');"), "ban-new-write-restriction"),
        ("DROP INDEX ix_title", "ban-drop-index"),
        ("DROP TRIGGER sync", "ban-drop-trigger"),
        ("REPLACE INTO documents (id) VALUES (1)", "changing-rows"),
        ("INSERT OR REPLACE INTO documents (id) VALUES (1)", "changing-rows"),
        ("UPDATE OR IGNORE documents SET title = ''", "changing-rows"),
        ("PRAGMA journal_mode=DELETE", "not-judged"),
        ("VACUUM", "not-judged"),
        ("ATTACH 'other.db' AS other", "not-judged"),
        ("ALTER TABLE documents ADD CONSTRAINT c CHECK (id > 0)", "not-judged"),
        ("this is no SQL at all", "not-judged"),
    ],
)
def test_sqlite_may_break_the_release_that_serves_with(sql: str, rule: str) -> None:
    assert rules(sql, "sqlite") == [rule]


BATCH = """
PRAGMA main.table_xinfo("documents");
SELECT sql FROM (SELECT * FROM sqlite_master) WHERE name = 'documents' AND type in ('table', 'view');

CREATE TABLE _alembic_tmp_documents (
	id INTEGER, 
	title VARCHAR(200) NOT NULL, 
	created_at DATETIME DEFAULT (CURRENT_TIMESTAMP) NOT NULL, 
	PRIMARY KEY (id)
)

;
BEGIN ;
INSERT INTO _alembic_tmp_documents (id, title, created_at) SELECT documents.id, documents.title, documents.created_at 
FROM documents;

DROP TABLE documents;
ALTER TABLE _alembic_tmp_documents RENAME TO documents;
CREATE UNIQUE INDEX uq_title ON documents (title);
UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002'
"""  # noqa: W291 - as Alembic prints it


def test_a_table_that_alembic_rewrites_in_batch_mode_is_one_finding() -> None:
    [finding] = judge(BATCH, "sqlite")
    assert finding.rule == "replacing-table"
    assert finding.sentence == (
        "DROP TABLE documents: a copy takes its place, and what the release that serves writes meanwhile is lost."
    )


def test_a_table_that_is_made_and_rewritten_by_the_same_migrations_is_none() -> None:
    assert judge(f"CREATE TABLE documents (id INTEGER);\n{BATCH}", "sqlite") == []


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX CONCURRENTLY ix_title ON documents (title)",
        "CREATE TABLE tags (id SERIAL NOT NULL, name CHAR(5), at TIMESTAMP, PRIMARY KEY (id))",
        "CREATE TABLE tags (doc BIGINT REFERENCES documents (id)); CREATE INDEX ix_doc ON tags (doc)",
        "BEGIN; CREATE TABLE public.tags (id BIGINT); COMMIT; BEGIN; CREATE INDEX ix ON tags (id); COMMIT;",
        "ALTER TABLE documents ADD COLUMN at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL",
        "ALTER TABLE documents ADD COLUMN a TEXT, ADD COLUMN b NUMERIC(10, 2) DEFAULT 1.5",
        "ALTER TABLE documents ADD owner BIGINT; ALTER TABLE documents ADD FOREIGN KEY (owner) REFERENCES u NOT VALID",
        "ALTER TABLE documents VALIDATE CONSTRAINT fk_owner",
        "ALTER TABLE documents ALTER COLUMN state SET DEFAULT 'x'",
        "ALTER TYPE state ADD VALUE 'archived' AFTER 'draft'",
        "CREATE TYPE state AS ENUM ('draft', 'done'); DROP TYPE state",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN DELETE FROM x; RETURN NEW; END $body$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'",
        "CREATE TRIGGER sync BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE EXTENSION IF NOT EXISTS pgcrypto",
        "COMMENT ON TABLE documents IS 'it''s; here'",
        "SET lock_timeout = '5s'; SET statement_timeout TO 300",
        "GRANT SELECT ON tags TO reader",
        r"INSERT INTO tags (name) VALUES (E'it\'s; DROP TABLE documents') RETURNING tags.id",
        "UPDATE public.alembic_version SET version_num='0002'",
        "CREATE TABLE étiquettes (id BIGINT); CREATE INDEX ix ON étiquettes (id)",
    ],
)
def test_postgresql_lets_the_release_that_serves_go_on_with(sql: str) -> None:
    assert judge(sql, "postgresql") == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE INDEX ix_title ON documents (title)", "require-concurrent-index-creation"),
        ("CREATE UNIQUE INDEX CONCURRENTLY ix_title ON documents (title)", "ban-new-write-restriction"),
        ("DROP INDEX ix_title", "require-concurrent-index-deletion"),
        ("DROP INDEX CONCURRENTLY ix_title", "ban-drop-index"),
        ("ALTER TABLE documents ALTER COLUMN title TYPE TEXT", "changing-column-type"),
        ("ALTER TABLE documents ALTER COLUMN title SET NOT NULL", "adding-not-nullable-field"),
        ("ALTER TABLE documents ALTER COLUMN title DROP NOT NULL", "ban-drop-not-null"),
        ("ALTER TABLE documents ALTER COLUMN title DROP DEFAULT", "ban-drop-default"),
        ("ALTER TABLE documents ADD CONSTRAINT c CHECK (length(title) > 0)", "constraint-missing-not-valid"),
        ("ALTER TABLE documents ADD CONSTRAINT c CHECK (id > 0) NOT VALID", "ban-new-write-restriction"),
        ("ALTER TABLE documents ADD FOREIGN KEY(owner) REFERENCES users (id)", "adding-foreign-key-constraint"),
        ("ALTER TABLE documents ADD CONSTRAINT u UNIQUE (title)", "disallowed-unique-constraint"),
        ("ALTER TABLE documents ADD COLUMN n UUID DEFAULT gen_random_uuid() NOT NULL", "adding-field-with-default"),
        ("ALTER TABLE documents ADD COLUMN n BIGSERIAL", "rewriting-table"),
        ("ALTER TABLE documents SET TABLESPACE fast", "rewriting-table"),
        ("ALTER TABLE documents DROP CONSTRAINT u", "ban-drop-constraint"),
        ("ALTER TABLE documents SET SCHEMA archive", "ban-set-schema"),
        ("ALTER TYPE state RENAME VALUE 'draft' TO 'new'", "renaming-object"),
        ("ALTER SEQUENCE s RESTART WITH 1", "ban-alter-sequence-values"),
        ("ALTER TABLE documents ENABLE ROW LEVEL SECURITY", "ban-alter-row-level-security"),
        ("ALTER TABLE documents ADD COLUMN a TEXT, DROP COLUMN b", "ban-drop-column"),
        ("CREATE OR REPLACE VIEW recent AS SELECT 1", "ban-replace-view-function"),
        ("CREATE RULE r AS ON INSERT TO documents DO INSTEAD NOTHING", "not-judged"),
        ("REVOKE SELECT ON documents FROM app", "ban-revoke"),
        ("TRUNCATE documents", "changing-rows"),
        ("DO $$ BEGIN DROP TABLE documents; END $$", "not-judged"),
        ("DROP OWNED BY app", "ban-revoke"),
        ("DROP AGGREGATE total (int)", "ban-drop-function"),
        ("DROP COLLATION german", "not-judged"),
        ("REINDEX TABLE documents", "require-concurrent-reindex"),
        ("LOCK TABLE documents", "not-judged"),
        ("SELECT drop_everything()", "not-judged"),
        ("this is no SQL at all", "syntax-error"),
        ("BEGIN; DROP TABLE documents; ALTER TABLE", "syntax-error"),
    ],
)
def test_postgresql_may_break_the_release_that_serves_with(sql: str, rule: str) -> None:
    assert rules(sql, "postgresql") == [rule]


def test_an_index_without_a_name_is_judged_by_its_table() -> None:
    sql = "CREATE TABLE tags (id BIGINT); CREATE INDEX ON tags (id); CREATE INDEX ON documents (title)"
    assert rules(sql, "postgresql") == ["require-concurrent-index-creation"]


def test_each_thing_that_an_alter_table_does_is_judged_and_told_by_itself() -> None:
    value = "a value that is longer than what squawk is shown of it"
    found = judge(
        f"ALTER TABLE documents ADD COLUMN a NUMERIC(5, 2), ALTER COLUMN d SET DEFAULT '{value}', DROP COLUMN b,"
        " DROP COLUMN c",
        "postgresql",
    )
    assert [finding.statement for finding in found] == [
        "ALTER TABLE documents DROP COLUMN b",
        "ALTER TABLE documents DROP COLUMN c",
    ]


def test_every_rule_that_is_refused_or_passed_over_is_one_that_squawk_has() -> None:
    squawk = Path(sys.executable).with_name("squawk")
    assert not PASSED_OVER.intersection(TAILS)
    for rule in [*PASSED_OVER, *(rule for rule in TAILS if rule not in OWN)]:
        done = subprocess.run(
            [squawk, f"--include={rule}"], input="SELECT 1;", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


HALVES = [
    "ALTER",
    "TABLE",
    "CREATE",
    "UNIQUE",
    "INDEX",
    "ADD",
    "COLUMN",
    "RENAME",
    "TO",
    "ON",
    "DROP",
    "INSERT",
    "OR",
    "t",
]
HALVES += ["(", ")", ",", ".", ";", "'", '"', "$$", "/*", "--", "[", "1", "é", "IF", "NOT", "NULL", "UPDATE", "PRAGMA"]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_nothing_that_is_half_a_statement_confuses_it(dialect: Dialect) -> None:
    chance = random.Random(7)  # noqa: S311 - the same ones each time
    for _ in range(300):
        sql = " ".join(chance.choices(HALVES, k=chance.randint(1, 8)))
        assert all(finding.sentence.startswith(f"{finding.statement}: ") for finding in judge(sql, dialect)), sql


# --- secrets, and what is not there -------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE settings SET password = 'SECRET'",
        'UPDATE settings SET password = "SECRET"',
        "INSERT OR REPLACE INTO settings VALUES ('SECRET')",
        "DELETE FROM settings WHERE password = 'SECRET'",
        "MERGE INTO settings USING (VALUES ('SECRET')) AS v ON TRUE WHEN MATCHED THEN DELETE",
        "ALTER ROLE app PASSWORD 'SECRET'",
        'ALTER TABLE settings ADD COLUMN password TEXT NOT NULL DEFAULT "SECRET", DROP COLUMN old',
        "DO $$ SECRET $$",
        "DROP TABLE documents -- SECRET",
        "CALL set_password('SECRET')",
        "'SECRET'",
    ],
)
def test_no_value_of_a_statement_is_told(sql: str, dialect: Dialect) -> None:
    for finding in judge(sql, dialect):
        assert "SECRET" not in str(finding)


def test_a_judge_that_does_not_run_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SlipwayError, match=r"could not be judged: squawk did not run\. Install the engine anew"):
        judge("DROP TABLE t", "postgresql")
    assert rules("DROP TABLE t", "sqlite") == ["ban-drop-table"]
