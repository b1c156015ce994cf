"""What is done with the images of a shard: predict, make TFRecords, hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras.bulk.job import Entry, line_of
from odkeras.bulk.listing import Labelled, name_of, read_bytes
from odkeras.bulk.work import Process, Refuse
from odkeras.errors import ImageError, OdkerasError, error_reason
from odkeras.image_ref import is_data_uri, is_url
from odkeras.images import EncodedImage, encode_image, inspect_image
from odkeras.session.sources import FILE_FACTS, Item


@dataclass(frozen=True)
class Predict:
    """Predictions, as `odkeras predict --out` writes them.

    Args:
        version_dir: the exported version.
        threshold: minimum score of a box.
        format: jsonl or csv.
        batch_s: seconds that a batch should take.
        max_pixels: larger images are refused.
        gpu: run the model on the GPU.
        label_map: text of a label map, for other names than those of the version; "" for these.
    """

    version_dir: str
    threshold: float
    format: str
    batch_s: float
    max_pixels: int
    gpu: bool = False
    label_map: str = ""

    def load(self) -> Process:
        """Load the model. Raises: CheckpointError: it cannot be loaded."""
        from odkeras.export.info import read_export_info
        from odkeras.labels import LabelMap
        from odkeras.logs import configure_logging
        from odkeras.serving.batches import Item, SizedBatches
        from odkeras.serving.local import LocalModel
        from odkeras.serving.predict import ImageKey, predict_images
        from odkeras.serving.prediction_files import write_predictions
        from odkeras.session.web_images import WebImages

        configure_logging(verbose=False)
        directory = Path(self.version_dir)
        info = read_export_info(directory)
        names = dict(info.labels) if info is not None else {}
        if self.label_map:
            names = {label.id: label.name for label in LabelMap.from_pbtxt(self.label_map).labels}
        batches, fetch = SizedBatches(LocalModel(directory, gpu=self.gpu), self.batch_s), WebImages().fetch

        def read(entries: Iterable[Entry]) -> Iterator[Item[ImageKey]]:
            for entry in entries:
                place: Path | str = entry["image"] if is_in_place(entry) else Path(entry["image"])
                try:
                    yield Item((place, ""), read_encoded(entry, fetch, self.max_pixels, check_pixels=False))
                except ImageError as error:
                    yield Item((place, error.reason), None)

        def process(entries: Iterable[Entry], path: Path, refuse: Refuse) -> int:
            skeleton = info.skeleton if info is not None else None
            predictions = predict_images(
                read(entries), batches, threshold=self.threshold, names=names, skeleton=skeleton
            )
            with path.open("w", encoding="utf-8", newline="\n") as file:
                report = write_predictions(predictions, file, self.format, names=names)
            for place, reason in report.skipped:
                refuse(place, reason)
            return report.boxes

        return process


@dataclass(frozen=True)
class MakeRecords:
    """TFRecords of labelled images.

    Args:
        label_map: text of the label map.
        masks: a mask for each object.
        max_pixels: larger images are refused.
        exif: see `label_fitting.EXIF`.
    """

    label_map: str
    masks: bool
    max_pixels: int
    exif: Any = "auto"

    def load(self) -> Process:
        """Import TensorFlow."""
        from odkeras.labels import LabelMap
        from odkeras.logs import configure_logging, quiet_import
        from odkeras.session.web_images import WebImages

        configure_logging(verbose=False)
        quiet_import("tensorflow")
        from odkeras.data.records import write_records

        label_map, fetch = LabelMap.from_pbtxt(self.label_map), WebImages().fetch

        def process(entries: Iterable[Entry], path: Path, refuse: Refuse) -> int:
            objects = 0

            def examples() -> Iterator[bytes]:
                nonlocal objects
                for entry in entries:
                    try:
                        serialized, number = self._example(entry, label_map, fetch, refuse)
                    except OdkerasError as error:
                        refuse(name_of(entry), error_reason(error))
                        continue
                    objects += number
                    yield serialized

            write_records(path, examples())
            return objects

        return process

    def _example(self, entry: Entry, label_map: Any, fetch: Any, refuse: Refuse) -> tuple[bytes, int]:
        """The serialized example of an image, and the number of its objects."""
        import numpy as np

        from odkeras.annotation import Task
        from odkeras.data.label_records import annotation_of_spans
        from odkeras.data.records import example_from_annotation
        from odkeras.formats.label_files import CROWD, ReadNotes
        from odkeras.formats.label_fitting import fit_spans
        from odkeras.formats.writers.writer import has_flag

        data, labels, notes = read_bytes(entry, fetch), Labelled.from_json(entry["labels"]), ReadNotes()
        facts = inspect_image(data, source=name_of(entry), max_pixels=self.max_pixels)
        image = encode_image(data, source=name_of(entry), max_pixels=self.max_pixels)
        file = file_name(entry)
        task = Task(facts.image_id, file, "", labels.size_hw, spans=labels.spans)
        try:
            spans = fit_spans(task, facts, labels.place, notes, self.exif)
        finally:
            for place, reason in notes.refused:
                refuse(place, reason)
        annotation = annotation_of_spans(
            image, spans, label_map, image_id=image.image_id, file=file, split=labels.split
        )
        crowds = np.array([has_flag(span, CROWD) for span in spans], np.bool_)
        example = example_from_annotation(annotation, label_map, masks=self.masks, crowds=crowds)
        # Without this, the order of the features depends on the process.
        return example.SerializeToString(deterministic=True), len(spans)


@dataclass(frozen=True)
class Hash:
    """The ids and sizes of images, as lines that `odkeras annotate` takes as a source.

    Args:
        max_pixels: larger images are refused.
        check_pixels: decode each image, to find damage in its pixels.
    """

    max_pixels: int
    check_pixels: bool = False

    def load(self) -> Process:
        """Nothing to load."""
        from odkeras.session.web_images import WebImages

        fetch = WebImages().fetch

        def process(entries: Iterable[Entry], path: Path, refuse: Refuse) -> int:
            with path.open("wb") as file:
                for entry in entries:
                    try:
                        file.write(line_of(self._row(entry, fetch)))
                    except ImageError as error:
                        refuse(name_of(entry), error.reason)
            return 0

        return process

    def _row(self, entry: Entry, fetch: Any) -> Entry:
        fingerprint = Item(entry["image"], record={"image": entry["image"]}).fingerprint  # before it is read
        data = read_bytes(entry, fetch)
        if self.check_pixels:
            encode_image(data, source=name_of(entry), max_pixels=self.max_pixels)
        facts = inspect_image(data, source=name_of(entry), max_pixels=self.max_pixels)
        height, width = facts.image_size_hw
        about = {"image_id": facts.image_id, "width": width, "height": height, "meta": {"file": file_name(entry)}}
        return {"image": entry["image"], **about, FILE_FACTS: {"id": fingerprint, "orientation": facts.orientation}}


def read_encoded(entry: Entry, fetch: Any, max_pixels: int, *, check_pixels: bool) -> EncodedImage:
    """The image of an entry.

    Raises:
        ImageError: it cannot be read.
    """
    data = read_bytes(entry, fetch)
    return encode_image(data, source=name_of(entry), max_pixels=max_pixels, check_pixels=check_pixels)


def is_in_place(entry: Entry) -> bool:
    """Whether an entry has the image at a URL or in itself, not in a file."""
    return is_url(entry["image"]) or is_data_uri(entry["image"])


def file_name(entry: Entry) -> str:
    """The file name of an image."""
    if is_data_uri(entry["image"]):
        return "image"
    return (
        str(entry["image"]).partition("?")[0].rstrip("/").rpartition("/")[2]
        if is_url(entry["image"])
        else Path(entry["image"]).name
    )
