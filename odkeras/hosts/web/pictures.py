"""The images behind tasks, by id: what the page shows, and what a model is asked about again."""

from __future__ import annotations

from pathlib import Path

from odkeras.errors import ImageError
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage, bytes_from_data_uri, encode_image, local_path, recall_image
from odkeras.tasks import Task

_TYPES = {"jpeg": "image/jpeg", "png": "image/png"}


class Pictures:
    """Finds an image's bytes: in one of the stores, else where its task says that it lies.

    Only an image whose bytes give the id that is asked for is ever returned, whatever a task says.
    """

    def __init__(self, *stores: ImageStore) -> None:
        self._stores = stores

    def find(self, image_id: str, task: Task | None) -> EncodedImage | None:
        """The image; None if it is nowhere any more."""
        for store in self._stores:
            name = store.claim(image_id)
            path = store.path_of(name) if name else None
            if path is not None and (found := _read(path, image_id)):
                return found
        for key in ("image", "path"):
            value = (task or {}).get(key)
            if not isinstance(value, str) or not value:
                continue
            found = _from_uri(value, image_id) if value.startswith("data:") else _read(Path(value), image_id)
            if found:
                return found
        return None

    def with_image(self, task: Task) -> Task | None:
        """The task with its image as a data URI, as the model is asked about it; None if the image is gone."""
        image = self.find(str(task.get("image_id")), task)
        return None if image is None else {**task, "image": image.data_uri}


def media_type(image: EncodedImage) -> str:
    """`image/jpeg` or `image/png`."""
    return _TYPES[image.format]


def _from_uri(uri: str, image_id: str) -> EncodedImage | None:
    try:
        return _identified(bytes_from_data_uri(uri), image_id)
    except ImageError:
        return None


def _read(path: Path, image_id: str) -> EncodedImage | None:
    try:
        file = local_path(str(path))
        return _identified(file.read_bytes(), image_id) if file.is_file() else None  # a pipe may never end
    except (OSError, ValueError, ImageError):
        return None


def _identified(data: bytes, image_id: str) -> EncodedImage | None:
    image = recall_image(data, image_id, source=image_id) or encode_image(data, source=image_id)
    return image if image.image_id == image_id else None
