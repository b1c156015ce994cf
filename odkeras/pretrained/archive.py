"""Unpack an archive of the model zoo: its checkpoint and its pipeline.config, and nothing else.

An archive is a download, so it is not trusted. Paths in it are never used for writing, and its size is limited.
"""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from odkeras.errors import WeightsError
from odkeras.pipeline.files import checkpoint_problems

MAX_MEMBERS = 1000
MAX_UNPACKED_BYTES = 8 * 2**30
_MAX_HEADER_BYTES = 2**20

_CHECKPOINT_FILE = re.compile(r"(ckpt-\d+)\.(?:index|data-\d{5}-of-\d{5})")
_CONFIG = "pipeline.config"


def unpack_model(archive: Path, folder: Path) -> None:
    """Write folder/pipeline.config and folder/checkpoint/ckpt-N.* from a .tar.gz archive. `folder` must exist.

    Raises:
        WeightsError: the file is no such archive, is damaged or incomplete, has links, absolute names or names with
            "..", is too large, or has no TensorFlow 2 checkpoint or no pipeline.config.
        OSError: a file cannot be written.
    """
    (folder / "checkpoint").mkdir()
    try:
        with gzip.open(archive) as unzipped:
            reader = _LimitedReader(unzipped)
            # Reading as a stream never seeks, so that the limits hold for all that is decompressed.
            with tarfile.open(fileobj=reader, mode="r|") as tar:
                _extract(tar, reader, folder)
            while reader.read(_MAX_HEADER_BYTES):  # to the end, where gzip checks its checksum
                pass
    except _TooLargeError as error:
        raise WeightsError(f"{archive}: refused: {error}") from None
    except (EOFError, tarfile.TarError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise WeightsError(
            f"{archive} is no complete .tar.gz archive ({str(error) or 'it ends early'}); download it again"
        ) from error
    check_model_folder(folder, source=str(archive))


def find_checkpoint(folder: Path) -> str:
    """The prefix of the newest checkpoint in folder/checkpoint; "" if there is none."""
    names = [index.name.removesuffix(".index") for index in (folder / "checkpoint").glob("ckpt-*.index")]
    newest = max(names, key=lambda name: int(name.rpartition("-")[2]), default="")
    return str(folder / "checkpoint" / newest) if newest else ""


def check_model_folder(folder: Path, *, source: str) -> None:
    """Check that `folder` has a complete TensorFlow 2 checkpoint and a pipeline.config.

    Raises:
        WeightsError: something is missing; the message begins with `source`.
    """
    prefix = find_checkpoint(folder)
    if not prefix:
        raise WeightsError(f"{source} has no checkpoint of TensorFlow 2 (checkpoint/ckpt-0.index); take one of the zoo")
    problem = next(checkpoint_problems(prefix, field="checkpoint"), None)
    if problem is not None:
        raise WeightsError(f"{source}: {problem}")
    if not (folder / _CONFIG).is_file():
        raise WeightsError(f"{source} has no pipeline.config, which describes the model; take one of the zoo")


def _extract(tar: tarfile.TarFile, reader: _LimitedReader, folder: Path) -> None:
    for number, member in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise _TooLargeError(f"it has more than {MAX_MEMBERS} files")
        _check_member(member)
        reader.allow(member.size)
        name = PurePosixPath(member.name).name
        if not member.isfile() or not (name == _CONFIG or _CHECKPOINT_FILE.fullmatch(name)):
            continue
        target = folder / name if name == _CONFIG else folder / "checkpoint" / name
        content = tar.extractfile(member)
        assert content is not None  # of a regular file it never is
        try:
            with content, target.open("xb") as file:
                shutil.copyfileobj(content, file)
        except FileExistsError:
            raise WeightsError(f"refused: the archive has two files named {name}") from None


def _check_member(member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", member.name):
        raise WeightsError(f"refused: the archive has a file outside its own folder: {member.name!r}")
    # A sparse file can be small in the archive and huge on the disk.
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise WeightsError(f"refused: the archive has a link, a device or a sparse file: {member.name!r}")


class _TooLargeError(Exception):
    """The archive has more files or bytes than any archive of the zoo."""


class _LimitedReader(io.RawIOBase):
    """A stream that ends with an error beyond a limit, whatever the archive says about its own size.

    Between two files only headers may follow, so their size is limited, too: `tarfile` reads a whole header at once.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        super().__init__()
        self._stream = stream
        self._position = 0
        self._limit = _MAX_HEADER_BYTES

    def allow(self, size: int) -> None:
        """Allow another `size` bytes and a header after them."""
        self._limit = self._position + size + _MAX_HEADER_BYTES
        if self._limit > MAX_UNPACKED_BYTES:
            raise _TooLargeError(f"it unpacks to more than {MAX_UNPACKED_BYTES / 2**30:.0f} GiB")

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        if self._position > self._limit:
            raise _TooLargeError("it has more data than its files")
        return data
