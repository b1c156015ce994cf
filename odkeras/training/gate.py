"""How a round ends: published, held back, or failed; and who evaluates its weights for that.

With the gate, the new weights and those of the served version are evaluated on the same examples, and the new ones are
published only if they are not worse by more than a tolerance. Weights that are held back stay in the checkpoint;
training goes on from them.
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
    """What the gate looked at.

    Args:
        metric: name of the primary metric; None when there was nothing to evaluate on.
        value: of the new weights; None where the examples have no groundtruth for it.
        served_value: of the version that is served, on the same examples; None if it cannot be evaluated.
        tolerance: how much worse the new weights may be.
    """

    metric: str | None
    value: float | None
    served_value: float | None
    tolerance: float

    @property
    def is_good_enough(self) -> bool:
        """Where there is nothing to compare with, they are."""
        if self.served_value is None or self.metric is None:
            return True
        return self.value is not None and self.value >= self.served_value - self.tolerance

    def __str__(self) -> str:
        if self.metric is None:
            return "there is nothing to evaluate on yet"
        return f"{self.metric} is {_said(self.value)}, and {_said(self.served_value)} in the version that is served"


@dataclass(frozen=True)
class Conclusion:
    """How a round ended.

    Args:
        outcome: exactly one of the three.
        reason: why it failed.
        gate: what was compared, if anything was.
        evaluation: the part of the evaluation's row in metrics.jsonl that tells its result, if there was one.
        evaluate_s: seconds that it took.
    """

    outcome: Outcome
    reason: str = ""
    gate: Comparison | None = None
    evaluation: Mapping[str, Any] | None = None
    evaluate_s: float = 0.0

    def row(self) -> dict[str, Any]:
        """For the round's line in metrics.jsonl."""
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
    """Evaluates the weights of a loop, and those of the version that is served, on the same current examples.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        published: whose weights are judged.
        store: has the answers that are held out.
        held_out: evaluate on those rather than on what `eval_input_reader` names.
        max_examples: on a sample of so many; None or 0 = all.
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
        self._served: tuple[Any, dict[str, float]] | None = None  # what was judged last, and its figures

    @property
    def exhibits(self) -> Exhibits:
        """Of the evaluation that ended last."""
        return self._evaluator.exhibits

    def sources(self) -> list[ExampleSource]:
        """The current examples; none as long as no answer is held out.

        Raises:
            ConfigError: `eval_input_reader` names none that can be read.
        """
        if not self._held_out:
            return named_sources(self._config, self._max_examples)
        examples = self._store.held_out()
        masks = loads_masks(self._config)
        return [examples_held_out(self._config, examples, self._max_examples, masks=masks)] if examples else []

    def evaluate(self, sources: list[ExampleSource] | None = None) -> dict[str, float]:
        """Metrics of the weights as they are now; empty when there is nothing to evaluate on.

        Raises:
            ConfigError: see `Evaluator.evaluate`.
        """
        sources = self.sources() if sources is None else sources
        return self._evaluator.evaluate(self._published.detect, sources) if sources else {}

    def result(self) -> dict[str, Any]:
        """`evaluate`, as the part of an evaluation's row in metrics.jsonl that tells its result: "metrics", or why it
        "failed"; empty when there is nothing to evaluate on yet."""
        try:
            metrics = self.evaluate()
        except (OdkerasError, tf.errors.OpError) as error:  # the training goes on all the same
            _log.error("the evaluation failed: %s", error)
            return {"failed": str(error)}
        return {"metrics": jsonable(metrics)} if metrics else {}

    def compare(self, tolerance: float) -> tuple[Comparison, dict[str, float]]:
        """The new weights against the newest version, which is what every server serves; and their metrics.

        Raises:
            OdkerasError: the new weights cannot be evaluated.
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
        """The weights with these metrics have just been published: they need not be evaluated again on the same
        examples."""
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
    """Publish the weights, or hold them back.

    Args:
        publish: publishes them.
        judge: None publishes without a look.
        tolerance: how much worse they may be.
        on_evaluating: told before it takes long.
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
    except CheckpointError as error:  # the weights are not finite: the earlier version stays
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
    """What to do with the newest checkpoint when the trainer starts.

    Args:
        newest: what the newest version says of itself; None if there is none, or it is somebody else's.
        any_version: whether there is one.
        same_graph: whether it is of this model.
        learned: whether something stands behind our weights (see `ExportInfo`); others never replace a version of which
            that is true.
        step: of the checkpoint; 0 without one.
        unreported: a round ended in the checkpoint of which metrics.jsonl does not tell: the process was killed before
            it was known how.
        last_outcome: of the last round that metrics.jsonl tells of; "" before the first.

    Returns:
        "leave" the newest version as it is, "publish" the checkpoint, or let it be decided as at the end of a round.
    """
    if not any_version:
        return "publish"
    if newest is None:
        return "conclude" if unreported else "leave"
    unpublished = step > max(newest.step, newest.replaced_step)
    if unpublished and unreported:
        return "conclude"
    if newest.copy_of is not None or (unpublished and last_outcome in ("held back", "failed")):
        return "leave"  # somebody went back, or it was held back: the next round decides anew
    if not same_graph:
        return "publish" if learned or not newest.learned else "leave"
    return "conclude" if unpublished else "leave"


def _known(value: float | None) -> float | None:
    """COCO says -1, PASCAL VOC NaN, where there is no groundtruth."""
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def _said(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
