"""Publishing: the serving model of the loop, and the decision whether a round's weights become a version.

With `--publish-if-better`, the new weights and the served version are evaluated on the same examples. The new weights
are published only if their primary metric is lower by at most a tolerance. Weights that are held back stay in the
checkpoint, and the next round trains from them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import tensorflow as tf

from odkeras.data.replay import ReplayStore
from odkeras.errors import CheckpointError, OdkerasError
from odkeras.export.info import ExportInfo, read_export_info
from odkeras.export.publish import Publisher
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import list_checkpoints, restore_for_prediction
from odkeras.model.imagenet import load_imagenet_weights
from odkeras.model.inference import InferenceModel
from odkeras.model.weights import copy_weights, named_variables, restore_fine_tune_checkpoint, snapshot
from odkeras.pipeline import read_skeleton
from odkeras.project import Project
from odkeras.training.evaluation import Detector, Evaluator, SavedModelDetector, model_detector, named_sources
from odkeras.training.inputs import ExampleSource, example_completion, held_out_examples
from odkeras.training.metrics import jsonable, primary_metric
from odkeras.training.pictures import EvalVisualizations
from odkeras.training.status import StatusFile
from odkeras.version_dirs import list_versions, version_dir

_log = logging.getLogger(__name__)

Outcome = Literal["published", "held back", "failed"]


class ServingModel:
    """The inference model of the loop, and its published versions.

    Args:
        config: a resolved, checked `TrainEvalPipelineConfig`.
        label_map: the project's label map.
        directories: has the model directory, with the checkpoints, and the export directory, with the versions.
        status: the trainer's status.json, updated with every version.

    Attributes:
        inference: the model.
        variables: its variables, by path.
        checkpoint: path of the checkpoint that was restored; None if there was none. Then the model has the weights of
            the config's fine-tune checkpoint, ImageNet weights (see `model.imagenet`), or random weights.

    Raises:
        CheckpointError: a checkpoint does not fit the model.
        WeightsError: the ImageNet weights cannot be downloaded.
    """

    def __init__(self, config: Any, label_map: LabelMap, directories: Project, status: StatusFile) -> None:
        self.status = status
        self._export_dir = directories.export_dir
        self.inference = InferenceModel(config.model)
        self.variables = named_variables(self.inference.model)
        self.label_map = label_map
        self._publisher = Publisher(self.inference, directories.export_dir, label_map, read_skeleton(config))
        self._starts_as_detector = False
        train = config.train_config
        self.checkpoint = restore_for_prediction(self.inference.model, list_checkpoints(directories.model_dir))
        if self.checkpoint is not None:
            # The restore report of the first start is gone; only type "full" restores the box predictors, too.
            self._starts_as_detector = train.fine_tune_checkpoint != "" and train.fine_tune_checkpoint_type == "full"
            _log.info("resuming from %s", self.checkpoint)
        elif train.fine_tune_checkpoint:
            report = restore_fine_tune_checkpoint(
                self.inference.model, train.fine_tune_checkpoint, train.fine_tune_checkpoint_type or "detection"
            )
            self._starts_as_detector = not report.new
            _log.info("fine-tuning from %s: %s", train.fine_tune_checkpoint, report)
        else:
            from_imagenet = load_imagenet_weights(self.inference.model, config.model)
            _log.info("starting from %s weights", "ImageNet" if from_imagenet else "random")

    @property
    def newest(self) -> int | None:
        """The newest version, which is the one that servers load; None before the first."""
        versions = list_versions(self._export_dir)
        return versions[-1] if versions else None

    @property
    def newest_info(self) -> ExportInfo | None:
        """Export info of the newest version; None if there is no version, or odkeras did not write it."""
        newest = self.newest
        return None if newest is None else read_export_info(version_dir(self._export_dir, newest))

    @property
    def has_same_graph(self) -> bool:
        """Whether the newest version has the graph of this model, so that its weights can be loaded."""
        return self._publisher.has_graph_of(self.newest_info)

    @contextlib.contextmanager
    def newest_version(self) -> Iterator[Detector]:
        """Yields a detector of the newest version.

        If the version has this model's graph, the model holds the version's weights within the block, and its own
        weights are restored at the end.

        Raises:
            CheckpointError: there is no version, or it cannot be loaded.
        """
        version = self.newest
        if version is None:
            raise CheckpointError(f"there is no version in {self._export_dir}")
        if not self.has_same_graph:
            yield SavedModelDetector(version_dir(self._export_dir, version))
            return
        weights = snapshot(self.variables)
        try:
            self._publisher.load(version)
            yield model_detector(self.inference)
        finally:
            copy_weights(weights, self.variables)

    def has_learned(self, step: int) -> bool:
        """Whether weights of global step `step` are trained or restored, not random; see `ExportInfo.learned`."""
        return step > 0 or self._starts_as_detector

    def publish(self, step: int) -> int:
        """Publish the current weights, which have `step` training steps, and return the version.

        Raises:
            CheckpointError: the weights are not finite.
        """
        self.status.update(state="publishing", reason=f"publishing the weights of step {step}")
        version = self._publisher.publish(step, learned=self.has_learned(step))
        _log.info("published version %d (step %d)", version, step)
        self.status.update(version=version)
        return version


@dataclass(frozen=True)
class Comparison:
    """The new weights compared with the served version.

    Args:
        metric: name of the primary metric; None if there was nothing to evaluate on.
        value: the metric of the new weights; None if the examples have no groundtruth for it.
        served_value: the metric of the served version on the same examples; None if there is no groundtruth for it, or
            if the version cannot be evaluated.
        tolerance: how much lower `value` may be than `served_value`.
    """

    metric: str | None
    value: float | None
    served_value: float | None
    tolerance: float

    @property
    def is_good_enough(self) -> bool:
        """Whether the new weights may be published. True if there is no baseline to compare with."""
        if self.served_value is None or self.metric is None:
            return True
        return self.value is not None and self.value >= self.served_value - self.tolerance

    def __str__(self) -> str:
        if self.metric is None:
            return "there is nothing to evaluate on yet"
        value, served = ("unknown" if number is None else f"{number:.3f}" for number in (self.value, self.served_value))
        return f"{self.metric} is {value}, and {served} in the version that is served"


@dataclass(frozen=True)
class PublishDecision:
    """The outcome of a round.

    Args:
        outcome: "published", "held back" or "failed".
        reason: why the round failed; "" otherwise.
        gate: the comparison with the served version; None if there was none, or if the evaluation failed.
        evaluation: the result for the evaluation's row in metrics.jsonl ("metrics", or the reason under "failed");
            None if nothing was evaluated.
        evaluate_s: seconds that the evaluation took; 0 if there was none.
    """

    outcome: Outcome
    reason: str = ""
    gate: Comparison | None = None
    evaluation: Mapping[str, Any] | None = None
    evaluate_s: float = 0.0

    def row(self) -> dict[str, Any]:
        """The fields of the round's line in metrics.jsonl."""
        return {
            "outcome": self.outcome,
            **({"failed": self.reason} if self.outcome == "failed" else {}),
            **({"gate": asdict(self.gate)} if self.gate is not None else {}),
        }

    def __str__(self) -> str:
        if self.outcome == "failed":
            return f"the last round failed: {self.reason}"
        if self.outcome == "held back":
            return f"the last round was held back: {self.gate}"
        return "no new answers"


class ModelValidator:
    """Evaluates the trained weights and the served version on the same, current examples.

    The metrics of the served version are cached until the version or the examples change.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        model: the model whose weights are evaluated.
        replay: holds the hold-out split of the answers.
        held_out: evaluate on the hold-out split instead of the examples that `eval_input_reader` names.
        max_examples: evaluate on a sample of this many; None, 0 or less = all.
    """

    def __init__(
        self, config: Any, model: ServingModel, replay: ReplayStore, *, held_out: bool, max_examples: int | None = None
    ) -> None:
        self._config = config
        self._model = model
        self._replay = replay
        self._held_out = held_out
        self._complete = example_completion(config, model.label_map)
        self._max_examples = max_examples
        self._evaluator = Evaluator(config, model.inference.model)
        self._served: tuple[Any, dict[str, float]] | None = None  # cache: (version, examples) and its metrics

    @property
    def visualizations(self) -> EvalVisualizations:
        """Example images and curves of the last evaluation."""
        return self._evaluator.visualizations

    def sources(self) -> list[ExampleSource]:
        """The current evaluation examples; [] while the hold-out split is empty.

        Raises:
            ConfigError: `eval_input_reader` names no examples, or none that can be read.
        """
        if not self._held_out:
            return named_sources(self._config, self._max_examples)
        examples = self._replay.held_out()
        complete = self._complete
        return [held_out_examples(self._config, examples, self._max_examples, complete=complete)] if examples else []

    def result(self) -> dict[str, Any]:
        """Evaluate the current weights, for the evaluation's row in metrics.jsonl.

        Returns:
            "metrics", or the reason under "failed"; {} if there is nothing to evaluate on yet.
        """
        try:
            metrics = self._evaluate(self.sources())
        except (OdkerasError, tf.errors.OpError) as error:  # a failed evaluation must not stop the training
            _log.error("the evaluation failed: %s", error)
            return {"failed": str(error)}
        return {"metrics": jsonable(metrics)} if metrics else {}

    def compare(self, tolerance: float) -> tuple[Comparison, dict[str, float]]:
        """Compare the current weights with the newest version, which is the one that servers serve.

        Args:
            tolerance: how much lower the primary metric of the current weights may be.

        Returns:
            The comparison, and the metrics of the current weights ({} if there is nothing to evaluate on).

        Raises:
            OdkerasError: the current weights cannot be evaluated.
        """
        sources = self.sources()
        served = self._evaluate_served(sources)
        metrics = self._evaluate(sources)
        if not metrics:
            return Comparison(None, None, None, tolerance), {}
        metric = primary_metric(metrics)
        # Without groundtruth, COCO reports -1 and PASCAL VOC NaN.
        value, served_value = (
            number if number is not None and math.isfinite(number) and number >= 0 else None
            for number in (metrics[metric], served.get(metric))
        )
        return Comparison(metric, value, served_value, tolerance), metrics

    def cache_served(self, metrics: dict[str, float]) -> None:
        """Cache the metrics of the version that has just been published, so that it is not evaluated again."""
        if metrics:
            self._served = (self._cache_key(self.sources()), metrics)

    def _evaluate(self, sources: list[ExampleSource]) -> dict[str, float]:
        return self._evaluator.evaluate(model_detector(self._model.inference), sources) if sources else {}

    def _evaluate_served(self, sources: list[ExampleSource]) -> dict[str, float]:
        if not sources:
            return {}
        key = self._cache_key(sources)
        if self._served is None or self._served[0] != key:
            try:
                with self._model.newest_version() as detect:
                    self._served = (key, self._evaluator.evaluate(detect, sources))
            except (OdkerasError, tf.errors.OpError) as error:
                _log.warning("the served version cannot be evaluated: %s", error)
                return {}
        return self._served[1]

    def _cache_key(self, sources: list[ExampleSource]) -> Any:
        return self._model.newest, tuple(source.identity for source in sources)


def publish_round(
    model: ServingModel, step: int, validator: ModelValidator | None = None, tolerance: float = 0.0
) -> PublishDecision:
    """Publish the model's weights, unless they are worse than the served version.

    Args:
        model: has the weights.
        step: their global step.
        validator: compares the weights with the served version; None publishes without an evaluation.
        tolerance: how much lower the primary metric of the new weights may be.
    """
    gate, evaluation, evaluate_s = None, None, 0.0
    metrics: dict[str, float] = {}
    if validator is not None:
        model.status.update(state="evaluating", reason="evaluating, to see whether to publish")
        started = time.monotonic()
        try:
            gate, metrics = validator.compare(tolerance)
        except (OdkerasError, tf.errors.OpError) as error:
            _log.error("the evaluation failed: %s", error)
            reason = f"not published, because the evaluation failed: {error}"
            return PublishDecision("failed", reason, None, {"failed": str(error)}, time.monotonic() - started)
        evaluation = {"metrics": jsonable(metrics)} if metrics else None
        evaluate_s = time.monotonic() - started
    decision = PublishDecision("published", "", gate, evaluation, evaluate_s)
    if gate is not None and not gate.is_good_enough:
        _log.info("held back: %s", gate)
        return replace(decision, outcome="held back")
    try:
        model.publish(step)
    except CheckpointError as error:  # the weights are not finite: the previous version stays in service
        _log.error("%s", error)
        return replace(decision, outcome="failed", reason=str(error))
    if validator is not None:
        validator.cache_served(metrics)
    return decision


def plan_start(
    newest: ExportInfo | None,
    *,
    any_version: bool,
    same_graph: bool,
    learned: bool,
    step: int,
    unreported: bool,
    last_outcome: str,
) -> Literal["keep", "publish", "decide"]:
    """Decide what to do with the newest checkpoint when the trainer starts.

    Args:
        newest: export info of the newest version; None if there is no version, or odkeras did not write it.
        any_version: whether there is a version.
        same_graph: whether the newest version has the graph of this model.
        learned: whether the checkpoint's weights are trained or restored (see `ExportInfo.learned`). Weights that are
            not never replace a version of another graph whose weights are.
        step: global step of the checkpoint; 0 without a checkpoint.
        unreported: the checkpoint contains a finished round that metrics.jsonl lacks, because the process was killed
            before the round's outcome was known.
        last_outcome: outcome of the last round in metrics.jsonl; "" before the first.

    Returns:
        "keep" the newest version, "publish" the checkpoint, or "decide" as at the end of a round (`publish_round`).
    """
    if not any_version:
        return "publish"
    if newest is None:
        return "decide" if unreported else "keep"
    unpublished = step > max(newest.step, newest.replaced_step)
    if unpublished and unreported:
        return "decide"
    if newest.copy_of is not None or (unpublished and last_outcome in ("held back", "failed")):
        return "keep"  # a rollback, or the comparison, chose the served version: only the next round may replace it
    if not same_graph:
        return "publish" if learned or not newest.learned else "keep"
    return "decide" if unpublished else "keep"
