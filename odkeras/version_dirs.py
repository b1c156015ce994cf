"""The published versions in an export directory: numbered directories, as TensorFlow Serving reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from odkeras.project import list_dir

_VERSION = re.compile(r"0*[1-9]\d*", re.ASCII)
_MAX_VERSION = 2**63 - 1  # TensorFlow Serving reads the names as int64


def version_dirs(export_dir: Path | str) -> dict[int, Path]:
    """Published versions -> their directories, ascending; {} if `export_dir` does not exist.

    As in TensorFlow Serving, the directory name is an integer, with or without leading zeros (`00000123`). If two
    directories have the same number, the one with fewer zeros is used.
    """
    version_dirs = [path for path in list_dir(Path(export_dir)) if is_version_name(path.name) and path.is_dir()]
    by_zeros = sorted(version_dirs, key=lambda path: len(path.name), reverse=True)
    numbered = {int(path.name): path for path in by_zeros}
    return {version: numbered[version] for version in sorted(numbered)}


def list_versions(export_dir: Path | str) -> list[int]:
    """The published versions, ascending; see `version_dirs`."""
    return list(version_dirs(export_dir))


def version_dir(export_dir: Path | str, version: int) -> Path:
    """The directory of a version, with the leading zeros of its name; without any if the version does not exist."""
    plain = Path(export_dir, str(version))
    return plain if plain.is_dir() else version_dirs(export_dir).get(version, plain)


def is_version_name(name: str) -> bool:
    """Whether a directory of this name is a version."""
    return _VERSION.fullmatch(name) is not None and len(name) < 100 and int(name) <= _MAX_VERSION


def next_version(versions: Iterable[int], now_s: float) -> int:
    """Seconds since the epoch, or the largest version + 1 if that is larger: the clock may go backwards."""
    return max([int(now_s), *(version + 1 for version in versions)])


def reveal_version(partial: Path, export_dir: Path, now_s: float) -> int:
    """Rename a complete version directory to the next free version number, and return the number.

    The number is chosen immediately before the rename. If another process (`odkeras rollback`, the trainer) takes it
    in between, the rename is retried with the next one.

    Raises:
        OSError: the directory cannot be renamed.
    """
    while True:
        version = next_version(list_versions(export_dir), now_s)
        target = export_dir / str(version)
        if target.exists():  # a file: `list_versions` lists directories only
            now_s = version + 1
            continue
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():
                raise
        else:
            return version
