"""Validate text from JSON and from file names, which can contain lone surrogates; UTF-8 cannot."""

from __future__ import annotations


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
