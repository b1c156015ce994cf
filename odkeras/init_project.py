"""`odkeras init`: create a project directory with a pipeline.config and a label map."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from odkeras.errors import ConfigError
from odkeras.keypoints import Skeleton
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
from odkeras.pipeline.few_images import keep_what_a_detector_knows, tune_for_few_images
from odkeras.pipeline.files import checkpoint_kind, is_remote
from odkeras.pipeline.keypoints import KEYPOINT_TEMPLATE, learn_keypoints
from odkeras.pipeline.proto import PipelineConfig
from odkeras.pipeline.weights import RANDOM_WEIGHTS

DEFAULT_TEMPLATE = "ssd_mobilenet_v2_fpnlite_320"
_SUGGESTED_WEIGHTS = {
    DEFAULT_TEMPLATE: "ssd_mobilenet_v2_fpnlite_320x320",
    KEYPOINT_TEMPLATE: "centernet_mobilenetv2fpn_512x512_coco17_kpts",
}
"""Weights of a template's architecture, by their name in odkeras.pretrained."""


@dataclass(frozen=True)
class InitResult:
    """The files written, the checkpoint that training starts from (None: random weights), whether that is a detector's,
    and the next steps."""

    config_path: Path
    label_map_path: Path
    checkpoint: str | None
    is_detector: bool
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
    keypoints: Mapping[str, Skeleton] | None = None,
    template: str | None = None,
    fine_tune_checkpoint: str | None = None,
    fine_tune_checkpoint_type: str | None = None,
    find_start: Callable[[], StartingPoint] | None = None,
    no_labels: bool = False,
    force: bool = False,
) -> InitResult:
    """Write DIRECTORY/pipeline.config and DIRECTORY/label_map.pbtxt.

    Args:
        directory: created if it does not exist.
        labels: the class names; their ids are 1, 2, ... in this order.
        labels_file: a text file with further class names, one per line; they come after `labels`. None for none.
        keypoints: the keypoints of some labels, by label.
        template: one of `list_templates()`; None for the default, or `KEYPOINT_TEMPLATE` with keypoints.
        fine_tune_checkpoint: prefix of the checkpoint to start from; None for random weights.
        fine_tune_checkpoint_type: "classification", "detection" or "full"; None detects it from the checkpoint.
        find_start: returns what to use instead of the template and the checkpoint. Called after the labels and
            the files are checked, because it may download.
        no_labels: write a label map without classes; the first one is added in the page.
        force: overwrite existing files.

    Raises:
        ConfigError: invalid labels, an unknown template, one that does not suit the keypoints, an unusable checkpoint,
            or files that already exist.
    """
    directory = Path(directory).absolute()
    config_path, label_map_path = directory / "pipeline.config", directory / "label_map.pbtxt"
    label_map, skeleton = _label_map([] if no_labels else collect_label_names(labels, labels_file), keypoints or {})
    template = template or (KEYPOINT_TEMPLATE if skeleton.names else DEFAULT_TEMPLATE)
    if find_start is None:
        _check_keypoints_named(template, skeleton)
    _refuse_to_overwrite([config_path, label_map_path], force)
    if find_start is not None:
        start = find_start()
    else:
        start = StartingPoint.from_template(template, fine_tune_checkpoint, fine_tune_checkpoint_type)
    overrides = Overrides(
        fine_tune_checkpoint=_absolute(start.checkpoint),
        fine_tune_checkpoint_type=_restore_type(start.checkpoint, start.checkpoint_type),
        label_map_path=str(label_map_path),
        num_classes=max(1, label_map.max_id),
        train_records=(str(directory / "data" / "*_train.record"),),
        eval_records=(str(directory / "data" / "*_eval.record"),),
    )
    config = apply_overrides(start.config, overrides)
    is_detector = overrides.fine_tune_checkpoint_type in ("detection", "full")
    if is_detector:
        keep_what_a_detector_knows(config)
    raise_for_problems(check_pipeline(config, label_map=label_map, purpose="loop"), source=str(config_path))
    if skeleton.names:
        learn_keypoints(config, label_map, str(label_map_path), skeleton)
    _write(config, start.header, label_map, config_path, label_map_path)
    suggested = _SUGGESTED_WEIGHTS.get(template, _SUGGESTED_WEIGHTS[DEFAULT_TEMPLATE])
    next_steps = _next_steps(directory, "" if start.checkpoint else suggested)
    return InitResult(config_path, label_map_path, start.checkpoint, is_detector, next_steps)


def _check_keypoints_named(template: str, skeleton: Skeleton) -> None:
    if template == KEYPOINT_TEMPLATE and not skeleton.names:
        raise ConfigError(
            f"template {template} needs the keypoints of a label: give for example --keypoints person=coco, or "
            "--keypoints arrow=tail-tip"
        )


def _label_map(names: Sequence[str], keypoints: Mapping[str, Skeleton]) -> tuple[LabelMap, Skeleton]:
    """The label map, and the keypoints of all its classes with the lines between them."""
    if unknown := [name for name in keypoints if name not in names]:
        raise ConfigError(
            f"there is no label {unknown[0]!r} to have keypoints; the labels are {', '.join(map(repr, names))}"
        )
    points = Counter(point for skeleton in keypoints.values() for point in skeleton.names)
    if shared := [point for point, count in points.items() if count > 1]:
        raise ConfigError(
            f"keypoint {shared[0]!r} is one of several labels, and the model needs a name for each: write for example "
            f"{next(iter(keypoints))}_{shared[0]}"
        )
    label_map = LabelMap.from_names(names, {name: skeleton.names for name, skeleton in keypoints.items()})
    edges: list[tuple[int, int]] = []
    for label in label_map.labels:
        ids = [id for id, _ in label.keypoints]
        edges += [(ids[a], ids[b]) for a, b in (keypoints[label.name].edges if ids else ())]
    return label_map, Skeleton(label_map.keypoint_names, tuple(edges))


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


def _next_steps(directory: Path, suggested_weights: str) -> str:
    """What to do next. Names the suggested weights, unless they are ""."""
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
    if suggested_weights:
        steps.append(
            f"{RANDOM_WEIGHTS} Add --force --weights {suggested_weights} to this command, or another name from "
            "`odkeras weights list`."
        )
    return "\n".join(steps)
