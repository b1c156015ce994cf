"""`odkeras export`: publish a version from a checkpoint, or from initial weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from odkeras.errors import CheckpointError
from odkeras.export.publish import Publisher
from odkeras.model.checkpoint import checkpoint_step, choose_checkpoints, restore_for_prediction
from odkeras.model.first_weights import load_first_weights
from odkeras.model.inference import InferenceModel
from odkeras.model.setup import Setup
from odkeras.pipeline import read_skeleton
from odkeras.pipeline.trained_classes import classes_of_newest_version


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Args:
        directory: the version directory.
        source: description of where the weights came from.
        step: global step of the weights; 0 without a checkpoint of our own.
    """

    directory: Path
    source: str
    step: int


def export_version(setup: Setup, model_dir: Path, export_dir: Path, *, checkpoint: str | None = None) -> ExportResult:
    """Publish a checkpoint as the next version below `export_dir`.

    Args:
        model_dir: its newest usable checkpoint is exported. If it has none, the config's fine-tune checkpoint is used,
            or else random initial weights.
        checkpoint: path prefix of the checkpoint to export instead; None for the newest in `model_dir`.

    Raises:
        CheckpointError: `checkpoint` does not exist or does not match the model; or there is no checkpoint, and a
            trained version would be replaced.
        WeightsError: there is no checkpoint, and ImageNet weights cannot be downloaded.
    """
    checkpoints = choose_checkpoints(model_dir, checkpoint)
    inference = InferenceModel(setup.config.model)
    restored = restore_for_prediction(inference.model, checkpoints)
    if restored is not None:
        source, step = f"checkpoint {restored}", checkpoint_step(restored)
        learned = checkpoint is not None or step > 0
    else:
        source, step, learned = "freshly built weights", 0, False
        report = load_first_weights(inference.model, setup.config, setup.label_map)
        if report is not None:
            source, learned = f"{setup.config.train_config.fine_tune_checkpoint} ({report})", not report.new
        _check_replaces_nothing_better(model_dir, export_dir, source, learned=learned)
    publisher = Publisher(inference, export_dir, setup.label_map, read_skeleton(setup.config))
    version = publisher.publish(step, learned=learned)
    return ExportResult(export_dir / str(version), source, step)


def _check_replaces_nothing_better(model_dir: Path, export_dir: Path, source: str, *, learned: bool) -> None:
    """Check that a version without training steps does not replace a better one.

    A downloaded detector (`learned`, but no training steps of our own) may replace another version without training
    steps, but never a trained one. Untrained weights may not replace either of them.
    """
    trained = classes_of_newest_version(export_dir)
    if trained is not None and (trained.steps > 0 or not learned):
        raise CheckpointError(
            f"there is no checkpoint in {model_dir}, and {export_dir} has a model with {trained.steps} training steps, "
            f"which is not replaced by {source}. Give --checkpoint or the --model-dir that it was trained "
            "in, or another --export-dir"
        )
