"""A cache of image ids, so that images with an answer are skipped after a restart without reading them.

Losing the cache, or a line of it, only costs time.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from odkeras.project import read_jsonl

_log = logging.getLogger(__name__)


class ImageIds:
    """Image ids by fingerprint (`sources.Item.fingerprint`: path, size and time of a file). Thread-safe.

    Args:
        path: the JSON Lines file, read on first use and created by the first `note`; None keeps the ids in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._ids: dict[str, str] | None = None
        self._noted: list[tuple[str, str]] = []
        self._writable = True
        self._lock = threading.Lock()  # the stream, the gallery and `TaskStream.look_up` run in different threads

    def id_of(self, fingerprint: str | None) -> str | None:
        """The image's `image_id`; None if the image was not read before or has changed since."""
        if fingerprint is None:
            return None
        with self._lock:
            return self._known().get(fingerprint)

    def note(self, fingerprint: str | None, image_id: str) -> None:
        """Store an id. Never raises: if the file cannot be written, the id is kept in memory only."""
        if fingerprint is None:
            return
        with self._lock:
            if self._known().get(fingerprint) != image_id:
                self._known()[fingerprint] = image_id
                self._noted.append((fingerprint, image_id))
                self._append(fingerprint, image_id)

    def noted_after(self, number: int) -> list[tuple[str, str]]:
        """The (fingerprint, id) pairs noted by this object, without the first `number` of them."""
        with self._lock:
            return self._noted[number:]

    def _append(self, fingerprint: str, image_id: str) -> None:
        if self._path is None or not self._writable:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"image": fingerprint, "id": image_id}) + "\n")
        except OSError as error:
            self._writable = False
            _log.warning("%s cannot be written, a restart will take longer: %s", self._path, error.strerror)

    def _known(self) -> dict[str, str]:
        if self._ids is None:
            try:
                rows = read_jsonl(self._path) if self._path is not None else []
            except OSError:
                rows = []
            self._ids = {str(row.get("image")): str(row.get("id")) for row in rows}
        return self._ids
