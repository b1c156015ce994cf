"""The examples to evaluate on: all of them, or a sample.

A sample of size N is the N examples whose image ids have the smallest SHA-256 hashes. It is therefore a uniform sample
of the whole record, the same one in every round and on every machine, and changes little when examples are added.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from odkeras.data.records import class_texts, with_masks
from odkeras.data.replay import StoredExample
from odkeras.errors import ConfigError
from odkeras.labels import LabelMap

_EXAMPLES = (0, 1)  # `input_type` of a reader: not set, TF_EXAMPLE; 2 is TF_SEQUENCE_EXAMPLE
_MOST_LOOKED_AT = 1000  # records may have millions of examples
_MOST_LISTED = 10


@dataclass(frozen=True)
class ExampleSource:
    """Examples to evaluate on, in a fixed order.

    Args:
        reader: an `input_reader_pb2.InputReader`, which says how to decode them.
        read: returns a new iterator over the serialized `tf.train.Example`s.
        identity: equal for two sources of the same examples.
        where: describes the source in error messages.
    """

    reader: Any
    read: Callable[[], Iterator[bytes]]
    identity: Hashable
    where: str


def examples_of_reader(reader: Any, max_examples: int | None = None) -> ExampleSource:
    """The examples of one `eval_input_reader`, each once, in file order.

    `sample_1_of_n_examples` is honoured; `num_epochs` and `shuffle` are ignored.

    Args:
        reader: the `input_reader_pb2.InputReader`.
        max_examples: take a sample of this many; None, 0 or less = all.

    Raises:
        ConfigError: the records do not exist or cannot be read, or they hold sequences instead of single examples.
    """
    named = list(reader.tf_record_input_reader.input_path)
    where = f"eval_input_reader: {', '.join(named) or 'no records are named'}"
    if reader.input_type not in _EXAMPLES:
        raise ConfigError(f"{where}: records of sequences (TF_SEQUENCE_EXAMPLE) cannot be evaluated on")
    try:
        files = [path for pattern in named for path in sorted(tf.io.gfile.glob(pattern))]
        stamps = tuple((path, *_stamp(path)) for path in files)
    except tf.errors.OpError as error:
        raise ConfigError(f"{where}: {error.message}") from error
    if not files:
        paths = ", ".join(named) or "nothing"
        raise ConfigError(f"eval_input_reader: the input pipeline cannot be built: there is no file {paths}")
    every = max(1, reader.sample_1_of_n_examples)

    def read_all() -> Iterator[bytes]:
        for number, serialized in enumerate(_read_files(files, where)):
            if number % every == 0:
                yield serialized

    read = read_all
    if max_examples is not None and max_examples > 0:
        chosen = _remembered_sample((stamps, every, max_examples), read_all, max_examples)

        def read() -> Iterator[bytes]:
            return (serialized for number, serialized in enumerate(read_all()) if number in chosen)

    return ExampleSource(reader, read, (stamps, every, max_examples), where)


def what_is_dropped(reader: Any, label_map: LabelMap) -> str:
    """A warning about classes that the label map lacks, because the Object Detection API drops their objects silently.

    Reads the reader's first `_MOST_LOOKED_AT` examples. Returns "" if all classes are known, or if the records cannot
    be read: the input pipeline reports that.
    """
    unknown: Counter[str] = Counter()
    seen = 0
    with contextlib.suppress(tf.errors.OpError, ConfigError, DecodeError):
        files = [path for pattern in reader.tf_record_input_reader.input_path for path in tf.io.gfile.glob(pattern)]
        for serialized in itertools.islice(_read_files(sorted(files), "train_input_reader"), _MOST_LOOKED_AT):
            features = tf.train.Example.FromString(serialized).features.feature
            unknown.update(class_texts(features) - label_map.texts)
            seen += 1
    if not unknown:
        return ""
    listed = ", ".join(f"{name!r} in {count}" for name, count in sorted(unknown.items())[:_MOST_LISTED])
    return (
        f"the records have classes that are not in the label map ({listed} of the first {seen} examples): their "
        "objects are not trained on, as if nothing were there"
    )


def examples_held_out(
    config: Any, examples: Sequence[StoredExample], max_examples: int | None = None, *, masks: bool = False
) -> ExampleSource:
    """The hold-out split of the answers, decoded as `train_input_reader` says.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        examples: the result of `ReplayStore.held_out()`.
        max_examples: as in `examples_of_reader`.
        masks: give examples without masks filled boxes as masks.
    """
    reader = type(config.train_input_reader)()
    reader.CopyFrom(config.train_input_reader)
    chosen = list(examples)
    if max_examples is not None and max_examples > 0:
        kept = smallest_hashes((example.image_id for example in chosen), max_examples)
        chosen = [example for number, example in enumerate(chosen) if number in kept]

    def read() -> Iterator[bytes]:
        serialized = (example.read() for example in chosen)
        return map(with_masks, serialized) if masks else serialized

    identity = tuple((example.image_id, example.batch) for example in chosen)
    return ExampleSource(reader, read, identity, "the answers that are kept for evaluation (--eval-split)")


def smallest_hashes(names: Iterable[str], count: int) -> set[int]:
    """The positions of the `count` names with the smallest hashes."""
    hashed = ((hashlib.sha256(name.encode("utf-8", "replace")).digest(), number) for number, name in enumerate(names))
    return {number for _, number in heapq.nsmallest(count, hashed)}


_MOST_SAMPLES = 16
_samples: dict[Hashable, set[int]] = {}  # cache: the same files are sampled after every round


def _remembered_sample(key: Hashable, read: Callable[[], Iterator[bytes]], count: int) -> set[int]:
    if key not in _samples:
        if len(_samples) >= _MOST_SAMPLES:
            _samples.clear()
        _samples[key] = smallest_hashes(map(_name_of, read()), count)
    return _samples[key]


def _name_of(serialized: bytes) -> str:
    """The example's `image/source_id`; a hash of the example if it has none."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # a malformed example, which the input pipeline reports
        features = {}
    ids = features["image/source_id"].bytes_list.value if "image/source_id" in features else ()
    return ids[0].decode("utf-8", "replace") if ids and ids[0] else hashlib.sha256(serialized).hexdigest()


def _read_files(files: Sequence[str], where: str) -> Iterator[bytes]:
    try:
        for path in files:
            yield from tf.data.TFRecordDataset(path).as_numpy_iterator()
    except tf.errors.OpError as error:
        raise ConfigError(f"{where}: {error.message}") from error


def _stamp(path: str) -> tuple[int, int]:
    found = tf.io.gfile.stat(path)
    return int(found.length), int(found.mtime_nsec)
