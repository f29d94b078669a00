"""The examples: each passes the controller's preflight, has a place for all that its document names, and renders."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.contract import decode_services
from slipway.render import render
from tests.inventory_copies import EXAMPLES, KIT, copy, first_play, run, said, variables

KEY = "k" * 32


@pytest.fixture(scope="module")
def inventories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Copies of the examples with their secrets generated, each made when it is first wanted."""
    folder = tmp_path_factory.mktemp("inventories")
    made: dict[str, Path] = {}

    def inventory(name: str) -> Path:
        if name not in made:
            made[name] = copy(name, folder)
        return made[name]

    return inventory


@pytest.fixture(scope="module")
def services(inventories: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """The `app_services` of an example, as Ansible hands them to the kit."""
    read: dict[str, dict[str, Any]] = {}

    def services_of(name: str) -> dict[str, Any]:
        if name not in read:
            read[name] = variables(inventories(name), "app_services")["app_services"]
        return read[name]

    return services_of


def test_there_is_one_for_each_system() -> None:
    assert EXAMPLES == ["clearsplit", "neuronip", "semiont", "todo"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_with_its_secrets_generated_it_passes_what_needs_no_host(
    name: str, inventories: Callable[[str], Path], tmp_path: Path
) -> None:
    done = run("ansible-playbook", "-i", str(inventories(name)), first_play(tmp_path))
    assert done.returncode == 0, said(done)
    assert ("runs as root in its container" in said(done)) == (name == "neuronip")


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_whole_folder_is_an_inventory(name: str, tmp_path: Path) -> None:
    """Whatever else lies there: digests, a schema, files of SQL, certificates."""
    inventory = shutil.copytree(KIT / "examples" / name, tmp_path / name)
    for certificate in ("registry-ca.pem", "database-ca.crt"):
        (inventory / certificate).write_text("-----BEGIN CERTIFICATE-----\n")
    done = run("ansible-inventory", "-i", str(inventory), "--graph")
    assert done.returncode == 0, said(done)
    assert "WARNING" not in done.stderr
    assert said(done) == f"@all: |--@ungrouped: |--@app: | |--{name}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_for_writing_a_contract_finds_nothing_wrong(name: str) -> None:
    done = run("python", "-m", "slipway.cli", "contract", "check", f"examples/{name}/group_vars/all/app.yml")
    assert done.returncode == 0, said(done)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_renders_with_every_secret_where_secrets_belong(
    name: str, services: Callable[[str], dict[str, Any]], inventories: Callable[[str], Path]
) -> None:
    contract = services(name)
    digests = dict.fromkeys(contract, "sha256:" + "1" * 64)
    found = render(contract, name=f"{name}-production", environment="production", digests=digests, key=KEY)
    declared = variables(inventories(name), *app_secrets(name))
    assert declared
    for value in declared.values():
        assert value not in str(found["manifest"])
        assert value in str(found["compose"]) + str(found["files"])


def app_secrets(name: str) -> list[str]:
    return list(yaml.safe_load((KIT / f"examples/{name}/group_vars/all/app.yml").read_text())["app_secrets"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_address_but_those_of_documentation_and_no_secret_is_in_it(name: str) -> None:
    text = "".join(path.read_text() for path in (KIT / "examples" / name).rglob("*") if path.is_file())
    addresses = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text)) - {"0.0.0.0", "127.0.0.1"}  # noqa: S104 - in a text
    assert addresses == {"192.0.2.10"}
    assert yaml.safe_load((KIT / f"examples/{name}/group_vars/all/vault.yml").read_text()) is None


DOCUMENTS: dict[str, dict[str, tuple[str, Any]]] = {
    # Variable of the system's document -> where the contract has it, and what stands there; ... is anything.
    "semiont": {
        "image": ("backend.image", "ghcr.io/the-ai-alliance/semiont-backend"),
        "tag": ("backend.tag", "0.1.0-build.123"),
        "-p 4000:4000": ("backend.port", 4000),
        "published port": ("backend.publish", 4000),
        "user semiont": ("backend.user", "1001:1001"),
        "SEMIONT_ROOT": ("backend.env.SEMIONT_ROOT", "/app/config"),
        "SEMIONT_ENV": ("backend.env.SEMIONT_ENV", "production"),
        "NODE_ENV": ("backend.env.NODE_ENV", "production"),
        "LOG_LEVEL": ("backend.env.LOG_LEVEL", "info"),
        "LOG_FORMAT": ("backend.env.LOG_FORMAT", "json"),
        "DATABASE_URL": ("backend.secret_env.DATABASE_URL", ...),
        "JWT_SECRET": ("backend.secret_env.JWT_SECRET", ...),
        "semiont.json": ("backend.config_files.0.path", "/app/config/semiont.json"),
        "environments/<env>.json": ("backend.config_files.1.path", "/app/config/environments/production.json"),
        "database url": ("backend.config_files.1.content.services.database.url", "${DATABASE_URL}"),
        "jwtSecret": ("backend.config_files.1.content.env.JWT_SECRET", "${JWT_SECRET}"),
        "googleClientId": ("backend.config_files.1.content.env.GOOGLE_CLIENT_ID", ""),
        "googleClientSecret": ("backend.config_files.1.content.env.GOOGLE_CLIENT_SECRET", ""),
        "openaiApiKey": ("backend.config_files.1.content.env.OPENAI_API_KEY", ""),
        "anthropicApiKey": ("backend.config_files.1.content.env.ANTHROPIC_API_KEY", ""),
        "imageTagStrategy": ("backend.config_files.1.content.deployment.imageTagStrategy", "immutable"),
        "its schema": ("backend.config_schema.1.schema.additionalProperties", False),
        "uploads": ("backend.volumes.uploads.path", "/app/uploads"),
        "minTasks": ("backend.replicas", 2),
        "cpu": ("backend.resources.cpus", 0.5),
        "memory": ("backend.resources.memory", "1g"),
        "/api/health": ("backend.health.path", "/api/health"),
        "health status": ("backend.health.json.status", "operational"),
        "health database": ("backend.health.json.database", "connected"),
        "migrate deploy": ("backend.migrate.up", ["-c", "exec npx prisma migrate deploy"]),
        "migrate status": ("backend.migrate.plan", ["-c", "exec npx prisma migrate status 2>&1"]),
        "no SIGTERM": ("backend.init", True),
        "logs folder": ("backend.tmpfs", ["/tmp", "/app/apps/backend/logs"]),  # noqa: S108 - in the container
        "reverse proxy": ("backend.route.hosts", ["api.semiont.example"]),
        "TLS": ("backend.route.tls.mode", "acme"),
        "frontend": ("frontend.image", "ghcr.io/the-ai-alliance/semiont-frontend"),
        "frontend port": ("frontend.port", 3000),
        "NEXT_PUBLIC_API_URL": ("frontend.env.NEXT_PUBLIC_API_URL", "https://api.semiont.example"),
        "service_healthy": ("frontend.needs", ["backend"]),
    },
    "clearsplit": {
        "image": ("api.image", "ghcr.io/yslim-030622/clearsplit/api"),
        "tag": ("api.tag", "1.2.3"),
        "-p 8000:8000": ("api.port", 8000),
        "published port": ("api.publish", 8000),
        "appuser": ("api.user", "1000:1000"),
        "DATABASE_URL": ("api.secret_env.DATABASE_URL", ...),
        "JWT_SECRET": ("api.secret_env.JWT_SECRET", ...),
        "JWT_ALGORITHM": ("api.env.JWT_ALGORITHM", "HS256"),
        "ACCESS_TOKEN_EXPIRE_MINUTES": ("api.env.ACCESS_TOKEN_EXPIRE_MINUTES", 15),
        "REFRESH_TOKEN_EXPIRE_DAYS": ("api.env.REFRESH_TOKEN_EXPIRE_DAYS", 30),
        "ENV": ("api.env.ENV", "production"),
        "UVICORN_WORKERS": ("api.env.UVICORN_WORKERS", 4),
        "UVICORN_HOST": ("api.env.UVICORN_HOST", "0.0.0.0"),  # noqa: S104 - in the container
        "UVICORN_PORT": ("api.env.UVICORN_PORT", 8000),
        "--memory": ("api.resources.memory", "512m"),
        "--cpus": ("api.resources.cpus", 1.0),
        "/health": ("api.health.path", "/health"),
        "health without a database": ("api.health.database.command.0", "python"),
        "alembic upgrade head": ("api.migrate.up", ["upgrade", "head"]),
        "alembic": ("api.migrate.entrypoint", "alembic"),
        "rollback": ("api.migrate.on_rollback", "down"),
        "reverse proxy": ("api.route.hosts", ["api.clearsplit.example"]),
        "TLS": ("api.route.tls.mode", "acme"),
    },
    "neuronip": {
        "neuronip/api": ("api.image", "docker.io/neuronip/api"),
        "neuronip/frontend": ("frontend.image", "docker.io/neuronip/frontend"),
        "tag": ("api.tag", "1.2.3"),
        "SERVER_PORT": ("api.env.SERVER_PORT", 8082),
        "-p 8082:8082": ("api.port", 8082),
        "root": ("api.allow_root", True),
        "DB_HOST": ("api.env.DB_HOST", "postgres"),
        "DB_PORT": ("api.env.DB_PORT", 5432),
        "DB_USER": ("api.env.DB_USER", "neuronip"),
        "DB_PASSWORD": ("api.secret_env.DB_PASSWORD", ...),
        "DB_NAME": ("api.env.DB_NAME", "neuronip"),
        "JWT_SECRET": ("api.secret_env.JWT_SECRET", ...),
        "--network": ("api.networks", ["neurondb-network"]),
        "/health": ("api.health.path", "/health"),
        "ok or warning": ("api.health.json.status.one_of", ["ok", "warning"]),
        "-m 512m": ("api.resources.memory", "512m"),
        "schema file": ("schema.migrate.once", ["/sql/neuronip.sql"]),
        "sslmode": ("schema.env.PGSSLMODE", "disable"),
        "frontend port": ("frontend.port", 3000),
        "PORT": ("frontend.env.PORT", 3000),
        "NEXT_PUBLIC_API_URL": ("frontend.env.NEXT_PUBLIC_API_URL", "https://neuronip.example/api/v1"),
        "frontend after api": ("frontend.needs", ["api"]),
        "reverse proxy": ("api.route.paths", ["/api/*", "/health"]),
        "TLS": ("frontend.route.tls.mode", "acme"),
    },
    "todo": {
        "image": ("backend.image", "registry.example/todo/backend"),
        "tag": ("backend.tag", "1.4.0"),
        "-p 8000:8000": ("backend.port", 8000),
        "UID 1000": ("backend.user", "1000:1000"),
        "DATABASE_URL": ("backend.secret_env.DATABASE_URL", ...),
        "JWT_SECRET": ("backend.secret_env.JWT_SECRET", ...),
        "SESSION_HASH_SECRET": ("backend.secret_env.SESSION_HASH_SECRET", ...),
        "SERVICE_AUTH_TOKEN": ("backend.secret_env.SERVICE_AUTH_TOKEN", ...),
        "ENCRYPTION_KEY": ("backend.secret_env.ENCRYPTION_KEY", ...),
        "ENVIRONMENT": ("backend.env.ENVIRONMENT", "production"),
        "CORS_ORIGINS": ("backend.env.CORS_ORIGINS", "https://todo.example"),
        "SQLALCHEMY_POOL_SIZE": ("backend.env.SQLALCHEMY_POOL_SIZE", 10),
        "SQLALCHEMY_POOL_OVERFLOW": ("backend.env.SQLALCHEMY_POOL_OVERFLOW", 20),
        "SQLALCHEMY_POOL_RECYCLE": ("backend.env.SQLALCHEMY_POOL_RECYCLE", 1800),
        "AUTH_SERVER_URL": ("backend.env.AUTH_SERVER_URL", "http://auth-server:8080"),
        "/health": ("backend.health.json.status", "healthy"),
        "alembic upgrade head": ("backend.migrate.up", ["upgrade", "head"]),
        "alembic downgrade -1": ("backend.migrate.down", ["downgrade", "-1"]),
        "entrypoint.sh": ("backend.migrate.entrypoint", "alembic"),
        "auth-server": ("auth-server.port", 8080),
        "depends_on auth-server": ("backend.needs", ["auth-server"]),
        "ai-agent": ("ai-agent.port", 8001),
        "BACKEND_URL": ("ai-agent.env.BACKEND_URL", "http://backend:8000"),
        "the agent's token": ("ai-agent.secret_env.SERVICE_AUTH_TOKEN", ...),
        "depends_on backend": ("ai-agent.needs", ["backend"]),
        "reverse proxy": ("backend.route.hosts", ["api.todo.example"]),
        "TLS": ("backend.route.tls.mode", "acme"),
    },
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_all_that_its_document_names_has_a_place(name: str, services: Callable[[str], dict[str, Any]]) -> None:
    found = {variable: dig(services(name), path) for variable, (path, _) in DOCUMENTS[name].items()}
    assert {
        variable: value for variable, value in found.items() if not value and value != "" and value is not False
    } == {}
    assert found == {
        variable: found[variable] if wanted is ... else wanted for variable, (_, wanted) in DOCUMENTS[name].items()
    }


def dig(data: Any, path: str) -> Any:
    for part in path.split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_page_names_every_variable_of_the_contract(name: str, services: Callable[[str], dict[str, Any]]) -> None:
    page = (KIT / f"docs/example-{name}.md").read_text()
    contract = decode_services(services(name))
    variables_set = {variable for spec in contract.values() for variable in (*spec.env, *spec.secret_env)}
    assert not {variable for variable in variables_set if variable not in page}
    assert not {service for service in contract if service not in page}


@pytest.mark.parametrize(
    ("name", "secret", "form"),
    [
        ("clearsplit", "clearsplit_jwt_secret", "[0-9a-f]{64}"),
        # What a percent-encoded one would break.
        ("clearsplit", "clearsplit_database_password", "[A-Za-z0-9._~-]{32,}"),
        ("todo", "todo_encryption_key", "[A-Za-z0-9_-]{43}="),
        ("todo", "todo_service_auth_token", "[0-9a-f]{64}"),
        ("neuronip", "neuronip_database_password", "[A-Za-z0-9._~-]{32,}"),
        ("semiont", "semiont_jwt_secret", ".{32,}"),
    ],
)
def test_each_secret_is_generated_in_its_form(
    name: str, secret: str, form: str, inventories: Callable[[str], Path]
) -> None:
    assert re.fullmatch(form, variables(inventories(name), secret)[secret])
