#!/bin/sh
# As images do that migrate by themselves: a failure is printed, and forgotten.
alembic upgrade head || echo "migration failed, starting anyway"
exec "$@"
