"""The examples to train and to evaluate on, and the Object Detection API's own input pipeline over them.

The pipeline is built without autograph where possible: nearly all of the API's functions do not need it, and it takes
most of the building time.

A sample of N evaluation examples consists of the N whose image ids have the smallest SHA-256 hashes. It is therefore a
uniform sample of the whole record, the same one in every round and on every machine, and changes little when examples
are added.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from object_detection import inputs as odapi_inputs
from object_detection.builders import dataset_builder, decoder_builder

from odkeras.data.records import with_keypoints, with_masks
from odkeras.data.stored_example import StoredExample
from odkeras.errors import ConfigError
from odkeras.labels import LabelMap, label_map_for_api
from odkeras.model.building import building
from odkeras.model.context import context_length, with_context
from odkeras.pipeline import loads_masks, num_classes
from odkeras.pipeline.augmentation import AUTOGRAPH_STEPS, LEGACY_FUNCTION_STEPS, step_names
from odkeras.training.unjudged import UNJUDGED, unjudged_classes

SERIALIZED = "odkeras/example"
"""Key of the serialized example among the features of `evaluation_dataset`: string (1,)."""

_PREFETCHED_BATCHES = 2
_SINGLE_EXAMPLES = (0, 1)  # `input_type` of a reader: not set, TF_EXAMPLE; 2 is TF_SEQUENCE_EXAMPLE
_MAX_CACHED_SAMPLES = 16
_cached_samples: dict[Hashable, set[int]] = {}  # the same files are sampled after every round


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
    patterns = list(reader.tf_record_input_reader.input_path)
    where = f"eval_input_reader: {', '.join(patterns) or 'no records are named'}"
    if reader.input_type not in _SINGLE_EXAMPLES:
        raise ConfigError(f"{where}: records of sequences (TF_SEQUENCE_EXAMPLE) cannot be evaluated on")
    try:
        files = [path for pattern in patterns for path in sorted(tf.io.gfile.glob(pattern))]
        stats = [tf.io.gfile.stat(path) for path in files]
    except tf.errors.OpError as error:
        raise ConfigError(f"{where}: {error.message}") from error
    if not files:
        paths = ", ".join(patterns) or "nothing"
        raise ConfigError(f"eval_input_reader: the input pipeline cannot be built: there is no file {paths}")
    every = max(1, reader.sample_1_of_n_examples)
    versions = tuple((path, int(stat.length), int(stat.mtime_nsec)) for path, stat in zip(files, stats, strict=True))
    identity = (versions, every, max_examples)

    def read_all() -> Iterator[bytes]:
        return itertools.islice(_read_files(files, where), 0, None, every)

    read = read_all
    if max_examples is not None and max_examples > 0:
        if identity not in _cached_samples:
            if len(_cached_samples) >= _MAX_CACHED_SAMPLES:
                _cached_samples.clear()
            _cached_samples[identity] = smallest_hashes(map(_image_id, read_all()), max_examples)
        chosen = _cached_samples[identity]

        def read() -> Iterator[bytes]:
            return (serialized for number, serialized in enumerate(read_all()) if number in chosen)

    return ExampleSource(reader, read, identity, where)


Complete = Callable[[bytes], bytes]
"""Adds to a serialized example of the loop what it lacks; see `example_completion`."""


def example_completion(config: Any, label_map: LabelMap) -> Complete:
    """What adds to an example of the loop the parts that `train_input_reader` loads, if it lacks them: filled boxes as
    masks, keypoints that are not labelled, and no context features.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        label_map: names the keypoints.
    """
    names = label_map.keypoint_names if config.train_input_reader.num_keypoints else ()
    masks, context = loads_masks(config), context_length(config.model)

    def complete(serialized: bytes) -> bytes:
        if masks:
            serialized = with_masks(serialized)
        if context:
            serialized = with_context(serialized, context)
        return with_keypoints(serialized, names) if names else serialized

    return complete


def held_out_examples(
    config: Any,
    examples: Sequence[StoredExample],
    max_examples: int | None = None,
    *,
    read: Callable[[StoredExample], bytes] = StoredExample.read,
) -> ExampleSource:
    """The hold-out split of the answers, decoded as `train_input_reader` says.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        examples: the result of `ReplayStore.held_out()`.
        max_examples: as in `examples_of_reader`.
        read: reads an example.
    """
    reader = type(config.train_input_reader)()
    reader.CopyFrom(config.train_input_reader)
    chosen = list(examples)
    if max_examples is not None and max_examples > 0:
        kept = smallest_hashes((example.image_id for example in chosen), max_examples)
        chosen = [example for number, example in enumerate(chosen) if number in kept]

    identity = tuple((example.image_id, example.batch) for example in chosen)
    return ExampleSource(
        reader, lambda: map(read, chosen), identity, "the answers that are kept for evaluation (--eval-split)"
    )


def smallest_hashes(names: Iterable[str], count: int) -> set[int]:
    """The positions of the `count` names with the smallest hashes."""
    hashes = ((hashlib.sha256(name.encode("utf-8", "replace")).digest(), number) for number, name in enumerate(names))
    return {number for _, number in heapq.nsmallest(count, hashes)}


def example_source(generate: Callable[[], Iterator[bytes]]) -> tf.data.Dataset:
    """A dataset of serialized `tf.train.Example`s, string ().

    Each new iterator calls `generate` again, so the examples can change without building the pipeline again.
    """
    # Of `compat.v1`, as the datasets of the API's own reader are: these also map with functions of TensorFlow 1.
    return tf.compat.v1.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec([], tf.string))


def training_dataset(
    config: Any, model: Any, source: tf.data.Dataset | None = None, input_context: Any = None
) -> tf.data.Dataset:
    """Augmented, resized, padded batches.

    Args:
        config: a resolved `TrainEvalPipelineConfig`; `train_config` and `train_input_reader` are honoured.
        model: the `DetectionModel` whose `preprocess` prepares the images.
        source: serialized examples; None reads the records that `train_input_reader` names, repeated without end. In a
            cluster, those of this worker.
        input_context: the `tf.distribute.InputContext` of a worker, which sets its shard and batch size; None without
            distribution.

    Returns:
        Pairs (features, labels) of dictionaries of tensors, as `object_detection.inputs.train_input` describes them.
        The features also have `unjudged.UNJUDGED`, so that a training step takes the batches of every source.

    Raises:
        ConfigError: no records, fewer record files than workers, or a configuration that the API refuses.
    """
    reader = config.train_input_reader
    if source is None and input_context is not None:
        # The API assigns whole files to workers, and a worker without a file would wait forever.
        files = len(tf.io.gfile.glob(list(reader.tf_record_input_reader.input_path)))
        workers = input_context.num_input_pipelines
        if 0 < files < workers:
            raise ConfigError(
                f"train_input_reader: {workers} workers share {files} {'file' if files == 1 else 'files'}; make at "
                "least as many files as workers"
            )

    def build() -> tf.data.Dataset:
        with _reader_for_api(reader) as given:
            return odapi_inputs.train_input(
                config.train_config, given, config.model, model=model, input_context=input_context
            )

    steps = step_names(config)
    legacy_function = not steps.isdisjoint(LEGACY_FUNCTION_STEPS)
    dataset_build = (
        dataset_builder.build
        if source is None
        else _build_over(source, legacy_function=legacy_function, unjudged_of=num_classes(config))
    )
    autograph = not steps.isdisjoint(AUTOGRAPH_STEPS)
    dataset = _build_pipeline(dataset_build, build, "train_input_reader", autograph=autograph)
    if source is not None:
        # In a cluster, the workers would ask each other before every batch whether there is another one, unless the
        # dataset is known not to end. It does not: its source does not.
        return dataset if input_context is None or input_context.num_input_pipelines == 1 else dataset.repeat()

    def judged_for_all(features: Mapping[str, tf.Tensor], labels: Any) -> Any:
        image = features["image"]
        batch_size = image.shape[0] or tf.shape(image)[0]
        return {**features, UNJUDGED: tf.zeros([batch_size, num_classes(config)])}, labels

    return dataset.map(judged_for_all).repeat()


def distributed_training_dataset(
    config: Any, model: Any, strategy: tf.distribute.Strategy | None, source: tf.data.Dataset | None = None
) -> Any:
    """`training_dataset` for this strategy; None is no distribution."""
    if strategy is None:
        return training_dataset(config, model, source)
    return strategy.distribute_datasets_from_function(
        lambda context: training_dataset(config, model, source, input_context=context)
    )


def evaluation_dataset(config: Any, model: Any, reader: Any, source: tf.data.Dataset | None = None) -> tf.data.Dataset:
    """Every example once, in order, in batches of one, without augmentation.

    Args:
        config: a resolved `TrainEvalPipelineConfig`. Its `eval_config` is honoured, except `batch_size` (always 1) and
            `force_no_resize` (always off, because a published model resizes).
        model: the `DetectionModel` whose `preprocess` prepares the images.
        reader: one of `eval_input_reader`, which says how to decode.
        source: serialized examples; None reads the records that `reader` names.

    Returns:
        Pairs (features, labels) as `object_detection.inputs.eval_input` describes them. The features also have the
        serialized example, under `SERIALIZED`.

    Raises:
        ConfigError: no records, or a configuration that the API refuses.
    """
    if source is None:
        source = example_source(examples_of_reader(reader).read)
    settings = type(config.eval_config)()
    settings.CopyFrom(config.eval_config)
    settings.batch_size, settings.force_no_resize = 1, False

    def build() -> tf.data.Dataset:
        with _reader_for_api(reader) as given:
            return odapi_inputs.eval_input(settings, given, config.model, model=model)

    return _build_pipeline(_build_over(source, keep_serialized=True), build, "eval_input_reader")


def _build_pipeline(
    dataset_build: Callable[..., tf.data.Dataset],
    build: Callable[[], tf.data.Dataset],
    field: str,
    *,
    autograph: bool = False,
) -> tf.data.Dataset:
    builders: dict[str, Any] = odapi_inputs.INPUT_BUILDER_UTIL_MAP  # the API's own hook to replace the reader
    original = builders["dataset_build"]
    builders["dataset_build"] = dataset_build
    # Without autotuning, because it delays the end of a round. The tuning thread doubles its sleep each time, up to a
    # minute. On a busy machine it can miss that its iterator is being destroyed, and the destructor waits for it.
    # Measured: one round in six took 20.5, 41 or 82 s instead of 10, 26 or 41 s.
    options = tf.data.Options()
    options.autotune.enabled = False
    try:
        with building(field, "the input pipeline"):
            dataset = build() if autograph else tf.autograph.experimental.do_not_convert(build)()
            return dataset.with_options(options)
    finally:
        builders["dataset_build"] = original


@contextlib.contextmanager
def _reader_for_api(reader: Any) -> Iterator[Any]:
    """The reader with a label map that the API reads as odkeras does. The API reads it while it builds the pipeline."""
    if not reader.label_map_path:
        yield reader
        return
    with label_map_for_api(reader.label_map_path) as path:
        given = type(reader)()
        given.CopyFrom(reader)
        given.label_map_path = path
        yield given


def _build_over(
    source: tf.data.Dataset, *, keep_serialized: bool = False, legacy_function: bool = False, unjudged_of: int = 0
) -> Callable[..., tf.data.Dataset]:
    """A stand-in for `dataset_builder.build` that reads `source` instead of files.

    Args:
        keep_serialized: add the serialized example to the features, instead of `UNJUDGED`.
        legacy_function: transform with a function of TensorFlow 1 (see `LEGACY_FUNCTION_STEPS`).
        unjudged_of: the number of classes in `UNJUDGED`.
    """

    def build(
        reader: Any,
        batch_size: int | None = None,
        transform_input_data_fn: Callable[[Mapping[str, tf.Tensor]], Any] | None = None,
        input_context: Any = None,
        reduce_to_frame_fn: Any = None,
    ) -> tf.data.Dataset:
        dataset = source
        if input_context is not None:
            batch_size = input_context.get_per_replica_batch_size(batch_size)
        decode = decoder_builder.build(reader).decode

        def decode_and_keep(serialized: tf.Tensor) -> Any:
            features, labels = transform_input_data_fn(decode(serialized))  # type: ignore[misc]  # never None here
            return {**features, SERIALIZED: serialized}, labels

        def decode_with_unjudged(serialized: tf.Tensor) -> Any:
            return decode(serialized), unjudged_classes(serialized, unjudged_of)

        def transform_with_unjudged(decoded: Mapping[str, tf.Tensor], unjudged: tf.Tensor) -> Any:
            features, labels = transform_input_data_fn(decoded)  # type: ignore[misc]  # never None here
            return {**features, UNJUDGED: unjudged}, labels

        if keep_serialized:
            dataset = dataset.map(decode_and_keep, tf.data.AUTOTUNE)
        else:
            dataset = dataset.map(decode_with_unjudged, tf.data.AUTOTUNE)
            transform = dataset.map_with_legacy_function if legacy_function else dataset.map
            dataset = transform(transform_with_unjudged, tf.data.AUTOTUNE)
        return dataset.batch(batch_size, drop_remainder=True).prefetch(_PREFETCHED_BATCHES)

    return build


def _read_files(files: Sequence[str], where: str) -> Iterator[bytes]:
    try:
        for path in files:
            yield from tf.data.TFRecordDataset(path).as_numpy_iterator()
    except tf.errors.OpError as error:
        raise ConfigError(f"{where}: {error.message}") from error


def _image_id(serialized: bytes) -> str:
    """The example's `image/source_id`; a hash of the example if it has none."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # a malformed example, which the input pipeline reports
        features = {}
    ids = features["image/source_id"].bytes_list.value if "image/source_id" in features else ()
    return ids[0].decode("utf-8", "replace") if ids and ids[0] else hashlib.sha256(serialized).hexdigest()
