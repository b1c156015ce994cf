"""The inference model of the loop: loads its weights and publishes them as versions."""

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
    """The inference model of the loop, and its published versions.

    Args:
        config: a resolved, checked `TrainEvalPipelineConfig`.
        label_map: the project's label map.
        directories: has the model directory, with the checkpoints, and the export directory, with the versions.
        status: the trainer's status.json, updated with every version.

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
        """Restore the newest checkpoint, else the config's fine-tune checkpoint, else keep the random weights.

        Returns:
            Path of the newest checkpoint; None if there is none.

        Raises:
            CheckpointError: a checkpoint does not fit the model.
        """
        checkpoint = restore_for_prediction(self.inference.model, list_checkpoints(self._directories.model_dir))
        train = self._config.train_config
        if checkpoint is not None:
            # The restore report of the first start is gone; only type "full" restores the box predictors, too.
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
        """The newest version, which is the one that servers load; None before the first."""
        versions = project.list_versions(self._directories.export_dir)
        return versions[-1] if versions else None

    @property
    def newest_info(self) -> ExportInfo | None:
        """Export info of the newest version; None if there is no version, or odkeras did not write it."""
        newest = self.newest
        return None if newest is None else read_export_info(project.version_dir(self._directories.export_dir, newest))

    @property
    def newest_is_ours(self) -> bool:
        """Whether the newest version has the graph of this model, so that its weights can be loaded."""
        return self._publisher.takes(self.newest_info)

    @property
    def detect(self) -> Detector:
        """A detector that uses the model's weights at the time of each call."""
        return in_process(self.inference)

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
        """Copy these weights, keyed by variable path, into the model."""
        copy_weights(weights, self.variables)

    def has_learned(self, step: int) -> bool:
        """Whether weights of global step `step` are trained or restored, not random; see `ExportInfo.learned`."""
        return step > 0 or self._starts_as_detector

    def publish(self, step: int) -> int:
        """Publish the current weights, which have `step` training steps, and return the version.

        Raises:
            CheckpointError: the weights are not finite.
        """
        self._status.update(state="publishing", reason=f"publishing the weights of step {step}")
        version = self._publisher.publish(step, learned=self.has_learned(step))
        _log.info("published version %d (step %d)", version, step)
        self._status.update(version=version)
        return version
