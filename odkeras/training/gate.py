"""The publish gate: decides whether a round's weights are published, held back, or the round has failed.

With the gate enabled, the new weights and the served version are evaluated on the same examples. The new weights are
published only if their primary metric is lower by at most a tolerance. Weights that are held back stay in the
checkpoint, and the next round trains from them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import tensorflow as tf

from odkeras.data.replay import ReplayStore
from odkeras.errors import CheckpointError, OdkerasError
from odkeras.export.info import ExportInfo
from odkeras.pipeline import loads_masks
from odkeras.training.evaluate import Evaluator, named_sources
from odkeras.training.examples import ExampleSource, examples_held_out
from odkeras.training.exhibits import Exhibits
from odkeras.training.metric_sets import jsonable, primary_metric
from odkeras.training.published import PublishedModel

_log = logging.getLogger(__name__)

Outcome = Literal["published", "held back", "failed"]


@dataclass(frozen=True)
class Comparison:
    """The gate's comparison of new weights with the served version.

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
        """Whether the new weights pass the gate. True if there is no baseline to compare with."""
        if self.served_value is None or self.metric is None:
            return True
        return self.value is not None and self.value >= self.served_value - self.tolerance

    def __str__(self) -> str:
        if self.metric is None:
            return "there is nothing to evaluate on yet"
        return f"{self.metric} is {_said(self.value)}, and {_said(self.served_value)} in the version that is served"


@dataclass(frozen=True)
class Conclusion:
    """The outcome of a round.

    Args:
        outcome: "published", "held back" or "failed".
        reason: why the round failed; "" otherwise.
        gate: the gate's comparison; None without the gate, or if the evaluation failed.
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


class Judge:
    """Evaluates the trained weights and the served version on the same, current examples.

    The metrics of the served version are cached until the version or the examples change.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        published: the model whose weights are evaluated.
        store: holds the hold-out split of the answers.
        held_out: evaluate on the hold-out split instead of the examples that `eval_input_reader` names.
        max_examples: evaluate on a sample of this many; None, 0 or less = all.
    """

    def __init__(
        self,
        config: Any,
        published: PublishedModel,
        store: ReplayStore,
        *,
        held_out: bool,
        max_examples: int | None = None,
    ) -> None:
        self._config = config
        self._published = published
        self._store = store
        self._held_out = held_out
        self._max_examples = max_examples
        self._evaluator = Evaluator(config, published.inference.model)
        self._served: tuple[Any, dict[str, float]] | None = None  # cache: (version, examples) and its metrics

    @property
    def exhibits(self) -> Exhibits:
        """Example images and curves of the last evaluation."""
        return self._evaluator.exhibits

    def sources(self) -> list[ExampleSource]:
        """The current evaluation examples; [] while the hold-out split is empty.

        Raises:
            ConfigError: `eval_input_reader` names no examples, or none that can be read.
        """
        if not self._held_out:
            return named_sources(self._config, self._max_examples)
        examples = self._store.held_out()
        masks = loads_masks(self._config)
        return [examples_held_out(self._config, examples, self._max_examples, masks=masks)] if examples else []

    def evaluate(self, sources: list[ExampleSource] | None = None) -> dict[str, float]:
        """Metrics of the model's current weights; {} if there is nothing to evaluate on.

        Args:
            sources: the examples; None calls `sources()`.

        Raises:
            ConfigError: see `Evaluator.evaluate`.
        """
        sources = self.sources() if sources is None else sources
        return self._evaluator.evaluate(self._published.detect, sources) if sources else {}

    def result(self) -> dict[str, Any]:
        """`evaluate` for the evaluation's row in metrics.jsonl: "metrics", or the reason under "failed".

        {} if there is nothing to evaluate on yet.
        """
        try:
            metrics = self.evaluate()
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
        metrics = self.evaluate(sources)
        if not metrics:
            return Comparison(None, None, None, tolerance), {}
        metric = primary_metric(metrics)
        compared = Comparison(metric, _known(metrics[metric]), _known(served.get(metric)), tolerance)
        return compared, metrics

    def now_served(self, metrics: dict[str, float]) -> None:
        """Cache the metrics of the version that has just been published, so that it is not evaluated again."""
        if metrics:
            self._served = (self._key(self.sources()), metrics)

    def _evaluate_served(self, sources: list[ExampleSource]) -> dict[str, float]:
        if not sources:
            return {}
        key = self._key(sources)
        if self._served is None or self._served[0] != key:
            try:
                with self._published.newest_version() as detect:
                    self._served = (key, self._evaluator.evaluate(detect, sources))
            except (OdkerasError, tf.errors.OpError) as error:
                _log.warning("the version that is served cannot be evaluated: %s", error)
                return {}
        return self._served[1]

    def _key(self, sources: list[ExampleSource]) -> Any:
        return self._published.newest, tuple(source.identity for source in sources)


def conclude(
    publish: Callable[[], object], judge: Judge | None, tolerance: float, on_evaluating: Callable[[], None]
) -> Conclusion:
    """Publish the weights, unless the gate holds them back.

    Args:
        publish: publishes the weights.
        judge: the gate; None publishes without an evaluation.
        tolerance: how much lower the primary metric of the new weights may be.
        on_evaluating: callback before the evaluation, which may take minutes.
    """
    if judge is None:
        return _published(publish)
    on_evaluating()
    started = time.monotonic()
    try:
        compared, metrics = judge.compare(tolerance)
    except (OdkerasError, tf.errors.OpError) as error:
        _log.error("the evaluation failed: %s", error)
        reason = f"whether to publish it cannot be told, since the evaluation failed: {error}"
        return Conclusion("failed", reason, None, {"failed": str(error)}, time.monotonic() - started)
    evaluation = {"metrics": jsonable(metrics)} if metrics else None
    evaluate_s = time.monotonic() - started
    if not compared.is_good_enough:
        _log.info("held back: %s", compared)
        return Conclusion("held back", "", compared, evaluation, evaluate_s)
    conclusion = _published(publish)
    if conclusion.outcome == "published":
        judge.now_served(metrics)
    return replace(conclusion, gate=compared, evaluation=evaluation, evaluate_s=evaluate_s)


def _published(publish: Callable[[], object]) -> Conclusion:
    try:
        publish()
    except CheckpointError as error:  # the weights are not finite: the previous version stays in service
        _log.error("%s", error)
        return Conclusion("failed", str(error))
    return Conclusion("published")


Start = Literal["leave", "publish", "conclude"]


def plan_start(
    newest: ExportInfo | None,
    *,
    any_version: bool,
    same_graph: bool,
    learned: bool,
    step: int,
    unreported: bool,
    last_outcome: str,
) -> Start:
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
        "leave" keeps the newest version, "publish" publishes the checkpoint, "conclude" decides as at the end of a
        round (see `conclude`).
    """
    if not any_version:
        return "publish"
    if newest is None:
        return "conclude" if unreported else "leave"
    unpublished = step > max(newest.step, newest.replaced_step)
    if unpublished and unreported:
        return "conclude"
    if newest.copy_of is not None or (unpublished and last_outcome in ("held back", "failed")):
        return "leave"  # a rollback, or the gate, chose the served version: only the next round may replace it
    if not same_graph:
        return "publish" if learned or not newest.learned else "leave"
    return "conclude" if unpublished else "leave"


def _known(value: float | None) -> float | None:
    """The metric's value; None without groundtruth, which COCO reports as -1 and PASCAL VOC as NaN."""
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def _said(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
