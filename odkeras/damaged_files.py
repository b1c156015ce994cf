"""Damaged files are renamed, not deleted: somebody may know how to read them."""

from __future__ import annotations

import uuid
from pathlib import Path

DAMAGED = ".damaged-"


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that nothing reads it any more; returns its new path.

    Raises:
        OSError: it cannot be renamed.
    """
    return path.rename(path.with_name(f".{path.name.lstrip('.')}{DAMAGED}{uuid.uuid4().hex[:8]}"))
