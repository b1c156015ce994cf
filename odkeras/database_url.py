"""Where the answers are stored: a SQLite file, or a PostgreSQL database by its URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

from odkeras.errors import ConfigError

_SCHEMES = ("postgresql", "postgres")
_SECRETS = ("password", "sslpassword")
_NO_URL = "the URL of the database is not one; write postgresql://user@host:port/name"
_PASSWORDS = "PGPASSWORD, or a line of ~/.pgpass"


@dataclass(frozen=True)
class DatabaseUrl:
    """The URL of a PostgreSQL database, `postgresql://user@host:port/name`. It never has a password, so that it may be
    logged, shown and passed to other processes.

    Raises:
        ConfigError: it has a password, or no name of a database.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.text)
            has_password = parts.password is not None
        except ValueError as error:
            raise ConfigError(_NO_URL) from error
        if has_password or any(name.lower() in _SECRETS for name, _ in parse_qsl(parts.query)):
            raise ConfigError(
                f"the URL of the database has a password, which the process list and logs would show; leave it out, "
                f"and set {_PASSWORDS}"
            )
        if parts.scheme not in _SCHEMES or not parts.path.strip("/"):
            raise ConfigError(f"{self.text}: not the URL of a database; write postgresql://user@host:port/name")

    def __str__(self) -> str:
        return self.text


DatabaseLocation: TypeAlias = Path | DatabaseUrl


def read_database_location(text: str, folder: Path | None = None) -> DatabaseLocation:
    """The place that a text names: a URL, or else the path of a file.

    Args:
        folder: where relative paths start; None leaves them as they are.

    Raises:
        ConfigError: the URL cannot be used.
    """
    if text.startswith(tuple(f"{scheme}:" for scheme in _SCHEMES)) and "://" not in text:
        raise ConfigError(_NO_URL)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        if text.partition("://")[0] not in _SCHEMES:
            scheme = text.partition("://")[0]
            raise ConfigError(f"{scheme}://: no such database; give the path of a file, or postgresql://user@host/name")
        return DatabaseUrl(text)
    return Path(text) if folder is None else folder / text


def absolute_location(place: DatabaseLocation) -> DatabaseLocation:
    """The place independent of the working directory."""
    return place if isinstance(place, DatabaseUrl) else place.absolute()
