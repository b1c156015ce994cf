"""The model that predicts for the loop: where its weights come from, and when they become a version."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from odkeras import project
from odkeras.errors import CheckpointError
from odkeras.export.info import ExportInfo, read_export_info
from odkeras.export.publish import Publisher
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import list_checkpoints, restore_for_prediction
from odkeras.model.inference import InferenceModel
from odkeras.model.weights import copy_weights, named_variables, restore_fine_tune_checkpoint, snapshot
from odkeras.project import Project
from odkeras.training.detectors import Detector, SavedDetector, in_process
from odkeras.training.status import StatusFile

_log = logging.getLogger(__name__)


class PublishedModel:
    """The inference model of a loop, and its versions.

    Args:
        config: a resolved, checked `TrainEvalPipelineConfig`.
        label_map: of the project.
        directories: where checkpoints are looked for and versions go.
        status: told of every version.

    Attributes:
        inference: the model.
        variables: its variables, by path.
    """

    def __init__(self, config: Any, label_map: LabelMap, directories: Project, status: StatusFile) -> None:
        self._config = config
        self._directories = directories
        self._status = status
        self.inference = InferenceModel(config.model)
        self.variables = named_variables(self.inference.model)
        self._starts_as_detector = False
        self._publisher = Publisher(self.inference, directories.export_dir, label_map)

    def load_weights(self) -> str | None:
        """Give the inference model the newest checkpoint, else the fine-tune checkpoint, else leave its fresh
        weights."""
        checkpoint = restore_for_prediction(self.inference.model, list_checkpoints(self._directories.model_dir))
        train = self._config.train_config
        if checkpoint is not None:
            self._starts_as_detector = train.fine_tune_checkpoint != "" and train.fine_tune_checkpoint_type == "full"
            _log.info("going on from %s", checkpoint)
        elif train.fine_tune_checkpoint:
            report = restore_fine_tune_checkpoint(
                self.inference.model, train.fine_tune_checkpoint, train.fine_tune_checkpoint_type or "detection"
            )
            self._starts_as_detector = not report.new
            _log.info("fine-tuning from %s: %s", train.fine_tune_checkpoint, report)
        else:
            _log.info("starting from freshly built weights")
        return checkpoint

    @property
    def newest(self) -> int | None:
        """The newest version there is, which every server takes up; None before the first."""
        versions = project.list_versions(self._directories.export_dir)
        return versions[-1] if versions else None

    @property
    def newest_info(self) -> ExportInfo | None:
        """What it says of itself; None if there is none, or it is somebody else's."""
        newest = self.newest
        return None if newest is None else read_export_info(project.version_dir(self._directories.export_dir, newest))

    @property
    def newest_is_ours(self) -> bool:
        """Whether it is of this model."""
        return self._publisher.takes(self.newest_info)

    @property
    def detect(self) -> Detector:
        """Detections with the weights as they are when it is called."""
        return in_process(self.inference)

    @contextlib.contextmanager
    def newest_version(self) -> Iterator[Detector]:
        """Detections of the newest version, in the block; afterwards the weights are what they were.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        version = self.newest
        if version is None:
            raise CheckpointError(f"there is no version in {self._directories.export_dir}")
        if not self.newest_is_ours:
            yield SavedDetector(project.version_dir(self._directories.export_dir, version))
            return
        before = snapshot(self.variables)
        try:
            self._publisher.load(version)
            yield self.detect
        finally:
            copy_weights(before, self.variables)

    def take_weights(self, weights: Mapping[str, Any]) -> None:
        """From now on predict with these weights, given by path."""
        copy_weights(weights, self.variables)

    def has_learned(self, step: int) -> bool:
        """Whether something stands behind weights with `step` training steps; see `ExportInfo`."""
        return step > 0 or self._starts_as_detector

    def publish(self, step: int) -> int:
        """Publish the weights as they are now, `step` training steps behind them; returns the version."""
        self._status.update(state="publishing", reason=f"publishing the weights of step {step}")
        version = self._publisher.publish(step, learned=self.has_learned(step))
        _log.info("published version %d (step %d)", version, step)
        self._status.update(version=version)
        return version
