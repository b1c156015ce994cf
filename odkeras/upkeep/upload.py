"""Copies of the published versions in object storage, where model servers read them.

A bucket has no renames, so a version cannot appear at once. `saved_model.pb`, without which nothing can be loaded, is
written last and deleted first: a server that looks in between fails to load the version, keeps the one that it has, and
tries again.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NoReturn

from odkeras.errors import ConfigError, ImageError, ServingError
from odkeras.export.info import EXPORT_INFO_PATH
from odkeras.image_ref import is_storage_url
from odkeras.session.object_storage import ObjectStorage
from odkeras.version_dirs import is_version_name, version_dirs

_log = logging.getLogger(__name__)

_GRAPH = "saved_model.pb"
_TIMEOUT_S = 600.0  # of one file
_POLL_S = 1.0
_MAX_PAUSE_S = 60.0


class VersionUploader:
    """Uploads the versions of an export directory, and deletes old ones that odkeras uploaded.

    Args:
        export_dir: the directory with the numbered versions; need not exist yet.
        url: the prefix that a model server gets as its base path, for example `s3://models/raccoon`.
        keep: how many of the newest versions are there; 0 or less = all of the directory.

    Raises:
        ConfigError: the URL is not one of object storage.
    """

    def __init__(self, export_dir: Path, url: str, keep: int) -> None:
        if not is_storage_url(url):
            raise ConfigError(f"{url}: must be a prefix that starts with s3://, gs:// or az://")
        self.url = url.rstrip("/")
        self._export_dir = export_dir
        self._keep = keep
        self._storage = ObjectStorage(timeout_s=_TIMEOUT_S)
        self._uploaded: list[str] = []  # the versions of the directory when it was looked at last

    def upload_new(self, on_upload: Callable[[str], None] = lambda name: None) -> None:
        """Upload the versions that are missing in the bucket, the newest first, and delete old ones. Asks the storage
        only if there are other versions in the directory than the last time.

        Args:
            on_upload: callback with the name of each version, when it is complete.

        Raises:
            ServingError: the storage cannot be reached, or refuses; what is missing is uploaded by the next call.
        """
        versions = version_dirs(self._export_dir)
        wanted = {versions[number].name: number for number in sorted(versions)[-max(0, self._keep) :]}
        if list(wanted) == self._uploaded:
            return
        try:
            there = self._names_there()
            for name in reversed(wanted):  # the newest is what people wait for
                if _GRAPH not in there.get(name, ()) and self._upload(self._export_dir / name):
                    on_upload(name)
            for name, files in there.items():
                if name not in wanted and wanted and int(name) < min(wanted.values()):
                    self._delete(name, files)
        except ImageError as error:
            raise ServingError(str(error)) from None
        self._uploaded = list(wanted)

    def _names_there(self) -> dict[str, set[str]]:
        """The files of each version in the bucket."""
        versions = defaultdict[str, set[str]](set)
        for path in map(PurePosixPath, self._storage.list_files(self.url)):
            if is_version_name(path.parts[0]):
                versions[path.parts[0]].add(path.relative_to(path.parts[0]).as_posix())
        return versions

    def _upload(self, version: Path) -> bool:
        """Upload a version. Returns whether it is complete; not if it was deleted from the directory meanwhile."""
        # First the metadata, which says that the version is ours, so that one that stays incomplete can be deleted.
        rank = {EXPORT_INFO_PATH.as_posix(): 0, _GRAPH: 2}
        names = [path.relative_to(version).as_posix() for path in sorted(version.rglob("*")) if path.is_file()]
        names.sort(key=lambda name: rank.get(name, 1))
        if _GRAPH not in names:
            return False
        try:
            for name in names:
                self._storage.put_file(f"{self.url}/{version.name}/{name}", version / name)
        except OSError:
            if version.is_dir():
                raise
            return False
        return True

    def _delete(self, name: str, files: set[str]) -> None:
        if EXPORT_INFO_PATH.as_posix() not in files:
            return  # somebody else's
        last = EXPORT_INFO_PATH.as_posix()
        for file in sorted(files, key=lambda file: (file == last, file != _GRAPH)):
            self._storage.delete(f"{self.url}/{name}/{file}")

    def watch(self, on_upload: Callable[[str], None], sleep: Callable[[float], object] = time.sleep) -> NoReturn:
        """Upload new versions until the process is interrupted. While the storage cannot be reached, tries again after
        longer and longer pauses, up to a minute."""
        pause = _POLL_S
        while True:
            try:
                self.upload_new(on_upload)
                pause = _POLL_S
            except (ServingError, OSError) as error:
                pause = min(2 * pause, _MAX_PAUSE_S)
                _log.warning("%s; trying again in %.0f s", error, pause)
            sleep(pause)
