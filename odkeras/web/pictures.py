"""Finds the images of tasks by id, for the page and for new predictions."""

from __future__ import annotations

from dataclasses import replace

from odkeras.annotation import Task
from odkeras.image_ref import ImageRef
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage

_TYPES = {"jpeg": "image/jpeg", "png": "image/png"}


class Pictures:
    """Finds an image's bytes: in one of the stores, else at the location in its task.

    Returns an image only if its bytes have the requested id, so that a task cannot give access to other files.
    """

    def __init__(self, *stores: ImageStore) -> None:
        self._stores = stores

    def find(self, image_id: str, task: Task | None) -> EncodedImage | None:
        """The image; None if it is in no store and no longer at its location."""
        for store in self._stores:
            name = store.claim(image_id)
            path = store.locate(name) if name else None
            if path is not None and (image := ImageRef((str(path),)).find(image_id)):
                return image
        if task is None:
            return None
        if isinstance(task.image, EncodedImage):
            return task.image if task.image.image_id == image_id else None
        return ImageRef(tuple(place for place in (task.image, task.path) if place)).find(image_id)

    def with_image(self, task: Task) -> Task | None:
        """The task with its image, ready for prediction; None if the image is missing."""
        image = self.find(task.image_id, task)
        return None if image is None else replace(task, image=image)


def media_type(image: EncodedImage) -> str:
    """`image/jpeg` or `image/png`."""
    return _TYPES[image.format]
