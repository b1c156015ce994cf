"""Check that the label map and the pipeline.config match the classes of the trained model, without TensorFlow.

The classes of a model are recorded next to its checkpoints (`model_dir/pipeline.config` and `label_map.pbtxt`, written
when training starts) and in every published version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from odkeras.errors import CheckpointError, ConfigError
from odkeras.labels import LabelMap
from odkeras.pipeline.proto import PipelineConfig, feature_extractor_type, load_pipeline, model_type, num_classes
from odkeras.version_dirs import version_dir, version_dirs

LABEL_MAP_NAME = "label_map.pbtxt"
_CONFIG_NAME = "pipeline.config"
_VERSION_INFO = Path("assets.extra", "odkeras.json")
_MAX_CHANGES = 3
_MAX_CLASSES = 12
_RESTORE = (
    "Classes of a trained model cannot be renamed, removed or reordered. Restore the label map and num_classes that it "
    "was trained with (new classes may follow, with new ids), or start a new model with another model directory and "
    "export directory"
)
_NOT_EXTENDED = (
    "The model does not have the new classes yet: it is extended when `odkeras annotate`, `odkeras trainer` or "
    "`odkeras train` starts with this pipeline.config"
)
_ANSWERS_STAY = "(the answers in the data directory stay, and the new model is trained on them)"
_ANSWERS_DO_NOT_FIT = (
    "and, since the label map no longer has {gone}, another data directory (the answers are "
    "delivered again, and those that cannot be used are logged; in the old one, images with such objects are "
    "not trained on)"
)


@dataclass(frozen=True)
class TrainedClasses:
    """The classes of a trained model.

    Args:
        where: the directory of the model, for messages.
        labels: label-map id -> name; empty if unknown.
        steps: number of training steps of the model; 0 if unknown.
        learned: False if it has untrained weights; see `export.info.ExportInfo`.
    """

    where: Path
    labels: Mapping[int, str]
    steps: int = 0
    learned: bool = True


def check_trained_classes(
    config: PipelineConfig,
    label_map: LabelMap,
    *,
    model_dir: Path | None = None,
    export_dir: Path | None = None,
    extends: bool = False,
    renamed: Mapping[str, str | None] | None = None,
) -> None:
    """Check that the label map and the config match the checkpoints and the newest published version.

    Passes if there is neither, or if their classes are unknown.

    Args:
        config: the resolved config; if it has no model, only the label map is compared.
        model_dir: directory of the checkpoints; None skips them.
        export_dir: directory of the versions; None skips them.
        extends: the label map may have more classes, because the caller trains, which extends the model first (see
            `model.growth`).
        renamed: what became of earlier names; see `class_history.ClassHistory`.

    Raises:
        ConfigError: they differ. Training would learn wrong classes, suggestions would have wrong names, and a
            different architecture would start from random weights. The message says what changed and what to do.
    """
    ours = {label.id: label.name for label in label_map.labels}
    then = trained_config(model_dir) if model_dir is not None else None
    served = classes_of_newest_version(export_dir) if export_dir is not None else None
    can_extend = extends and (then is not None or model_dir is None or not has_checkpoints(model_dir))
    room = label_map.max_id if can_extend else num_classes(then) if then is not None else 0
    if served is not None:
        _check_labels(_with_current_names(served, ours, renamed or {}), ours, room)
    if model_dir is not None and then is not None:
        labels = LabelMap.load(model_dir / LABEL_MAP_NAME).labels
        trained = TrainedClasses(model_dir, {label.id: label.name for label in labels})
        _check_labels(_with_current_names(trained, ours, renamed or {}), ours, room)
        _check_model(then, config, model_dir, extends=extends)


def trained_config(model_dir: Path) -> PipelineConfig | None:
    """The config that the checkpoints of a directory were trained with; None if there are none, or if it is unknown."""
    if has_checkpoints(model_dir) and (model_dir / LABEL_MAP_NAME).is_file():
        return load_pipeline(model_dir / _CONFIG_NAME)
    return None


def check_version_classes(
    label_map: LabelMap, export_dir: Path, version: int, renamed: Mapping[str, str | None] | None = None
) -> None:
    """Check that the label map has the classes of one version, with the same ids.

    Further classes are allowed; the version does not detect them. Passes if the classes of the version are unknown.

    Args:
        renamed: see `check_trained_classes`.

    Raises:
        ConfigError: a class of the version is missing or has another id.
    """
    if (classes := _read_classes(version_dir(export_dir, version), export_dir)) is not None:
        ours = {label.id: label.name for label in label_map.labels}
        _check_labels(_with_current_names(classes, ours, renamed or {}), ours, room=label_map.max_id)


def check_training_continues(model_dir: Path, export_dir: Path, *, has_checkpoint: bool) -> None:
    """Check that there is a checkpoint to resume from if a trained version is published.

    Otherwise training would start over, and soon replace the published version by a worse one.

    Args:
        has_checkpoint: whether `model_dir` has a checkpoint to resume from.

    Raises:
        CheckpointError: there is a trained version, but no checkpoint.
    """
    served = classes_of_newest_version(export_dir)
    if served is not None and served.steps > 0 and not has_checkpoint:
        raise CheckpointError(
            f"the model in {export_dir} has {served.steps} training steps, but there is no checkpoint in "
            f"{model_dir} to resume from: training would start over and replace it. Give the model directory that it "
            "was trained in; or start a new model with another export directory, too"
        )


def classes_of_newest_version(export_dir: Path) -> TrainedClasses | None:
    """The classes of the newest version that odkeras published and that is `learned`; None if there is none."""
    for version in reversed(version_dirs(export_dir).values()):
        if (trained := _read_classes(version, export_dir)) is not None and trained.learned:
            return trained
    return None


def _read_classes(version_dir: Path, export_dir: Path) -> TrainedClasses | None:
    try:
        info = json.loads((version_dir / _VERSION_INFO).read_text(encoding="utf-8"))
        labels = {int(id): str(name) for id, name in info["labels"]}
        return TrainedClasses(export_dir, labels, int(info.get("step") or 0), bool(info.get("learned", True)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def has_checkpoints(model_dir: Path) -> bool:
    """Whether the directory has any checkpoint, even an incomplete one."""
    return any(model_dir.glob("*.index"))


def _check_labels(trained: TrainedClasses, ours: Mapping[int, str], room: int) -> None:
    """Check that `ours` matches the trained labels.

    Args:
        ours: label-map id -> name of the label map in use.
        room: the model's num_classes, 0 if unknown. Classes with unused ids up to it may be added: the model has
            outputs for them.

    Raises:
        ConfigError: they differ.
    """
    theirs = trained.labels
    ids = sorted(id for id in {*theirs, *ours} if id in theirs or id > room)
    diffs = [change for id in ids if (change := _change(id, theirs.get(id), ours.get(id)))]
    if not theirs or not diffs:
        return
    more = f"; and {len(diffs) - _MAX_CHANGES} more" if len(diffs) > _MAX_CHANGES else ""
    raise ConfigError(
        f"the model in {trained.where} was trained with another label map: {'; '.join(diffs[:_MAX_CHANGES])}{more}. It "
        f"was trained with {_listed(theirs)}; the label map has {_listed(ours)}. {_way_out(theirs, ours)}"
    )


def _with_current_names(
    trained: TrainedClasses, ours: Mapping[int, str], renamed: Mapping[str, str | None]
) -> TrainedClasses:
    """The classes with the names of today, without those that were retired or merged with another."""
    labels = {}
    for id, name in trained.labels.items():
        current = name if name in ours.values() else renamed.get(name, name)
        was_merged = id not in ours and current != name and current in ours.values()
        if current is not None and not was_merged:
            labels[id] = current
    return replace(trained, labels=labels)


def _way_out(theirs: Mapping[int, str], ours: Mapping[int, str]) -> str:
    """What the user can do. Answers store class names, so they stay usable if names are added or ids change, but not if
    a name is gone."""
    if theirs.items() <= ours.items():
        return _NOT_EXTENDED
    names = set(ours.values())
    gone = [repr(name) for _, name in sorted(theirs.items()) if name not in names]
    if not gone:
        return f"{_RESTORE} {_ANSWERS_STAY}"
    more = [f"{len(gone) - _MAX_CHANGES} more"] if len(gone) > _MAX_CHANGES else []
    return f"{_RESTORE}, {_ANSWERS_DO_NOT_FIT.format(gone=', '.join([*gone[:_MAX_CHANGES], *more]))}"


def _change(id: int, theirs: str | None, ours: str | None) -> str:
    if theirs == ours:
        return ""
    if ours is None:
        return f"id {id}, {theirs!r} there, is missing here"
    if theirs is None:
        return f"id {id}, {ours!r} here, is missing there"
    return f"id {id} is {theirs!r} there and {ours!r} here"


def _listed(labels: Mapping[int, str]) -> str:
    shown = [f"{id} {name}" for id, name in sorted(labels.items())[:_MAX_CLASSES]]
    more = [f"{len(labels) - _MAX_CLASSES} more"] if len(labels) > _MAX_CLASSES else []
    return f"{len(labels)} {'class' if len(labels) == 1 else 'classes'} ({', '.join([*shown, *more])})"


def _check_model(then: PipelineConfig, now: PipelineConfig, model_dir: Path, *, extends: bool) -> None:
    if now.model.WhichOneof("model") is None:
        return
    was, has = _form(then), _form(now)
    if was == has or (extends and was[1:] == has[1:] and was[0] < has[0]):
        return
    way_out = _NOT_EXTENDED if was[1:] == has[1:] and was[0] < has[0] else f"{_RESTORE} {_ANSWERS_STAY}"
    raise ConfigError(
        f"the checkpoints in {model_dir} are of a model with {_form_text(was)}, and the pipeline.config has "
        f"{_form_text(has)}. {way_out}"
    )


def _form(config: PipelineConfig) -> tuple[int, str, str]:
    return num_classes(config), model_type(config), feature_extractor_type(config)


def _form_text(form: tuple[int, str, str]) -> str:
    return f"num_classes: {form[0]} ({form[1]}, {form[2]})"
