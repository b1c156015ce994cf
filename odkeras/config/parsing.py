"""Reads the texts of flags that are more than a number or a path."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

AUTO = "auto"
"""The threshold that is learned from the answers; the batch size that is chosen by the memory."""


def is_host(text: Any) -> bool:
    """Whether `text` is a host name, an IPv4 or an IPv6 address."""
    if not isinstance(text, str):
        return False
    if ":" in text:
        try:
            return ip_address(text).version == 6
        except ValueError:
            return False
    return re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", text) is not None


def read_threshold(text: str) -> float | str:
    """Parse a threshold: a number, or "auto" in any case. The range is not checked.

    Raises:
        ValueError: neither.
    """
    return AUTO if text.strip().lower() == AUTO else float(text)


def read_batch_size(text: str) -> int | str:
    """Parse a number of images, or "auto" in any case. The range is not checked.

    Raises:
        ValueError: neither.
    """
    return AUTO if text.strip().lower() == AUTO else int(text)


def split_list(text: str | None) -> tuple[str, ...] | None:
    """Split a comma-separated list, or the lines of the text file with that name; None if empty."""
    if not text:
        return None
    path = Path(text)
    with suppress(OSError, ValueError):  # too long for a file name, or a file that is not UTF-8 text
        text = ",".join(path.read_text(encoding="utf-8-sig").splitlines()) if path.is_file() else text
    return split_commas(text)


def split_commas(text: str | None) -> tuple[str, ...] | None:
    """Split a comma-separated list; None if empty."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip()) or None
