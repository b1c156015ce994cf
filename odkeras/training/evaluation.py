"""Evaluation with the Object Detection API's own evaluators.

It supports the API's metric sets, except those that read prediction files. The examples are those that a
pipeline.config names, or the hold-out split of the answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf
from object_detection import model_lib_v2

from odkeras.errors import CheckpointError, ConfigError
from odkeras.export.signatures import DEFAULT_SIGNATURE, EXAMPLES_SIGNATURE
from odkeras.heartbeat import report_progress
from odkeras.model.checkpoint import choose_checkpoints, restore_for_prediction, saved_averages
from odkeras.model.context import CONTEXT_FEATURES, context_length
from odkeras.model.inference import CLASS_ID_OFFSET, InferenceModel, build_detection_model
from odkeras.model.setup import Setup
from odkeras.training.inputs import SERIALIZED, ExampleSource, evaluation_dataset, example_source, examples_of_reader
from odkeras.training.metrics import make_metric_sets, overall_first
from odkeras.training.pictures import EvalVisualizations, ExampleSelection
from odkeras.training.precision_recall import PrecisionRecallCurve
from odkeras.training.record_checks import find_bad_example
from odkeras.training.unjudged import judged_detections
from odkeras.version_dirs import list_versions, version_dir

Progress = Callable[[int], None]

Detector = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]
"""Maps the features of one example (see `evaluation_dataset`) to the detections that `InferenceModel.detect` describes,
with a batch size of 1."""

_log = logging.getLogger(__name__)

_REQUIRED = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
_OPTIONAL = ("detection_masks", "detection_keypoints", "detection_keypoint_scores")
_PER_IMAGE = {
    "groundtruth_verified_neg_classes",
    "groundtruth_not_exhaustive_classes",
    "groundtruth_image_classes",
    "groundtruth_labeled_classes",
}


class DetectionModel(Protocol):
    """The part of `InferenceModel` that an evaluation uses."""

    model: Any

    def detect(self, images: Any, true_shapes: Any, **side_inputs: Any) -> dict[str, tf.Tensor]: ...


def model_detector(inference: DetectionModel) -> Detector:
    """A detector that calls `inference`, with the weights that the model has at the time of each call."""

    def detect(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        side_inputs = inference.model.get_side_inputs(features)
        return inference.detect(features["image"], features["true_image_shape"], **side_inputs)

    return detect


class SavedModelDetector:
    """A detector that calls the `serving_default` signature of an exported version.

    The signature gets the encoded image, as it would from a client. Models of other tools may take pixels instead;
    they get the decoded image, (1, H, W, 3) in the signature's dtype. A version of Context R-CNN gets the example,
    which has the features of other images.

    Raises:
        CheckpointError: the directory has no SavedModel that can be loaded, or its signature is not that of a detector.
    """

    def __init__(self, version_dir: Path) -> None:
        try:
            # Kept, because the signature alone does not keep the variables alive.
            self._saved_model = tf.saved_model.load(str(version_dir))
            self._signature = self._saved_model.signatures[DEFAULT_SIGNATURE]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{version_dir} cannot be loaded as a SavedModel: {reason}") from error
        inputs = self._signature.structured_input_signature[1]
        missing = [name for name in _REQUIRED if name not in self._signature.structured_outputs]
        if len(inputs) != 1 or missing:
            raise CheckpointError(
                f"the signature {DEFAULT_SIGNATURE} of {version_dir} is not that of a detector: its inputs are "
                f"{', '.join(sorted(inputs))}, and {', '.join(missing) or 'nothing'} is missing among its outputs"
            )
        ((self._input, self._spec),) = inputs.items()

    def __call__(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if CONTEXT_FEATURES in features and EXAMPLES_SIGNATURE in self._saved_model.signatures:
            outputs = self._saved_model.signatures[EXAMPLES_SIGNATURE](examples=features[SERIALIZED])
        else:
            outputs = self._signature(**{self._input: self._images(features)})
        return {name: tf.cast(outputs[name], tf.float32) for name in (*_REQUIRED, *_OPTIONAL) if name in outputs}

    def _images(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        encoded = tf.io.parse_example(features[SERIALIZED], {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        images = encoded["image/encoded"]
        if self._spec.dtype != tf.string:
            pixels = tf.io.decode_image(images[0], channels=3, expand_animations=False)
            images = tf.cast(pixels[tf.newaxis], self._spec.dtype)
        return images


class Evaluator:
    """Runs evaluations. Reuse one object: it builds the input pipeline once per reader.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        model: the `DetectionModel` whose `preprocess` prepares the images.

    Attributes:
        visualizations: example images and curves of the last evaluation, for TensorBoard.
    """

    def __init__(self, config: Any, model: Any) -> None:
        self.visualizations = EvalVisualizations()
        self._config = config
        self._model = model
        self._datasets: dict[str, tf.data.Dataset] = {}
        self._source: ExampleSource | None = None

    def evaluate(
        self, detect: Detector, sources: Sequence[ExampleSource], *, progress: Progress = lambda done: None
    ) -> dict[str, float]:
        """Evaluate `detect` on `sources`, with the metric sets that `eval_config.metrics_set` names.

        Args:
            detect: the detector to evaluate.
            sources: examples. With more than one source, metric names start with "READER/": the reader's name, or the
                position of the source if the reader has no name.
            progress: callback with the number of examples evaluated so far; restarts at 1 for each source.

        Returns:
            Metrics by name, overall metrics before per-class ones.

        Raises:
            ConfigError: no examples, an unknown metric set, or a metric set that these examples or this model do not
                support.
        """
        metrics: dict[str, float] = {}
        curves: dict[str, PrecisionRecallCurve] = {}
        selections = [ExampleSelection() for _ in sources]
        for number, (source, selection) in enumerate(zip(sources, selections, strict=True)):
            prefix = "" if len(sources) == 1 else f"{source.reader.name or number}/"
            sets = make_metric_sets(self._config.eval_config, source.reader.label_map_path)
            count = boxes = 0
            for eval_dict in self._detect_all(detect, source):
                for metric_set in sets:
                    metric_set.add(eval_dict)
                selection.add(eval_dict)
                count += 1
                boxes += len(eval_dict["groundtruth_boxes"][0])
                progress(count)
                report_progress()
            if not count:
                raise ConfigError(f"no examples to evaluate on in {source.where}")
            if not boxes:
                _log.warning(
                    "%s: none of the %d examples has a box of a class in the label map, so that the metrics mean "
                    "nothing; compare the names in the label map with those in the records",
                    source.where,
                    count,
                )
            for metric_set in sets:
                metrics |= {f"{prefix}{name}": value for name, value in metric_set.evaluate().items()}
                curves |= {f"{prefix}{name}": curve for name, curve in metric_set.curves.items()}
        self.visualizations = EvalVisualizations(selections[0].examples() if selections else (), curves)
        return overall_first(metrics)

    def _detect_all(self, detect: Detector, source: ExampleSource) -> Iterator[Mapping[str, Any]]:
        for features, labels in self._examples(source):
            outputs = judged_detections(detect(features), features[SERIALIZED][0])
            detections = {**outputs, "detection_classes": outputs["detection_classes"] - CLASS_ID_OFFSET}
            eval_dict, _ = model_lib_v2.prepare_eval_dict(detections, _without_padding(labels), features)
            yield eval_dict

    def _examples(self, source: ExampleSource) -> Iterator[tuple[Mapping[str, tf.Tensor], dict[str, tf.Tensor]]]:
        key = str(source.reader)
        if key not in self._datasets:
            serialized = example_source(self._read)
            self._datasets[key] = evaluation_dataset(self._config, self._model, source.reader, serialized)
        self._source = source
        try:
            yield from self._datasets[key]
        except tf.errors.OpError as error:
            numbered = ((f"example {number}", each) for number, each in enumerate(source.read(), start=1))
            context = context_length(self._config.model)
            found = find_bad_example(numbered, source.reader.num_keypoints, context_length=context)
            raise ConfigError(f"{source.where}: {found or error.message.splitlines()[0]}") from error

    def _read(self) -> Iterator[bytes]:
        assert self._source is not None
        return self._source.read()


def named_sources(config: Any, max_examples: int | None = None) -> list[ExampleSource]:
    """One source per `eval_input_reader`.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        max_examples: evaluate on a sample of this many examples per reader; None, 0 or less = all.

    Raises:
        ConfigError: the config has no `eval_input_reader`, or its records do not exist.
    """
    sources = [examples_of_reader(reader, max_examples) for reader in config.eval_input_reader]
    if not sources:
        raise ConfigError(
            "eval_input_reader: the pipeline.config names no examples to evaluate on; add an eval_input_reader"
        )
    return sources


def evaluate(
    inference: DetectionModel,
    config: Any,
    *,
    max_examples: int | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, float]:
    """Metrics of `inference` by name, as in `eval_config.metrics_set` (COCO detection metrics when empty).

    Args:
        inference: the model to evaluate, with its current weights.
        config: a resolved `TrainEvalPipelineConfig`. Every `eval_input_reader` is evaluated; if there are several,
            metric names start with the reader's name.
        max_examples: evaluate on a fixed random sample of this many examples per reader (see `training.inputs`); None,
            0 or less = all.
        progress: callback with the number of examples evaluated so far.

    Raises:
        ConfigError: no examples, or an unknown metric set.
    """
    sources = named_sources(config, max_examples)
    return Evaluator(config, inference.model).evaluate(model_detector(inference), sources, progress=progress)


def evaluate_checkpoint(
    setup: Setup,
    model_dir: Path,
    *,
    checkpoint: str | None = None,
    max_examples: int | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, float]:
    """Metrics of the newest checkpoint in `model_dir`, or of `checkpoint`; see `evaluate`.

    If the checkpoint has moving averages of the weights, the averages are evaluated, because they are what is
    published.

    Raises:
        CheckpointError: there is no checkpoint, or it does not fit the model.
        ConfigError: no examples, or an unknown metric set.
    """
    checkpoints = choose_checkpoints(model_dir, checkpoint)
    if not checkpoints:
        raise CheckpointError(
            f"there is no checkpoint in {model_dir}; train first, or give --checkpoint or --model-dir"
        )
    inference = InferenceModel(setup.config.model)
    restored = restore_for_prediction(inference.model, checkpoints)
    if restored is not None and setup.config.eval_config.use_moving_averages and not saved_averages(restored):
        _log.warning("eval_config.use_moving_averages: %s has none; its weights themselves are evaluated", restored)
    return evaluate(inference, setup.config, max_examples=max_examples, progress=progress)


def evaluate_version(
    setup: Setup,
    export_dir: Path,
    version: int,
    *,
    max_examples: int | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, float]:
    """Metrics of an exported version, called through its signature as a client would call it; see `evaluate`.

    Raises:
        CheckpointError: there is no such version, or it cannot be loaded.
        ConfigError: no examples, or an unknown metric set.
    """
    versions = list_versions(export_dir)
    if version not in versions:
        known = ", ".join(map(str, versions)) or "none"
        raise CheckpointError(f"there is no version {version}; in {export_dir} there are: {known}")
    sources = named_sources(setup.config, max_examples)
    model = build_detection_model(setup.config.model, is_training=False)
    detector = SavedModelDetector(version_dir(export_dir, version))
    return Evaluator(setup.config, model).evaluate(detector, sources, progress=progress)


def _without_padding(labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The labels of a batch of one image, without the padding rows.

    The API's own evaluation loop keeps the padding, and its PASCAL VOC and OpenImages evaluators count those rows as
    objects of the first class.
    """
    count = int(labels["num_groundtruth_boxes"][0])
    rows = labels["groundtruth_boxes"].shape[1]
    return {
        name: value[:, :count] if value.shape.rank >= 2 and value.shape[1] == rows and name not in _PER_IMAGE else value
        for name, value in labels.items()
    }
