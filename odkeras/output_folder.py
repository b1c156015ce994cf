"""Write a folder atomically: readers see it complete or not at all.

    with output_folder(Path("pets-yolo"), "export.json", overwrite=False) as folder:
        (folder / "data.yaml").write_text(...)

The files are written to a hidden folder beside it, which is renamed at the end. A marker file says that a folder was
written in this way: only such a folder is ever replaced.
"""

from __future__ import annotations

import glob
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from odkeras.errors import ConfigError, RecordError
from odkeras.project import sync_to_disk

_LOCK = ".lock"


def check_output_folder(out: Path, marker: str, *, overwrite: bool) -> None:
    """Check that a folder may be written.

    Args:
        out: must be missing, an empty folder, or one with the marker.
        marker: name of the file that marks our folders.
        overwrite: a folder with the marker may be replaced.

    Raises:
        ConfigError: it may not.
    """
    try:
        if not out.exists() and not out.is_symlink():
            return
        if not out.is_dir():
            raise ConfigError(f"{out} is a file, and the export is a folder; name another one")
        if not any(out.iterdir()):
            return
        is_ours = (out / marker).is_file()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{out} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    if not is_ours:
        raise ConfigError(f"{out} has other files, and is left as it is; name a new or an empty folder")
    if not overwrite:
        raise ConfigError(f"{out} has an export already; --overwrite replaces it, or name another folder")


@contextmanager
def output_folder(out: Path, marker: str, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `out` after the block. If the block raises, it is deleted and `out` stays
    as it was. Folders that a killed process left are deleted first.

    Args:
        out, marker, overwrite: see `check_output_folder`. The block writes the marker.

    Raises:
        ConfigError: see `check_output_folder`.
        RecordError: the folder cannot be written, for example because the disk is full; also for an OSError of the
            block.
    """
    out = out.resolve()
    check_output_folder(out, marker, overwrite=overwrite)
    temporary = out.with_name(f".{out.name}.odkeras-{uuid.uuid4().hex[:8]}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out)
        temporary.mkdir()
        try:
            with _locked(temporary):
                yield temporary
            (temporary / _LOCK).unlink(missing_ok=True)
            sync_to_disk(temporary / marker)
            check_output_folder(out, marker, overwrite=overwrite)  # it may have changed meanwhile
            _put_in_place(temporary, out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror or error}; nothing was written") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, if its file system has locks: some network file systems have none."""
    lock = FileLock(folder / _LOCK, timeout=0)
    with suppress(NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _put_in_place(temporary: Path, out: Path) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    old = out.with_name(f".{out.name}.odkeras-old-{uuid.uuid4().hex[:8]}")
    out.rename(old)
    try:
        temporary.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_stale(out: Path) -> None:
    """Delete the temporary folders of processes that were killed. Those of running ones are locked."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.odkeras-*"):
        if "-old-" in path.name.removeprefix(f".{out.name}.") and not out.exists():
            continue  # killed between the two renames: it is all that there is
        try:
            with FileLock(path / _LOCK, timeout=0):
                pass
        except (Timeout, OSError, NotImplementedError):
            continue
        shutil.rmtree(path, ignore_errors=True)
