"""File names for COCO's images. COCO readers join `file_name` to an image directory, so names must be relative to one
directory and unique."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote, urlsplit

from odkeras.formats.prodigy import Record
from odkeras.image_ref import is_url
from odkeras.images import local_path


@dataclass(frozen=True)
class ImagePlace:
    """Location of an answered image.

    Args:
        image_id: the image's id.
        where: path or URL as written in the answer, else the file name or id; for messages.
        name: file name without directory.
        path: absolute path of the file; None if it has none.
        url: URL without credentials, for an image on the web; None for any other.
    """

    image_id: str
    where: str
    name: str
    path: Path | None = None
    url: str | None = None

    @classmethod
    def of(cls, image_id: str, example: Record) -> ImagePlace:
        for value in (example.get("path"), example.get("image")):
            if isinstance(value, str) and value and not value.startswith("data:"):
                return _place_on_the_web(image_id, value) if is_url(value) else _place_of_file(image_id, value)
        meta = example.get("meta")
        file = meta.get("file") if isinstance(meta, dict) else None
        where = file if isinstance(file, str) and file else image_id
        return cls(image_id, where, PurePath(where).name or image_id)


def common_folder(places: Sequence[ImagePlace]) -> Path | None:
    """The deepest directory that contains every image file; None if no image has a file."""
    folders = [place.path.parent for place in places if place.path is not None]
    try:
        return Path(os.path.commonpath(folders)) if folders else None
    except ValueError:  # the files are on several Windows drives
        return folders[0]


def file_names(places: Sequence[ImagePlace], images_dir: Path | None) -> list[str]:
    """A unique name for each image, relative to `images_dir` if it has a file, with `/` as separator.

    If several images have the same name, the last one keeps it, because its file has probably replaced the others. The
    others get part of their id appended.
    """
    taken: dict[str, None] = {}
    for place in reversed(places):
        name = place.name if place.path is None else relative_name(place.path, images_dir)
        taken[_unique(name, place.image_id, taken)] = None
    return [*taken][::-1]


def _place_of_file(image_id: str, where: str) -> ImagePlace:
    path = Path(os.path.abspath(local_path(where)))  # noqa: PTH100 (resolves "..", but follows no links)
    return ImagePlace(image_id, where, path.name, path)


def _place_on_the_web(image_id: str, where: str) -> ImagePlace:
    try:
        parts = urlsplit(where)
    except ValueError:  # `http://[x/a.jpg` parses as a broken IPv6 address
        return ImagePlace(image_id, where, PurePosixPath(where).name or image_id)
    name = PurePosixPath(unquote(parts.path)).name or image_id
    without_login = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return ImagePlace(image_id, where, name, url=without_login)


def relative_name(path: Path, folder: Path | None) -> str:
    """The path relative to a folder, with `/`; the file name without a folder."""
    if folder is None:
        return path.name
    try:
        return PurePath(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another Windows drive
        return path.as_posix()


def _unique(name: str, image_id: str, taken: Container[str]) -> str:
    path, digits = PurePosixPath(name), image_id[:8]
    endings = chain(("", f"-{digits}"), (f"-{digits}-{number}" for number in count(2)))
    names = (str(path.with_name(f"{path.stem}{ending}{path.suffix}")) for ending in endings)
    return next(free for free in names if free not in taken)
