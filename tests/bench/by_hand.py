"""The floor: what the kit deploys, as one who runs docker compose by hand writes it down."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

COMPOSE = """\
services:
  backend:
    image: {repository}:${{TAG}}
    user: "1001:1001"
    restart: unless-stopped
    stop_grace_period: 15s
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    mem_limit: 256m
    cpus: 1.0
    # The rest of it is the image's own.
    healthcheck: {{interval: 1s}}
    environment: {{SEMIONT_ROOT: /app/config, SEMIONT_ENV: bench, BACKEND_DRAIN_SECONDS: "0"}}
    ports: ["{publish}:4000"]
    volumes:
      - ./config:/app/config:ro
      - data:/app/data
volumes:
  data: {{}}
"""


def write(folder: Path, *, name: str, repository: str, publish: str) -> None:
    """Write `compose.yml`, which takes its tag from $TAG, and the configuration that it mounts."""
    config = folder / "config"
    (config / "environments").mkdir(parents=True)
    (config / "semiont.json").write_text(json.dumps({"version": "1.0.0", "projectName": name}))
    settings = {"database": {"url": "sqlite:////app/data/backend.db"}, "auth": {"jwtSecret": secrets.token_hex(32)}}
    (config / "environments/bench.json").write_text(json.dumps(settings))
    # Read by the image's own user; the folder above is nobody else's.
    for path in (folder, config, config / "environments"):
        path.chmod(0o711)
    (folder / "compose.yml").write_text(COMPOSE.format(repository=repository, publish=publish))
