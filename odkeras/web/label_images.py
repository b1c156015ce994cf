"""Puts the images of an export where its labels look for them: copies, links, or the paths of the files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from odkeras import boxes as box_ops
from odkeras.annotation import Answer, Span
from odkeras.errors import AnswerError, ImageError
from odkeras.formats.coco_files import ImagePlace
from odkeras.formats.prodigy import Record
from odkeras.formats.spans import DECIMALS
from odkeras.formats.writers.file_names import FileNames
from odkeras.formats.writers.writer import ExportedImage, LabelWriter
from odkeras.image_ref import ImageRef, is_data_uri, is_file, is_url
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage, is_turned, read_image_bytes, recall_image
from odkeras.web.pictures import Pictures

_SUFFIXES = {"jpeg": (".jpg", ".jpeg"), "png": (".png",)}


class ImageMode(str, Enum):
    """Where the images of an export are."""

    REFER = "paths"
    COPY = "copies"
    LINK = "links"


class Kept(str, Enum):
    """What happened to an image, as a phrase after the number of images."""

    COPIED = "copied"
    HARD_LINK = "hard links"
    SYMBOLIC_LINK = "symbolic links"
    REFERRED = "left where they are"
    EMBEDDED = "in the files with the labels"
    CONVERTED = "converted to JPEG or PNG that every tool reads alike (upright, 8-bit RGB)"
    TURNED = "whose files have an EXIF orientation: the labels fit the upright picture, which --copy-images writes"
    MISSING = "whose files are missing; the labels have their paths"


@dataclass(frozen=True)
class FoundImage:
    """An image of an answer.

    Args:
        image: normalised, see `odkeras.images`.
        file: a file with exactly these bytes; None if it is another one than that of the answer, or has others.
        is_converted: the answer's file has other bytes, of which these were made.
    """

    image: EncodedImage
    file: Path | None
    is_converted: bool = False


class ImageFinder:
    """Finds the images of answers: at their places, or in the stores of the project.

    Args:
        stores: of the project.
    """

    def __init__(self, stores: Sequence[ImageStore] = ()) -> None:
        self._pictures = Pictures(*stores)

    def find(self, image_id: str, record: Record) -> FoundImage:
        """The image of an answer.

        Raises:
            ImageError: it is missing, cannot be used, or its file holds another picture now.
        """
        reference = ImageRef.of_record(record, name="data URI")
        files = _files(reference)
        for file in files:
            if (image := _recalled(file, image_id)) is not None:
                return FoundImage(image, file)
        if (converted := reference.find(image_id)) is not None:
            return FoundImage(converted, None, is_converted=bool(files))
        if (kept := self._pictures.find(image_id, None)) is not None:
            return FoundImage(kept, None)
        return FoundImage(reference.read(image_id=image_id), None, is_converted=bool(files))


class ImageExporter:
    """Puts one image after the other into an export.

    Args:
        folder: the folder of the export.
        mode: where the images shall be. An image without file or URL is always copied.
        writer: the class of the writer.
        finder: finds images.
    """

    def __init__(self, folder: Path, mode: ImageMode, writer: type[LabelWriter], finder: ImageFinder) -> None:
        self.counts: Counter[Kept] = Counter()
        self._folder = folder
        self._mode = mode
        self._writer = writer
        self._finder = finder
        self._names = FileNames(spaces=writer.allows_spaces)

    def put(self, answer: Answer, place: ImagePlace, record: Record, split: str) -> ExportedImage:
        """The image with its answer, whose spans then fit the image that was written.

        Raises:
            ImageError: the image cannot be used.
            AnswerError: the answer is for an image of another shape.
            OSError: the image cannot be written.
        """
        if self._writer.embeds_images:
            found = self._finder.find(place.image_id, record)
            self._count(found, Kept.EMBEDDED)
            name = self._names.unique(place.name, place.image_id)
            return ExportedImage(fit_to(answer, found.image.image_size_hw), split, name, image=found.image)
        source = place.path or place.url
        if self._mode is ImageMode.REFER and source is not None:
            self._refer(place)
            return ExportedImage(answer, split, self._names.unique(place.name, place.image_id), source=source)
        found = self._finder.find(place.image_id, record)
        fitted = fit_to(answer, found.image.image_size_hw)
        name = self._names.unique(place.name, place.image_id, _suffix(place.name, found.image))
        stored = f"{self._writer.images_folder.format(split=split)}/{name}"
        self._store(found, self._folder / stored)
        return ExportedImage(fitted, split, name, stored, source)

    def _refer(self, place: ImagePlace) -> None:
        self.counts[Kept.REFERRED] += 1
        if place.path is not None:
            if not is_file(place.path):
                self.counts[Kept.MISSING] += 1
            elif is_turned(place.path):
                self.counts[Kept.TURNED] += 1

    def _store(self, found: FoundImage, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._mode is ImageMode.LINK and found.file is not None and (kept := _link(found.file, path)):
            self._count(found, kept)
            return
        with path.open("xb") as file:
            file.write(found.image.data)
        self._count(found, Kept.COPIED)

    def _count(self, found: FoundImage, kept: Kept) -> None:
        self.counts[kept] += 1
        self.counts[Kept.CONVERTED] += found.is_converted


def fit_to(answer: Answer, size_hw: tuple[int, int]) -> Answer:
    """The answer with its spans scaled to an image of another size.

    Raises:
        AnswerError: it is not for a scaled copy of that image.
    """
    own_hw = answer.task.size_hw
    if own_hw == size_hw:
        return answer
    if not box_ops.has_same_shape(own_hw, size_hw):
        raise AnswerError(f"its boxes are for {_size(own_hw)} pixels, but the image has {_size(size_hw)}")
    scale_yx = size_hw[0] / own_hw[0], size_hw[1] / own_hw[1]
    spans = tuple(_scaled(span, scale_yx) for span in answer.task.spans)
    return replace(answer, task=replace(answer.task, spans=spans, image_size_hw=size_hw))


def _scaled(span: Span, scale_yx: tuple[float, float]) -> Span:
    y, x = scale_yx
    points = tuple((round(px * x, DECIMALS), round(py * y, DECIMALS)) for px, py in span.points_xy_px)
    keypoints = tuple(point._replace(x_px=point.x_px * x, y_px=point.y_px * y) for point in span.keypoints)
    return replace(span, points_xy_px=points, keypoints=keypoints)


def _files(reference: ImageRef) -> list[Path]:
    places = [text for text in reference.places if not is_url(text) and not is_data_uri(text)]
    return [file for file in map(reference.file, places) if is_file(file)]


def _recalled(file: Path, image_id: str) -> EncodedImage | None:
    try:
        return recall_image(read_image_bytes(file), image_id, source=str(file))
    except ImageError:
        return None


def _link(file: Path, path: Path) -> Kept | None:
    """Link `path` to a file; None if the file system has no links."""
    target = file.resolve()
    try:
        os.link(target, path)
        return Kept.HARD_LINK
    except OSError:  # on another disk
        pass
    try:
        path.symlink_to(target)
        return Kept.SYMBOLIC_LINK
    except OSError:
        return None


def _suffix(name: str, image: EncodedImage) -> str:
    own = Path(name).suffix.lower()
    return own if own in _SUFFIXES[image.format] else _SUFFIXES[image.format][0]


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]} x {size_hw[0]}"
