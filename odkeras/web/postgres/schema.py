"""Creates the tables in PostgreSQL, and brings those of an older odkeras up to date with Alembic."""

from __future__ import annotations

from pathlib import Path

import alembic.command
import alembic.config
import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from odkeras.database_url import DatabaseUrl
from odkeras.errors import DatabaseError

SCHEMA = "odkeras"
NEWEST = "0003"
"""The revision of the newest script in `migrations/versions`."""
_MIGRATION_LOCK = 0x6F646B6572617301


def prepare(connection: Connection, place: DatabaseUrl, *, create: bool) -> None:
    """Create or migrate the tables, in one transaction that the caller commits.

    Args:
        create: create the tables if there are none.

    Raises:
        DatabaseError: a newer odkeras made the tables, or there are none and `create` is False.
        DBAPIError: the database refuses.
    """
    version = _version(connection)
    if version == NEWEST:
        return
    if version is None and not create:
        raise DatabaseError(
            f"{place}: has no answers of odkeras; `odkeras annotate` creates its tables, --db selects another database"
        )
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
    version = _version(connection)  # another process may have migrated in the meantime
    if version == NEWEST:
        return
    if version is not None and version > NEWEST:
        raise DatabaseError(f"{place}: created by a newer odkeras (schema {version}); update odkeras")
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    """The revision of the tables; None if there are none."""
    with connection.begin_nested() as savepoint:
        try:
            row = connection.exec_driver_sql(f"SELECT version_num FROM {SCHEMA}.alembic_version").fetchone()
        except DBAPIError as error:
            if not isinstance(error.orig, psycopg.errors.UndefinedTable):
                raise
            savepoint.rollback()
            return None
    return None if row is None else str(row[0])
