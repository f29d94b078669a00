# What the programs below are made of, from Debian's packages: a shell, Python, Alembic, psql.
ARG BASE
FROM ${BASE}
RUN --mount=type=cache,id=slipway-conformance-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=slipway-conformance-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=secret,id=ca \
    set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    if [ -s /run/secrets/ca ]; then ca="-o Acquire::https::CAInfo=/run/secrets/ca"; fi; \
    apt-get ${ca:-} update -q; \
    apt-get ${ca:-} install -qy --no-install-recommends alembic postgresql-client python3-asyncpg python3-greenlet; \
    ln -s python3 /usr/bin/python
