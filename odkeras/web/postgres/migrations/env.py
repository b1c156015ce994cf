"""Alembic runs this, with the connection of `schema.prepare`, whose caller commits."""

from alembic import context

from odkeras.web.postgres.schema import SCHEMA

if __name__ == "env_py":  # as Alembic names it; whoever imports it has no connection
    context.configure(connection=context.config.attributes["connection"], version_table_schema=SCHEMA)
    context.run_migrations()
