"""What an export of labels has, and what it lacks: for the manifest in its folder, and for people."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odkeras import __version__
from odkeras.errors import RecordError
from odkeras.formats.writers.writer import ExportedImage, LabelWriter, Loss
from odkeras.web.dataset_labels import DatasetLabels
from odkeras.web.label_images import ImageMode, Kept
from odkeras.web.label_survey import Survey

MANIFEST_NAME = "odkeras-export.json"
_SAID = (Kept.CONVERTED, Kept.TURNED, Kept.MISSING)


@dataclass
class SplitCounts:
    """What a split has.

    Args:
        images: number of images.
        without_objects: those of them without objects.
        objects: number of objects of each class.
    """

    images: int = 0
    without_objects: int = 0
    objects: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "without_objects": self.without_objects,
            "objects": self.objects.total(),
            "objects_by_class": dict(self.objects.most_common()),
        }


@dataclass
class ExportReport:
    """The result of an export.

    Args:
        dataset: its name.
        format: the name of the format.
        labels: the label map, and its origin.
        split_names: in the order in which they are shown.
        mode: where the images are.
        splits: what each split has.
        skipped: (file, reason) for each image or object that was left out.
        losses: what the format could not hold, with the number of objects.
        images: what happened to the images.
        remarks: messages of the writer.
        with_own_split: number of images that keep the split that they were imported with.
    """

    dataset: str
    format: str
    labels: DatasetLabels
    split_names: tuple[str, ...]
    mode: ImageMode
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    losses: Counter[Loss] = field(default_factory=Counter)
    images: Counter[Kept] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)
    with_own_split: int = 0
    _groups: set[str] = field(default_factory=set)
    _ungrouped: int = 0

    def __post_init__(self) -> None:
        self.splits = {name: SplitCounts() for name in self.split_names}

    def count(self, image: ExportedImage) -> None:
        """Add an image that was written."""
        counts = self.splits[image.split]
        counts.images += 1
        counts.without_objects += not image.spans
        counts.objects.update(span.label for span in image.spans)

    def count_group(self, group: str | None) -> None:
        """Add the group of an image; None if it is in none."""
        if group is None:
            self._ungrouped += 1
        else:
            self._groups.add(group)

    def finish(self, survey: Survey, writer: LabelWriter, images: Mapping[Kept, int]) -> None:
        """Add what is known at the end.

        Raises:
            RecordError: no image could be used.
        """
        if not self.total_images:
            reasons = "".join(f"; {file}: {reason}" for file, reason in self.skipped[:3])
            raise RecordError(f"none of the {survey.images} accepted images of {self.dataset!r} can be used{reasons}")
        self.losses, self.images = +writer.losses, Counter(images)
        self.remarks = writer.remarks()

    @property
    def total_images(self) -> int:
        """Number of images."""
        return sum(counts.images for counts in self.splits.values())

    @property
    def total_objects(self) -> int:
        """Number of objects."""
        return sum(counts.objects.total() for counts in self.splits.values())

    def summary(self) -> str:
        """One line."""
        parts = ", ".join(f"{name} {counts.images}" for name, counts in self.splits.items())
        without = sum(counts.without_objects for counts in self.splits.values())
        shown = f" ({parts})" if len(self.splits) > 1 else ""
        return f"{self.total_images} images{shown}, {self.total_objects} objects, {without} images without objects"

    def lines(self) -> Iterator[str]:
        """Messages for the user: what the format could not hold, then what else is good to know."""
        for loss, count in self.losses.items():
            yield f"lost in {self.format}: {count} {loss.value}"
        for kept in _SAID:
            if count := self.images[kept]:
                yield f"{count} image{'s' * (count != 1)} {kept.value}"
        yield f"class ids: {self.labels.origin}"
        if self.with_own_split:
            yield f"{self.with_own_split} images keep the split that they were imported with"
        empty = [name for name, counts in self.splits.items() if not counts.images]
        if empty:
            yield f"{' and '.join(empty)} got no image: with few images or groups, shares are not met"
        if self._groups or self._ungrouped:
            alone = f"; {self._ungrouped} images are in no group, each is split by itself" if self._ungrouped else ""
            yield f"{len(self._groups)} groups of images{alone}"
        yield from self.remarks

    def write_manifest(self, folder: Path, options: Mapping[str, object]) -> None:
        """Write the manifest into the folder."""
        label_map = self.labels.label_map
        manifest = {
            "written_by": f"odkeras {__version__}",
            "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "dataset": self.dataset,
            "format": self.format,
            "options": {**options, "images": self.mode.value},
            "labels": {} if label_map is None else {label.name: label.id for label in label_map.labels},
            "labels_from": self.labels.origin,
            "splits": {name: counts.to_json() for name, counts in self.splits.items()},
            "imported_with_split": self.with_own_split,
            "images": {kept.name.lower(): count for kept, count in self.images.items() if count},
            "not_held": [{"what": loss.value, "objects": count} for loss, count in self.losses.items()],
            "left_out": [{"image": file, "reason": reason} for file, reason in self.skipped],
            "remarks": self.remarks,
        }
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
