"""Reports what the loop did in metrics.jsonl and in TensorBoard."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from odkeras.data.stored_example import index_record
from odkeras.project import Project, read_jsonl
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.publishing import ModelValidator, PublishDecision
from odkeras.training.status import MetricsLog, StatusFile
from odkeras.training.tensorboard import TrainingSummaries
from odkeras.training.trainer import Trainer, TrainingResult
from odkeras.work import round_counts

_MAX_PROBLEMS = 20

_log = logging.getLogger(__name__)


class Reports:
    """Reports rounds, extra steps and evaluations of one trainer process.

    Args:
        directories: has work.jsonl, with the edits of the answers.
        log: metrics.jsonl.
        status: has the newest version.
        trainer, checkpoints: have the step and the number of rounds.
        summaries: the TensorBoard event files.
    """

    def __init__(
        self,
        directories: Project,
        log: MetricsLog,
        status: StatusFile,
        trainer: Trainer,
        checkpoints: CheckpointStore,
        summaries: TrainingSummaries,
    ) -> None:
        self._directories = directories
        self._log = log
        self._status = status
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._summaries = summaries

    def round(
        self,
        result: TrainingResult,
        examples: int,
        seconds: Mapping[str, float],
        decision: PublishDecision,
        *,
        batches: Iterable[str],
        work: Mapping[str, Any],
        problems: Sequence[str] = (),
    ) -> None:
        """Report a finished round.

        Args:
            result: what the training returned.
            examples: number of images that it was trained on.
            seconds: duration of each stage, by its name in metrics.jsonl.
            decision: whether its version was published.
            batches: names of the batches of answers that it took.
            work: the edits that these answers needed; see `work.round_counts`.
            problems: what was left out of the answers.
        """
        row = {
            **self._row(result, examples, seconds, decision),
            "batches": sorted(batches),
            **({"work": dict(work)} if work else {}),
            **({"problems": list(problems[:_MAX_PROBLEMS])} if problems else {}),
        }
        self._summaries.round(self._trainer.step, self._log.append("round", row))

    def extra(
        self, result: TrainingResult, examples: int, seconds: Mapping[str, float], decision: PublishDecision
    ) -> None:
        """Report extra steps after a round; the arguments are those of `round`."""
        self._log.append("extra", self._row(result, examples, seconds, decision))

    def evaluation(self, result: Mapping[str, Any], validator: ModelValidator | None) -> None:
        """Report an evaluation after the last round.

        Args:
            result: see `ModelValidator.result`.
            validator: has the example images of the evaluation.
        """
        if not result:
            _log.info("no answer is kept for evaluation yet")
            return
        self._log.append("evaluation", {"round": self._checkpoints.round, "step": self._trainer.step, **result})
        metrics = {name: value for name, value in (result.get("metrics") or {}).items() if value is not None}
        if metrics:
            self._summaries.evaluation(self._trainer.step, metrics, validator.visualizations if validator else None)

    def evaluate(self, validator: ModelValidator) -> Mapping[str, Any]:
        """The evaluation of the weights, for `evaluation`; its time is reported."""
        self._status.update(state="evaluating", reason="evaluating on the validation examples")
        started = time.monotonic()
        result = validator.result()
        self._summaries.seconds(self._trainer.step, "evaluate_s", time.monotonic() - started)
        return result

    def work_in(self, records: Iterable[Path]) -> dict[str, Any]:
        """The edit counts of the images in these TFRecords, from their rows in work.jsonl."""
        images = {example.image_id for path in records for example in index_record(path)}
        return round_counts(row for row in read_jsonl(self._directories.work_path) if row.get("image_id") in images)

    def _row(
        self, result: TrainingResult, examples: int, seconds: Mapping[str, float], decision: PublishDecision
    ) -> dict[str, Any]:
        return {
            "round": self._checkpoints.round,
            "step": self._trainer.step,
            "steps": result.steps,
            "examples": examples,
            "loss": result.loss,
            "checkpoint": self._checkpoints.last_saved,
            **{stage: round(value, 3) for stage, value in seconds.items()},
            "version": self._status.current.version,
            **decision.row(),
        }


def batches_in(records: Iterable[Path]) -> set[str]:
    """The names of the batches that the examples of these TFRecords came in."""
    return {example.batch for path in records for example in index_record(path)}
