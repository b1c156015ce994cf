"""`prodigy.util`: what public recipes import from there, as far as the version that is played has it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prodigy.eras import current_era
from prodigy.hashing import INPUT_HASH_ATTR, SESSION_ID_ATTR, TASK_HASH_ATTR, set_hashes

__all__ = ["INPUT_HASH_ATTR", "SESSION_ID_ATTR", "TASK_HASH_ATTR", "log", "set_hashes", "split_string"]


def log(message: str, details: Any = None) -> None:
    """To stderr when PRODIGY_LOGGING is `basic` or `verbose`; the details when it is `verbose`."""
    mode = os.environ.get("PRODIGY_LOGGING", "")
    logger = logging.getLogger("prodigy")
    logger.setLevel(logging.INFO if mode in ("basic", "verbose") else logging.ERROR)
    logger.info(message)
    if mode == "verbose" and details is not None:
        logger.info(str(details))


def split_string(text: str | Sequence[str]) -> list[str]:
    """A comma-separated list."""
    if not isinstance(text, str):
        return list(text)
    return [part.strip() for part in text.split(",")] if text else []


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is at that moment, so that a test can capture it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _set_up_logger() -> None:
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s: %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("prodigy")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR)
    logger.propagate = False


class _Printer:
    """The methods of a wasabi printer that recipes use."""

    def fail(self, title: str = "", text: str = "", exits: int | None = None) -> None:
        self._print("✘", title, text, exits)

    def warn(self, title: str = "", text: str = "", exits: int | None = None) -> None:
        self._print("⚠", title, text, exits)

    def good(self, title: str = "", text: str = "", exits: int | None = None) -> None:
        self._print("✔", title, text, exits)

    def info(self, title: str = "", text: str = "", exits: int | None = None) -> None:
        self._print("ℹ", title, text, exits)

    def _print(self, sign: str, title: str, text: str, exits: int | None) -> None:
        print(f"{sign} {title}", *([text] * bool(text)), sep="\n", flush=True)
        if exits is not None:
            sys.exit(exits)


if current_era().has_callbacks_of_1_10:
    msg = _Printer()

    def get_labels(labels: str | Sequence[str] | None) -> list[str]:
        """A comma-separated list, or a text file with a label per line."""
        if isinstance(labels, str) and Path(labels).is_file():
            return [line.strip() for line in Path(labels).read_text(encoding="utf-8").splitlines() if line.strip()]
        return split_string(labels or "")


_set_up_logger()
