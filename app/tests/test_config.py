from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from backend import config
from backend.errors import ConfigError
from backend_support import SECRET, write_config

SCHEMA_DIRECTORY = Path(__file__).parents[1] / "schema"

# The example that the document of the image's configuration shows, key by key.
EXAMPLE: dict[str, Any] = {
    "database": {"url": "postgresql://user:password@db-host:5432/semiont"},
    "auth": {
        "jwtSecret": "your-jwt-secret-min-32-chars",
        "googleClientId": "your-google-oauth-client-id",
        "googleClientSecret": "your-google-oauth-secret",
    },
    "ai": {"openaiApiKey": "sk-...", "anthropicApiKey": "sk-ant-..."},
    "graph": {"type": "neptune", "endpoint": "your-neptune-cluster.region.amazonaws.com", "port": 8182},
}
EXAMPLE_PROJECT = {"projectName": "My Semiont Project", "version": "1.0.0"}

Write = Callable[..., dict[str, str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write both files, as data or as text, and return the environment that points to them."""

    def files(environment: object, project: object = EXAMPLE_PROJECT) -> dict[str, str]:
        (tmp_path / "environments").mkdir()
        for path, content in (("semiont.json", project), ("environments/production.json", environment)):
            (tmp_path / path).write_text(content if isinstance(content, str) else json.dumps(content))
        return {"SEMIONT_ROOT": str(tmp_path), "SEMIONT_ENV": "production"}

    return files


def complaint(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(environ)
    return str(caught.value)


def valid(**changes: object) -> dict[str, Any]:
    return {"database": {"url": "sqlite:////data/x.db"}, "auth": {"jwtSecret": SECRET}, **changes}


def test_the_documented_example_is_accepted_with_a_secret_of_its_own(write: Write) -> None:
    loaded = config.load(write({**EXAMPLE, "auth": {**EXAMPLE["auth"], "jwtSecret": SECRET}}))

    assert loaded.environment.database.url == "postgresql://user:password@db-host:5432/semiont"
    assert loaded.environment.auth.jwt_secret == SECRET
    assert loaded.project.project_name == "My Semiont Project"


def test_the_documented_example_as_it_stands_is_refused_only_for_its_placeholder_of_28_characters(write: Write) -> None:
    message = complaint(write(EXAMPLE))

    assert "has a problem: auth.jwtSecret has 28 characters and needs 32 or more." in message


def test_keys_of_other_programs_of_the_project_are_let_through(write: Write) -> None:
    others = {key: {"anything": [1]} for key in ("platform", "services", "site", "app", "env", "deployment")}

    config.load(write(valid(name="production", **others), {"version": "1", "project": "p", "site": {"domain": "d"}}))


@pytest.mark.parametrize("key", ["SEMIONT_ROOT", "SEMIONT_ENV"])
def test_a_required_variable_that_is_not_set_is_named(write: Write, key: str) -> None:
    environ = write(valid())
    del environ[key]

    assert complaint(environ).startswith(f"{key} is not set.")


def test_a_missing_semiont_json_is_named_with_its_path(tmp_path: Path) -> None:
    message = complaint({"SEMIONT_ROOT": str(tmp_path), "SEMIONT_ENV": "production"})

    assert message.startswith(f"There is no {tmp_path}/semiont.json.")


def test_an_unknown_environment_is_answered_with_those_that_exist(write: Write, tmp_path: Path) -> None:
    environ = write(valid())
    (tmp_path / "environments" / "development.json").touch()

    message = complaint({**environ, "SEMIONT_ENV": "prod"})

    assert f'no environment "prod" in {tmp_path}/environments (there are: development, production)' in message


@pytest.mark.parametrize("name", ["../production", "a/b", ".hidden", "a b"])
def test_an_environment_name_cannot_lead_elsewhere(write: Write, name: str) -> None:
    assert "cannot be the name of a file" in complaint({**write(valid()), "SEMIONT_ENV": name})


def test_invalid_json_is_told_with_line_and_column(write: Write) -> None:
    message = complaint(write('{\n  "database": {},\n  "auth": {"jwtSecret" "' + SECRET + '"}\n}'))

    assert "production.json is not valid JSON: line 3, column 24:" in message
    assert SECRET not in message


def test_a_key_that_stands_twice_is_refused(write: Write) -> None:
    assert 'the key "auth" stands twice' in complaint(write('{"auth": {}, "auth": {}}'))


def test_every_problem_is_named_with_its_path_and_without_its_value(write: Write) -> None:
    content = valid(databse={}, graph={"port": "secret-port"}, ai=["secret-key"])
    content["auth"] = {"jwtSecret": "short-secret", "googleClientID": "secret-id"}
    content["database"] = {}

    message = complaint(write(content))

    for problem in (
        "has 6 problems",
        "databse is not a known key (did you mean database?)",
        "database.url is missing",
        "auth.jwtSecret has 12 characters and needs 32 or more",
        "auth.googleClientID is not a known key (did you mean googleClientId?)",
        "graph.port is wrong: expected `int`, got `str`",
        "ai is not an object",
    ):
        assert problem in message
    for secret in ("short-secret", "secret-id", "secret-key", "secret-port"):
        assert secret not in message


@pytest.mark.parametrize("content", ["[]", "null", "1", '"text"'])
def test_a_file_that_is_no_object_is_refused(write: Write, content: str) -> None:
    assert "the file is not an object" in complaint(write(content))


@pytest.mark.parametrize("url", ["mysql://u:hidden@h/d", "hidden", "sqlite://", "postgresql:hidden"])
def test_a_database_of_another_kind_is_refused_without_showing_its_url(write: Write, url: str) -> None:
    message = complaint(write(valid(database={"url": url})))

    assert "database.url starts neither with postgresql:// nor with sqlite:///" in message
    assert "hidden" not in message


def test_variables_are_expanded_from_the_environment_before_anything_is_checked(write: Write) -> None:
    environ = write(valid(auth={"jwtSecret": "${JWT}"}, database={"url": "postgresql://u:${PW}@h/$${d}"}))

    loaded = config.load({**environ, "JWT": SECRET, "PW": "a$b"})

    assert loaded.environment.auth.jwt_secret == SECRET
    assert loaded.environment.database.url == "postgresql://u:a$b@h/${d}"


def test_a_variable_that_is_not_set_is_named_with_the_path_that_uses_it(write: Write) -> None:
    environ = write(valid(ai={"openaiApiKey": "${OPENAI_KEY}"}))

    assert "ai.openaiApiKey uses ${OPENAI_KEY}, which is not set in the environment" in complaint(environ)


@pytest.fixture
def as_another_user() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.fail("Run these tests as root: a file is unreadable only to someone else.", pytrace=False)
    os.seteuid(1001)
    yield
    os.seteuid(0)


def open_to_all(folder: Path) -> None:
    """Let every user enter a folder that pytest has made."""
    while folder != Path(tempfile.gettempdir()):
        folder.chmod(0o755)
        folder = folder.parent


@pytest.mark.parametrize("closed", ["semiont.json", "environments/production.json"])
def test_a_file_that_the_process_may_not_read_is_told_with_mode_owner_and_uid(
    write: Write, tmp_path: Path, closed: str, request: pytest.FixtureRequest
) -> None:
    environ = write(valid())
    open_to_all(tmp_path)
    (tmp_path / closed).chmod(0o600)
    request.getfixturevalue("as_another_user")

    message = complaint(environ)

    assert f"the file {tmp_path}/{closed} has mode 0600 and owner 0:0, and this process is uid 1001." in message


def test_a_directory_that_the_process_may_not_enter_is_told_instead_of_the_file(
    write: Write, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environ = write(valid())
    open_to_all(tmp_path)
    (tmp_path / "environments").chmod(0o700)
    request.getfixturevalue("as_another_user")

    assert f"the directory {tmp_path}/environments has mode 0700" in complaint(environ)


def test_a_file_that_docker_made_a_directory_of_is_explained(write: Write, tmp_path: Path) -> None:
    environ = write(valid())
    (tmp_path / "semiont.json").unlink()
    (tmp_path / "semiont.json").mkdir()

    assert "semiont.json is a directory, not a file. Docker makes one" in complaint(environ)


def test_a_file_in_another_encoding_is_refused(write: Write, tmp_path: Path) -> None:
    environ = write(valid())
    (tmp_path / "semiont.json").write_bytes(b'{"version": "\xe9"}')

    assert "semiont.json is not UTF-8 (byte 13)" in complaint(environ)


def test_sections_do_not_show_their_secrets(tmp_path: Path) -> None:
    assert SECRET not in repr(config.load(write_config(tmp_path, "sqlite:////data/x.db")))


@pytest.mark.parametrize("name", ["semiont", "environment"])
def test_the_committed_schema_is_the_one_that_the_code_makes(name: str) -> None:
    committed = (SCHEMA_DIRECTORY / f"{name}.schema.json").read_text()

    assert committed == config.schema_text(name) + "\n", (
        f"stale: run `backend config schema {name} > app/schema/{name}.schema.json`"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        valid(auth={"jwtSecret": "short"}),
        valid(auth={"jwtSecret": SECRET, "previousJwtSecret": "short"}),
        valid(surprise=1),
        valid(database={}),
        valid(database={"url": "mysql://u:p@h/d"}),
        valid(graph={"port": 0}),
    ],
)
def test_the_schema_refuses_what_the_program_refuses(write: Write, wrong: dict[str, Any]) -> None:
    complaint(write(wrong))

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, config.schema("environment"))


def test_the_schema_accepts_the_documented_example_with_a_secret_of_its_own() -> None:
    jsonschema.validate({**EXAMPLE, "auth": {"jwtSecret": SECRET}}, config.schema("environment"))
    jsonschema.validate(EXAMPLE_PROJECT, config.schema("semiont"))


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ({"jwtSecret": SECRET}, (SECRET,)),
        ({"jwtSecret": SECRET, "previousJwtSecret": "o" * 32}, (SECRET, "o" * 32)),
    ],
)
def test_after_a_rotation_both_secrets_count_and_the_newest_comes_first(
    auth: dict[str, str], secrets: tuple[str, ...], write: Write
) -> None:
    assert config.load(write(valid(auth=auth))).environment.auth.jwt_secrets == secrets
