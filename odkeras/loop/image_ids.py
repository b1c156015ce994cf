"""Which id an image had when it was last read, so that one that is answered already need not be read again.

A cache: losing it, or a line of it, costs time only.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from odkeras.project import read_jsonl

_log = logging.getLogger(__name__)


class ImageIds:
    """Ids by fingerprint (`sources.Item.fingerprint`: path, size and time of a file), kept in a file of JSON lines.
    May be used by several threads.

    Args:
        path: read when the first id is asked for; made when the first one is noted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: dict[str, str] | None = None
        self._noted: list[tuple[str, str]] = []
        self._writable = True
        self._lock = threading.Lock()  # the stream, the gallery and the look-up read images at the same time

    def id_of(self, fingerprint: str | None) -> str | None:
        """The `image_id`, None if the image has not been read before, or has changed since."""
        if fingerprint is None:
            return None
        with self._lock:
            return self._known().get(fingerprint)

    def note(self, fingerprint: str | None, image_id: str) -> None:
        """Remember; never raises."""
        if fingerprint is None:
            return
        with self._lock:
            if self._known().get(fingerprint) != image_id:
                self._known()[fingerprint] = image_id
                self._noted.append((fingerprint, image_id))
                self._append(fingerprint, image_id)

    def noted_after(self, number: int) -> list[tuple[str, str]]:
        """Fingerprints and ids that were noted since this object was made, without the first ones."""
        with self._lock:
            return self._noted[number:]

    def _append(self, fingerprint: str, image_id: str) -> None:
        if not self._writable:
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
                rows = read_jsonl(self._path)
            except OSError:
                rows = []
            self._ids = {str(row.get("image")): str(row.get("id")) for row in rows}
        return self._ids
