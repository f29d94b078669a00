"""Each example deployed for real, with images that behave like the real ones: deploy, again, upgrade, failure, back."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import System
from tests.engine.conftest import RefusedError, get

pytestmark = [pytest.mark.docker, pytest.mark.long]

Make = Callable[[str], System]


def live(system: System, first: str, second: str) -> None:
    """What every deployment goes through. `first` and `second` are the revisions of the schema under 1.0 and 2.0."""
    deployed = system.deploy("1.0")
    assert get(system.port)["version"] == "1.0"
    assert system.schema() == first

    before = system.environment.standing()
    again = system.deploy("1.0")
    assert (again.id, again.changed) == (deployed.id, [])
    assert system.environment.standing() == before

    upgraded = system.deploy("2.0")
    assert get(system.port)["version"] == "2.0"
    assert system.schema() == second
    assert upgraded.answers["activate"]["unavailable_ms"] == 0


def refused(system: System, version: str, **change: Any) -> RefusedError:
    with pytest.raises(RefusedError) as error:
        system.deploy(version, **change)
    assert get(system.port)["version"] == "2.0", "the release before no longer serves"
    return error.value


def no_secret_is_told(system: System) -> None:
    secrets = [value for spec in system.services("1.0").values() for value in (spec.get("secret_env") or {}).values()]
    said = "".join(system.environment.said) + (system.environment.folder / "ledger.jsonl").read_text()
    assert not [name for name in secrets if name in said]


def test_clearsplit(make_system: Make) -> None:
    system = make_system("clearsplit")
    # Why its password is generated without a percent sign.
    services = system.services("1.0")
    secret_env = services["api"]["secret_env"]
    encoded = {**secret_env, "DATABASE_URL": secret_env["DATABASE_URL"].replace("@", "%40@")}
    with pytest.raises(RefusedError) as error:
        system.environment.deploy_services({"api": {**services["api"], "secret_env": encoded}})
    assert "invalid interpolation syntax" in error.value.details
    assert "api could not tell where its schema is" in error.value.what
    live(system, "0001", "0002")

    failed = refused(system, "3.0")
    assert "division by zero" in failed.details
    assert "The schema is at 0002 as before." in failed.what
    assert "Cannot find module 'shop'" in refused(system, "3.2").details

    # Healthy by its own word, with a database that does not let it in.
    system.postgres.execute("ALTER ROLE clearsplit CONNECTION LIMIT 0")
    try:
        assert "could not tell where its schema is" in refused(system, "1.0").what
        status = system.environment.slipway("status", "--name", system.environment.name)
        assert "its database probe ended with exit code 1" in status.stdout
        assert get(system.port, "/health") == {"status": "ok"}
    finally:
        system.postgres.execute("ALTER ROLE clearsplit CONNECTION LIMIT -1")

    # The older image fails on the newer schema ("Can't locate revision"), so the newer one takes it back first.
    done = system.environment.slipway("rollback", "--name", system.environment.name)
    assert done.returncode == 0, done.stderr
    assert get(system.port)["version"] == "1.0"
    assert system.schema() == "0001"
    no_secret_is_told(system)


def test_todo(make_system: Make) -> None:
    system = make_system("todo")
    live(system, "0001", "0002")
    assert get(system.ports["ai-agent"])["BACKEND_URL"]["status"] == "healthy", "it was started before the backend was"
    with urllib.request.urlopen(f"http://127.0.0.1:{system.port}/metrics", timeout=5) as metrics:
        assert b"requests 1" in metrics.read()

    # The image itself would swallow this, and serve: by its own entrypoint the migration ends with exit code 0.
    failed = refused(system, "3.0")
    assert "division by zero" in failed.details
    services = system.services("3.0")
    asked = {key: ["-c", f"exec alembic {verb}"] for key, verb in (("status", "current"), ("head", "heads"))}
    own = {
        "entrypoint": "sh",
        "up": ["-c", "exec /app/entrypoint.sh true"],
        "down": ["-c", "exec alembic downgrade -1"],
    }
    hidden = {**services["backend"], "migrate": {**services["backend"]["migrate"], **asked, **own}}
    swallowed = refused(system, "3.0", backend=hidden)
    assert "ended well and left 0003 to be applied" in swallowed.what
    assert "migration failed, starting anyway" in swallowed.details
    # Its health answers 200 all the same.
    unhealthy = refused(system, "3.1")
    assert "/health says status is 'unhealthy' instead of 'healthy'" in unhealthy.what

    done = system.environment.slipway("rollback", "--name", system.environment.name)
    assert done.returncode == 0, done.stderr
    assert get(system.port)["version"] == "1.0"
    assert system.schema() == "0001"
    no_secret_is_told(system)


def test_semiont(make_system: Make) -> None:
    system = make_system("semiont")
    live(system, "20240101000000_first", "20240202000000_second")
    # ${…} came through Ansible and Compose, and the program put its environment there.
    told = get(system.port)["settings"]
    assert told["services"]["database"]["url"].startswith("postgresql://semiont:")
    assert len([one for one in system.environment.containers(running=True) if "-backend-" in one["Name"]]) == 2

    failed = refused(system, "3.0")
    assert "20240303000000_third" in failed.details
    # Prisma refuses to go on until somebody has resolved it; that is the document's own way.
    system.postgres.execute("DELETE FROM _prisma_migrations WHERE finished_at IS NULL", "semiont")
    assert "/api/health says database is 'disconnected' instead of 'connected'" in refused(system, "3.1").what

    # No handling of SIGTERM, and still nobody waits for SIGKILL: with an init it ends at once.
    done = system.environment.slipway("rollback", "--name", system.environment.name)
    assert done.returncode == 0, done.stderr
    assert get(system.port)["version"] == "1.0"
    assert system.environment.ledger()[-1].phases["stop"] < 5
    # Prisma only goes forward: the older release runs on the newer schema.
    assert system.postgres.execute("SELECT count(*) FROM _prisma_migrations", "semiont") == "2"
    no_secret_is_told(system)


SQL = "CREATE EXTENSION IF NOT EXISTS citext;\nCREATE TABLE items (id int PRIMARY KEY, name citext);\n"


def applied(system: System) -> list[str]:
    """The files of SQL that the database has noted as done."""
    return system.postgres.execute("SELECT file FROM slipway_once WHERE done ORDER BY at", "neuronip").split()


def test_neuronip(make_system: Make, neurondb: str) -> None:
    system = make_system("neuronip")
    request = {"name": system.environment.name, "images": {}, "min_free_mb": 1, "networks": ["conf-nowhere", neurondb]}
    with pytest.raises(RefusedError) as error:
        system.environment.ask("preflight", **request)
    assert error.value.what == (
        "There is no Docker network conf-nowhere on this host, which app_services has in networks."
    )

    job = system.contract["schema"]
    with pytest.raises(RefusedError) as error:
        system.deploy("1.0")
    assert "sql/neuronip.sql of the inventory is not filled in yet" in error.value.details

    job["config_files"][0]["content"] = SQL
    system.deploy("1.0")
    assert get(system.port) == {"version": "1.0", "uid": 0}
    assert system.schema() == "neuronip.sql"
    assert system.deploy("1.0").changed == []

    # Another release: the file that was applied is not run again.
    second = {"path": "/sql/002_note.sql", "content": "ALTER TABLE items ADD COLUMN note text;", "gid": 999}
    job["config_files"] += [second]
    job["migrate"]["once"] += [second["path"]]
    upgraded = system.deploy("2.0")
    assert upgraded.answers["stage"]["pending"][0]["steps"] == ["002_note.sql"]
    assert get(system.port)["version"] == "2.0"
    assert applied(system) == ["neuronip.sql", "002_note.sql"]

    # The older release does not know of the newer file, and goes on with what that has added.
    done = system.environment.slipway("rollback", "--name", system.environment.name)
    assert done.returncode == 0, done.stderr
    assert get(system.port)["version"] == "1.0"
    assert applied(system) == ["neuronip.sql", "002_note.sql"]
    assert system.environment.slipway("status", "--name", system.environment.name).returncode == 0

    # Neither is run again, though nobody but the database knows that they have been.
    (system.environment.folder / "ledger.jsonl").rename(system.environment.folder / "ledger.lost")
    assert not system.deploy("2.0").answers["stage"]["pending"]
    assert get(system.port)["version"] == "2.0"

    # A file that fails leaves nothing; one that commits a part of itself is never run a second time.
    third = {"path": "/sql/003.sql", "content": "CREATE TABLE half (id int);\nSELECT 1 / 0;", "gid": 999}
    job["config_files"] += [third]
    job["migrate"]["once"] += [third["path"]]
    assert "division by zero" in refused(system, "3.1").details
    assert system.postgres.execute("SELECT to_regclass('half') IS NULL", "neuronip") == "t"
    third["content"] = "CREATE TABLE half (id int);\nCOMMIT;\nSELECT 1 / 0;"
    assert "division by zero" in refused(system, "3.1").details
    assert "003.sql committed a part of what it does and then failed" in refused(system, "3.1").what
    system.postgres.execute("UPDATE slipway_once SET done = true WHERE file = '003.sql'", "neuronip")

    unhealthy = refused(system, "3.1")
    assert '/health answered 503 instead of 200: {"status": "unhealthy"}' in unhealthy.what
    no_secret_is_told(system)
