"""The inference model of the loop, and its published versions."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from odkeras.errors import CheckpointError
from odkeras.export.info import ExportInfo, read_export_info
from odkeras.export.publish import Publisher
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import list_checkpoints, restore_for_prediction
from odkeras.model.first_weights import load_first_weights
from odkeras.model.growth import extend_newest, lower_first_scores
from odkeras.model.inference import InferenceModel
from odkeras.model.weights import copy_weights, named_variables, snapshot
from odkeras.pipeline import read_skeleton
from odkeras.pipeline.class_history import read_class_history
from odkeras.project import Project
from odkeras.training.evaluation import Detector, SavedModelDetector, model_detector
from odkeras.training.status import StatusFile
from odkeras.version_dirs import list_versions, version_dir

_log = logging.getLogger(__name__)

Outcome = Literal["published", "held back", "failed"]


class ServingModel:
    """The inference model of the loop, and its published versions. If the newest checkpoint has fewer classes, it is
    extended first.

    Args:
        config: a resolved, checked `TrainEvalPipelineConfig`.
        label_map: the project's label map.
        directories: has the model directory, with the checkpoints, and the export directory, with the versions.
        status: the trainer's status.json, updated with every version.

    Attributes:
        inference: the model.
        variables: its variables, by path.
        for_training: the weights that training starts from, where they differ from `variables`; see `model.heads`.
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
        self.for_training: Mapping[str, np.ndarray] = {}
        train = config.train_config
        extend_newest(self.inference.model, config, directories.model_dir)
        self.checkpoint = restore_for_prediction(self.inference.model, list_checkpoints(directories.model_dir))
        if self.checkpoint is not None:
            # The restore report of the first start is gone; only type "full" restores the scores of classes, too.
            self._starts_as_detector = train.fine_tune_checkpoint != "" and train.fine_tune_checkpoint_type == "full"
            _log.info("resuming from %s", self.checkpoint)
        else:
            self._load_first_weights(config, directories)

    def _load_first_weights(self, config: Any, directories: Project) -> None:
        history = read_class_history(directories)
        added_s = history.added_s if history is not None else {}
        if added := [label.id for label in self.label_map.labels if added_s.get(label.name, 0.0) > 0]:
            lower_first_scores(self.inference.model, config, added)
        report = load_first_weights(self.inference.model, config, self.label_map)
        self._starts_as_detector = report is not None and not report.new
        self.for_training = report.adapted if report is not None else {}

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
