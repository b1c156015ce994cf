"""Examples that were written before a class was renamed, merged with another, or retired."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from odkeras.labels import LabelMap

_OBJECT = "image/object/"
_TEXT, _ID = "image/object/class/text", "image/object/class/label"


def with_current_classes(serialized: bytes, label_map: LabelMap, current: Callable[[str], str | None]) -> bytes:
    """The serialized example with the names and ids of today. Objects of retired classes are left out.

    Args:
        current: returns the name of a class today; None if it was retired.
    """
    example = tf.train.Example.FromString(serialized)
    features = example.features.feature
    texts = [text.decode("utf-8", "replace") for text in features[_TEXT].bytes_list.value]
    names = [current(text) for text in texts]
    if names == texts:
        return serialized
    kept = [number for number, name in enumerate(names) if name is not None]
    for key in [key for key in features if key.startswith(_OBJECT)]:
        kind = features[key].WhichOneof("kind")
        values = list(getattr(features[key], kind).value) if kind else []
        share, rest = divmod(len(values), len(texts))  # keypoints have several values for each object
        if values and not rest:
            chosen = [value for number in kept for value in values[number * share : (number + 1) * share]]
            getattr(features[key], kind).value[:] = chosen
    present = [name for name in names if name is not None]
    features[_TEXT].bytes_list.value[:] = [name.encode() for name in present]
    ids = [label_map.find_id(name) for name in present]
    features[_ID].int64_list.value[:] = [id if id is not None else 0 for id in ids]
    return bytes(example.SerializeToString())
