"""The outer training loop: takes answers, trains a round, publishes a version.

    with open_rounds(config, label_map, settings) as rounds:
        while not stop.is_set():
            rounds.run_pending() or rounds.train_further() or stop.wait(0.2)

A round takes all waiting batches, writes one TFRecord, trains, saves a checkpoint, publishes a version, evaluates if
requested and deletes old records and versions. The process may be killed at any point: the next start resumes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras.config.settings import TrainingSettings
from odkeras.control import Control
from odkeras.data.damaged_records import open_replay
from odkeras.data.example_set import DrawnExamples
from odkeras.data.ingest import IngestResult, ingest, record_number
from odkeras.data.stored_example import StoredExample
from odkeras.errors import TrainingError, UnreadableBatchError
from odkeras.inbox import has_batches
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step
from odkeras.model.weights import copy_weights
from odkeras.pipeline import check_training_continues, loads_masks
from odkeras.pipeline.class_history import note_classes
from odkeras.training.batch_size import set_batch_size
from odkeras.training.checkpoints import CheckpointStore, rounds_in
from odkeras.training.cluster import Cluster
from odkeras.training.crew import build_crew
from odkeras.training.feed import ExampleFeed
from odkeras.training.free_space import FreeSpace
from odkeras.training.inputs import example_completion
from odkeras.training.limits import LoadLimits
from odkeras.training.publishing import ModelValidator, PublishDecision, collect_garbage, plan_start, publish_round
from odkeras.training.reports import Reports, batches_in
from odkeras.training.serving_model import ServingModel
from odkeras.training.status import MetricsLog, Pauses, StatusFile
from odkeras.training.tensorboard import ALL_RUNS, TrainingSummaries
from odkeras.training.trainer import Batch, StepReport, Trainer, TrainingResult
from odkeras.training.undo import SuspectImages
from odkeras.training.unjudged import ExampleReader
from odkeras.work import round_counts

_log = logging.getLogger(__name__)

EXTRA_SLICE = 100  # extra steps between two publications


class Rounds:
    """Runs the rounds of one trainer process. Use `process.open_rounds`, which locks the model directory.

    The constructor builds the models, publishes a first version if there is none, and traces the training step.

    Args:
        config: a resolved, checked `TrainEvalPipelineConfig`.
        label_map: the project's label map.
        settings: the directories, and the options of the rounds.
        strategy: how to distribute the step; None runs it on the default device.
        cluster: the workers of the strategy, of which this is the chief; None if this process trains alone.
        live_version: returns the version being served, which is never deleted; None if unknown.
        should_stop: polled between steps, like the control file (see `odkeras.control`); True ends the process.
        status: the trainer's status.json; None opens it.

    Raises:
        OdkerasError: the configuration, the checkpoints or the directories cannot be used.
    """

    def __init__(
        self,
        config: Any,
        label_map: LabelMap,
        settings: TrainingSettings,
        *,
        strategy: tf.distribute.Strategy | None = None,
        cluster: Cluster | None = None,
        live_version: Callable[[], int | None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
        status: StatusFile | None = None,
    ) -> None:
        self._config = config
        self._settings, self._live_version = settings, live_version
        self._directories = directories = settings.project
        complete, history = example_completion(config, label_map), note_classes(directories, label_map)
        self._read_example = ExampleReader(complete, label_map, history)
        self._label_map = history.with_earlier_names(label_map)
        self._chosen: Sequence[StoredExample] = []  # the examples of the current round
        self._newest: Sequence[StoredExample] = []  # those of its new answers
        self._suspects = SuspectImages(directories)
        self._extra_steps_left = 0
        self.status = status or StatusFile(directories.status_path)
        self._limits = LoadLimits.of(settings)
        control, space = Control(directories.control_path), FreeSpace(directories, settings.min_free)
        on_wait = cluster.idle if cluster is not None else lambda: None
        self._pauses = Pauses(control, self.status, should_stop, self._limits, space.problem, on_wait)
        self._log = MetricsLog(directories.metrics_path)
        self.status.update(state="building", reason="building the model")
        self._model = ServingModel(config, label_map, directories, self.status)
        resumes = self._model.checkpoint is not None
        check_training_continues(directories.model_dir, directories.export_dir, has_checkpoint=resumes)
        self._replay = open_replay(directories, settings.eval_split, {*label_map.texts, *history.renamed})
        if left_out := self._replay.unknown_classes_message:
            _log.warning("%s", left_out)
        self._validator: ModelValidator | None = None
        if settings.evaluates:
            parts, held_out = (config, self._model, self._replay, self._read_example), settings.eval_split > 0
            self._validator = ModelValidator(*parts, held_out=held_out, max_examples=settings.eval_steps)
        decision = self._publish_at_start()  # before the trainer is built, so that the first suggestions come sooner
        self._build_trainer(strategy, cluster, resumes=resumes)
        self._report_unreported_round(decision)
        self._crew.start()
        self.status.update(round=self._checkpoints.round, step=self._trainer.step)
        self._wait(left_out or ("no answers yet" if not len(self._replay) else str(decision)))

    def _build_trainer(
        self, strategy: tf.distribute.Strategy | None, cluster: Cluster | None, *, resumes: bool
    ) -> None:
        self.status.update(state="building", reason="building the training step")
        self._trainer = Trainer(self._config, strategy, precision=self._settings.precision)
        model_dir = self._directories.model_dir
        self._checkpoints = CheckpointStore(self._trainer, model_dir, self._settings.max_checkpoints_num)
        if resumes:
            self._checkpoints.restore()
        else:
            self._trainer.start_from({**self._model.variables, **self._model.for_training})
        self._summaries = TrainingSummaries(model_dir, self._label_map, step=self._trainer.step)
        self._summaries.describe(self._config, ALL_RUNS if self._validator else ("train", "loop"))
        self._reports = Reports(
            self._directories, self._log, self.status, self._trainer, self._checkpoints, self._summaries
        )
        set_batch_size(self._config, self._settings, self._trainer, cluster)
        self._batch_size = self._config.train_config.batch_size
        read = self._suspects.deaths.noting(self._read_example)
        feed = ExampleFeed(read, self._directories, self._batch_size, cluster)
        self._crew = build_crew(self._config, self._trainer, self._checkpoints, feed, self._settings, strategy, cluster)

    def run_pending(self) -> bool:
        """Run one round, unless no new answers wait or training is paused or stopped.

        Returns True if new answers were taken, even if none is to be trained on. If the loss stays non-finite, the
        round fails with its reason in status.json and metrics.jsonl; its answers stay in the training set.
        """
        if self._pauses.between_rounds():
            return False
        started = time.monotonic()
        trained = int(self._checkpoints.loop.trained_record.numpy())
        ingested = ingest(
            self._directories,
            self._replay,
            self._label_map,
            after_record=trained,
            max_pixels=self._settings.max_pixels,
            masks=loads_masks(self._config),
            max_boxes=self._config.train_input_reader.max_number_of_boxes,
        )
        records_s = time.monotonic() - started
        new_records = [path for path in self._directories.train_records() if record_number(path) > trained]
        if not new_records:
            if ingested.batches:
                self._wait(ingested.no_record_reason)
            return False
        only_new = self._settings.replay == "off"
        chosen = self._replay.examples(new_records) if only_new else self._replay.training_set
        self._chosen = self._suspects.without(chosen)
        if self._chosen:
            self._run_round(new_records, ingested, records_s)
        else:
            self._save_as_trained(new_records)
            kept = "is kept for evaluation, or " if self._settings.eval_split or self._replay.held_out() else ""
            reason = self._replay.unknown_classes_message
            self._wait(reason or f"every image of the newest answers {kept}was rejected or ignored later")
        return True

    def train_further(self) -> bool:
        """Train further on the examples of the last round while no new answers wait, up to `extra_steps` after a round,
        and publish the weights after every slice of `EXTRA_SLICE` steps.

        New answers end it after the current step. If the rounds are evaluated, a slice is published only if it is not
        worse than the served version, and one that is worse is the last. Returns True if steps were taken.
        """
        if not self._extra_steps_left or self._has_new_answers() or self._pauses.between_rounds():
            return False
        left, steps = self._extra_steps_left, min(EXTRA_SLICE, self._extra_steps_left)
        what = f"training further on {len(self._chosen)} images while no new answers wait, {left} steps at most"
        self.status.update(state="training", reason=self._limits.add_to(what), round_step=0, round_steps=steps)
        started = time.monotonic()
        try:
            result = self._train(steps, should_end=self._has_new_answers)
        except TrainingError as error:
            _log.warning("the extra steps end: %s", error)
            result = TrainingResult(0, 0.0, None)
        self._extra_steps_left = left - steps if result.steps == steps else 0
        decision = PublishDecision("published")
        if result.steps == steps:
            decision = self._end_slice(result, time.monotonic() - started)
        self._wait(str(decision))
        return result.steps > 0

    def _end_slice(self, result: TrainingResult, train_s: float) -> PublishDecision:
        self._crew.save()
        copy_weights(self._crew.weights(), self._model.variables)
        decision = publish_round(self._model, self._trainer.step, self._validator, self._settings.publish_tolerance)
        if decision.outcome != "published":
            self._extra_steps_left = 0
        self._reports.extra(result, len(self._chosen), {"train_s": train_s}, decision)
        if decision.evaluation:
            self._reports.evaluation(decision.evaluation, self._validator)
        self._collect_garbage()
        return decision

    def _has_new_answers(self) -> bool:
        return has_batches(self._directories.inbox_dir)

    def heartbeat(self) -> None:
        """Rewrite status.json while the trainer is idle, because readers check its age."""
        self._crew.idle()
        self.status.write()

    def dismiss_workers(self) -> None:
        """The other workers of the cluster end, because this one does."""
        self._crew.end()

    def close(self) -> None:
        """Set the state "ended" in status.json, unless it is "failed". Idempotent."""
        self._summaries.close()
        self._replay.close()
        if self.status.current.state != "failed":
            self.status.update(state="ended", reason="the trainer was stopped")

    def _publish_at_start(self) -> PublishDecision:
        """Publish a first version if needed, and decide the outcome of a round that was interrupted before it."""
        model, checkpoint = self._model, self._model.checkpoint
        self.status.update(version=model.newest)
        step, rounds = (checkpoint_step(checkpoint), rounds_in(checkpoint)) if checkpoint else (0, 0)
        plan = plan_start(
            model.newest_info,
            any_version=model.newest is not None,
            same_graph=model.has_same_graph,
            learned=model.has_learned(step),
            step=step,
            unreported=rounds > self._log.last_round(),
            last_outcome=self._log.last_outcome(),
        )
        if plan == "decide":
            return self._publish(step)
        if plan == "publish":
            model.publish(step)
        return PublishDecision("published")

    def _publish(self, step: int) -> PublishDecision:
        validator = self._validator if self._settings.publish_if_better else None
        return publish_round(self._model, step, validator, self._settings.publish_tolerance)

    def _report_unreported_round(self, decision: PublishDecision) -> None:
        """Write the metrics.jsonl line of a round whose process ended between its checkpoint and that line."""
        if self._checkpoints.round <= self._log.last_round():
            return
        reported = {name for row in self._log.rounds() for name in row["batches"]}
        trained = int(self._checkpoints.loop.trained_record.numpy())
        records = [path for path in self._directories.train_records() if record_number(path) <= trained]
        self._chosen = self._replay.training_set
        batches = batches_in(records) - reported
        records = [path for path in records if not batches.isdisjoint(batches_in([path]))]
        result, work = TrainingResult(0, 0.0, None), self._reports.work_in(records)
        seconds = {"train_s": 0.0, "publish_s": 0.0}
        self._reports.round(result, len(self._chosen), seconds, decision, batches=batches, work=work)
        if decision.evaluation:
            self._reports.evaluation(decision.evaluation, self._validator)

    def _run_round(self, new_records: list[Path], ingested: IngestResult, records_s: float) -> None:
        steps = self._open_round(new_records)
        started, paused_s = time.monotonic(), self._pauses.paused_s
        failure = ""
        try:
            result = self._train(steps)
        except TrainingError as error:
            failure, result = str(error), TrainingResult(0, 0.0, None)
        train_s = time.monotonic() - started - (self._pauses.paused_s - paused_s)
        if self._trainer.step < int(self._checkpoints.loop.round_end_step.numpy()) and not failure:
            if not (result.steps and self._pauses.ends_round):
                self._crew.save()  # the process ends, or no step was taken: the round is resumed later
                return
            self._checkpoints.loop.round_end_step.assign(self._trainer.step)
        seconds = {"records_s": records_s, "train_s": train_s, "input_s": result.input_seconds}
        self._close_round(new_records, ingested, result, seconds, failure)

    def _open_round(self, new_records: list[Path]) -> int:
        """Set the step at which this round ends, or resume an interrupted round. Returns the number of steps left."""
        loop, newest = self._checkpoints.loop, record_number(new_records[-1])
        self._newest = self._replay.examples(new_records)
        if int(loop.open_record.numpy()) != newest:
            one_pass = math.ceil(len(self._chosen) / self._batch_size)
            loop.open_record.assign(newest)
            loop.round_end_step.assign(self._trainer.step + self._settings.steps_of_round(one_pass))
        steps = int(loop.round_end_step.numpy()) - self._trainer.step
        reason = self._limits.add_to(f"training on {len(self._chosen)} images", self._replay.unknown_classes_message)
        number = self._checkpoints.round + 1
        self.status.update(state="training", reason=reason, round=number, round_step=0, round_steps=steps)
        return steps

    def _train(self, steps: int, should_end: Callable[[], bool] = lambda: False) -> TrainingResult:
        first_step, last_step = self._trainer.step, self._trainer.step + steps

        def on_step(report: StepReport) -> None:
            left = last_step - report.step
            self.status.update(step=report.step, round_step=steps - left, loss=report.loss)
            self._summaries.step(report)

        def should_stop() -> bool:
            paused_s = self._pauses.paused_s
            stops = self._pauses.between_steps(should_end)
            self._summaries.exclude_pause(self._pauses.paused_s - paused_s)
            return stops

        def watch(batches: Iterator[Batch]) -> Iterator[Batch]:
            return self._summaries.watch(batches, self._trainer.step)

        def train(examples: Sequence[StoredExample]) -> TrainingResult:
            left = last_step - self._trainer.step
            drawn = DrawnExamples.of_round(examples, self._newest, left * self._batch_size)
            self._pauses.before_first_step()
            return self._crew.train(drawn, left, watch=watch, on_step=on_step, should_stop=should_stop)

        while True:
            try:
                result, self._chosen = self._suspects.train_without(
                    self._chosen, train, self._trainer.bad_images, self._crew.fails
                )
                return replace(result, steps=self._trainer.step - first_step)
            except UnreadableBatchError:
                before, self._chosen = len(self._chosen), self._replay.leave_out_unreadable(self._chosen)
                if not self._chosen or len(self._chosen) == before:
                    raise

    def _close_round(
        self,
        new_records: list[Path],
        ingested: IngestResult,
        result: TrainingResult,
        seconds: dict[str, float],
        failure: str,
    ) -> None:
        batches = {*ingested.batches, *batches_in(new_records)}
        self._newest = []  # extra steps draw from all evenly
        started = time.monotonic()
        self._checkpoints.loop.round.assign_add(1)
        self._save_as_trained(new_records)
        seconds["checkpoint_s"] = time.monotonic() - started
        started = time.monotonic()
        if failure:
            decision = PublishDecision("failed", failure)
        else:
            copy_weights(self._crew.weights(), self._model.variables)
            decision = self._publish(self._trainer.step)
        seconds["publish_s"] = time.monotonic() - started - decision.evaluate_s
        if decision.evaluate_s:
            seconds["evaluate_s"] = decision.evaluate_s
        # Otherwise an earlier process began this round, and `ingested` has only a part of its answers.
        complete = new_records == [ingested.record]
        self._reports.round(
            result,
            len(self._chosen),
            seconds,
            decision,
            batches=batches,
            work=round_counts(ingested.work) if complete else self._reports.work_in(new_records),
            problems=ingested.problems,
        )
        if self._validator is not None and not failure:
            self._reports.evaluation(decision.evaluation or self._reports.evaluate(self._validator), self._validator)
        self._collect_garbage()
        self._extra_steps_left = 0 if decision.outcome == "failed" else self._settings.extra_steps
        self._wait(str(decision))

    def _save_as_trained(self, records: list[Path]) -> None:
        """Save a checkpoint which states that these records are trained on, so that no restart trains them again."""
        loop = self._checkpoints.loop
        loop.trained_record.assign(record_number(records[-1]))
        loop.open_record.assign(0)
        self._crew.save()

    def _collect_garbage(self) -> None:
        keep = self._settings.temp_files_num
        deleted = collect_garbage(self._directories.export_dir, self._replay, keep, self._live_version)
        self._chosen = self._replay.find_again(self._chosen)
        if any(deleted.values()):
            self._log.append("garbage", deleted)

    def _wait(self, reason: str) -> None:
        self.status.update(state="waiting", reason=reason, round_step=0, round_steps=0)
