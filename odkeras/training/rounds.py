"""The outer training loop: takes answers, trains a round, publishes a version.

    with open_rounds(config, label_map, directories, options=options) as rounds:
        rounds.start()              # publishes a first version if there is none
        while not stop.is_set():
            rounds.run_pending() or stop.wait(0.2)

A round takes all waiting batches, writes one TFRecord, trains, saves a checkpoint, publishes a version, evaluates if
requested (with the gate, before publishing: see `training.gate`) and deletes old records and versions. The process may
be killed at any point: the next start resumes from the files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras import project
from odkeras.control import Control
from odkeras.data.intake import Intake, record_number, take_batches
from odkeras.data.records import with_masks
from odkeras.data.replay import ReplayStore, StoredExample, index_record, shuffled_forever
from odkeras.errors import OdkerasError, TrainingError
from odkeras.export.publish import apply_retention
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step
from odkeras.pipeline import check_training_continues, loads_masks
from odkeras.project import Project
from odkeras.training.board_layout import ALL_RUNS
from odkeras.training.gate import Conclusion, Judge, conclude, plan_start
from odkeras.training.inputs import example_source, training_dataset
from odkeras.training.journal import Journal
from odkeras.training.lock import lock_model_dir
from odkeras.training.options import LEAST_STEPS, RoundOptions, steps_of_round
from odkeras.training.pauses import Pauses
from odkeras.training.progress import RoundProgress
from odkeras.training.published import PublishedModel
from odkeras.training.round_work import work_in, work_of_round
from odkeras.training.status import StatusFile
from odkeras.training.store import CheckpointStore, rounds_in
from odkeras.training.summaries import TrainingSummaries
from odkeras.training.trainer import Trainer, TrainingResult, image_bucket

__all__ = ["LEAST_STEPS", "RoundOptions", "Rounds", "open_rounds", "steps_of_round"]

_log = logging.getLogger(__name__)

_MOST_PROBLEMS = 20


class Rounds:
    """Runs the rounds of one trainer process. Use `open_rounds`, which locks the model directory.

    Args:
        config: a resolved, checked `TrainEvalPipelineConfig`.
        label_map: the project's label map.
        directories: the data, model and export directories.
        options: options of the rounds.
        strategy: how to distribute the step; None runs it on the default device.
        live_version: returns the version being served, which is never deleted; None if unknown.
        should_stop: polled between steps, like the control file (see `odkeras.control`); True ends the process.
    """

    def __init__(
        self,
        config: Any,
        label_map: LabelMap,
        directories: Project,
        options: RoundOptions,
        *,
        strategy: tf.distribute.Strategy | None = None,
        live_version: Callable[[], int | None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._label_map = label_map
        self._directories = directories
        self._options = options
        self._strategy = strategy
        self._live_version = live_version
        self._masks = loads_masks(config)
        self._checkpoint: str | None = None
        self.status = StatusFile(directories.status_path)
        self._pauses = Pauses(Control(directories.control_path), self.status, should_stop)
        self._journal = Journal(directories.metrics_path)
        self._store = ReplayStore(directories, options.eval_split, label_map.texts)
        self._chosen: list[StoredExample] = []

    def start(self) -> None:
        """Build the models, publish a first version if there is none, trace the step. Call once, before `run_pending`.

        Raises:
            OdkerasError: the configuration, the checkpoints or the directories cannot be used.
        """
        self.status.update(state="building", reason="building the model")
        self._published = PublishedModel(self._config, self._label_map, self._directories, self.status)
        checkpoint = self._published.load_weights()
        model_dir, export_dir = self._directories.model_dir, self._directories.export_dir
        check_training_continues(model_dir, export_dir, has_checkpoint=checkpoint is not None)
        self._store.load()
        if left_out := self._store.what_is_left_out:
            _log.warning("%s", left_out)
        self._judge = self._make_judge()
        conclusion = self._conclude_at_start(checkpoint)
        self.status.update(state="building", reason="building the training step")
        self._trainer = Trainer(self._config, self._strategy)
        self._checkpoints = CheckpointStore(
            self._trainer, self._directories.model_dir, self._options.max_checkpoints_num
        )
        if checkpoint is None:
            self._trainer.start_from(self._published.variables)
        else:
            self._checkpoints.restore()
        self._summaries = TrainingSummaries(self._directories.model_dir, self._label_map, step=self._trainer.step)
        self._summaries.describe(self._config, ALL_RUNS if self._judge else ("train", "loop"))
        self._report_unreported_round(conclusion)
        self._dataset = self._build_dataset()
        self._trainer.trace(self._dataset.element_spec)
        self.status.update(round=int(self._checkpoints.loop.round.numpy()), step=self._trainer.step)
        self._wait(left_out or ("no answers yet" if not len(self._store) else str(conclusion)))

    def run_pending(self) -> bool:
        """Run one round, unless no new answers wait or training is paused or stopped.

        Returns True if new answers were taken, even if none is to be trained on. If the loss stays non-finite, the
        round fails with its reason in status.json and metrics.jsonl; its answers stay in the training set.
        """
        if self._pauses.between_rounds():
            return False
        started = time.monotonic()
        loop = self._checkpoints.loop
        trained = int(loop.trained_record.numpy())
        intake = take_batches(self._directories, self._store, self._label_map, after_record=trained, masks=self._masks)
        records_s = time.monotonic() - started
        new_records = [path for path in self._directories.train_records() if record_number(path) > trained]
        if not new_records:
            if intake.batches:
                self._wait(intake.why_nothing_trains)
            return False
        self._chosen = self._store.examples(None if self._options.replay else new_records)
        if self._chosen:
            self._run_round(new_records, intake, records_s)
        else:
            self._save_as_trained(new_records)
            kept = "is kept for evaluation, or " if self._options.eval_split else ""
            why = self._store.what_is_left_out
            self._wait(why or f"every image of the newest answers {kept}was rejected or ignored later")
        return True

    def beat(self) -> None:
        """Heartbeat: rewrite status.json while the trainer is idle, because readers check its age."""
        self.status.write()

    def close(self) -> None:
        """Set the state "ended" in status.json, unless it is "failed". Idempotent."""
        if hasattr(self, "_summaries"):
            self._summaries.close()
        if self.status.current.state != "failed":
            self.status.update(state="ended", reason="the trainer was stopped")

    def fail(self, reason: str) -> None:
        """Set the state "failed" in status.json, with the reason."""
        self.status.update(state="failed", reason=reason)

    def _make_judge(self) -> Judge | None:
        options = self._options
        if not options.evaluates:
            return None
        held_out = options.eval_split > 0
        return Judge(self._config, self._published, self._store, held_out=held_out, max_examples=options.eval_steps)

    def _conclude_at_start(self, checkpoint: str | None) -> Conclusion:
        """Publish a first version if needed, and decide the outcome of a round that was interrupted before it."""
        published = self._published
        self.status.update(version=published.newest)
        step = checkpoint_step(checkpoint) if checkpoint else 0
        rounds = rounds_in(checkpoint) if checkpoint else 0
        plan = plan_start(
            published.newest_info,
            any_version=published.newest is not None,
            same_graph=published.newest_is_ours,
            learned=published.has_learned(step),
            step=step,
            unreported=rounds > self._journal.rounds_told(),
            last_outcome=self._journal.last_outcome(),
        )
        if plan == "conclude":
            return self._conclude(step)
        if plan == "publish":
            published.publish(step)
        return Conclusion("published")

    def _conclude(self, step: int) -> Conclusion:
        judge = self._judge if self._options.publish_if_better else None
        return conclude(
            lambda: self._published.publish(step), judge, self._options.publish_tolerance, self._say_evaluating
        )

    def _say_evaluating(self) -> None:
        self.status.update(state="evaluating", reason="evaluating, to see whether to publish")

    def _build_dataset(self) -> tf.data.Dataset:
        source = example_source(self._examples)
        if self._strategy is None:
            return training_dataset(self._config, self._trainer.model, source)
        return self._strategy.distribute_datasets_from_function(
            lambda context: training_dataset(self._config, self._trainer.model, source, context)
        )

    def _examples(self) -> Iterator[bytes]:
        """The training examples, repeated without end. With masks, examples that have none get filled boxes."""
        examples = shuffled_forever(self._chosen)
        return map(with_masks, examples) if self._masks else examples

    def _run_round(self, new_records: list[Path], intake: Intake, records_s: float) -> None:
        steps = self._open_round(new_records)
        started, held_s = time.monotonic(), self._pauses.held_s
        failure = ""
        try:
            result = self._train(steps)
        except TrainingError as error:
            failure, result = str(error), TrainingResult(0, 0.0, None)
        train_s = time.monotonic() - started - (self._pauses.held_s - held_s)
        self._note_bad_images()
        if self._trainer.step < int(self._checkpoints.loop.round_end_step.numpy()) and not failure:
            if not (result.steps and self._pauses.ends_round):
                self._checkpoints.save()  # the process ends, or no step was taken: the round is resumed later
                return
            self._checkpoints.loop.round_end_step.assign(self._trainer.step)
        seconds = {"records_s": records_s, "train_s": train_s, "input_s": result.input_seconds}
        self._close_round(new_records, intake, result, seconds, failure)

    def _open_round(self, new_records: list[Path]) -> int:
        """Set the step at which this round ends, or resume an interrupted round. Returns the number of steps left."""
        loop, newest = self._checkpoints.loop, record_number(new_records[-1])
        if int(loop.open_record.numpy()) != newest:
            one_pass = math.ceil(len(self._chosen) / self._config.train_config.batch_size)
            loop.open_record.assign(newest)
            loop.round_end_step.assign(self._trainer.step + steps_of_round(self._options.steps_per_epoch, one_pass))
        steps = int(loop.round_end_step.numpy()) - self._trainer.step
        self.status.update(
            state="training",
            reason="; ".join(filter(None, (f"training on {len(self._chosen)} images", self._store.what_is_left_out))),
            round=int(loop.round.numpy()) + 1,
            round_step=0,
            round_steps=steps,
        )
        return steps

    def _train(self, steps: int) -> TrainingResult:
        progress = RoundProgress(
            self.status,
            self._summaries,
            self._checkpoints,
            last_step=self._trainer.step + steps,
            steps=steps,
            checkpoint_every_s=self._options.checkpoint_every_s,
        )
        batches = self._summaries.watch(iter(self._dataset), self._trainer.step)
        return self._trainer.train(batches, steps, on_step=progress.on_step, should_stop=self._between_steps)

    def _between_steps(self) -> bool:
        """Whether to stop before the next step. Pauses are excluded from the reported speed."""
        held_s = self._pauses.held_s
        ends = self._pauses.between_steps()
        self._summaries.leave_out(self._pauses.held_s - held_s)
        return ends

    def _close_round(
        self, new_records: list[Path], intake: Intake, result: TrainingResult, seconds: dict[str, float], failure: str
    ) -> None:
        batches = sorted({*intake.batches, *_batches_in(new_records)})
        started = time.monotonic()
        self._checkpoints.loop.round.assign_add(1)
        self._save_as_trained(new_records)
        seconds["checkpoint_s"] = time.monotonic() - started
        started = time.monotonic()
        if failure:
            conclusion = Conclusion("failed", failure)
        else:
            self._published.take_weights(self._trainer.weights_for_prediction())
            conclusion = self._conclude(self._trainer.step)
        seconds["publish_s"] = time.monotonic() - started - conclusion.evaluate_s
        if conclusion.evaluate_s:
            seconds["evaluate_s"] = conclusion.evaluate_s
        ours = new_records == [intake.record]  # else an earlier process began this round, and `intake` is incomplete
        work = work_of_round(intake.work) if ours else work_in(self._directories.work_path, new_records)
        problems = intake.problems[:_MOST_PROBLEMS]
        row = self._report_round(batches, result, seconds, conclusion, work, problems)
        if self._judge is not None and not failure:
            self._report_evaluation(row["round"], conclusion.evaluation or self._evaluate(self._judge))
        self._collect_garbage()
        self._wait(str(conclusion))

    def _report_round(
        self,
        batches: list[str],
        result: TrainingResult,
        seconds: dict[str, float],
        conclusion: Conclusion,
        work: Mapping[str, Any],
        problems: Sequence[str] = (),
    ) -> dict[str, Any]:
        row = self._journal.add_round(
            int(self._checkpoints.loop.round.numpy()),
            self._trainer.step,
            result,
            conclusion,
            examples=len(self._chosen),
            checkpoint=self._checkpoint,
            version=self.status.current.version,
            batches=batches,
            seconds=seconds,
            problems=problems,
            work=work,
        )
        self._summaries.round(self._trainer.step, row)
        return row

    def _report_unreported_round(self, conclusion: Conclusion) -> None:
        """Write the metrics.jsonl line of a round whose process ended between its checkpoint and that line."""
        if int(self._checkpoints.loop.round.numpy()) <= self._journal.rounds_told():
            return
        reported = {name for row in self._journal.rounds() for name in row["batches"]}
        trained = int(self._checkpoints.loop.trained_record.numpy())
        records = [path for path in self._directories.train_records() if record_number(path) <= trained]
        self._chosen = self._store.examples()
        batches = set(_batches_in(records)) - reported
        records = [path for path in records if not batches.isdisjoint(_batches_in([path]))]
        row = self._report_round(
            sorted(batches),
            TrainingResult(0, 0.0, None),
            {"train_s": 0.0, "publish_s": 0.0},
            conclusion,
            work_in(self._directories.work_path, records),
        )
        if conclusion.evaluation:
            self._report_evaluation(row["round"], conclusion.evaluation)

    def _save_as_trained(self, records: list[Path]) -> None:
        """Save a checkpoint which states that these records are trained on, so that no restart trains them again."""
        loop = self._checkpoints.loop
        loop.trained_record.assign(record_number(records[-1]))
        loop.open_record.assign(0)
        self._checkpoint = Path(self._checkpoints.save()).name

    def _evaluate(self, judge: Judge) -> Mapping[str, Any]:
        self.status.update(state="evaluating", reason="evaluating on the validation examples")
        started = time.monotonic()
        result = judge.result()
        self._summaries.seconds(self._trainer.step, "evaluate_s", time.monotonic() - started)
        return result

    def _report_evaluation(self, round_number: int, result: Mapping[str, Any]) -> None:
        if not result:
            _log.info("no answer is kept for evaluation yet")
            return
        self._journal.add_evaluation(round_number, self._trainer.step, result)
        metrics = {name: each for name, each in (result.get("metrics") or {}).items() if each is not None}
        if metrics:
            self._summaries.evaluation(self._trainer.step, metrics, self._judge.exhibits if self._judge else None)

    def _collect_garbage(self) -> None:
        keep = self._options.temp_files_num
        versions: list[int] = []
        try:
            versions = apply_retention(self._directories.export_dir, keep, self._live_version())
        except OdkerasError as error:
            _log.warning("old versions stay, since it is not known which one is served: %s", error)
        records = [path.name for path in self._store.compact(keep)]
        self._journal.add_garbage(versions, records)

    def _note_bad_images(self) -> None:
        bad = self._trainer.bad_images
        if bad:
            images = [example.image_id for example in self._chosen if image_bucket(example.image_id) in bad]
            _log.error("the loss was not finite in batches with these images: %s", ", ".join(images))

    def _wait(self, reason: str) -> None:
        self.status.update(state="waiting", reason=reason, round_step=0, round_steps=0)


def _batches_in(records: list[Path]) -> list[str]:
    return [example.batch for path in records for example in index_record(path)]


@contextlib.contextmanager
def open_rounds(config: Any, label_map: LabelMap, directories: Project, **kwargs: Any) -> Iterator[Rounds]:
    """Create the directories, lock the model directory, and yield `Rounds(...)`. Errors in the block are written to
    status.json.

    Raises:
        SetupError: another trainer holds the lock on the model directory.
    """
    directories.create()
    with lock_model_dir(directories.model_dir):
        project.remove_stale_temporaries(directories.export_dir, older_than_s=0.0)
        for directory in (directories.data_dir, directories.inbox_dir, directories.model_dir):
            project.remove_stale_temporaries(directory)  # old ones only: hosts write answers and control.json there
        rounds = Rounds(config, label_map, directories, **kwargs)
        try:
            yield rounds
        except Exception as error:
            rounds.fail(str(error) if isinstance(error, OdkerasError) else f"{type(error).__name__}: {error}")
            raise
        finally:
            rounds.close()
