"""Convert annotations <-> tf.train.Example <-> TFRecord files, with the feature names of the Object Detection API."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image

from odkeras import polygons as polygon_ops
from odkeras.annotation import Annotation
from odkeras.boxes import FloatArray, Groundtruth
from odkeras.errors import ImageError, RecordError
from odkeras.images import EncodedImage, count_pixels, encode_again, encode_image, too_many_pixels
from odkeras.labels import LabelMap
from odkeras.polygons import BoolArray
from odkeras.project import atomic_path

BATCH_FEATURE = "odkeras/batch"
SPLIT_FEATURE = "odkeras/split"
ANSWERED_FEATURE = "odkeras/answered_s"
MASK_FEATURE = "image/object/mask"
_CLASS_TEXT = "image/object/class/text"
_KEYPOINT = "image/object/keypoint"
_MAX_COORDINATE = 1.1  # the API's own limit
_FORMATS = {b"jpeg": "jpeg", b"jpg": "jpeg", b"png": "png"}


def example_from_annotation(
    annotation: Annotation,
    label_map: LabelMap,
    *,
    masks: bool | Sequence[BoolArray] = False,
    crowds: BoolArray | None = None,
) -> tf.train.Example:
    """Create an example with the features that the API's decoder reads, plus `odkeras/batch`, the name of the inbox
    file, `odkeras/split` of an imported image with a split, and `odkeras/answered_s`, in seconds since the epoch.

    If any object has a polygon, or if `masks` is True, the example has a mask for every object: a PNG of the image's
    size, 1 inside the object (for a rectangle: its box) and 0 outside. The decoder calls this format PNG_MASKS.

    Args:
        masks: write masks even if no object has a polygon; or the mask of each object, bool (H, W).
        crowds: bool (N,): whether a box holds many objects; None if none does.

    Raises:
        LabelMapError: a class is not in the label map.
        ImageError: TensorFlow cannot decode the image.
    """
    image, groundtruth = _decodable(annotation.image, annotation.file), annotation.groundtruth
    height, width = image.image_size_hw
    names = [label_map.name_of(class_id).encode() for class_id in groundtruth.classes]
    features = {
        "image/encoded": _bytes([image.data]),
        "image/format": _bytes([image.format.encode()]),
        "image/height": _ints([height]),
        "image/width": _ints([width]),
        "image/filename": _bytes([annotation.file.encode("utf-8", "replace")]),
        "image/source_id": _bytes([annotation.image_id.encode()]),
        "image/key/sha256": _bytes([image.image_id.encode()]),
        _CLASS_TEXT: _bytes(names),
        "image/object/class/label": _ints(groundtruth.classes),
        "image/object/is_crowd": _ints(np.zeros(len(groundtruth), np.int64) if crowds is None else crowds.astype(int)),
        "image/object/difficult": _ints(np.zeros(len(groundtruth), np.int64)),
        BATCH_FEATURE: _bytes([annotation.batch.encode()]),
    }
    if annotation.split:
        features[SPLIT_FEATURE] = _bytes([annotation.split.encode()])
    if annotation.answered_s is not None:
        features[ANSWERED_FEATURE] = _ints([int(annotation.answered_s)])
    for column, side in enumerate(("ymin", "xmin", "ymax", "xmax")):
        features[f"image/object/bbox/{side}"] = _floats(groundtruth.boxes[:, column])
    if not isinstance(masks, bool):
        features[MASK_FEATURE] = _bytes([_png(mask) for mask in masks])
    elif masks or annotation.polygons:
        features[MASK_FEATURE] = _bytes(_png_masks(groundtruth.boxes, image.image_size_hw, annotation.polygons))
    if groundtruth.keypoints is not None:
        features |= _keypoint_features(groundtruth.keypoints, label_map.keypoint_names)
    return tf.train.Example(features=tf.train.Features(feature=features))


def _keypoint_features(keypoints: FloatArray, names: Sequence[str]) -> dict[str, tf.train.Feature]:
    """The features of keypoints, (N, K, 3): the values of all objects, one after the other."""
    y, x, visibility = keypoints.reshape(-1, 3).T
    return {
        f"{_KEYPOINT}/y": _floats(y),
        f"{_KEYPOINT}/x": _floats(x),
        f"{_KEYPOINT}/visibility": _ints(visibility.astype(np.int64)),
        f"{_KEYPOINT}/text": _bytes([name.encode() for name in names] * len(keypoints)),
        f"{_KEYPOINT}/num": _ints((keypoints[..., 2] > 0).sum(axis=1)),
    }


def _decodable(image: EncodedImage, file: str) -> EncodedImage:
    """The image, or the same picture with new bytes if TensorFlow cannot decode what Pillow decodes."""
    if not image_problem(image.data):
        return image
    again = encode_again(image)
    if problem := image_problem(again.data):
        raise ImageError(problem, file)
    return again


def annotation_from_example(serialized: bytes) -> Annotation:
    """Parse a serialized example, written by odkeras or by another tool (size and id may be missing then).

    Masks are ignored: the polygons cannot be recovered from them.

    Raises:
        RecordError: not an example, no readable image, or features of different lengths.
    """
    features = _parse(serialized).features.feature
    file = _text(features, "image/filename")
    image = _image(features, file)
    image_id = _text(features, "image/source_id") or image.image_id
    groundtruth = _groundtruth(features, file)
    batch, split = _text(features, BATCH_FEATURE), _text(features, SPLIT_FEATURE)
    return Annotation(image, groundtruth, image_id, file, batch, split=split)


def with_masks(serialized: bytes) -> bytes:
    """The unchanged serialized example if it has masks; otherwise a copy with the filled boxes as masks.

    Raises:
        RecordError: as `annotation_from_example`.
    """
    example = _parse(serialized)
    features = example.features.feature
    if MASK_FEATURE in features:
        return serialized
    file = _text(features, "image/filename")
    boxes, size_hw = _groundtruth(features, file).boxes, _image(features, file).image_size_hw
    features[MASK_FEATURE].CopyFrom(_bytes(_png_masks(boxes, size_hw)))
    return example.SerializeToString()


def with_keypoints(serialized: bytes, names: Sequence[str]) -> bytes:
    """The unchanged serialized example if it has these keypoints for each object; otherwise a copy that has them. Those
    that it has under the same name are kept, the others are not labelled.

    Args:
        names: the label map's `keypoint_names`.

    Raises:
        RecordError: as `annotation_from_example`.
    """
    example = _parse(serialized)
    features = example.features.feature
    objects = count_boxes(features)
    texts = [text.decode("utf-8", "replace") for text in _values(features, f"{_KEYPOINT}/text", "bytes_list")]
    if texts in ([], [*names] * objects) and not keypoint_problem(features, len(names)):
        return serialized
    points = np.zeros((objects, len(names), 3), np.float32)
    known = _groundtruth(features, file_name(features)).keypoints
    if known is not None and len(texts) == known.shape[0] * known.shape[1]:
        for new, name in enumerate(names):
            if name in texts[: known.shape[1]]:
                points[:, new] = known[:, texts.index(name)]
    for name, feature in _keypoint_features(points, names).items():
        features[name].CopyFrom(feature)
    return example.SerializeToString()


def answered_s(features: Any) -> float | None:
    """When the image of an example was answered, in seconds since the epoch; None if that is unknown. Args: as
    `class_texts`."""
    return next((float(value) for value in _values(features, ANSWERED_FEATURE, "int64_list")), None)


def class_texts(features: Any) -> frozenset[str]:
    """The class texts of an example. The Object Detection API translates them with the label map, and uses the class
    ids of the example only if it has no texts.

    Args:
        features: feature name -> `tf.train.Feature`.
    """
    texts = _values(features, _CLASS_TEXT, "bytes_list")
    return frozenset(sys.intern(text.decode("utf-8", "replace")) for text in texts if text)


def class_ids(features: Any) -> set[int]:
    """The class ids of an example. Args: as `class_texts`."""
    return set(_values(features, "image/object/class/label", "int64_list"))


def count_boxes(features: Any) -> int:
    """Number of boxes of an example. Args: as `class_texts`."""
    return len(_values(features, "image/object/bbox/xmin", "float_list"))


def file_name(features: Any) -> str:
    """The name of the image of an example, for messages. Args: as `class_texts`."""
    return _text(features, "image/filename") or _text(features, "image/source_id") or "no name"


def box_problem(features: Any) -> str:
    """Why the API would refuse the boxes of an example; "" if it would not. Args: as `class_texts`."""
    for side in ("ymin", "xmin", "ymax", "xmax"):
        largest = max(_values(features, f"image/object/bbox/{side}", "float_list"), default=0.0)
        if largest > _MAX_COORDINATE:
            return (
                f"a box has {side} {largest:g}: boxes must be shares of the image from 0 to 1, not pixels; divide xmin "
                "and xmax by its width, ymin and ymax by its height"
            )
    return ""


def keypoint_problem(features: Any, num_keypoints: int) -> str:
    """Why the API would fail on the keypoints of an example, or train on wrong ones; "" if neither.

    Args:
        features: feature name -> `tf.train.Feature`.
        num_keypoints: the reader's `num_keypoints`; 0: it loads none.
    """
    expected = num_keypoints * count_boxes(features)
    columns = {name: _values(features, f"{_KEYPOINT}/{name}", "float_list") for name in ("x", "y")}
    visibility = _values(features, f"{_KEYPOINT}/visibility", "int64_list")
    if not num_keypoints:
        return ""
    for name, values in {**columns, **({"visibility": visibility} if visibility else {})}.items():
        if len(values) != expected:
            return (
                f"{_KEYPOINT}/{name} has {len(values)} values; {num_keypoints} keypoints (num_keypoints of the reader) "
                f"of {count_boxes(features)} objects are {expected}"
            )
    for number, seen in enumerate(visibility):
        y, x = columns["y"][number], columns["x"][number]
        if seen and not (math.isfinite(x + y) and max(x, y) <= _MAX_COORDINATE):
            place = f"object {number // num_keypoints}, keypoint {number % num_keypoints}"
            return (
                f"{_KEYPOINT}/x and y of {place} are {x:g} and {y:g}: keypoints must be shares of the image from 0 to "
                "1, and visibility 0 if they are not labelled"
            )
    return ""


def size_problem(features: Any, max_pixels: int) -> str:
    """Why the image of an example must not be decoded; "" if it may be. Reads its header.

    Args:
        features: feature name -> `tf.train.Feature`.
        max_pixels: the largest number of pixels to decode.
    """
    pixels = count_pixels(b"".join(_values(features, "image/encoded", "bytes_list")[:1]))
    return too_many_pixels(pixels, max_pixels) if pixels > max_pixels else ""


def example_problem(serialized: bytes, num_keypoints: int = 0) -> str:
    """Why the API cannot use an example, with the name of its image; "" if it can. Decodes the image.

    Args:
        num_keypoints: the reader's `num_keypoints`.
    """
    try:
        features = _parse(serialized).features.feature
    except RecordError as error:
        return str(error)
    problem = (
        box_problem(features)
        or keypoint_problem(features, num_keypoints)
        or image_problem(b"".join(_values(features, "image/encoded", "bytes_list")[:1]))
    )
    return f"{file_name(features)}: {problem}" if problem else ""


def image_problem(data: bytes) -> str:
    """Why TensorFlow cannot decode the bytes of an image file; "" if it can."""
    try:
        tf.io.decode_image(data, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0].removeprefix("{{function_node").partition("}} ")[2] or error.message
        return f"TensorFlow cannot decode the image: {reason.partition(' [Op:')[0]}"
    return ""


def write_records(path: Path | str, serialized: Iterable[bytes]) -> int:
    """Write a TFRecord atomically, and return the number of records.

    Raises:
        RecordError: disk full, no permission, or no such directory.
    """
    count = 0
    try:
        with atomic_path(path) as temporary:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in serialized:
                    writer.write(record)
                    count += 1
            temporary.touch()  # TFRecordWriter creates no file if there are no records
    except (OSError, tf.errors.OpError) as error:
        raise RecordError(f"cannot write {path}: {_message(error)}") from error
    return count


def read_records(path: Path | str) -> Iterator[bytes]:
    """The serialized records of a TFRecord file, in order.

    Raises:
        RecordError: no such file, or it is damaged; the records before the damage are yielded first.
    """
    try:
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    except tf.errors.OpError as error:
        raise RecordError(f"cannot read {path}: {_message(error)}") from error


def _parse(serialized: bytes) -> tf.train.Example:
    try:
        return tf.train.Example.FromString(serialized)
    except DecodeError as error:
        raise RecordError("not a serialized tf.train.Example") from error


def _png_masks(
    boxes: FloatArray, image_size_hw: tuple[int, int], polygons: Sequence[FloatArray | None] = ()
) -> list[bytes]:
    """The mask of each box as a PNG file with one bit per pixel."""
    return [
        _png(polygon_ops.draw_mask(box, polygon, image_size_hw))
        for box, polygon in zip(boxes, polygons or [None] * len(boxes), strict=True)
    ]


def _png(mask: BoolArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _image(features: Any, file: str) -> EncodedImage:
    data = _values(features, "image/encoded", "bytes_list")
    if not data:
        raise RecordError(f"example {file!r} has no image/encoded")
    height, width = _values(features, "image/height", "int64_list"), _values(features, "image/width", "int64_list")
    format = _FORMATS.get(_text(features, "image/format").lower().encode())
    if format and height and width and height[0] > 0 and width[0] > 0:
        return EncodedImage(data[0], (int(height[0]), int(width[0])), format)  # type: ignore[arg-type]
    try:
        return encode_image(data[0], source=file)
    except ImageError as error:
        raise RecordError(f"example {file!r}: {error.reason}") from error


def _groundtruth(features: Any, file: str) -> Groundtruth:
    sides = [_values(features, f"image/object/bbox/{side}", "float_list") for side in ("ymin", "xmin", "ymax", "xmax")]
    classes = _values(features, "image/object/class/label", "int64_list")
    lengths = [len(side) for side in [*sides, classes]]
    if len(set(lengths)) > 1:
        raise RecordError(f"example {file!r}: ymin, xmin, ymax, xmax and label have {lengths} values")
    try:
        boxes = np.array(sides, np.float32).T.reshape(-1, 4)
        return Groundtruth(boxes, np.array(classes, np.int32), _keypoints(features, len(boxes)))
    except ValueError as error:
        raise RecordError(f"example {file!r}: {error}") from error


def _keypoints(features: Any, objects: int) -> FloatArray | None:
    columns = [_values(features, f"{_KEYPOINT}/{name}", "float_list") for name in ("y", "x")]
    if not objects or not columns[0]:
        return None
    visibility = _values(features, f"{_KEYPOINT}/visibility", "int64_list")
    if not visibility:  # the API takes those with finite coordinates for labelled ones
        visibility = (2 * np.isfinite(np.array(columns)).all(axis=0)).tolist()
    lengths = [len(columns[0]), len(columns[1]), len(visibility)]
    if len(set(lengths)) > 1 or lengths[0] % objects:
        raise ValueError(f"keypoint y, x and visibility have {lengths} values, for {objects} objects")
    points = np.array([*columns, visibility], np.float32).T.reshape(objects, -1, 3)
    return np.where(points[..., 2:] > 0, points, 0.0).astype(np.float32)


def _values(features: Any, name: str, kind: str) -> Any:
    return getattr(features[name], kind).value if name in features else []


def _text(features: Any, name: str) -> str:
    values = _values(features, name, "bytes_list")
    return values[0].decode("utf-8", "replace") if values else ""


def _bytes(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _message(error: OSError | tf.errors.OpError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else error.message
