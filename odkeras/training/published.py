"""The model that predicts for the loop: where its weights come from, and when they become a version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from odkeras import project
from odkeras.export.publish import Publisher, graph_fingerprint, read_export_info
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step, list_checkpoints, restore_for_prediction
from odkeras.model.inference import InferenceModel
from odkeras.model.weights import copy_weights, named_variables, restore_fine_tune_checkpoint
from odkeras.project import Project
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
        self._publisher = Publisher(self.inference, directories.export_dir, label_map)

    def load_weights(self) -> str | None:
        """Give the inference model the newest checkpoint, else the fine-tune checkpoint, else leave its fresh
        weights."""
        checkpoint = restore_for_prediction(self.inference.model, list_checkpoints(self._directories.model_dir))
        train = self._config.train_config
        if checkpoint is not None:
            _log.info("going on from %s", checkpoint)
        elif train.fine_tune_checkpoint:
            report = restore_fine_tune_checkpoint(
                self.inference.model, train.fine_tune_checkpoint, train.fine_tune_checkpoint_type or "detection"
            )
            _log.info("fine-tuning from %s: %s", train.fine_tune_checkpoint, report)
        else:
            _log.info("starting from freshly built weights")
        return checkpoint

    def publish_if_behind(self, checkpoint: str | None) -> None:
        """A version that is there is served as it is, unless it is another model's or older than the checkpoint."""
        versions = project.list_versions(self._directories.export_dir)
        step = checkpoint_step(checkpoint) if checkpoint else 0
        if versions:
            self._status.update(version=versions[-1])
            info = read_export_info(self._directories.export_dir / str(versions[-1]))
            if info is None or (info.graph == graph_fingerprint(self._config.model) and info.step >= step):
                return
        self.publish(step)

    def take_weights(self, weights: Mapping[str, Any]) -> None:
        """From now on predict with these weights, given by path."""
        copy_weights(weights, self.variables)

    def publish(self, step: int) -> int:
        """Publish the weights as they are now, `step` training steps behind them; returns the version."""
        self._status.update(state="publishing", reason=f"publishing the weights of step {step}")
        version = self._publisher.publish(step)
        _log.info("published version %d (step %d)", version, step)
        self._status.update(version=version)
        return version
