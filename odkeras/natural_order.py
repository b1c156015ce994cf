"""Natural sort order for file names: image2 before image10, case-insensitive."""

from __future__ import annotations

import re
from pathlib import PurePath

_DIGITS = re.compile(r"[0-9]+")
_BETWEEN_FOLDERS = "\x01"  # sorts before every character in a name, so that the files of a directory stay together


def natural_key(path: PurePath | str) -> str:
    """A sort key for a path: directory by directory, case-insensitive, numbers by value.

    Different paths have different keys, so that the order is deterministic. The key is valid Unicode even if the path
    is not, so that it can be stored in a database and sorted there.
    """
    text = str(path)
    folded = _DIGITS.sub(_padded, text.casefold()).replace("/", _BETWEEN_FOLDERS)
    return f"{folded}{_BETWEEN_FOLDERS}{text}".encode("utf-8", "backslashreplace").decode("utf-8")


def _padded(digits: re.Match[str]) -> str:
    """The number without leading zeros, prefixed with its length, so that text order equals numeric order."""
    number = digits.group().lstrip("0") or "0"
    return f"{len(number):04}{number}"
