"""Reads known boxes, to simulate an annotator or to make records: a CSV file of ours, or labels of any other tool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from odkeras.annotation import Answer, Decision, Span
from odkeras.errors import ImageError, OdkerasError, RecordError, error_reason
from odkeras.formats.image_finder import ImageFinder
from odkeras.formats.label_files import LabelFile, ReadNotes
from odkeras.formats.label_fitting import fit_spans
from odkeras.formats.label_formats import find_label_files, read_label_files, recognise
from odkeras.groundtruth_csv import GroundtruthImage, OtherCsvError, check_some_exist, read_truth_csv
from odkeras.image_ref import is_data_uri
from odkeras.images import EncodedImage, inspect_image, read_image_bytes

OnSkip = Callable[[str, str], None]


def read_known_labels(path: Path, images_dir: Path | None = None, *, on_skip: OnSkip) -> list[GroundtruthImage]:
    """The images of a file or folder of labels, with their boxes.

    A CSV file of ours is read by `groundtruth_csv`, which refuses it whole for one wrong row. Of other labels, what
    cannot be used is reported, and the rest is returned, for each image in pixels of the upright picture. A polygon
    counts as its bounding box.

    Args:
        path: a CSV file, or what `odkeras import` takes.
        images_dir: base of the images' paths; None: beside and below the labels.
        on_skip: called with (place, reason) for each image or object of other labels that cannot be used.

    Raises:
        RecordError: the labels cannot be read, or none of the images is found.
        ConfigError: there are no labels in this folder, or labels in several formats.
    """
    if path.is_dir() or recognise(path) not in (None, "csv"):
        return _read_other(path, images_dir, on_skip)
    try:
        truths = read_truth_csv(path, images_dir or path.parent)
        check_some_exist(truths, path, images_dir or path.parent)
        return truths
    except OtherCsvError as error:  # such as semicolons, other columns, or the paths of another machine
        try:
            if truths := _read_other(path, images_dir, on_skip):
                return truths
        except OdkerasError:
            pass
        raise error


def _read_other(path: Path, images_dir: Path | None, on_skip: OnSkip) -> list[GroundtruthImage]:
    """The images of labels of any tool."""
    notes, finder = ReadNotes(), ImageFinder(images_dir)
    truths, missing = [], 0
    for file, place, answer in read_label_files(find_label_files([path]), notes):
        if answer.decision is not Decision.ACCEPT:
            continue
        try:
            image = _find(finder, answer, file)
        except ImageError as error:
            missing += 1
            on_skip(place, str(error))
            continue
        try:
            facts = inspect_image(read_image_bytes(image), source=str(image))
            truths.append(_truth(image, fit_spans(answer.task, facts, place, notes), place))
        except OdkerasError as error:
            on_skip(place, error_reason(error))
    for place, reason in notes.refused:
        on_skip(place, reason)
    if missing and not truths:
        raise RecordError(f"none of the {missing} images of {path} is found; --images names their directory")
    return truths


def _find(finder: ImageFinder, answer: Answer, file: LabelFile) -> Path:
    task = answer.task
    name = task.path or (task.image if isinstance(task.image, str) else "") or task.file
    found = finder.find(name, file)
    if not found and (isinstance(task.image, EncodedImage) or is_data_uri(task.image)):
        raise ImageError("the image is inside the labels; `odkeras import` takes such labels", name[:80])
    if not found:
        raise ImageError(f"no such image below {finder.root_of(file)}", name[:200])
    if len(found) > 1:
        raise ImageError(f"several images have this name: {found[0]}, {found[1]}", name[:200])
    return found[0]


def _truth(image: Path, spans: tuple[Span, ...], place: str) -> GroundtruthImage:
    boxes = np.array([span.xyxy_px for span in spans], np.float32).reshape(-1, 4)
    return GroundtruthImage(image, boxes, tuple(span.label for span in spans), None, (place,) * len(spans))
