"""The order in which people expect file names: image2 before image10, whatever the case of the letters."""

from __future__ import annotations

import re
from pathlib import PurePath

_DIGITS = re.compile(r"[0-9]+")
_BETWEEN_FOLDERS = "\x01"  # before every character of a name: a folder's own files stay together


def natural_key(path: PurePath | str) -> str:
    """A text that sorts like the path: folder by folder, without regard to case, numbers by their value.

    Different paths have different keys, so that the order is always the same. The key is valid Unicode, also for a name
    that is not, so that a database can sort by it.
    """
    text = str(path)
    folded = _DIGITS.sub(_padded, text.casefold()).replace("/", _BETWEEN_FOLDERS)
    return f"{folded}{_BETWEEN_FOLDERS}{text}".encode("utf-8", "backslashreplace").decode("utf-8")


def _padded(digits: re.Match[str]) -> str:
    """The number with its length in front: a longer number is a larger one."""
    number = digits.group().lstrip("0") or "0"
    return f"{len(number):04}{number}"
