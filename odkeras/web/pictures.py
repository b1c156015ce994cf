"""Finds the images of tasks by id, for the page and for new predictions."""

from __future__ import annotations

from odkeras.formats.prodigy import Task
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
        return ImageRef.of_record(task or {}).find(image_id)

    def with_image(self, task: Task) -> Task | None:
        """The task with its image as a data URI, ready for prediction; None if the image is missing."""
        image = self.find(str(task.get("image_id")), task)
        return None if image is None else {**task, "image": image.data_uri}


def media_type(image: EncodedImage) -> str:
    """`image/jpeg` or `image/png`."""
    return _TYPES[image.format]
