"""`odkeras init`: create a project directory with a pipeline.config and a label map."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from odkeras.errors import ConfigError
from odkeras.label_names import collect_label_names
from odkeras.labels import LabelMap
from odkeras.pipeline import (
    Overrides,
    apply_overrides,
    check_pipeline,
    checkpoint_prefix,
    parse_pipeline,
    raise_for_problems,
    read_template,
    save_pipeline,
    template_header,
)
from odkeras.pipeline.few_images import tune_for_few_images
from odkeras.pipeline.files import checkpoint_kind, is_remote
from odkeras.pipeline.proto import PipelineConfig
from odkeras.pipeline.weights import RANDOM_WEIGHTS

DEFAULT_TEMPLATE = "ssd_mobilenet_v2_fpnlite_320"
SUGGESTED_WEIGHTS = "ssd_mobilenet_v2_fpnlite_320x320"
"""Those of the default template's architecture, by their name in odkeras.pretrained."""


@dataclass(frozen=True)
class InitResult:
    """The files written, the checkpoint that training starts from (None: random weights), and the next steps."""

    config_path: Path
    label_map_path: Path
    checkpoint: str | None
    next_steps: str

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.config_path, self.label_map_path)


@dataclass(frozen=True)
class StartingPoint:
    """The pipeline.config that a project begins with, and the weights that its training starts from.

    Args:
        config: its label map, records, number of classes and checkpoint are replaced.
        header: comment lines for the file.
        checkpoint: prefix of the checkpoint; None for random weights.
        checkpoint_type: "classification", "detection" or "full"; None detects it from the checkpoint.
    """

    config: PipelineConfig
    header: str
    checkpoint: str | None = None
    checkpoint_type: str | None = None

    @classmethod
    def from_template(
        cls, template: str, checkpoint: str | None = None, checkpoint_type: str | None = None
    ) -> StartingPoint:
        """A template of configs/.

        Raises:
            ConfigError: no such template.
        """
        text = read_template(template)
        header = f"# Written by `odkeras init` from the template {template}, whose comments follow.\n"
        config = parse_pipeline(text, source=f"template {template}")
        return cls(config, f"{header}{_PATHS_HEADER}#\n{template_header(text)}", checkpoint, checkpoint_type)

    @classmethod
    def from_zoo(cls, name: str, config: PipelineConfig, checkpoint: str) -> StartingPoint:
        """A detector of the model zoo, with its own pipeline.config, whose training is adapted to few images."""
        header = (
            f"# Written by `odkeras init` from the pipeline.config of {name}, with its weights.\n{_PATHS_HEADER}"
            "# The network is the original one. Its training is adapted to few images: optimizer, learning rate,\n"
            "# batch size, augmentation and decay of batch norm are those of odkeras' templates.\n"
        )
        return cls(tune_for_few_images(config), header, checkpoint, "detection")


_PATHS_HEADER = (
    "# The paths below are absolute: update them after moving this folder.\n"
    "# label_map_path, num_classes and input_path and everything else may be edited.\n"
)


def init_project(
    directory: Path | str,
    labels: Sequence[str] = (),
    *,
    labels_file: Path | str | None = None,
    template: str = DEFAULT_TEMPLATE,
    fine_tune_checkpoint: str | None = None,
    fine_tune_checkpoint_type: str | None = None,
    find_start: Callable[[], StartingPoint] | None = None,
    force: bool = False,
) -> InitResult:
    """Write DIRECTORY/pipeline.config and DIRECTORY/label_map.pbtxt.

    Args:
        directory: created if it does not exist.
        labels: the class names; their ids are 1, 2, ... in this order.
        labels_file: a text file with further class names, one per line; they come after `labels`. None for none.
        template: one of `list_templates()`.
        fine_tune_checkpoint: prefix of the checkpoint to start from; None for random weights.
        fine_tune_checkpoint_type: "classification", "detection" or "full"; None detects it from the checkpoint.
        find_start: returns what to use instead of the template and the checkpoint. Called after the labels and
            the files are checked, because it may download.
        force: overwrite existing files.

    Raises:
        ConfigError: invalid labels, an unknown template, an unusable checkpoint, or files that already exist.
    """
    directory = Path(directory).absolute()
    config_path, label_map_path = directory / "pipeline.config", directory / "label_map.pbtxt"
    label_map = LabelMap.from_names(collect_label_names(labels, labels_file))
    _refuse_to_overwrite([config_path, label_map_path], force)
    if find_start is not None:
        start = find_start()
    else:
        start = StartingPoint.from_template(template, fine_tune_checkpoint, fine_tune_checkpoint_type)
    overrides = Overrides(
        fine_tune_checkpoint=_absolute(start.checkpoint),
        fine_tune_checkpoint_type=_restore_type(start.checkpoint, start.checkpoint_type),
        label_map_path=str(label_map_path),
        num_classes=label_map.max_id,
        train_records=(str(directory / "data" / "*_train.record"),),
        eval_records=(str(directory / "data" / "*_eval.record"),),
    )
    config = apply_overrides(start.config, overrides)
    raise_for_problems(check_pipeline(config, label_map=label_map, purpose="loop"), source=str(config_path))
    _write(config, start.header, label_map, config_path, label_map_path)
    return InitResult(config_path, label_map_path, start.checkpoint, _next_steps(directory, start.checkpoint is None))


def _absolute(checkpoint: str | None) -> str:
    """The absolute path of a local checkpoint. "" for None, which removes the template's own setting."""
    if not checkpoint or is_remote(checkpoint):
        return checkpoint or ""
    return str(Path(checkpoint).absolute())


def _restore_type(checkpoint: str | None, restore_type: str | None) -> str | None:
    if restore_type is not None or not checkpoint:
        return restore_type
    kind = checkpoint_kind(checkpoint_prefix(checkpoint))
    if kind is None and (is_remote(checkpoint) or Path(f"{checkpoint_prefix(checkpoint)}.index").is_file()):
        raise ConfigError(
            f"cannot detect the type of checkpoint {checkpoint}; give --fine-tune-type detection (a model trained by "
            "the Object Detection API, such as those of the model zoo) or classification (a bare backbone)"
        )
    return kind


def _refuse_to_overwrite(paths: Sequence[Path], force: bool) -> None:
    present = [str(path) for path in paths if path.exists()]
    if present and not force:
        raise ConfigError(f"already there: {', '.join(present)}; choose another directory, or overwrite with --force")


def _write(config: PipelineConfig, header: str, label_map: LabelMap, config_path: Path, label_map_path: Path) -> None:
    try:
        config_path.parent.mkdir(parents=True, exist_ok=True)
        label_map.save(label_map_path)
        save_pipeline(config, config_path, header=header)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {config_path.parent}: {error.strerror}; choose another directory"
        ) from error


def _next_steps(directory: Path, from_random_weights: bool) -> str:
    config = shlex.quote(str(directory / "pipeline.config"))
    steps = [
        "Annotate in a browser:",
        f"  odkeras annotate DATASET IMAGES_FOLDER {config}",
        "Simulate an annotator with known boxes, to see how fast the model learns:",
        f"  odkeras simulate TRUTH.csv {config} --images IMAGES_FOLDER",
        "Or annotate in Prodigy:",
        f"  prodigy image.trainmodel DATASET IMAGES_FOLDER {config}",
        "Or start the trainer alone, for answers that another machine writes into the data directory:",
        f"  odkeras trainer {config}",
    ]
    if from_random_weights:
        steps.append(
            f"{RANDOM_WEIGHTS} Add --force --weights {SUGGESTED_WEIGHTS} to this command, or another name from "
            "`odkeras weights list`."
        )
    return "\n".join(steps)
