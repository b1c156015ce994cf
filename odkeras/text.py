"""Text from JSON and from file names: it can contain lone surrogates, which UTF-8 cannot, and control characters, which
a terminal would obey."""

from __future__ import annotations

import re
import sys
from typing import TextIO

# C0 without tab and line feed, DEL, C1, and what changes the direction of the text after it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8: it has no lone surrogates.

    Sources of lone surrogates: JSON (`"\\ud800"`), and names of files that are not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def replace_surrogates(text: str) -> str:
    """The text with `?` for each lone surrogate, so that it can be printed and written."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """The text with an escape (`\\x1b`) for each control character but tab and line feed: a file name must not clear
    the terminal, hide text, or write into the clipboard."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def say(text: object = "", *, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print a `printable` text.

    Args:
        file: None for standard output.
    """
    print(printable(str(text)), file=sys.stdout if file is None else file, end=end, flush=flush)
