"""What the writers of all label formats have in common.

    with YoloWriter(target) as writer:
        for image in images:
            writer.write(image)
    writer.losses                                    # what the format could not hold

A writer keeps nothing of an answer in memory after it has written it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, ClassVar

from odkeras.annotation import Answer, Span
from odkeras.formats.coco_files import relative_name
from odkeras.formats.label_files import CROWD
from odkeras.images import EncodedImage
from odkeras.labels import Label

FLAGS = frozenset({CROWD, "difficult", "truncated", "occluded"})
"""Keys of `Span.other` that other tools have, too; the readers of `odkeras import` set them."""


class Loss(str, Enum):
    """What a format cannot hold, as a phrase after a number."""

    POLYGONS = "polygons are written as their bounding boxes"
    KEYPOINTS = "objects are written without their keypoints"
    FRACTIONS = "boxes are rounded to whole pixels"
    FLAGS = "objects are written without a mark that an import gave them (iscrowd, difficult, truncated, occluded)"


def has_flag(span: Span, flag: str) -> bool:
    """Whether a span has one of `FLAGS`."""
    return span.other.get(flag) in (1, True)


@dataclass(frozen=True)
class ExportedImage:
    """An accepted answer on its way out.

    Args:
        answer: its task has the image's size, and its spans lie inside the image and have labels of the target.
        split: train, val or test.
        name: a file name that no other image of the export has, nor its stem; valid on every system.
        stored: the image's file in the export, relative to its folder, with `/`; None if it was left where it is.
        source: absolute path or URL of the image; None if it has neither.
        image: the image; None unless the writer embeds images.
    """

    answer: Answer
    split: str
    name: str
    stored: str | None = None
    source: Path | str | None = None
    image: EncodedImage | None = None

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def spans(self) -> tuple[Span, ...]:
        return self.answer.task.spans

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.answer.task.size_hw

    @property
    def place(self) -> str:
        """Where the image is: relative to the export's folder if it is in it, else an absolute path or URL."""
        if self.stored is not None:
            return self.stored
        return self.source.as_posix() if isinstance(self.source, Path) else self.source or self.name


@dataclass(frozen=True)
class Target:
    """What is written, and where.

    Args:
        folder: an empty folder.
        labels: the classes, by id.
        splits: names of the splits.
        has_polygons: whether any object of the dataset is a polygon.
        description: one line for the formats that have a place for it.
        images_dir: the deepest folder with all images that are left where they are; None if there are none.
        location: the path that the folder will have.
    """

    folder: Path
    labels: tuple[Label, ...]
    splits: tuple[str, ...]
    has_polygons: bool
    description: str
    images_dir: Path | None
    location: Path

    @cached_property
    def ids(self) -> dict[str, int]:
        """The label-map id of each label."""
        return {label.name: label.id for label in self.labels}

    @cached_property
    def keypoint_names(self) -> dict[str, tuple[str, ...]]:
        """The keypoints of each label that has any, in the order of their ids."""
        return {label.name: tuple(name for _, name in sorted(label.keypoints)) for label in self.labels}


class LabelWriter(ABC):
    """Writes the labels of one format. A context manager: the files are complete after a block without exception."""

    images_folder: ClassVar[str] = "images/{split}"
    """Where the images belong, relative to the folder."""
    needs_images: ClassVar[bool] = False
    """The labels are found by the place of the image, so that the images must be in the export."""
    embeds_images: ClassVar[bool] = False
    """The images are inside the labels' files."""
    allows_spaces: ClassVar[bool] = True
    """Names of images may have spaces."""
    holds_polygons: ClassVar[bool] = True
    holds_keypoints: ClassVar[bool] = False
    flags: ClassVar[frozenset[str]] = frozenset()
    """Those of `FLAGS` that the format has."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.losses: Counter[Loss] = Counter()
        self._files = ExitStack()

    def __enter__(self) -> LabelWriter:
        try:
            self.begin()
        except BaseException:
            self._files.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._files:
            if error is None:
                self.finish()

    def begin(self) -> None:  # noqa: B027 (not every format has something here)
        """Write what comes before the first image."""

    def write(self, image: ExportedImage) -> None:
        """Write the labels of an image, and count what the format cannot hold of them.

        Raises:
            ImageError: the format cannot have the image.
            OSError: disk full, or no permission.
        """
        self.write_image(image)
        for span in image.spans:
            self.losses[Loss.POLYGONS] += span.is_polygon and not self.holds_polygons
            held = self.holds_keypoints and self.target.keypoint_names[span.label]
            self.losses[Loss.KEYPOINTS] += any(point.visibility for point in span.keypoints) and not held
            self.losses[Loss.FLAGS] += bool(span.other) and any(has_flag(span, flag) for flag in FLAGS - self.flags)

    @abstractmethod
    def write_image(self, image: ExportedImage) -> None:
        """Write the labels of an image."""

    def finish(self) -> None:  # noqa: B027
        """Write what comes after the last image."""

    def remarks(self) -> list[str]:
        """Messages about how to use the files."""
        return []

    def open(self, name: str) -> IO[str]:
        """A new text file in the folder, which is closed at the end. It has `?` for what is not valid text."""
        path = self.target.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._files.enter_context(path.open("x", encoding="utf-8", errors="replace", newline="\n"))

    def write_file(self, name: str, text: str) -> None:
        """Write a whole text file in the folder."""
        path = self.target.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace", newline="\n")

    def file_name(self, image: ExportedImage) -> str:
        """The image's file relative to the folder of all images."""
        if image.stored is not None or not isinstance(image.source, Path):
            return image.name
        return relative_name(image.source, self.target.images_dir)
