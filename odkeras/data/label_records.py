"""Labels as TFRecords of the Object Detection API: `SPLIT.record` for each split, and `label_map.pbtxt` beside them."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from odkeras.annotation import Annotation, Span
from odkeras.boxes import Groundtruth
from odkeras.data.records import example_from_annotation
from odkeras.errors import ConfigError
from odkeras.formats.label_files import CROWD
from odkeras.formats.spans import keypoints_of_span
from odkeras.formats.writers.writer import ExportedImage, LabelWriter, has_flag
from odkeras.images import EncodedImage
from odkeras.labels import LabelMap


class TfrecordWriter(LabelWriter):
    """An example for each image, with the image. If any object of the dataset is a polygon, every object has a mask,
    because a model of masks needs them for all."""

    embeds_images = True
    holds_keypoints = True
    flags = frozenset({CROWD})

    def begin(self) -> None:
        if not self.target.labels:
            raise ConfigError("a TFRecord needs a label map, and the dataset has no labels; give --label-map")
        self._label_map = LabelMap(self.target.labels)
        self.write_file("label_map.pbtxt", self._label_map.to_pbtxt())
        self._records = {
            split: self._files.enter_context(_opened(str(self.target.folder / f"{split}.record")))
            for split in self.target.splits
        }

    def write_image(self, image: ExportedImage) -> None:
        """Raises: ImageError: TensorFlow cannot decode the image; OSError: disk full."""
        assert image.image is not None
        image_id = image.answer.task.image_id
        annotation = annotation_of_spans(image.image, image.spans, self._label_map, image_id=image_id, file=image.name)
        crowds = np.array([has_flag(span, CROWD) for span in image.spans], np.bool_)
        example = example_from_annotation(annotation, self._label_map, masks=self.target.has_polygons, crowds=crowds)
        with _reporting():
            self._records[image.split].write(example.SerializeToString())

    def remarks(self) -> list[str]:
        return ["each object has a mask, because the dataset has polygons"] if self.target.has_polygons else []


def annotation_of_spans(
    image: EncodedImage, spans: Sequence[Span], label_map: LabelMap, *, image_id: str, file: str, split: str = ""
) -> Annotation:
    """An image with the objects of its spans, those with an outline as polygons, and the keypoints of the label map.

    Raises:
        LabelMapError: a label is not in the label map.
    """
    outlines = [span.outline(image.image_size_hw) for span in spans]
    keypoints = None
    if label_map.num_keypoints:
        rows = [keypoints_of_span(span, label_map, image.image_size_hw) for span in spans]
        keypoints = np.array(rows, np.float32).reshape(len(rows), label_map.num_keypoints, 3)
    groundtruth = Groundtruth(
        np.array([outline.box for outline in outlines], np.float32).reshape(-1, 4),
        np.array([label_map.id_of(span.label) for span in spans], np.int32),
        keypoints,
    )
    polygons = tuple(outline.polygon for outline in outlines)
    return Annotation(image, groundtruth, image_id, file, polygons=polygons, split=split)


@contextmanager
def _opened(path: str) -> Iterator[tf.io.TFRecordWriter]:
    with _reporting(), tf.io.TFRecordWriter(path) as writer:
        yield writer


@contextmanager
def _reporting() -> Iterator[None]:
    """Let errors of TensorFlow's file system be those of Python's. Their messages start with the path."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message.rpartition("; ")[2]) from error
