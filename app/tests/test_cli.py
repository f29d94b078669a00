from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend.cli import main
from backend.tokens import subject_of
from backend.version import version
from backend_support import SECRET, command, free_port, write_config


@pytest.fixture(autouse=True)
def _process_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    terminated = signal.getsignal(signal.SIGTERM)
    mask = os.umask(0o022)
    yield
    os.umask(mask)
    root.handlers[:], root.level = handlers, level
    signal.signal(signal.SIGTERM, terminated)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return write_config(tmp_path, f"sqlite:///{tmp_path}/backend.db")


def test_version_is_printed_without_any_configuration() -> None:
    done = command("--version", environ={})

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{version()}\n", "")


def test_version_is_the_one_that_the_image_was_built_with() -> None:
    assert command("--version", environ={"BACKEND_VERSION": "0.1.0-build.7"}).stdout == "0.1.0-build.7\n"


def test_migrate_keeps_its_answers_on_stdout_and_its_log_on_stderr(environ: dict[str, str]) -> None:
    assert command("migrate", "status", environ=environ).stdout == "none\n"
    plan = command("migrate", "plan", environ=environ)
    assert (plan.returncode, plan.stdout) == (0, "0001 Create documents.\n0002 Record who created a document.\n")

    up = command("migrate", "up", environ=environ)
    assert up.stdout == "applied 0001 Create documents.\napplied 0002 Record who created a document.\n"
    assert all(json.loads(line)["level"] == "info" for line in up.stderr.splitlines())

    assert command("migrate", "plan", environ=environ).stdout == ""
    assert command("migrate", "status", environ=environ).stdout == "0002\n"


def test_migrate_down_says_what_it_took_back(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "up"], environ) == 0
    assert main(["migrate", "down"], environ) == 0
    assert main(["migrate", "status"], environ) == 0

    assert capsys.readouterr().out.splitlines()[2:] == ["took back 0002 Record who created a document.", "0001"]


def test_migrate_down_says_when_there_is_nothing_to_take_back(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["up"], ["down", "0001"], ["down", "0001"], ["down", "none"], ["down", "none"]):
        assert main(["migrate", *arguments], environ) == 0

    assert capsys.readouterr().out.splitlines()[2:] == [
        "took back 0002 Record who created a document.",
        "nothing to take back: the schema is at 0001",
        "took back 0001 Create documents.",
        "nothing to take back: the schema is at none",
    ]


def test_migrate_sql_prints_statements_and_logs_no_migration(environ: dict[str, str]) -> None:
    done = command("migrate", "sql", environ=environ)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("-- 0001 Create documents.\nCREATE TABLE alembic_version (")
    assert done.stdout.endswith(";\n")
    assert command("migrate", "status", environ=environ).stdout == "none\n"


def test_config_check_says_that_the_files_can_be_used(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check"], environ) == 0

    assert capsys.readouterr().out == 'The configuration of environment "test" can be used.\n'


@pytest.mark.parametrize("verb", [["config", "check"], ["migrate", "up"], ["serve"], ["token"]])
def test_a_problem_of_the_configuration_is_one_line_on_stderr_and_an_exit_code(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = write_config(tmp_path, "sqlite:///x.db", auth={"jwtSecret": "short-secret"})

    assert main(verb, environ) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert f"{tmp_path}/environments/test.json has a problem: auth.jwtSecret has 12 characters" in err
    assert "short-secret" not in err


def test_config_check_refuses_a_url_that_could_never_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check"], write_config(tmp_path, "postgresql://u:hidden@h/d?schema=s")) == 1

    err = capsys.readouterr().err
    assert "options that are not known: schema. It takes sslmode, sslrootcert and connection_limit." in err
    assert "hidden" not in err


def test_serve_ends_with_one_sentence_when_the_database_cannot_be_reached(tmp_path: Path) -> None:
    port = free_port()

    done = command("serve", environ=write_config(tmp_path, f"postgresql://u:hidden@127.0.0.1:{port}/d"))

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"The database postgresql://u:***@127.0.0.1:{port}/d cannot be reached" in json.loads(line)["message"]
    assert "hidden" not in line


def test_migrate_ends_with_one_sentence_when_the_database_cannot_be_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "status"], write_config(tmp_path, f"postgresql://u:p@127.0.0.1:{free_port()}/d")) == 1

    assert capsys.readouterr().err.startswith("backend: The database postgresql://u:***@127.0.0.1:")


@pytest.mark.parametrize("file", ["semiont", "environment"])
def test_config_schema_prints_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema", file], {}) == 0

    assert json.loads(capsys.readouterr().out)["$schema"].endswith("2020-12/schema")


def test_token_prints_a_token_and_nothing_else(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--subject", "someone", "--ttl", "60"], environ) == 0

    out, err = capsys.readouterr()
    assert subject_of(out.strip(), SECRET) == "someone"
    assert err == ""


@pytest.mark.parametrize("ttl", ["0", "-1", "86401"])
def test_a_token_cannot_last_forever(environ: dict[str, str], ttl: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", f"--ttl={ttl}"], environ) == 64

    assert "Give --ttl from 1 to 86400." in capsys.readouterr().err


@pytest.mark.parametrize("subject", ["", "x" * 201, "a\0b", "a\nb", "\udcff"], ids=ascii)
def test_a_token_speaks_for_someone_that_a_document_can_name(
    environ: dict[str, str], subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", f"--subject={subject}"], environ) == 64

    assert "Give --subject from 1 to 200 characters" in capsys.readouterr().err
    assert main(["token", f"--subject={'ü' * 200}"], environ) == 0


def test_an_sqlite_file_can_be_read_by_its_owner_alone(environ: dict[str, str], tmp_path: Path) -> None:
    assert main(["migrate", "up"], environ) == 0

    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.glob("backend.db*")} == {
        "backend.db": "0o600",
        "backend.db.migrate.lock": "0o600",
    }


@pytest.mark.parametrize("arguments", [[], ["bake"], ["migrate"], ["migrate", "sideways"], ["config", "schema", "x"]])
def test_a_call_that_is_wrong_is_answered_with_where_to_look(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, {}) == 64

    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "--help`" in err


@pytest.mark.parametrize(
    "setting", [{"LOG_LEVEL": "loud"}, {"BACKEND_PORT": "http"}, {"BACKEND_DRAIN_SECONDS": "-1"}, {"BACKEND_PORT": "0"}]
)
def test_a_setting_that_makes_no_sense_is_named(
    environ: dict[str, str], setting: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"], {**environ, **setting}) == 1

    assert next(iter(setting)) in capsys.readouterr().err
