"""The database of an environment: what an inventory declares of it, and the bundled PostgreSQL on its host."""
