"""Publishing: the decision whether a round's weights become a version.

With `--publish-if-better`, the new weights and the served version are evaluated on the same examples. The new weights
are published only if their primary metric is lower by at most a tolerance. Weights that are held back stay in the
checkpoint, and the next round trains from them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from odkeras.data.replay import ReplayStore
from odkeras.data.stored_example import StoredExample
from odkeras.errors import CheckpointError, OdkerasError
from odkeras.export.info import ExportInfo
from odkeras.export.publish import apply_retention
from odkeras.training.detection_cache import DetectionCache
from odkeras.training.evaluation import Evaluator, model_detector, named_sources
from odkeras.training.inputs import ExampleSource, held_out_examples
from odkeras.training.metrics import jsonable, primary_metric
from odkeras.training.pictures import EvalVisualizations
from odkeras.training.serving_model import ServingModel

_log = logging.getLogger(__name__)

Outcome = Literal["published", "held back", "failed"]


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

    The metrics of the served version are cached until the version or the examples change, and its detections until the
    version changes.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        model: the model whose weights are evaluated.
        replay: holds the hold-out split of the answers.
        read: reads its examples.
        held_out: evaluate on the hold-out split instead of the examples that `eval_input_reader` names.
        max_examples: evaluate on a sample of this many; None, 0 or less = all.
    """

    def __init__(
        self,
        config: Any,
        model: ServingModel,
        replay: ReplayStore,
        read: Callable[[StoredExample], bytes],
        *,
        held_out: bool,
        max_examples: int | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._replay = replay
        self._held_out = held_out
        self._read = read
        self._max_examples = max_examples
        self._evaluator = Evaluator(config, model.inference.model)
        self._served: tuple[Any, dict[str, float]] | None = None  # cache: (version, examples) and its metrics
        self._served_detections: tuple[int | None, DetectionCache] = (None, DetectionCache())  # of which version
        self._detections = DetectionCache()  # of the weights that were evaluated last

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
        return [held_out_examples(self._config, examples, self._max_examples, read=self._read)] if examples else []

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
            self._served_detections = (self._model.newest, self._detections)

    def _evaluate(self, sources: list[ExampleSource]) -> dict[str, float]:
        self._detections = DetectionCache()
        detect = self._detections.wrap(model_detector(self._model.inference))
        return self._evaluator.evaluate(detect, sources) if sources else {}

    def _evaluate_served(self, sources: list[ExampleSource]) -> dict[str, float]:
        if not sources:
            return {}
        key = self._cache_key(sources)
        if self._served is None or self._served[0] != key:
            if self._served_detections[0] != self._model.newest:
                self._served_detections = (self._model.newest, DetectionCache())
            cache = self._served_detections[1]
            try:
                with self._model.newest_version() as detect:
                    self._served = (key, self._evaluator.evaluate(cache.wrap(detect), sources))
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


def collect_garbage(
    export_dir: Path, replay: ReplayStore, keep: int, live_version: Callable[[], int | None]
) -> dict[str, list[Any]]:
    """Delete old versions, and move the examples of old records to shards. Errors are logged.

    Args:
        keep: how many of each to keep.
        live_version: returns the version being served, which is never deleted; None if unknown.

    Returns:
        The deleted "versions", and the names of the deleted "records".
    """
    deleted: dict[str, list[Any]] = {"versions": [], "records": []}
    try:
        deleted["versions"] = apply_retention(export_dir, keep, live_version())
    except OdkerasError as error:
        _log.warning("old versions are kept, because it is unknown which one is served: %s", error)
    try:
        deleted["records"] = [path.name for path in replay.compact(keep)]
    except (OdkerasError, OSError) as error:
        _log.warning("old records are kept until the next round: %s", error)
    return deleted
