"""What is wrong with a project, and what can be done about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from odkeras.database_url import DatabaseLocation


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        where: the file, or the URL of the database.
        problem: what is wrong with it.
        fix: what `repair` does, or what to do if there is none.
        repair: repairs it, and returns what was done. It may raise OSError, OdkerasError or sqlite3.Error.
    """

    where: DatabaseLocation
    problem: str
    fix: str
    repair: Callable[[], str] | None = None
