"""The controller's half of preflight: each bad input gives its one clear sentence, and none tells a secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from slipway.contract import decode_services
from slipway.inventory import Strategy, problems, registry_problems, strategy_of, warnings

KEY = "k" * 32
LOCK = {"registry.example/shop/api": {"1.4.2-build.7": "sha256:" + "1" * 64}}
SHORT = "hunter2-hunter2"
CONFIG = "/app/config/environments/production.json"

WEB: dict[str, Any] = {"image": "r/web", "digest": "sha256:2", "user": "1:1"}
JOB: dict[str, Any] = {**WEB, "kind": "job", "migrate": {"up": ["up"], "status": ["status"], "plan": ["plan"]}}
SQL = {"path": "/sql/a.sql", "content": "SELECT 1", "gid": 1001}

Services = dict[str, Any]
Change = Callable[[Services], object]


def check(services: object, strategy: Strategy = "immutable", key: str = KEY) -> list[str]:
    return problems(services, strategy=strategy, lock=LOCK, fingerprint_key=key)


def content(services: Services) -> dict[str, Any]:
    found: dict[str, Any] = services["api"]["config_files"][0]["content"]
    return found


def test_an_inventory_that_is_complete_has_no_problems(services: Services) -> None:
    assert check(services) == []


BAD: dict[str, tuple[Change, str]] = {
    "unknown key": (
        lambda s: s["api"].update(replica=3),
        "The contract in app_services is wrong: Object contains unknown field `replica`, did you mean `replicas`? "
        "- at `app_services.api`. Compare it with docs/configure.md.",
    ),
    "no tag": (
        lambda s: s["api"].update(tag=""),
        "app_services.api names neither a tag nor a digest. Pin the image that you want to run.",
    ),
    "latest": (
        lambda s: s["api"].update(tag="latest"),
        "app_services.api deploys the moving tag 'latest' in an environment whose tags are immutable. "
        "Name a version, for example 1.4.2-build.7.",
    ),
    "dev": (
        lambda s: s["api"].update(tag="dev"),
        "app_services.api deploys the moving tag 'dev' in an environment whose tags are immutable. "
        "Name a version, for example 1.4.2-build.7.",
    ),
    "not locked": (
        lambda s: s["api"].update(tag="1.4.3"),
        "The tag '1.4.3' of registry.example/shop/api is not in the environment's images.lock.yml. "
        "Add its digest there, so that the same image is deployed everywhere.",
    ),
    "user by name": (
        lambda s: s["api"].update(user="shop"),
        'app_services.api.user is not of the form "uid:gid". Write numbers, for example "1001:1001".',
    ),
    "root": (
        lambda s: s["api"].update(user="0:1001"),
        "app_services.api would run as root. Give it the image's own unprivileged uid:gid, "
        "or allow_root: true where the image knows no other user.",
    ),
    "missing variable": (
        lambda s: s["api"]["env"].pop("SHOP_ROOT"),
        "The service api needs SHOP_ROOT in its environment. Set it in app_services.api.env.",
    ),
    "short secret in the environment": (
        lambda s: s["api"].update(secret_env={"JWT_SECRET": SHORT}),
        "The secret JWT_SECRET of api is shorter than 32 characters. Generate a longer one: openssl rand -hex 32.",
    ),
    "missing config file": (
        lambda s: s["api"].update(config_files=[]),
        f"The service api needs the config file {CONFIG}, and the inventory has none beside it. "
        "Add production.json to app_services.api.config_files.",
    ),
    "unknown environment": (
        lambda s: s["api"]["config_schema"][0].update(path="/app/config/environments/qa.json"),
        "The service api needs the config file /app/config/environments/qa.json, and beside it the inventory has "
        "production.json. Add qa.json to app_services.api.config_files.",
    ),
    "unknown key in a config file": (
        lambda s: content(s)["auth"].update(jwtsecret="x"),
        f"{CONFIG}: $.auth has the unknown key jwtsecret. Remove it, or correct its spelling.",
    ),
    "a health check and no port": (
        lambda s: s["api"].pop("port"),
        "app_services.api has health and no port. Add the port that it listens on.",
    ),
    "a port that is none": (
        lambda s: s["api"].update(publish=70000),
        "app_services.api names the port 70000, which is none. Use a number from 1 to 65535.",
    ),
    "one config file twice": (
        lambda s: s["api"]["config_files"].append(s["api"]["config_files"][0]),
        f"app_services.api.config_files has {CONFIG} twice. Keep one of them.",
    ),
    "unknown keys in a config file": (
        lambda s: content(s).update(databse={}, auht={}),
        f"{CONFIG}: $ has the unknown keys auht, databse. Remove them, or correct their spelling.",
    ),
    "value of another form": (
        lambda s: content(s)["database"].update(url=SHORT),
        f"{CONFIG}: $.database.url does not have the form scheme://host/name. Correct the value.",
    ),
    "value of none of two types": (
        lambda s: content(s)["auth"].update(since=SHORT),
        f"{CONFIG}: $.auth.since is not of type integer or null. Correct the value.",
    ),
    "missing key in a config file": (
        lambda s: content(s)["database"].pop("url"),
        f"{CONFIG}: $.database lacks url. Add what is missing.",
    ),
    "wrong type in a config file": (
        lambda s: content(s)["database"].update(url=5432),
        f"{CONFIG}: $.database.url is not of type string. Correct the value.",
    ),
    "value that is none of those allowed": (
        lambda s: content(s)["auth"].update(mode=SHORT),
        f"{CONFIG}: $.auth.mode is none of open, closed. Choose one of them.",
    ),
    "short secret in a config file": (
        lambda s: content(s)["auth"].update(jwtSecret=SHORT),
        f"{CONFIG}: $.auth.jwtSecret is shorter than 32 characters. Give it a longer value.",
    ),
    "config file that is not JSON": (
        lambda s: s["api"]["config_files"][0].update(content=f'{{"auth": {SHORT}'),
        f"{CONFIG}: it is not JSON (JSON is malformed: invalid character (byte 9)). "
        "Correct the file and run the play again.",
    ),
    "config file of another owner": (
        lambda s: s["api"]["config_files"][0].update(mode="0400", gid=0),
        f"{CONFIG} would have mode 0400 and owner 0:0, which the container's user 1001:1001 cannot read. "
        "Give it gid 1001 and mode 0440.",
    ),
    "mode that is no number": (
        lambda s: s["api"]["config_files"][0].update(mode="r--"),
        f"{CONFIG} has the mode 'r--'. Write it as an octal number in quotes, for example \"0440\".",
    ),
    "route that cannot be served": (
        lambda s: s["api"].update(route={"hosts": ["shop example"]}),
        "app_services.api.route.hosts has 'shop example', which is no host name. "
        "Write it in lower case, without scheme and port.",
    ),
    "need that is not there": (
        lambda s: s["api"].update(needs=["cache"]),
        "The service api needs cache, which app_services does not have. Add it or drop the need.",
    ),
    "a worker with a port": (
        lambda s: s["api"].update(kind="worker"),
        "app_services.api is a worker and has a port. Leave the port out, or make it kind: web.",
    ),
    "a job that does nothing": (
        lambda s: s.update(schema={"image": "r/tools", "digest": "sha256:2", "user": "1:1", "kind": "job"}),
        "app_services.schema is a job and has no migrate, so it would never run. "
        "State what it does in app_services.schema.migrate.",
    ),
    "a job that waits": (
        lambda s: s.update(schema={**JOB, "needs": ["api"]}),
        "app_services.schema is a job and has needs, but it runs alone and before all services. Leave needs out.",
    ),
    "a need of a job": (
        lambda s: s.update(schema=JOB) or s["api"].update(needs=["schema"]),
        "The service api needs schema, a job, and jobs run before all services anyhow. Drop the need.",
    ),
    "needs in a circle": (
        lambda s: s.update(web={**WEB, "needs": ["api"]}) or s["api"].update(needs=["web"]),
        "Services wait for each other to be healthy: api, web. Take one of their needs out of app_services.",
    ),
    "a database probe that asks nothing": (
        lambda s: s["api"]["health"].update(database={}),
        "app_services.api.health.database has none of command and connect. Give it one of them.",
    ),
    "a database probe that asks twice": (
        lambda s: s["api"]["health"].update(database={"command": ["probe"], "connect": "db:5432"}),
        "app_services.api.health.database has both command and connect. Give it one of them.",
    ),
    "a database that is nowhere": (
        lambda s: s["api"]["health"].update(database={"connect": "postgresql://db"}),
        'app_services.api.health.database.connect is not of the form host:port. Write it like "db.example:5432".',
    ),
    "an expectation that is none": (
        lambda s: s["api"]["health"].update(json={"status": {"in": ["ok"]}}),
        "The contract in app_services is wrong: Object contains unknown field `in` (a mapping in health.json states "
        "equals, one_of or present) - at `app_services.api.health`. Compare it with docs/configure.md.",
    ),
    "no way to migrate": (
        lambda s: s["api"].update(migrate={"status": ["status"]}),
        "app_services.api.migrate has no up. State the command, or the SQL files in app_services.api.migrate.once.",
    ),
    "no revision to tell": (
        lambda s: s["api"].update(migrate={"up": ["up"]}),
        "app_services.api.migrate has no status. State the command, or the SQL files in app_services.api.migrate.once.",
    ),
    "two ways to tell what is pending": (
        lambda s: s["api"]["migrate"].update(head=["heads"]),
        "app_services.api.migrate has both plan and head. Keep plan, which tells more.",
    ),
    "an exit code that says too little": (
        lambda s: s["api"]["migrate"].update(pending_exit=1),
        "app_services.api.migrate has pending_exit and no revision. "
        "State it: else a failure could pass for something pending.",
    ),
    "a regular expression that is none": (
        lambda s: s["api"]["migrate"].update(ahead="(not found"),
        "app_services.api.migrate.ahead is no regular expression: missing ), unterminated subpattern at position 0. "
        "Correct it.",
    ),
    "a revision that is not marked": (
        lambda s: s["api"]["migrate"].update(revision="[0-9a-f]+"),
        "app_services.api.migrate.revision has 0 groups. Put the revision itself, and nothing else, into one: (...).",
    ),
    "SQL and no dialect": (
        lambda s: s["api"]["migrate"].update(sql=["sql"]),
        "app_services.api.migrate has sql and no dialect. Say whether it is sqlite or postgresql.",
    ),
    "SQL files and commands": (
        lambda s: (
            s["api"].update(migrate={"once": ["/sql/a.sql"], "up": ["up"], "head": ["head"]})
            or s["api"]["config_files"].append(SQL)
        ),
        "app_services.api.migrate has once and up, head. SQL files need no commands: leave the rest out.",
    ),
    "an SQL file that is not there": (
        lambda s: s["api"].update(migrate={"once": ["/sql/a.sql"]}),
        "app_services.api.migrate.once names /sql/a.sql, which is none of its config_files. Add it there.",
    ),
    "an SQL file that is none": (
        lambda s: (
            s["api"].update(migrate={"once": ["/sql/a.sql"]}) or s["api"]["config_files"].append({**SQL, "content": {}})
        ),
        "/sql/a.sql is to be SQL and its content is no text. Give the text of the file.",
    ),
    "two SQL files of one name": (
        lambda s: (
            s["api"].update(migrate={"once": ["/sql/a.sql", "/more/a.sql"]})
            or s["api"]["config_files"].extend([SQL, {**SQL, "path": "/more/a.sql"}])
        ),
        "app_services.api.migrate.once has two files called a.sql, by which they are noted. Rename one of them.",
    ),
    "down without a way": (
        lambda s: s["api"]["migrate"].update(on_rollback="down"),
        "app_services.api.migrate.on_rollback is down, and there is no command for it. "
        "State it in app_services.api.migrate.down.",
    ),
    "restore without a backup": (
        lambda s: s["api"]["migrate"].update(on_rollback="restore", backup="none"),
        "app_services.api.migrate.on_rollback is restore, and nothing is backed up. "
        "State the commands in app_services.api.migrate.backup.",
    ),
    "a network of Docker's own": (
        lambda s: s["api"].update(networks=["host"]),
        "app_services.api.networks names 'host', which no service can join. "
        "Name one that `docker network create` has made.",
    ),
    "a variable that is none": (
        lambda s: s["api"]["env"].update({"SHOP=ROOT": "x"}),
        "The variable 'SHOP=ROOT' of api is none that an environment can hold. "
        "Its name is without =, and neither name nor value with a NUL.",
    ),
    "a text that is data": (
        lambda s: s["api"]["config_files"].append({**SQL, "content": {}, "format": "text"}),
        "/sql/a.sql has the format text, and its content is none. Give it text, or another format.",
    ),
    "JSON that is none": (
        lambda s: s["api"]["config_files"].append({**SQL, "path": "/a.json", "content": "{", "format": "json"}),
        "/a.json has the format json, and its content is text that is no JSON. Correct the text.",
    ),
    "JSON called env": (
        lambda s: s["api"]["config_files"].append({**SQL, "path": "/a.env", "content": {}, "format": "json"}),
        "/a.env has the format json and is called like an env file. Name it like what it is.",
    ),
    "env called otherwise": (
        lambda s: s["api"]["config_files"].append({**SQL, "path": "/a.conf", "content": {}, "format": "env"}),
        "/a.conf has the format env, by which a host knows it only when its name ends in .env. Rename it.",
    ),
    "env that is no mapping": (
        lambda s: s["api"]["config_files"].append({**SQL, "path": "/.env", "content": ["A=1"]}),
        "/.env has the format env, and its content is no mapping. Write NAME: value for each variable.",
    ),
    "env that its schema refuses": (
        lambda s: (
            s["api"]["config_files"].append({"path": "/.env", "gid": 1001, "content": {"COLOR": "red"}})
            or s["api"]["config_schema"].append({"path": "/.env", "schema": {"additionalProperties": False}})
        ),
        "/.env: $ has the unknown key COLOR. Remove it, or correct its spelling.",
    ),
    "a name of no variable": (
        lambda s: s["api"]["config_files"].append({**SQL, "path": "/.env", "content": {"a-b": "1"}}),
        "/.env has the variable 'a-b', which is no name. Use letters, digits and underscores.",
    ),
    "a value of no variable": (
        lambda s: s["api"]["config_files"].append({**SQL, "path": "/.env", "content": {"A": None}}),
        "/.env has a value for A that is no text. Give it text, a number, true or false.",
    ),
    "one port twice": (
        lambda s: s.update(web={"image": "r/web", "digest": "sha256:2", "user": "1:1", "port": 4100}),
        "Services api and web both publish port 4100. Give one of them another number in app_services.web.publish.",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_gives_its_one_sentence(change: Change, sentence: str, services: Services) -> None:
    change(services)
    assert " ".join(check(services)) == sentence


@pytest.mark.parametrize(("change", "_sentence"), BAD.values(), ids=BAD)
def test_no_sentence_tells_a_secret(change: Change, _sentence: str, services: Services, secret: str) -> None:
    change(services)
    said = " ".join(check(services))
    assert SHORT not in said
    assert secret not in said


@pytest.mark.parametrize("services", [{}, None, [], "api"])
def test_no_services_at_all_is_a_problem(services: object) -> None:
    [said] = check(services)
    assert "app_services" in said


def test_a_short_fingerprint_key_is_named_and_not_told(services: Services) -> None:
    assert check(services, key=SHORT) == [
        "release_fingerprint_key is shorter than 32 characters. Generate a longer one: openssl rand -hex 32."
    ]


@pytest.mark.parametrize("tag", ["latest", "dev", "1.4.3"])
def test_where_tags_are_mutable_any_tag_goes(tag: str, services: Services) -> None:
    services["api"]["tag"] = tag
    assert check(services, strategy="mutable") == []


def test_a_digest_in_the_contract_needs_no_lock(services: Services) -> None:
    services["api"].update(tag="1.4.3", digest="sha256:" + "2" * 64)
    assert check(services) == []


def test_all_problems_are_told_at_once(services: Services) -> None:
    services["api"].update(tag="latest", user="0:0", needs=["cache"])
    assert len(check(services)) == 3


def test_all_faults_of_the_shape_are_told_at_once_with_their_paths(services: Services) -> None:
    services["api"].update(tag=1.4, replica=2, health={"attempts": 3}, volumes={"data": {"path": "/d", "uid": "1"}})
    assert [said.partition(" - at ")[2].split("`")[1] for said in check(services)] == [
        "app_services.api",
        "app_services.api.tag",
        "app_services.api.health",
        "app_services.api.health",
        "app_services.api.volumes.data.uid",
        "app_services.api.volumes.data",
    ]


def test_a_service_of_the_wrong_shape_hides_no_problem_of_the_others(services: Services) -> None:
    services["web"] = {**WEB, "needs": ["api"], "user": "web"}
    services["api"].update(replica=2)
    assert [said.split(". ")[0] for said in check(services)] == [
        "The contract in app_services is wrong: Object contains unknown field `replica`, did you mean `replicas`? - at "
        "`app_services.api`",
        'app_services.web.user is not of the form "uid:gid"',
    ]


def test_a_contract_with_every_other_key_has_no_problems(services: Services) -> None:
    """What four applications need that the kit's own does not."""
    health = {"json": {"status": {"one_of": ["ok", "warning"]}, "time": {"present": True}}, "image_check": False}
    services["api"]["health"].update(health, database={"command": ["probe"]})
    services["api"].update(networks=["shop-network"], user="0:0", allow_root=True)
    services["api"]["volumes"]["data"]["read_only"] = True
    services["api"]["migrate"] = {
        **{verb: [verb] for verb in ("up", "plan", "status", "down")},
        "revision": "^([0-9]+)",
        "pending_exit": 1,
        "ahead": "not found",
        "on_rollback": "down",
    }
    services["api"]["config_files"].append({"path": "/app/.env", "content": {"A": "1"}, "format": "env"})
    services["schema"] = {
        **WEB,
        "kind": "job",
        "config_files": [{**SQL, "gid": 1}],
        "migrate": {"once": ["/sql/a.sql"]},
    }
    services["web"] = {**WEB, "port": 3000, "needs": ["api"]}
    services["worker"] = {**WEB, "kind": "worker", "needs": ["api"], "migrate": {**JOB["migrate"], "plan": []}}
    services["other"] = {**WEB, "migrate": {"up": ["up"], "head": ["heads"], "status": ["current"]}}
    assert check(services) == []


def test_what_runs_as_root_is_warned_of(services: Services) -> None:
    assert warnings(decode_services(services)) == []
    services["api"].update(user="0:0", allow_root=True)
    assert warnings(decode_services(services)) == [
        "api runs as root in its container, as app_services.api.allow_root says it has to. "
        "A user of its own would be safer."
    ]


@pytest.mark.parametrize(
    ("owner", "mode", "readable"),
    [
        ({"uid": 1001}, "0400", True),
        ({"uid": 1001, "gid": 1001}, "0040", False),
        ({"gid": 1001}, "0440", True),
        ({"gid": 1001}, "0404", False),
        ({}, "0444", True),
        ({}, "0440", False),
    ],
)
def test_a_file_is_read_by_the_first_of_owner_group_and_others_that_fits(
    owner: dict[str, int], mode: str, readable: bool, services: Services
) -> None:
    services["api"]["config_files"][0].update({"uid": 0, "gid": 0, **owner, "mode": mode})
    assert (check(services) == []) == readable


def test_a_config_file_given_as_json_text_is_checked_like_one_given_as_data(services: Services) -> None:
    services["api"]["config_files"][0]["content"] = '{"database": {"url": "a://b"}}'
    assert check(services) == [f"{CONFIG}: $ lacks auth. Add what is missing."]


def test_a_database_in_a_file_is_refused_where_several_hosts_would_each_have_one(services: Services) -> None:
    services["api"]["migrate"]["dialect"] = "sqlite"
    assert problems(services, strategy="mutable", lock={}, fingerprint_key=KEY, hosts=1) == []
    assert problems(services, strategy="mutable", lock={}, fingerprint_key=KEY, hosts=3) == [
        "The service api keeps its database in a file on its host (SQLite), and the group app has 3 hosts, which would "
        "each have one of their own. Give it a PostgreSQL server (app_database, docs/database.md), or leave one host "
        "in the group app."
    ]


@pytest.mark.parametrize("change", [{"dialect": "postgresql"}, {}])
def test_several_hosts_may_share_a_server(change: dict[str, str], services: Services) -> None:
    services["api"]["migrate"].update(change)
    assert problems(services, strategy="mutable", lock={}, fingerprint_key=KEY, hosts=3) == []


@pytest.mark.parametrize(
    ("environment", "strategy"),
    [("local", "mutable"), ("development", "mutable"), ("staging", "immutable"), ("anything", "immutable")],
)
def test_tags_are_immutable_unless_the_environment_is_for_work_on_it(environment: str, strategy: Strategy) -> None:
    assert strategy_of(environment) == strategy


# --- Registries ---------------------------------------------------------------------------------------------------

CA = """\
-----BEGIN CERTIFICATE-----
MIIBgDCCASegAwIBAgIUNxptnISCDndyk1gYR2XJX3i8q0cwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKRXhhbXBsZSBDQTAgFw0yNjExMjUwMzU3NTRaGA8yMTI2MTEw
MTAzNTc1NFowFTETMBEGA1UEAwwKRXhhbXBsZSBDQTBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABIlH+vkY0Yawh0MX1UcSRk4LOhfHpsUU5imYOKP6+1a0y8vjD+Nf
qghC+3DlfSCmAmYvbKBB81ZjHgTmxVtYpOCjUzBRMB0GA1UdDgQWBBR5NPjp9gph
zoaN0y6l8xIze1HEWTAfBgNVHSMEGDAWgBR5NPjp9gphzoaN0y6l8xIze1HEWTAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIEaDhwRNJQOqt/TQ/F1i
JiBKYtLhqYnY2Domxlepr8ItAiBr0DMSFQsLL1w1IMLRRVRPqMywmaTSNLnrJZIK
0LKUSQ==
-----END CERTIFICATE-----
"""


def test_registries_that_are_complete_have_no_problems() -> None:
    registries = [
        {"host": "registry.example:5000", "username": "deploy", "password": SHORT, "ca": CA},
        {"host": "mirror.example", "ca": CA},
        {"host": "docker.io", "username": "deploy", "password": SHORT},
        {"host": "[2001:db8::1]:5000"},
    ]
    assert registry_problems(registries) == []


BAD_REGISTRIES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "unknown key": (
        [{"host": "registry.example", "user": "deploy", "password": SHORT}],
        "docker_registries is wrong: Object contains unknown field `user` - at `$[0]`. "
        "Compare it with docs/registries.md.",
    ),
    "a URL": (
        [{"host": f"https://deploy:{SHORT}@registry.example/"}],
        "docker_registries[0].host is no registry as image references write it. "
        "Write HOST or HOST:PORT, without https:// and without a path.",
    ),
    "a repository": (
        [{"host": "registry.example/shop"}],
        "docker_registries[0].host is no registry as image references write it. "
        "Write HOST or HOST:PORT, without https:// and without a path.",
    ),
    "a word": (
        [{"host": "registry"}],
        "docker_registries[0].host is no registry as image references write it. "
        "Write HOST or HOST:PORT, without https:// and without a path.",
    ),
    "no password": (
        [{"host": "registry.example", "username": "deploy"}],
        "docker_registries has a username and no password for registry.example. "
        "Give both, the password from the vault, or neither.",
    ),
    "no username": (
        [{"host": "registry.example", "password": SHORT}],
        "docker_registries has a password and no username for registry.example. "
        "Give both, the password from the vault, or neither.",
    ),
    "a colon": (
        [{"host": "registry.example", "username": "a:b", "password": SHORT}],
        "The username of registry.example in docker_registries has a colon in it. Correct it: no login can have one.",
    ),
    "a path for a certificate": (
        [{"host": "registry.example", "ca": "/etc/ssl/ca.pem"}],
        "The ca of registry.example in docker_registries is no certificate in PEM. "
        "Give the text of the file: \"{{ lookup('ansible.builtin.file', …) }}\".",
    ),
    "twice": (
        [{"host": "registry.example"}, {"host": "registry.example", "username": "deploy", "password": SHORT}],
        "docker_registries has registry.example twice. Keep one of the two.",
    ),
}


@pytest.mark.parametrize("case", BAD_REGISTRIES)
def test_each_mistake_in_registries_is_said_without_the_password(case: str) -> None:
    registries, sentence = BAD_REGISTRIES[case]
    assert registry_problems(registries) == [sentence]
    assert SHORT not in sentence
