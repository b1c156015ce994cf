"""Lists the image files of a folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from odkeras.errors import ImageError
from odkeras.images import SUFFIXES
from odkeras.natural_order import natural_key


def list_image_files(directory: Path | str) -> list[Path]:
    """All image files below a directory; see `list_files`.

    Raises:
        ImageError: no such directory.
    """
    if not Path(directory).is_dir():
        raise ImageError("not a directory", str(directory))
    return list_files(directory, SUFFIXES)


def list_files(directory: Path | str, suffixes: Collection[str]) -> list[Path]:
    """All files below a directory with one of the suffixes, in natural order (1, 2, 10).

    Hidden files and directories are skipped. Symbolic links are followed.

    Args:
        suffixes: in lower case, with the dot.
    """
    files: list[Path] = []
    visited: set[str] = set()  # guards against cycles of symbolic links
    for parent, directories, names in os.walk(directory, followlinks=True):
        if os.path.realpath(parent) in visited:
            directories.clear()
            continue
        visited.add(os.path.realpath(parent))
        directories[:] = [name for name in directories if not name.startswith(".")]
        files += [
            Path(parent, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(files, key=natural_key)
