"""Whether a label map and a pipeline.config still fit the model that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from odkeras.errors import CheckpointError, ConfigError
from odkeras.labels import Label, LabelMap
from odkeras.pipeline import (
    check_trained_classes,
    check_training_continues,
    check_version_classes,
    read_template,
    save_pipeline,
    set_num_classes,
)
from odkeras.pipeline.proto import PipelineConfig, parse_pipeline

THREE = LabelMap.from_names(["circle", "triangle", "square"])


def config_of(classes: int = 3, template: str = "shapes_96") -> PipelineConfig:
    config = parse_pipeline(read_template(template), source=template)
    set_num_classes(config, classes)
    return config


def save_version(folder: Path, version: int = 7, labels: LabelMap | None = THREE, step: int = 30, **more: Any) -> None:
    extra = folder / "export" / str(version) / "assets.extra"
    extra.mkdir(parents=True)
    pairs = [(label.id, label.name) for label in labels.labels] if labels is not None else []
    (extra / "odkeras.json").write_text(json.dumps({"step": step, "graph": "", "labels": pairs, **more}))


def save_checkpoint(folder: Path, config: PipelineConfig, label_map: LabelMap = THREE) -> None:
    """As far as it is looked at: what it was trained with."""
    model = folder / "model"
    model.mkdir()
    (model / "ckpt-30.index").touch()
    save_pipeline(config, model / "pipeline.config")
    label_map.save(model / "label_map.pbtxt")


def check(folder: Path, label_map: LabelMap, config: PipelineConfig | None = None) -> None:
    config = config if config is not None else config_of(label_map.max_id)
    check_trained_classes(config, label_map, model_dir=folder / "model", export_dir=folder / "export")


def refusal(folder: Path, label_map: LabelMap, config: PipelineConfig | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        check(folder, label_map, config)
    return str(caught.value)


CHANGED = {
    "added": (LabelMap.from_names([*THREE.names, "star"]), "id 4, 'star' here, is missing there"),
    "removed": (LabelMap.from_names(THREE.names[:2]), "id 3, 'square' there, is missing here"),
    "reordered": (
        LabelMap.from_names(["triangle", "circle", "square"]),
        "id 1 is 'circle' there and 'triangle' here; id 2 is 'triangle' there and 'circle' here",
    ),
    "renamed": (LabelMap.from_names(["disc", "triangle", "square"]), "id 1 is 'circle' there and 'disc' here"),
    "renumbered": (
        LabelMap((Label(1, "circle"), Label(2, "triangle"), Label(5, "square"))),
        "id 3, 'square' there, is missing here; id 5, 'square' here, is missing there",
    ),
}


@pytest.mark.parametrize("trained", ["checkpoint", "version"])
@pytest.mark.parametrize(("label_map", "change"), CHANGED.values(), ids=CHANGED)
def test_changed_classes_are_refused_with_the_way_out(
    tmp_path: Path, trained: str, label_map: LabelMap, change: str
) -> None:
    if trained == "checkpoint":
        save_checkpoint(tmp_path, config_of(3))
    else:
        save_version(tmp_path)
    said = refusal(tmp_path, label_map)
    where = tmp_path / ("model" if trained == "checkpoint" else "export")
    assert said.startswith(f"the model in {where} was trained with another label map: {change}. It was trained with 3 ")
    assert "3 classes (1 circle, 2 triangle, 3 square); the label map has " in said
    assert f"{len(label_map)} classes (1 " in said
    if len(label_map) > len(THREE):
        assert said.endswith(
            "is extended when `odkeras annotate`, `odkeras trainer` or `odkeras train` starts with this pipeline.config"
        )
    else:
        assert "Restore the label map" in said and "another model directory and export directory" in said


@pytest.mark.parametrize("change", ["removed", "renamed"])
def test_other_names_need_another_data_directory(tmp_path: Path, change: str) -> None:
    """The way out said that the answers in the data directory are trained on: those with the old name were
    trained on as images with nothing in them."""
    save_version(tmp_path)
    gone = "'square'" if change == "removed" else "'circle'"
    said = refusal(tmp_path, CHANGED[change][0])
    assert f"since the label map no longer has {gone}, another data directory (the answers are delivered ag" in said
    assert "the new model is trained on them" not in said


@pytest.mark.parametrize("change", ["reordered", "renumbered"])
def test_other_ids_of_the_same_names_do_not(tmp_path: Path, change: str) -> None:
    save_version(tmp_path)
    said = refusal(tmp_path, CHANGED[change][0])
    assert said.endswith("(the answers in the data directory stay, and the new model is trained on them)")


def test_a_class_may_be_added_where_the_model_has_room(tmp_path: Path) -> None:
    """The model has num_classes: 5 and the label map had three: a fourth was refused."""
    save_checkpoint(tmp_path, config_of(5))
    save_version(tmp_path)
    check(tmp_path, CHANGED["added"][0], config_of(5))
    assert "id 1 is 'circle' there and 'disc' here" in refusal(tmp_path, CHANGED["renamed"][0], config_of(5))
    assert "id 3, 'square' there, is missing here. " in refusal(tmp_path, CHANGED["renumbered"][0], config_of(5))
    six = LabelMap.from_names([*THREE.names, "star", "ring", "cross"])
    assert "id 6, 'cross' here, is missing there. " in refusal(tmp_path, six, config_of(5))


@pytest.mark.parametrize("change", CHANGED)
def test_training_extends_the_model_by_new_classes_alone(tmp_path: Path, change: str) -> None:
    save_checkpoint(tmp_path, config_of(3))
    save_version(tmp_path)
    label_map, difference = CHANGED[change]
    config = config_of(label_map.max_id)
    where = {"model_dir": tmp_path / "model", "export_dir": tmp_path / "export"}
    if change == "added":
        check_trained_classes(config, label_map, **where, extends=True)
        with pytest.raises(ConfigError, match="num_classes: 2 "):
            check_trained_classes(config_of(2), THREE, **where, extends=True)
        with pytest.raises(ConfigError, match="ssd_mobilenet"):
            other = config_of(4, "ssd_mobilenet_v2_fpnlite_320")
            check_trained_classes(other, label_map, **where, extends=True)
        return
    with pytest.raises(ConfigError) as caught:
        check_trained_classes(config, label_map, **where, extends=True)
    assert difference.partition(";")[0] in str(caught.value)


def test_a_model_is_not_extended_if_its_number_of_classes_is_unknown(tmp_path: Path) -> None:
    """An older odkeras kept no label map with its checkpoints."""
    save_checkpoint(tmp_path, config_of(3))
    save_version(tmp_path)
    (tmp_path / "model" / "label_map.pbtxt").unlink()
    where = {"model_dir": tmp_path / "model", "export_dir": tmp_path / "export"}
    with pytest.raises(ConfigError, match="id 4, 'star' here, is missing there"):
        check_trained_classes(config_of(4), CHANGED["added"][0], **where, extends=True)


def test_one_version_is_compared_alone(tmp_path: Path) -> None:
    """`eval --version` was refused for the classes of other versions and of the checkpoints."""
    save_version(tmp_path, 7)
    save_version(tmp_path, 8, CHANGED["renamed"][0])
    save_checkpoint(tmp_path, config_of(2), CHANGED["removed"][0])
    check_version_classes(THREE, tmp_path / "export", 7)
    check_version_classes(CHANGED["added"][0], tmp_path / "export", 7)
    check_version_classes(CHANGED["renamed"][0], tmp_path / "export", 8)
    check_version_classes(THREE, tmp_path / "export", 9)  # there is none, which is said later
    with pytest.raises(ConfigError, match="id 1 is 'disc' there and 'circle' here"):
        check_version_classes(THREE, tmp_path / "export", 8)


def test_what_has_not_changed_fits(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, config_of())
    save_version(tmp_path)
    check(tmp_path, THREE)
    shown = LabelMap(tuple(Label(each.id, each.name, each.name.title()) for each in reversed(THREE.labels)))
    check(tmp_path, shown)  # what people read, and the order in the file


def test_where_nothing_was_trained_everything_fits(tmp_path: Path) -> None:
    check(tmp_path, THREE)
    save_version(tmp_path, step=0, learned=False)  # freshly built weights
    check(tmp_path, CHANGED["added"][0])
    check_training_continues(tmp_path / "model", tmp_path / "export", has_checkpoint=False)


def test_another_num_classes_or_model_is_refused(tmp_path: Path) -> None:
    """The label map alone would let it through."""
    save_checkpoint(tmp_path, config_of(3))
    said = refusal(tmp_path, THREE, config_of(5))
    assert f"the checkpoints in {tmp_path}/model are of a model with num_classes: 3 (center_net, " in said
    assert "and the pipeline.config has num_classes: 5 (center_net, " in said and "it is extended when " in said
    assert "start a new model" in refusal(tmp_path, THREE, config_of(3, "ssd_mobilenet_v2_fpnlite_320"))
    assert "has num_classes: 3 (ssd, ssd_mobilenet" in refusal(
        tmp_path, THREE, config_of(3, "ssd_mobilenet_v2_fpnlite_320")
    )
    config = config_of(3)
    config.model.center_net.object_center_params.max_box_predictions = 7  # the weights are the same
    check(tmp_path, THREE, config)


def test_a_project_of_an_older_odkeras(tmp_path: Path) -> None:
    """It kept no label map with its checkpoints, and its pipeline.config may be of a start that failed."""
    save_checkpoint(tmp_path, config_of(4))
    (tmp_path / "model" / "label_map.pbtxt").unlink()
    check(tmp_path, THREE)
    save_version(tmp_path)
    check(tmp_path, THREE)
    assert "trained with another label map" in refusal(tmp_path, CHANGED["added"][0])


def test_training_does_not_start_over_where_a_trained_model_is_served(tmp_path: Path) -> None:
    save_version(tmp_path, step=30)
    check_training_continues(tmp_path / "model", tmp_path / "export", has_checkpoint=True)
    with pytest.raises(
        CheckpointError, match=r"export has 30 training steps, .* no checkpoint in .*model to resume from"
    ):
        check_training_continues(tmp_path / "model", tmp_path / "export", has_checkpoint=False)


def test_a_detector_that_was_put_there_untrained_may_be_trained(tmp_path: Path) -> None:
    save_version(tmp_path, step=0)
    check_training_continues(tmp_path / "model", tmp_path / "export", has_checkpoint=False)
