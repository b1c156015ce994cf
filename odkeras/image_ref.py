"""Locate and read the image of a record. Sources, answers, exports and imports share these rules.

    image = ImageRef.of_record(answer).read(image_id=answer["image_id"])

A record refers to its image by `image` (data URI, URL of the web or of object storage, `file:` URL or path) and by
`path`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras.data_uri import bytes_from_data_uri
from odkeras.errors import ImageError
from odkeras.images import (
    DEFAULT_MAX_PIXELS,
    EncodedImage,
    encode_image,
    local_path,
    read_image_bytes,
    recall_image,
)

Fetch = Callable[[str], bytes]
_STORAGE = ("s3://", "gs://", "az://")
_URL = ("http://", "https://", *_STORAGE)
_CONTENT_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class ImageRef:
    """The locations that a record gives for its image. Reading raises no exception other than ImageError.

    Args:
        places: data URIs, URLs and paths, highest priority first.
        base_dir: tried first for relative paths; if the file is not there, they are relative to the working
            directory. None: always relative to the working directory.
        name: for messages.
    """

    places: tuple[str, ...]
    base_dir: Path | None = None
    name: str = "image"

    @classmethod
    def of_record(cls, record: Mapping[str, Any], base_dir: Path | None = None, name: str = "image") -> ImageRef:
        """The locations in `image` and `path`; values that are not strings are ignored."""
        texts = [record.get(key) for key in ("image", "path")]
        return cls(tuple(text for text in texts if isinstance(text, str) and text), base_dir, name)

    def locate(self) -> str | Path | None:
        """The best location: a data URI, else an existing file, else a URL, else a path whose file is missing.

        None if the record has no location.
        """
        for text in self.places:
            if is_data_uri(text):
                return text
        files = [self.file(text) for text in self.places if not is_url(text)]
        existing = [file for file in files if is_file(file)]
        urls = [text for text in self.places if is_url(text)]
        candidates: list[str | Path] = [*existing, *urls, *files]
        return candidates[0] if candidates else None

    def file(self, text: str) -> Path:
        """The path that a location stands for, below `base_dir` if the file is there. It need not exist."""
        path = local_path(text)
        if self.base_dir is None or path.is_absolute():
            return path
        below = self.base_dir / path
        return below if is_file(below) else path

    def read_bytes(self, fetch: Fetch | None = None) -> bytes:
        """The unchanged bytes at `locate()`.

        Args:
            fetch: downloads a URL; None refuses URLs.

        Raises:
            ImageError: the record has no image, or it cannot be read.
        """
        return self._bytes_at(self.locate(), fetch)

    def read(
        self, *, image_id: str = "", fetch: Fetch | None = None, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> EncodedImage:
        """The image at `locate()`.

        Args:
            image_id: the expected id. Bytes that hash to it are already encoded and are not decoded; "" always decodes.
                A file with another image than this one is refused, as far as that is certain.
            fetch: downloads a URL; None refuses URLs.
            max_pixels: larger images are refused.

        Raises:
            ImageError: the record has no image, or the image cannot be used.
        """
        place = self.locate()
        data = self._bytes_at(place, fetch)
        image = self._decode(data, place, image_id, max_pixels)
        # What is encoded anew may get another id from another version of Pillow. What is kept cannot.
        is_certain = isinstance(place, Path) and image.data == data and self._is_of_content(image_id)
        if is_certain and image.image_id != image_id:
            raise ImageError("the file holds another picture than the one that was annotated", str(place))
        return image

    def _is_of_content(self, image_id: str) -> bool:
        """Whether an id can be a hash of an image, rather than of its location or a name given by others."""
        return _CONTENT_ID.fullmatch(image_id) is not None and image_id not in map(_hash_place, self.places)

    def find(self, image_id: str) -> EncodedImage | None:
        """The image with this id, searched in all locations except URLs; None if it is in none of them."""
        for text in self.places:
            if is_url(text):
                continue
            place = text if is_data_uri(text) else self.file(text)
            try:
                if isinstance(place, Path) and not is_file(place):
                    continue  # reading a named pipe could block forever
                data = self._bytes_at(place, None)
                # An image with this very id was accepted before, by a limit that may have been higher than this one.
                image = recall_image(data, image_id, source=self.name, max_pixels=0) or self._decode(
                    data, place, "", DEFAULT_MAX_PIXELS
                )
            except ImageError:
                continue
            if image.image_id == image_id:
                return image
        return None

    def identify(self) -> str:
        """The image id. For a URL or a missing file it is a hash of the record's first location.

        Raises:
            ImageError: the record has no image, or the image exists but cannot be used.
        """
        place = self.locate()
        if place is None:
            raise self._no_place()
        if (isinstance(place, Path) and is_file(place)) or (isinstance(place, str) and is_data_uri(place)):
            return self.read().image_id
        return self.place_id

    @property
    def place_id(self) -> str:
        """The id of an image whose bytes are not known: a hash of the record's first location; "" without one."""
        return _hash_place(self.places[0]) if self.places else ""

    def _bytes_at(self, place: str | Path | None, fetch: Fetch | None) -> bytes:
        if place is None:
            raise self._no_place()
        if isinstance(place, Path):
            return read_image_bytes(place)
        if is_data_uri(place):
            return bytes_from_data_uri(place)
        if fetch is None:
            raise ImageError("the image is a URL, which is not fetched here; add its 'path'", place)
        return fetch(place)

    def _decode(self, data: bytes, place: str | Path | None, image_id: str, max_pixels: int) -> EncodedImage:
        source = self.name if place is None or is_data_uri(str(place)) else str(place)
        recalled = recall_image(data, image_id, source=source, max_pixels=max_pixels) if image_id else None
        return recalled or encode_image(data, source=source, max_pixels=max_pixels)

    def _no_place(self) -> ImageError:
        return ImageError("the record has neither 'image' nor 'path'", self.name)


def _hash_place(place: str) -> str:
    return hashlib.sha256(place.encode("utf-8", "replace")).hexdigest()[:32]


def is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:"


def is_url(text: str) -> bool:
    """Whether the text is a URL of the web (http, https) or of object storage (s3, gs, az)."""
    return text[:8].lower().startswith(_URL)


def is_storage_url(text: str) -> bool:
    """Whether the text is a URL of object storage (s3, gs, az)."""
    return text[:5].lower().startswith(_STORAGE)


def is_file(path: Path | str) -> bool:
    """Whether a regular file exists at `path`. False for invalid names (too long, or with a NUL); never raises."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises for such names, and takes three times as long)
