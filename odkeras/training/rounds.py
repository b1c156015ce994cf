"""The outer training loop: takes answers, trains a round, publishes a version.

    with open_rounds(config, label_map, settings) as rounds:
        while not stop.is_set():
            rounds.run_pending() or rounds.train_further() or stop.wait(0.2)

A round takes all waiting batches, writes one TFRecord, trains, saves a checkpoint, publishes a version, evaluates if
requested (before publishing, if the weights may be held back: see `training.publishing`) and deletes old records and
versions. The process may be killed at any point: the next start resumes from the files.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras.config.settings import TrainingSettings
from odkeras.control import Control
from odkeras.data.ingest import IngestResult, ingest, record_number
from odkeras.data.replay import ReplayStore, StoredExample, shuffle_and_repeat
from odkeras.errors import OdkerasError, TrainingError, UnreadableBatchError
from odkeras.export.publish import apply_retention
from odkeras.inbox import list_batches
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step
from odkeras.model.weights import copy_weights
from odkeras.pipeline import check_training_continues, loads_masks
from odkeras.training.checkpoints import CheckpointStore, PeriodicSaver, rounds_in
from odkeras.training.inputs import distributed_training_dataset, example_completion, example_source
from odkeras.training.limits import LoadLimits
from odkeras.training.publishing import ModelValidator, PublishDecision, ServingModel, plan_start, publish_round
from odkeras.training.reports import Reports, batches_in
from odkeras.training.status import MetricsLog, Pauses, StatusFile
from odkeras.training.tensorboard import ALL_RUNS, TrainingSummaries
from odkeras.training.trainer import StepReport, Trainer, TrainingResult, image_bucket
from odkeras.work import round_counts

_log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 60.0  # within a long round
EXTRA_SLICE = 100  # extra steps between two publications


class Rounds:
    """Runs the rounds of one trainer process. Use `process.open_rounds`, which locks the model directory.

    The constructor builds the models, publishes a first version if there is none, and traces the training step.

    Args:
        config: a resolved, checked `TrainEvalPipelineConfig`.
        label_map: the project's label map.
        settings: the directories, and the options of the rounds.
        strategy: how to distribute the step; None runs it on the default device.
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
        live_version: Callable[[], int | None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
        status: StatusFile | None = None,
    ) -> None:
        self._config = config
        self._label_map = label_map
        self._settings = settings
        self._directories = directories = settings.project
        self._live_version = live_version
        self._complete = example_completion(config, label_map)
        self._chosen: list[StoredExample] = []  # the examples of the current round
        self._extra_steps_left = 0
        self.status = status or StatusFile(directories.status_path)
        self._limits = LoadLimits.of(settings)
        self._pauses = Pauses(Control(directories.control_path), self.status, should_stop, self._limits)
        self._log = MetricsLog(directories.metrics_path)

        self.status.update(state="building", reason="building the model")
        self._model = ServingModel(config, label_map, directories, self.status)
        resumes = self._model.checkpoint is not None
        check_training_continues(directories.model_dir, directories.export_dir, has_checkpoint=resumes)
        self._replay = ReplayStore(directories, settings.eval_split, label_map.texts)
        if left_out := self._replay.unknown_classes_message:
            _log.warning("%s", left_out)
        held_out = settings.eval_split > 0
        self._validator = (
            ModelValidator(config, self._model, self._replay, held_out=held_out, max_examples=settings.eval_steps)
            if settings.evaluates
            else None
        )
        decision = self._publish_at_start()  # before the trainer is built, so that the first suggestions come sooner
        self._build_trainer(strategy, resumes=resumes)
        self._report_unreported_round(decision)
        self._trainer.trace(self._dataset.element_spec)
        self.status.update(round=self._checkpoints.round, step=self._trainer.step)
        self._wait(left_out or ("no answers yet" if not len(self._replay) else str(decision)))

    def _build_trainer(self, strategy: tf.distribute.Strategy | None, *, resumes: bool) -> None:
        self.status.update(state="building", reason="building the training step")
        self._trainer = Trainer(self._config, strategy)
        model_dir = self._directories.model_dir
        self._checkpoints = CheckpointStore(self._trainer, model_dir, self._settings.max_checkpoints_num)
        if resumes:
            self._checkpoints.restore()
        else:
            self._trainer.start_from(self._model.variables)
        self._summaries = TrainingSummaries(model_dir, self._label_map, step=self._trainer.step)
        self._summaries.describe(self._config, ALL_RUNS if self._validator else ("train", "loop"))
        self._reports = Reports(
            self._directories, self._log, self.status, self._trainer, self._checkpoints, self._summaries
        )
        source = example_source(self._examples)
        self._dataset = distributed_training_dataset(self._config, self._trainer.model, strategy, source)

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
            masks=loads_masks(self._config),
            max_boxes=self._config.train_input_reader.max_number_of_boxes,
        )
        records_s = time.monotonic() - started
        new_records = [path for path in self._directories.train_records() if record_number(path) > trained]
        if not new_records:
            if ingested.batches:
                self._wait(ingested.no_record_reason)
            return False
        self._chosen = self._replay.examples(None if self._settings.replay == "on" else new_records)
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
        self.status.update(
            state="training",
            reason=self._limits.add_to(what),
            round_step=0,
            round_steps=steps,
        )
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
        self._checkpoints.save()
        copy_weights(self._trainer.weights_for_prediction(), self._model.variables)
        decision = publish_round(self._model, self._trainer.step, self._validator, self._settings.publish_tolerance)
        if decision.outcome != "published":
            self._extra_steps_left = 0
        self._reports.extra(result, len(self._chosen), {"train_s": train_s}, decision)
        if decision.evaluation:
            self._reports.evaluation(decision.evaluation, self._validator)
        self._collect_garbage()
        return decision

    def _has_new_answers(self) -> bool:
        return bool(list_batches(self._directories.inbox_dir))

    def heartbeat(self) -> None:
        """Rewrite status.json while the trainer is idle, because readers check its age."""
        self.status.write()

    def close(self) -> None:
        """Set the state "ended" in status.json, unless it is "failed". Idempotent."""
        self._summaries.close()
        if self.status.current.state != "failed":
            self.status.update(state="ended", reason="the trainer was stopped")

    def _publish_at_start(self) -> PublishDecision:
        """Publish a first version if needed, and decide the outcome of a round that was interrupted before it."""
        model, checkpoint = self._model, self._model.checkpoint
        self.status.update(version=model.newest)
        step = checkpoint_step(checkpoint) if checkpoint else 0
        rounds = rounds_in(checkpoint) if checkpoint else 0
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
        self._chosen = self._replay.examples()
        batches = batches_in(records) - reported
        records = [path for path in records if not batches.isdisjoint(batches_in([path]))]
        seconds = {"train_s": 0.0, "publish_s": 0.0}
        result, work = TrainingResult(0, 0.0, None), self._reports.work_in(records)
        self._reports.round(result, len(self._chosen), seconds, decision, batches=batches, work=work)
        if decision.evaluation:
            self._reports.evaluation(decision.evaluation, self._validator)

    def _examples(self) -> Iterator[bytes]:
        """The training examples, repeated without end, with all that the config's reader loads."""
        return map(self._complete, shuffle_and_repeat(self._chosen))

    def _run_round(self, new_records: list[Path], ingested: IngestResult, records_s: float) -> None:
        steps = self._open_round(new_records)
        started, paused_s = time.monotonic(), self._pauses.paused_s
        failure = ""
        try:
            result = self._train(steps)
        except TrainingError as error:
            failure, result = str(error), TrainingResult(0, 0.0, None)
        train_s = time.monotonic() - started - (self._pauses.paused_s - paused_s)
        if bad := self._trainer.bad_images:
            images = [example.image_id for example in self._chosen if image_bucket(example.image_id) in bad]
            _log.error("the loss was not finite in batches with these images: %s", ", ".join(images))
        if self._trainer.step < int(self._checkpoints.loop.round_end_step.numpy()) and not failure:
            if not (result.steps and self._pauses.ends_round):
                self._checkpoints.save()  # the process ends, or no step was taken: the round is resumed later
                return
            self._checkpoints.loop.round_end_step.assign(self._trainer.step)
        seconds = {"records_s": records_s, "train_s": train_s, "input_s": result.input_seconds}
        self._close_round(new_records, ingested, result, seconds, failure)

    def _open_round(self, new_records: list[Path]) -> int:
        """Set the step at which this round ends, or resume an interrupted round. Returns the number of steps left."""
        loop, newest = self._checkpoints.loop, record_number(new_records[-1])
        if int(loop.open_record.numpy()) != newest:
            one_pass = math.ceil(len(self._chosen) / self._config.train_config.batch_size)
            loop.open_record.assign(newest)
            loop.round_end_step.assign(self._trainer.step + self._settings.steps_of_round(one_pass))
        steps = int(loop.round_end_step.numpy()) - self._trainer.step
        self.status.update(
            state="training",
            reason=self._limits.add_to(f"training on {len(self._chosen)} images", self._replay.unknown_classes_message),
            round=self._checkpoints.round + 1,
            round_step=0,
            round_steps=steps,
        )
        return steps

    def _train(self, steps: int, should_end: Callable[[], bool] = lambda: False) -> TrainingResult:
        first_step, last_step = self._trainer.step, self._trainer.step + steps
        saver = PeriodicSaver(self._checkpoints, self._trainer, CHECKPOINT_EVERY_S)

        def on_step(report: StepReport) -> None:
            left = last_step - report.step
            self.status.update(step=report.step, round_step=steps - left, loss=report.loss)
            self._summaries.step(report)
            if left > 0:  # the round saves a checkpoint at its end
                saver.save_when_due()

        def should_stop() -> bool:
            paused_s = self._pauses.paused_s
            stops = self._pauses.between_steps(should_end)
            self._summaries.exclude_pause(self._pauses.paused_s - paused_s)
            return stops

        while True:
            self._pauses.before_first_step()
            batches = self._summaries.watch(iter(self._dataset), self._trainer.step)
            left = last_step - self._trainer.step
            try:
                result = self._trainer.train(batches, left, on_step=on_step, should_stop=should_stop)
                return replace(result, steps=self._trainer.step - first_step)
            except UnreadableBatchError:
                readable = self._replay.leave_out_unreadable(self._chosen)
                if not readable or len(readable) == len(self._chosen):
                    raise
                self._chosen = readable

    def _close_round(
        self,
        new_records: list[Path],
        ingested: IngestResult,
        result: TrainingResult,
        seconds: dict[str, float],
        failure: str,
    ) -> None:
        batches = {*ingested.batches, *batches_in(new_records)}
        started = time.monotonic()
        self._checkpoints.loop.round.assign_add(1)
        self._save_as_trained(new_records)
        seconds["checkpoint_s"] = time.monotonic() - started
        started = time.monotonic()
        if failure:
            decision = PublishDecision("failed", failure)
        else:
            copy_weights(self._trainer.weights_for_prediction(), self._model.variables)
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
            self._reports.evaluation(decision.evaluation or self._evaluate(self._validator), self._validator)
        self._collect_garbage()
        self._extra_steps_left = 0 if decision.outcome == "failed" else self._settings.extra_steps
        self._wait(str(decision))

    def _save_as_trained(self, records: list[Path]) -> None:
        """Save a checkpoint which states that these records are trained on, so that no restart trains them again."""
        loop = self._checkpoints.loop
        loop.trained_record.assign(record_number(records[-1]))
        loop.open_record.assign(0)
        self._checkpoints.save()

    def _evaluate(self, validator: ModelValidator) -> Mapping[str, Any]:
        self.status.update(state="evaluating", reason="evaluating on the validation examples")
        started = time.monotonic()
        result = validator.result()
        self._summaries.seconds(self._trainer.step, "evaluate_s", time.monotonic() - started)
        return result

    def _collect_garbage(self) -> None:
        keep = self._settings.temp_files_num
        versions: list[int] = []
        try:
            versions = apply_retention(self._directories.export_dir, keep, self._live_version())
        except OdkerasError as error:
            _log.warning("old versions are kept, because it is unknown which one is served: %s", error)
        records = [path.name for path in self._replay.compact(keep)]
        self._chosen = self._replay.find_again(self._chosen)
        if versions or records:
            self._log.append("garbage", {"versions": versions, "records": records})

    def _wait(self, reason: str) -> None:
        self.status.update(state="waiting", reason=reason, round_step=0, round_steps=0)
