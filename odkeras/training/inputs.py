"""The input pipeline: the Object Detection API's own decoding, augmentation and padding, over any source of examples.

It is built without autograph: the API's functions do not need it, and it takes most of the building time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from object_detection import inputs as odapi_inputs
from object_detection.builders import dataset_builder, decoder_builder

from odkeras.errors import ConfigError
from odkeras.training.examples import examples_of_reader

SourceFunction = Callable[[], Iterator[bytes]]
_PREFETCHED_BATCHES = 2

SERIALIZED = "odkeras/example"
"""Key of the serialized example among the features of `evaluation_dataset`: string (1,)."""


def example_source(generate: SourceFunction) -> tf.data.Dataset:
    """A dataset of serialized `tf.train.Example`s, string ().

    Each new iterator calls `generate` again, so the examples can change without building the pipeline again.
    """
    return tf.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec([], tf.string))


def training_dataset(
    config: Any, model: Any, source: tf.data.Dataset | None = None, input_context: Any = None
) -> tf.data.Dataset:
    """Augmented, resized, padded batches.

    Args:
        config: a resolved `TrainEvalPipelineConfig`; `train_config` and `train_input_reader` are honoured.
        model: the `DetectionModel` whose `preprocess` prepares the images.
        source: serialized examples; None reads the records that `train_input_reader` names, repeated without end.
        input_context: the `tf.distribute.InputContext` of a worker, which sets its shard and batch size; None without
            distribution.

    Returns:
        Pairs (features, labels) of dictionaries of tensors, as `object_detection.inputs.train_input` describes them.

    Raises:
        ConfigError: no records, fewer record files than workers, or a configuration that the API refuses.
    """
    if source is None and input_context is not None:
        _check_files_suffice(config.train_input_reader, input_context.num_input_pipelines)
    build = dataset_builder.build if source is None else _builder_over(source)

    def make() -> tf.data.Dataset:
        return odapi_inputs.train_input(
            config.train_config, config.train_input_reader, config.model, model=model, input_context=input_context
        )

    dataset = _with_builder(build, make, "train_input_reader")
    return dataset if source is not None else dataset.repeat()


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

    def make() -> tf.data.Dataset:
        return odapi_inputs.eval_input(settings, reader, config.model, model=model)

    return _with_builder(_builder_over(source, keep_serialized=True), make, "eval_input_reader")


def _check_files_suffice(reader: Any, workers: int) -> None:
    """Fail early: the API assigns whole files to workers, and a worker without a file would wait forever."""
    files = len(tf.io.gfile.glob(list(reader.tf_record_input_reader.input_path)))
    if 0 < files < workers:
        noun = "file" if files == 1 else "files"
        raise ConfigError(
            f"train_input_reader: {workers} workers share {files} {noun}; make at least as many files as workers"
        )


def _with_builder(
    build: Callable[..., tf.data.Dataset], make: Callable[[], tf.data.Dataset], field: str
) -> tf.data.Dataset:
    builders: dict[str, Any] = odapi_inputs.INPUT_BUILDER_UTIL_MAP  # the API's own hook to replace the reader
    usual = builders["dataset_build"]
    builders["dataset_build"] = build
    try:
        return _without_autotuning(tf.autograph.experimental.do_not_convert(make)())
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ConfigError(f"{field}: the input pipeline cannot be built: {error}") from error
    finally:
        builders["dataset_build"] = usual


def _without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Disable tf.data's autotuning, because it delays the end of a round.

    The tuning thread doubles its sleep each time, up to a minute. On a busy machine it can miss that its iterator is
    being destroyed, and the destructor waits for it. Measured: one round in six took 20.5, 41 or 82 s instead of 10, 26
    or 41 s.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _builder_over(source: tf.data.Dataset, *, keep_serialized: bool = False) -> Callable[..., tf.data.Dataset]:
    """A stand-in for `dataset_builder.build` that reads `source` instead of files."""

    def build(
        reader: Any,
        batch_size: int | None = None,
        transform_input_data_fn: Callable[[Mapping[str, tf.Tensor]], Any] | None = None,
        input_context: Any = None,
        reduce_to_frame_fn: Any = None,
    ) -> tf.data.Dataset:
        dataset = source
        if input_context is not None:
            dataset = dataset.shard(input_context.num_input_pipelines, input_context.input_pipeline_id)
            batch_size = input_context.get_per_replica_batch_size(batch_size)
        decode = decoder_builder.build(reader).decode
        if keep_serialized:
            dataset = dataset.map(_keeping(decode, transform_input_data_fn), tf.data.AUTOTUNE)
        else:
            dataset = dataset.map(decode, tf.data.AUTOTUNE)
            if transform_input_data_fn is not None:
                dataset = dataset.map(transform_input_data_fn, tf.data.AUTOTUNE)
        return dataset.batch(batch_size, drop_remainder=True).prefetch(_PREFETCHED_BATCHES)

    return build


def _keeping(decode: Callable[..., Any], transform: Any) -> Callable[[tf.Tensor], Any]:
    def convert(serialized: tf.Tensor) -> Any:
        features, labels = transform(decode(serialized))
        return {**features, SERIALIZED: serialized}, labels

    return convert
