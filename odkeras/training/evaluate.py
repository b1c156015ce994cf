"""Evaluation with the Object Detection API's own evaluators.

It supports the API's metric sets, except those for keypoints and those that read prediction files. The examples are
those that a pipeline.config names, or the hold-out split of the answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from object_detection import model_lib_v2

from odkeras import project
from odkeras.errors import CheckpointError, ConfigError
from odkeras.model.checkpoint import choose_checkpoints, restore_for_prediction, saved_averages
from odkeras.model.inference import CLASS_ID_OFFSET, InferenceModel, build_detection_model
from odkeras.model.setup import Setup
from odkeras.training.curves import Curve
from odkeras.training.detectors import Detector, Detects, SavedDetector, in_process
from odkeras.training.examples import ExampleSource, examples_of_reader
from odkeras.training.exhibits import Exhibits, Gallery
from odkeras.training.inputs import evaluation_dataset, example_source
from odkeras.training.metric_sets import make_metric_sets, overall_first

Progress = Callable[[int], None]

_log = logging.getLogger(__name__)


class Evaluator:
    """Runs evaluations. Reuse one object: it builds the input pipeline once per reader.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        model: the `DetectionModel` whose `preprocess` prepares the images.

    Attributes:
        exhibits: example images and curves of the last evaluation, for TensorBoard.
    """

    def __init__(self, config: Any, model: Any) -> None:
        self.exhibits = Exhibits()
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
        curves: dict[str, Curve] = {}
        galleries = [Gallery() for _ in sources]
        for number, (source, gallery) in enumerate(zip(sources, galleries, strict=True)):
            prefix = "" if len(sources) == 1 else f"{source.reader.name or number}/"
            found, found_curves = self._evaluate_source(detect, source, progress, gallery)
            metrics.update({f"{prefix}{name}": value for name, value in found.items()})
            curves.update({f"{prefix}{name}": curve for name, curve in found_curves.items()})
        self.exhibits = Exhibits(galleries[0].examples() if galleries else (), curves)
        return overall_first(metrics)

    def _evaluate_source(
        self, detect: Detector, source: ExampleSource, progress: Progress, gallery: Gallery
    ) -> tuple[dict[str, float], dict[str, Curve]]:
        sets = make_metric_sets(self._config.eval_config, source.reader.label_map_path)
        done = 0
        for features, labels in self._examples(source):
            outputs = detect(features)
            detections = {**outputs, "detection_classes": outputs["detection_classes"] - CLASS_ID_OFFSET}
            eval_dict, _ = model_lib_v2.prepare_eval_dict(detections, _without_padding(labels), features)
            for each in sets:
                each.add(eval_dict)
            gallery.add(eval_dict)
            done += 1
            progress(done)
        if not done:
            raise ConfigError(f"no examples to evaluate on in {source.where}")
        metrics: dict[str, float] = {}
        curves: dict[str, Curve] = {}
        for each in sets:
            metrics.update(each.evaluate())
            curves.update(each.curves)
        return metrics, curves

    def _examples(self, source: ExampleSource) -> Iterator[tuple[Mapping[str, tf.Tensor], dict[str, tf.Tensor]]]:
        key = str(source.reader)
        if key not in self._datasets:
            serialized = example_source(self._read)
            self._datasets[key] = evaluation_dataset(self._config, self._model, source.reader, serialized)
        self._source = source
        try:
            yield from self._datasets[key]
        except tf.errors.OpError as error:
            raise ConfigError(f"{source.where}: {error.message.splitlines()[0]}") from error

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
    inference: Detects,
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
        max_examples: evaluate on a fixed random sample of this many examples per reader (see `training.examples`);
            None, 0 or less = all.
        progress: callback with the number of examples evaluated so far.

    Raises:
        ConfigError: no examples, or an unknown metric set.
    """
    sources = named_sources(config, max_examples)
    return Evaluator(config, inference.model).evaluate(in_process(inference), sources, progress=progress)


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
    found = restore_for_prediction(inference.model, checkpoints)
    if found is not None and setup.config.eval_config.use_moving_averages and not saved_averages(found):
        _log.warning("eval_config.use_moving_averages: %s has none; its weights themselves are evaluated", found)
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
    versions = project.list_versions(export_dir)
    if version not in versions:
        known = ", ".join(map(str, versions)) or "none"
        raise CheckpointError(f"there is no version {version}; in {export_dir} there are: {known}")
    sources = named_sources(setup.config, max_examples)
    model = build_detection_model(setup.config.model, is_training=False)
    detect = SavedDetector(project.version_dir(export_dir, version))
    return Evaluator(setup.config, model).evaluate(detect, sources, progress=progress)


def _without_padding(labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The labels of a batch of one image, without the padding rows.

    The API's own evaluation loop keeps the padding, and its PASCAL VOC and OpenImages evaluators count those rows as
    objects of the first class.
    """
    count = int(labels["num_groundtruth_boxes"][0])
    per_box = {
        name
        for name, value in labels.items()
        if value.shape.rank >= 2 and value.shape[1] == labels["groundtruth_boxes"].shape[1]
    }
    per_image = {
        "groundtruth_verified_neg_classes",
        "groundtruth_not_exhaustive_classes",
        "groundtruth_image_classes",
        "groundtruth_labeled_classes",
    }
    return {name: value[:, :count] if name in per_box - per_image else value for name, value in labels.items()}
