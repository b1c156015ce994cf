"""One step each; the names begin with the number that `alembic_version` holds."""
