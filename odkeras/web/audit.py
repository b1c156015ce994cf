"""The log of refused requests: a line for each, in a file of bounded size."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from odkeras.text import printable

NAME = "refused.log"
_MAX_BYTES = 2**20
_OLD_FILES = 2
_log = logging.getLogger("odkeras.web.refused")


def note_refusal(client: str, method: str, path: str, host: str, status: int, reason: str) -> None:
    """Log a refused request. The query is left out: it may hold a token.

    Args:
        client: its address.
        host: its Host header.
    """
    fields = (client, method[:20], path[:200], host[:100], reason)
    shown = [printable(field.replace("\n", "\\n")) for field in fields]
    _log.warning("%s %s %s host=%s: %s %s", *shown[:4], status, shown[4])


class _AuditFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: on a full disk, logging would print a traceback for each refused request."""


@contextmanager
def audit_log(folder: Path) -> Iterator[None]:
    """Within the block, refused requests are logged to a file in `folder`, which is rotated. If it cannot be opened,
    they are logged with the other messages."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _AuditFile(folder / NAME, maxBytes=_MAX_BYTES, backupCount=_OLD_FILES, encoding="utf-8")
    except OSError:
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _log.addHandler(handler)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.propagate = True
        handler.close()
