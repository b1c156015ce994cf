"""Reads the images of a source, remembers their ids and stores the bytes."""

from __future__ import annotations

from contextlib import suppress

from odkeras.annotation import Task
from odkeras.image_ref import Fetch
from odkeras.image_store import ImageStore
from odkeras.images import DEFAULT_MAX_PIXELS, EncodedImage
from odkeras.session.image_ids import ImageIds
from odkeras.session.sources import Item, load_task, read_item_bytes


class ImageReader:
    """Reads items. Thread-safe.

    Args:
        fetch: returns the bytes at a URL; None refuses URLs.
        store: keeps the images that `keep` gets; None keeps none.
        ids: the cache of image ids; None = one in memory.
        max_pixels: maximum pixels of an image.

    Attributes:
        ids: the cache of image ids.
    """

    def __init__(
        self,
        fetch: Fetch | None = None,
        store: ImageStore | None = None,
        ids: ImageIds | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self.ids = ids or ImageIds()
        self._fetch = fetch
        self._store = store
        self._max_pixels = max_pixels

    def read(self, item: Item, *, fetch: bool = True) -> Task:
        """The task of one image, without suggestions.

        Args:
            fetch: download an image at a URL; False refuses URLs.

        Raises:
            ImageError: the image cannot be read.
        """
        fingerprint = item.fingerprint  # before the file is read: it may be replaced meanwhile
        task = load_task(item, fetch=self._fetch if fetch else None, max_pixels=self._max_pixels)
        self.ids.note(fingerprint, task.image_id)
        return task

    def read_bytes(self, item: Item) -> bytes:
        """See `sources.read_item_bytes`."""
        return read_item_bytes(item, fetch=self._fetch)

    def keep(self, task: Task) -> None:
        """Store the task's image. On a full disk, the answer will contain the image instead."""
        if self._store is not None and isinstance(task.image, EncodedImage):
            with suppress(OSError):
                self._store.put(task.image)
