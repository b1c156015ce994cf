"""Resolve, check and save the configuration of a training run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from odkeras.config.settings import TrainingSettings
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import newest_step
from odkeras.pipeline import (
    LABEL_MAP_NAME,
    Overrides,
    PipelineConfig,
    Purpose,
    apply_overrides,
    check_pipeline,
    check_trained_classes,
    check_version_classes,
    get_fine_tune_checkpoint,
    get_fine_tune_type,
    get_label_map_path,
    load_pipeline,
    num_classes,
    raise_for_problems,
    read_png_masks,
    save_pipeline,
)
from odkeras.pipeline.class_history import read_class_history
from odkeras.project import write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """A resolved and checked configuration.

    Args:
        config: the resolved `TrainEvalPipelineConfig`.
        label_map: its label map.
    """

    config: PipelineConfig
    label_map: LabelMap


def prepare_setup(
    settings: TrainingSettings, purpose: Purpose, *, checkpoint: str | None = None, version: int | None = None
) -> Setup:
    """Load a pipeline.config, apply the settings that override it, and check the result, also against the models that
    have been trained: checkpoints in the model directory must have the same classes, and so must the newest version if
    this process publishes the next one (purposes "loop" and "export"). If this process trains (purposes "loop" and
    "train"), there may be more classes now.

    If `fine_tune_checkpoint` is not set, or is the placeholder of a downloaded config, the model starts from random
    weights. For purpose "loop", whose records odkeras writes, `mask_type` is set to PNG_MASKS if masks are loaded.

    Args:
        purpose: see `check_pipeline`.
        checkpoint: path prefix of the checkpoint in use. One outside the model directory skips the check of that
            directory. None for the newest in it.
        version: the published version in use, instead of a checkpoint. Only its classes are checked. None for no
            version.

    Raises:
        ConfigError: the config cannot be read or has problems (the message lists all, with fixes), or a model in these
            directories was trained with other classes.
        LabelMapError: the label map cannot be read.
    """
    path, model_dir, export_dir = settings.config, settings.project.model_dir, settings.project.export_dir
    config = apply_overrides(load_pipeline(path), Overrides.of(settings))
    problems = check_pipeline(config, label_map=None, purpose=purpose, step=newest_step(model_dir))
    for problem in problems:
        if problem.severity == "warning":
            _log.warning("%s: %s", path, problem)
    raise_for_problems(problems, source=str(path))
    label_map = LabelMap.load(get_label_map_path(config) or "")
    history = read_class_history(settings.project)
    renamed = history.renamed if history is not None else {}
    if version is not None:
        check_version_classes(label_map, export_dir, version, renamed)
    else:
        is_from_here = checkpoint is None or Path(checkpoint).absolute().parent == model_dir.absolute()
        check_trained_classes(
            config,
            label_map,
            model_dir=model_dir if is_from_here else None,
            export_dir=export_dir if purpose in ("loop", "export") else None,
            extends=purpose in ("loop", "train"),
            renamed=renamed,
        )
    if purpose == "loop" and read_png_masks(config):
        _log.info("%s: train_input_reader.mask_type is PNG_MASKS here, as in the records that the loop writes", path)
    # For TPUs only. Off as in the API's own training loop, because the input pipeline would round the images.
    config.train_config.use_bfloat16 = False
    config.train_config.fine_tune_checkpoint = get_fine_tune_checkpoint(config) or ""
    if config.train_config.fine_tune_checkpoint:
        config.train_config.fine_tune_checkpoint_type = get_fine_tune_type(config)
    _log.info("%s: %d classes, batch size %d", path, num_classes(config), config.train_config.batch_size)
    return Setup(config, label_map)


def save_resolved(setup: Setup, model_dir: Path) -> None:
    """Write the resolved configuration and the label map to `model_dir`.

    Call it only after the checkpoints there have been found to match: later starts are compared with these files.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    save_pipeline(setup.config, model_dir / "pipeline.config")
    write_atomically(model_dir / LABEL_MAP_NAME, setup.label_map.to_pbtxt())
