"""From a path to a pipeline.config to what a training needs: resolved, checked, saved beside the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from odkeras.errors import ConfigError
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
    fine_tune_checkpoint_of,
    fine_tune_type_of,
    label_map_path_of,
    load_pipeline,
    num_classes,
    raise_for_problems,
    read_png_masks,
    save_pipeline,
)
from odkeras.project import write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """A configuration that can be trained.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        label_map: the one it uses.
    """

    config: PipelineConfig
    label_map: LabelMap


def prepare_setup(
    path: Path,
    model_dir: Path,
    overrides: Overrides,
    purpose: Purpose,
    *,
    export_dir: Path | None = None,
    checkpoint: str | None = None,
    version: int | None = None,
) -> Setup:
    """Load a pipeline.config, apply what the command line says, check it.

    Without a `fine_tune_checkpoint` that can be used (none given, or the placeholder of a downloaded config) the
    model starts from random weights. For the loop, whose records odkeras writes, `mask_type` becomes PNG_MASKS.

    Args:
        export_dir: where versions go, or come from; the newest must have the same classes. None if neither is done.
        checkpoint: the one that is used; None if it is the newest in `model_dir`.
        version: the one in `export_dir` that is used, and no checkpoint; only its classes must be the same.

    Raises:
        ConfigError: it cannot be read, or has problems; all of them are named with what to do. Or what was trained in
            these directories has other classes.
        LabelMapError: no label map that can be read.
    """
    loaded = load_pipeline(path)
    label_map_path = overrides.label_map_path or label_map_path_of(loaded)
    if label_map_path is None:
        raise ConfigError(
            f"{path}: train_input_reader.label_map_path is not set, or still a placeholder; set it, or give "
            "--label-map-path"
        )
    label_map = LabelMap.load(label_map_path)
    config = apply_overrides(loaded, overrides)
    problems = check_pipeline(config, label_map=label_map, purpose=purpose, step=newest_step(model_dir))
    for problem in problems:
        if problem.severity == "warning":
            _log.warning("%s: %s", path, problem)
    raise_for_problems(problems, source=str(path))
    if version is not None and export_dir is not None:
        check_version_classes(label_map, export_dir, version)
    else:
        is_from_here = checkpoint is None or Path(checkpoint).absolute().parent == model_dir.absolute()
        check_trained_classes(config, label_map, model_dir=model_dir if is_from_here else None, export_dir=export_dir)
    if purpose == "loop" and read_png_masks(config):
        _log.info("%s: train_input_reader.mask_type is PNG_MASKS here, as in the records that the loop writes", path)
    config.train_config.fine_tune_checkpoint = fine_tune_checkpoint_of(config) or ""
    if config.train_config.fine_tune_checkpoint:
        config.train_config.fine_tune_checkpoint_type = fine_tune_type_of(config)
    _log.info("%s: %d classes, batch size %d", path, num_classes(config), config.train_config.batch_size)
    return Setup(config, label_map)


def save_resolved(setup: Setup, model_dir: Path) -> None:
    """Write the configuration and the label map, as they are used, to `model_dir`.

    Only once the checkpoints there are known to fit: later starts are compared with it.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    save_pipeline(setup.config, model_dir / "pipeline.config")
    write_atomically(model_dir / LABEL_MAP_NAME, setup.label_map.to_pbtxt())
