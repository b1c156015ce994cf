"""The cache of pretrained weights on this machine.

    downloads/FILE.part      interrupted downloads, which the next call continues
    zoo/NAME/                checkpoint/ckpt-N.* and pipeline.config of a detector
    backbones/FILE.h5        weights of Keras Applications
    backbones/NAME-RGB-.../  a checkpoint that was converted from them (odkeras.pretrained.conversion)
    checksums/FILE.sha256    checksum of the file when it was downloaded first

A folder or file with its final name is complete: it is written under a temporary name and then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from odkeras.config.downloads import DownloadSettings
from odkeras.errors import WeightsError
from odkeras.locks import locked
from odkeras.pretrained.archive import unpack_model
from odkeras.pretrained.catalogue import KERAS_ADDRESS, ZOO_ADDRESS, Backbone, ZooModel
from odkeras.pretrained.download import WAYS_OUT, Progress, addresses, download
from odkeras.project import write_atomically

CACHE_VARIABLE = "ODKERAS_CACHE"
LOCK_WAIT_S = 3600.0
"""How long a call waits for another process that downloads the same weights."""


def default_cache_folder() -> Path:
    """$ODKERAS_CACHE, otherwise the platform's cache directory (~/.cache/odkeras on Linux)."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_path("odkeras", appauthor=False)).expanduser().absolute()


@dataclass(frozen=True)
class WeightsCache:
    """Pretrained weights on this machine, downloaded on first use. Several processes may use it at once.

    Args:
        folder: created on first use.
        settings: how to download.
        progress: called during a download.
    """

    folder: Path = field(default_factory=default_cache_folder)
    settings: DownloadSettings = field(default_factory=DownloadSettings)
    progress: Progress = lambda done, total: None

    def zoo_folder(self, model: ZooModel) -> Path:
        """Where the checkpoint and the pipeline.config of a detector are, or will be."""
        return self.folder / "zoo" / model.archive_name

    def converted_folder(self, backbone: Backbone, keras_file: Path, channel_order: str) -> Path:
        """Where the checkpoint that is converted from `keras_file` is, or will be."""
        return self.folder / "backbones" / f"{backbone.name}-{channel_order}-{_checksum(keras_file)[:12]}"

    def has(self, weights: ZooModel | Backbone) -> bool:
        """Whether the weights can be used without the network."""
        if isinstance(weights, ZooModel):
            return self.zoo_folder(weights).is_dir()
        return (self.folder / "backbones" / weights.file_name).is_file()

    def zoo_model(self, model: ZooModel) -> Path:
        """The folder of a detector, downloaded and unpacked if it is not there yet.

        Raises:
            WeightsError: it cannot be downloaded, is damaged, has another checksum than before, or cannot be stored.
        """
        folder = self.zoo_folder(model)
        with self.writing(model.archive_name):
            if not folder.is_dir():
                with self._downloaded(ZOO_ADDRESS, f"{model.date}/{model.file_name}") as archive:
                    self._unpack(archive, folder)
        return folder

    def unpacked(self, archive: Path) -> Path:
        """The folder of a detector whose archive is on the disk already. Each content has its own folder.

        Raises:
            WeightsError: the archive cannot be read, is damaged, or cannot be stored.
        """
        name = archive.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
        folder = self.folder / "zoo" / f"{name}-{_checksum(archive)[:12]}"
        with self.writing(folder.name):
            if not folder.is_dir():
                self._unpack(archive, folder)
        return folder

    def keras_file(self, backbone: Backbone) -> Path:
        """The weights file of a backbone, downloaded if it is not there yet.

        Raises:
            WeightsError: as for `zoo_model`.
        """
        path = self.folder / "backbones" / backbone.file_name
        with self.writing(backbone.file_name):
            if not path.is_file():
                with self._downloaded(KERAS_ADDRESS, backbone.path, md5=backbone.md5) as file:
                    _check_is_hdf5(file)
                    path.parent.mkdir(exist_ok=True)
                    file.replace(path)
        return path

    @contextlib.contextmanager
    def new_folder(self, folder: Path) -> Iterator[Path]:
        """A temporary folder that becomes `folder` after the block, or is deleted if the block raises.

        Call it within `writing`, since it deletes what a killed process left under the temporary name.
        """
        content = folder.with_name(f".new-{folder.name}")
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir(parents=True)
        try:
            yield content
            content.rename(folder)
        finally:
            shutil.rmtree(content, ignore_errors=True)

    def name_of(self, checkpoint: str) -> str:
        """The name of the weights that a checkpoint of the cache belongs to; "" if it is not in the cache."""
        with contextlib.suppress(ValueError):
            kind, name, *_ = Path(checkpoint).absolute().relative_to(self.folder).parts
            if kind == "zoo":
                return name
            if kind == "backbones":
                return name.partition("-")[0]
        return ""

    def _unpack(self, archive: Path, folder: Path) -> None:
        with self.new_folder(folder) as content:
            unpack_model(archive, content)

    @contextlib.contextmanager
    def _downloaded(self, address: str, path: str, *, md5: str = "") -> Iterator[Path]:
        """A downloaded file, for the duration of the block, which uses it or raises an error.

        Its checksum is compared with the published one; where none is published, with that of the first download that
        could be used. Others, such as the login page of a proxy, are not remembered.
        """
        file = self.folder / "downloads" / path.rpartition("/")[2]
        file.parent.mkdir(exist_ok=True)
        source = download(addresses(address, path, self.settings.mirror), file, self.settings, self.progress)
        try:
            if md5 and (actual := _checksum(file, "md5")) != md5:
                raise WeightsError(f"{source}: the MD5 checksum is {actual}, but {md5} is published; {WAYS_OUT}")
            remembered, actual = self.folder / "checksums" / f"{file.name}.sha256", _checksum(file)
            known = remembered.read_text(encoding="utf-8").strip() if remembered.is_file() else ""
            if known and known != actual:
                raise WeightsError(
                    f"{source}: the SHA-256 checksum is {actual}, but was {known} at the first download, so the file "
                    f"has changed; if you trust the new one, delete {remembered}"
                )
            try:
                yield file
            except WeightsError as error:
                raise WeightsError(f"{source} cannot be used: {error}") from error
            remembered.parent.mkdir(exist_ok=True)
            write_atomically(remembered, actual)
        finally:
            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Hold the lock of one download or conversion. An error of the disk becomes a WeightsError."""
        busy = f"another process has been downloading {name} to {self.folder} for {LOCK_WAIT_S:.0f} s; stop it first"
        try:
            with locked(self.folder / "locks" / f"{name}.lock", taken=busy, wait_s=LOCK_WAIT_S):
                yield
        except OSError as error:
            free = f"{shutil.disk_usage(self.folder).free / 2**20:.0f} MB free; " if self.folder.is_dir() else ""
            raise WeightsError(
                f"cannot store {name} in {self.folder}: {error.strerror or error}; {free}name another folder with "
                f"the environment variable {CACHE_VARIABLE}"
            ) from error


def _check_is_hdf5(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(8) != b"\x89HDF\r\n\x1a\n":
            raise WeightsError(f"the download of {file.name} is no weights file (HDF5); {WAYS_OUT}")


def _checksum(path: Path, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()
