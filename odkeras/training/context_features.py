"""Features of the other images of a place, for the records that Context R-CNN trains and is evaluated on.

A feature describes the most certain object of an image: the mean over the cells of its crop of the feature map, where
it is (centre y, centre x, height and width, as shares of the image), and when the image was taken (month, day, hour,
minute and second, as shares of their ranges; zeros if that is unknown). These are the parts that the API's own tools
for Context R-CNN put together, `object_detection.dataset_tools.context_rcnn`, which need Apache Beam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from odkeras.boxes import FloatArray
from odkeras.data.records import file_name, read_records, write_records
from odkeras.errors import CheckpointError, ConfigError, RecordError
from odkeras.model.checkpoint import choose_checkpoints, restore_for_prediction
from odkeras.model.context import context_example
from odkeras.model.inference import build_detection_model, create_variables

EXTRA_NUMBERS = 9
"""How many numbers a feature has besides the mean of the feature map: 4 of the box, 5 of the date."""
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class ContextReport:
    """What was written.

    Args:
        images: the number of examples.
        places: the number of sequences that they come from.
        length: the length of a feature: the config's `context_feature_length`.
        largest: the largest number of features of an image.
    """

    images: int
    places: int
    length: int
    largest: int


def add_context(
    config: Any,
    model_dir: Path,
    record: Path,
    out: Path,
    *,
    checkpoint: str | None = None,
    place_feature: str = "image/seq_id",
    date_feature: str = "image/date_captured",
    max_features: int = 2000,
    min_score: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ContextReport:
    """Copy a record, with the features of the other images of the same place added to each example. Those that are
    next to it in the record come first, and features that it has already are replaced.

    Args:
        config: a resolved `TrainEvalPipelineConfig` of a Faster R-CNN without `context_config`, which describes the
            images.
        model_dir: its checkpoints.
        checkpoint: another checkpoint than the newest of `model_dir`.
        place_feature: name of the feature of an example that says where it was taken: bytes or integers.
        date_feature: name of the one that says when, as `DATE_FORMAT`.
        max_features: the largest number of features of an example.
        min_score: images whose best detection has a lower score add no feature.
        progress: callback with the number of images described, and of all.

    Raises:
        ConfigError: the config is of another model.
        CheckpointError: there is no checkpoint, or it does not fit.
        RecordError: the record cannot be read, it has no examples, or one does not say where it was taken.
    """
    places = _read_places(record, place_feature)
    of_place: dict[bytes, list[int]] = {}
    for number, place in enumerate(places):
        of_place.setdefault(place, []).append(number)
    describe = _Describer(config, model_dir, checkpoint, min_score)
    described: list[FloatArray | None] = []
    for number, serialized in enumerate(read_records(record), start=1):
        features = tf.train.Example.FromString(serialized).features.feature
        described.append(describe(features, _value(features, date_feature)))
        progress(number, len(places))
    counts: list[int] = []

    def examples() -> Iterator[bytes]:
        for number, serialized in enumerate(read_records(record)):
            near = sorted(of_place[places[number]], key=lambda other: abs(other - number))
            found = [described[other] for other in near if other != number]
            chosen = [feature for feature in found if feature is not None][:max_features]
            counts.append(len(chosen))
            values = np.concatenate(chosen).tolist() if chosen else []
            yield _merged(serialized, context_example(values, describe.length))

    write_records(out, examples())
    return ContextReport(len(places), len(of_place), describe.length, max(counts))


def _read_places(record: Path, place_feature: str) -> list[bytes]:
    places = []
    for number, serialized in enumerate(read_records(record), start=1):
        features = tf.train.Example.FromString(serialized).features.feature
        places.append(_value(features, place_feature))
        if not places[-1]:
            raise RecordError(
                f"{record}, example {number} ({file_name(features)}): has no feature {place_feature!r}, which says "
                "where the image was taken; name another one with --place-feature"
            )
    if not places:
        raise RecordError(f"{record} holds no examples")
    return places


class _Describer:
    """Makes the features of images."""

    def __init__(self, config: Any, model_dir: Path, checkpoint: str | None, min_score: float) -> None:
        model_config = type(config.model)()
        model_config.CopyFrom(config.model)
        if model_config.WhichOneof("model") != "faster_rcnn" or model_config.faster_rcnn.HasField("context_config"):
            raise ConfigError("model: images are described by a Faster R-CNN without context_config; give its config")
        model_config.faster_rcnn.output_final_box_features = True
        checkpoints = choose_checkpoints(model_dir, checkpoint)
        if not checkpoints:
            raise CheckpointError(
                f"there is no checkpoint in {model_dir}; train first, or give --checkpoint or --model-dir"
            )
        self._model = build_detection_model(model_config, is_training=False)
        create_variables(self._model, model_config)
        restore_for_prediction(self._model, checkpoints)
        self._min_score = min_score
        self._detect = tf.function(
            self._run, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False
        )
        outputs = self._detect.get_concrete_function().structured_outputs
        self.length = int(outputs["feature"].shape[0]) + EXTRA_NUMBERS

    def _run(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        images, shapes = self._model.preprocess(tf.cast(pixels, tf.float32)[tf.newaxis])
        found = self._model.postprocess(self._model.predict(images, shapes), shapes)
        crop = found["detection_features"][0, 0]
        return {
            "feature": tf.reduce_mean(crop, axis=[0, 1]),
            "box": found["detection_boxes"][0, 0],
            "score": tf.where(found["num_detections"][0] > 0, found["detection_scores"][0, 0], -1.0),
        }

    def __call__(self, features: Any, date: bytes) -> FloatArray | None:
        """The feature of one example, float32 (L,); None if no object is certain enough.

        Args:
            features: feature name -> `tf.train.Feature`.
            date: as `DATE_FORMAT`; anything else is an unknown date.
        """
        encoded = _value(features, "image/encoded")
        try:
            found = self._detect(tf.io.decode_image(encoded, channels=3, expand_animations=False))
        except tf.errors.OpError as error:
            raise RecordError(f"{file_name(features)}: {error.message.splitlines()[0]}") from error
        score = float(found["score"])
        if score < 0 or score < self._min_score:
            return None
        top, left, bottom, right = found["box"].numpy()
        box = [(top + bottom) / 2, (left + right) / 2, bottom - top, right - left]
        return np.concatenate([found["feature"].numpy(), box, _date_numbers(date)]).astype(np.float32)


def _date_numbers(date: bytes) -> Sequence[float]:
    try:
        at = datetime.strptime(date.decode("ascii", "replace"), DATE_FORMAT)
    except ValueError:
        return [0.0] * 5
    return [at.month / 12, at.day / 31, at.hour / 24, at.minute / 60, at.second / 60]


def _value(features: Any, name: str) -> bytes:
    """The first value of a feature of bytes or integers, as bytes; empty if there is none."""
    if name not in features:
        return b""
    feature = features[name]
    found = [*feature.bytes_list.value, *(b"%d" % value for value in feature.int64_list.value)]
    return found[0] if found else b""


def _merged(serialized: bytes, addition: bytes) -> bytes:
    example = tf.train.Example.FromString(serialized)
    for name, feature in tf.train.Example.FromString(addition).features.feature.items():
        example.features.feature[name].CopyFrom(feature)
    return bytes(example.SerializeToString())
