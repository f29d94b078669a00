"""What several tests start from: a contract that deploys, as an inventory states it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

SECRET = "never-to-be-seen-0123456789-abcdefghij"
"""A secret that leak tests can recognise."""

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["database", "auth"],
    "properties": {
        "database": {
            "type": "object",
            "required": ["url"],
            "properties": {"url": {"type": "string", "pattern": "://|^[$]", "description": "scheme://host/name"}},
        },
        "auth": {
            "type": "object",
            "additionalProperties": False,
            "required": ["jwtSecret"],
            "properties": {
                "jwtSecret": {"type": "string", "minLength": 32},
                "mode": {"enum": ["open", "closed"]},
                "since": {"type": ["integer", "null"]},
            },
        },
    },
}


# A machine that is busy with something else makes no property wrong.
settings.register_profile("kit", deadline=None, database=None)
settings.load_profile("kit")


@pytest.fixture
def secret() -> str:
    """The secret that stands in the config file of `services`."""
    return SECRET


@pytest.fixture
def services() -> dict[str, Any]:
    """`app_services` with one service that uses most of the contract. Each test may change its own copy."""
    return {
        "api": {
            "image": "registry.example/shop/api",
            "tag": "1.4.2-build.7",
            "user": "1001:1001",
            "port": 4000,
            "publish": 4100,
            "env": {"SHOP_ROOT": "/app/config", "SHOP_DEBUG": False, "SHOP_PRICE": "5$ or ${PRICE}"},
            "required_env": ["SHOP_ROOT"],
            "tmpfs": ["/tmp"],  # noqa: S108 - a folder in the container
            "config_files": [
                {
                    "path": "/app/config/environments/production.json",
                    "content": {"database": {"url": "${DATABASE_URL}"}, "auth": {"jwtSecret": SECRET}},
                    "mode": "0440",
                    "gid": 1001,
                }
            ],
            "config_schema": [{"path": "/app/config/environments/production.json", "schema": SCHEMA}],
            "health": {"path": "/ready", "json": {"status": "ready"}, "version": "version"},
            "migrate": {"up": ["migrate", "up"], "plan": ["migrate", "plan"], "status": ["migrate", "status"]},
            "volumes": {"data": {"path": "/app/data", "uid": 1001, "gid": 1001}},
        }
    }
