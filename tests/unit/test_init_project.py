from __future__ import annotations

from pathlib import Path

import pytest

from odkeras.errors import ConfigError
from odkeras.init_project import init_project
from odkeras.keypoints import COCO_PERSON, Skeleton, parse_class_keypoints
from odkeras.labels import LabelMap
from odkeras.pipeline import check_pipeline, list_templates, load_pipeline, model_type, num_classes


def write_checkpoint(prefix: Path, names: bytes) -> str:
    Path(f"{prefix}.index").write_bytes(b"_CHECKPOINTABLE_OBJECT_GRAPH" + names)
    Path(f"{prefix}.data-00000-of-00001").touch()
    return str(prefix)


def test_a_new_project_has_a_config_and_a_label_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = init_project("my project", ["red fox", "raccoon"])
    directory = tmp_path / "my project"
    assert result.paths == (directory / "pipeline.config", directory / "label_map.pbtxt")
    assert sorted(path.name for path in directory.iterdir()) == ["label_map.pbtxt", "pipeline.config"]
    assert LabelMap.load(result.label_map_path).names == ("red fox", "raccoon")
    config = load_pipeline(result.config_path)
    assert (model_type(config), num_classes(config)) == ("ssd", 2)
    for reader, records in ((config.train_input_reader, "train"), (config.eval_input_reader[0], "eval")):
        assert reader.label_map_path == str(directory / "label_map.pbtxt")
        assert list(reader.tf_record_input_reader.input_path) == [str(directory / "data" / f"*_{records}.record")]
    assert config.train_config.fine_tune_checkpoint == ""
    assert check_pipeline(config, label_map=None, purpose="loop") == []


def test_the_template_s_remarks_stay_and_the_paths_are_explained(tmp_path: Path) -> None:
    text = init_project(tmp_path, ["a"]).config_path.read_text()
    header = text.partition("\n\nmodel {")[0].splitlines()
    assert header[0].startswith("# Written by `odkeras init` from the template ssd_mobilenet_v2_fpnlite_320")
    assert "absolute" in header[1]
    assert any(line.startswith("# Hardware:") for line in header)
    assert all(line.startswith("#") or not line for line in header)


@pytest.mark.parametrize("template", list_templates())
def test_every_template_becomes_a_project(tmp_path: Path, template: str) -> None:
    keypoints = {"a": Skeleton.parse("tail-tip")} if template == "centernet_keypoints" else None
    result = init_project(tmp_path, ["a", "b", "c"], keypoints=keypoints, template=template)
    config = load_pipeline(result.config_path)
    assert num_classes(config) == 3
    assert [each for each in check_pipeline(config, label_map=None, purpose="loop") if each.severity == "error"] == []


def test_keypoints_are_learned_evaluated_drawn_and_mirrored(tmp_path: Path) -> None:
    keypoints = parse_class_keypoints(["hand = left_tip-palm-right_tip,wrist", "person=coco"])
    result = init_project(tmp_path, ["hand", "ball", "person"], keypoints=keypoints)
    label_map, config = LabelMap.load(result.label_map_path), load_pipeline(result.config_path)
    assert label_map.keypoints_of(1) == ((0, "left_tip"), (1, "palm"), (2, "right_tip"), (3, "wrist"))
    assert label_map.keypoints_of(2) == ()
    assert label_map.keypoints_of(3)[0] == (4, "nose")
    assert label_map.num_keypoints == 21
    model = config.model.center_net
    assert model.keypoint_label_map_path == str(result.label_map_path)
    assert [task.keypoint_class_name for task in model.keypoint_estimation_task] == ["hand", "person"]
    assert [reader.num_keypoints for reader in (config.train_input_reader, *config.eval_input_reader)] == [21, 21]
    edges = [(edge.start, edge.end) for edge in config.eval_config.keypoint_edge]
    assert edges[:2] == [(0, 1), (1, 2)]
    assert (4 + 5, 4 + 6) in edges  # the person's shoulders
    (flip,) = (
        option.random_horizontal_flip.keypoint_flip_permutation
        for option in config.train_config.data_augmentation_options
        if option.HasField("random_horizontal_flip")
    )
    assert list(flip)[:7] == [2, 1, 0, 3, 4, 6, 5]
    hand, person = (metric.coco_keypoint_metrics for metric in config.eval_config.parameterized_metric)
    assert dict(hand.keypoint_label_to_sigmas) == {}
    assert person.keypoint_label_to_sigmas["right_wrist"] == pytest.approx(0.062)
    assert "centernet_mobilenetv2fpn_512x512_coco17_kpts" in result.next_steps
    problems = check_pipeline(config, label_map=label_map, purpose="loop")
    assert [each for each in problems if each.severity == "error"] == []


def test_the_keypoints_of_a_person_are_coco_s() -> None:
    sides = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    assert COCO_PERSON.names == ("nose", *(f"{side}_{part}" for part in sides for side in ("left", "right")))
    assert COCO_PERSON.mirrored == (0, *(id for pair in range(8) for id in (2 * pair + 2, 2 * pair + 1)))


@pytest.mark.parametrize(
    ("texts", "template", "message"),
    [
        (["person"], None, "must be LABEL=NAME"),
        (["person="], None, "must be LABEL=NAME"),
        (["person=nose,,ear"], None, "'nose,,ear': a keypoint has no name"),
        (["person=nose-"], None, "a keypoint has no name"),
        (["dog=nose"], None, "there is no label 'dog' to have keypoints; the labels are 'person', 'cat'"),
        (["person=nose", "cat=nose"], None, "keypoint 'nose' is one of several labels.*person_nose"),
        ([], "centernet_keypoints", "needs the keypoints of a label"),
        (["person=nose"], "efficientdet_d0_512", "only CenterNet learns keypoints, and this model is ssd"),
    ],
)
def test_wrong_keypoints_are_refused_before_anything_is_written(
    tmp_path: Path, texts: list[str], template: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        init_project(tmp_path / "new", ["person", "cat"], keypoints=parse_class_keypoints(texts), template=template)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (b"feature_extractor/layer-0", None, "classification"),
        (b"model/_feature_extractor/x", None, "detection"),
        (b"model/_feature_extractor/x", "full", "full"),
    ],
)
def test_a_checkpoint_is_written_down_with_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: bytes, given: str | None, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "ckpt-1", names)
    result = init_project("p", ["a"], fine_tune_checkpoint="ckpt-1.index", fine_tune_checkpoint_type=given)
    train = load_pipeline(result.config_path).train_config
    assert (train.fine_tune_checkpoint, train.fine_tune_checkpoint_type) == (str(tmp_path / "ckpt-1"), expected)
    rate = train.optimizer.adam_optimizer.learning_rate.constant_learning_rate.learning_rate
    assert rate == pytest.approx(1e-3 if expected == "classification" else 3e-4)
    assert "random weights" not in result.next_steps


def test_a_checkpoint_that_says_nothing_needs_its_type(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "ckpt-1", b"net/layer-0")
    with pytest.raises(ConfigError, match=r"cannot detect the type of checkpoint .*--fine-tune-type detection"):
        init_project(tmp_path / "p", ["a"], fine_tune_checkpoint=checkpoint)
    with pytest.raises(ConfigError, match="cannot detect"):
        init_project(tmp_path / "p", ["a"], fine_tune_checkpoint="gs://bucket/ckpt-1")
    result = init_project(
        tmp_path / "p", ["a"], fine_tune_checkpoint="gs://bucket/ckpt-1", fine_tune_checkpoint_type="detection"
    )
    assert load_pipeline(result.config_path).train_config.fine_tune_checkpoint == "gs://bucket/ckpt-1"


def test_a_checkpoint_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such checkpoint"):
        init_project(tmp_path / "p", ["a"], fine_tune_checkpoint=str(tmp_path / "ckpt-0"))
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "at least one label.*--labels-file"),
        ("raccoon", "at least one label"),  # a string is a sequence of letters
        ([""], "a label is empty"),
        (["  "], "a label is empty"),
        (["car ", "bus"], "label 'car ' has surrounding spaces .*write 'car'"),
        (["a\tb"], "unprintable characters"),
        (["car,bus"], "comma; give --label once per label"),
        (["car", "bus", "car"], "duplicate label 'car'"),
    ],
)
def test_labels_that_would_make_trouble(tmp_path: Path, labels: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        init_project(tmp_path / "p", labels)
    assert not (tmp_path / "p").exists()


def test_nothing_is_overwritten_unless_wanted(tmp_path: Path) -> None:
    (tmp_path / "label_map.pbtxt").write_text("mine")
    with pytest.raises(ConfigError, match=r"already there: .*label_map.pbtxt; .*--force"):
        init_project(tmp_path, ["a"])
    assert (tmp_path / "label_map.pbtxt").read_text() == "mine"
    assert not (tmp_path / "pipeline.config").exists()
    init_project(tmp_path, ["a"], force=True)
    assert LabelMap.load(tmp_path / "label_map.pbtxt").names == ("a",)


def test_the_next_steps_can_be_pasted(tmp_path: Path) -> None:
    result = init_project(tmp_path / "my project", ["a"])
    quoted = f"'{tmp_path / 'my project' / 'pipeline.config'}'"
    commands = [line.strip() for line in result.next_steps.splitlines() if line.startswith("  odkeras ")]
    assert [command.split()[1] for command in commands] == ["annotate", "simulate", "trainer"]
    assert all(quoted in command for command in commands)
    assert "random weights" in result.next_steps


def test_the_names_of_a_file_follow_those_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("truck\nbus\n")
    result = init_project(tmp_path / "p", ["car"], labels_file=tmp_path / "names.txt")
    assert LabelMap.load(result.label_map_path).names == ("car", "truck", "bus")
    assert num_classes(load_pipeline(result.config_path)) == 3


def test_a_project_without_labels(tmp_path: Path) -> None:
    """The page asks for the first one."""
    result = init_project(tmp_path, no_labels=True, template="shapes_96")
    assert LabelMap.load(result.label_map_path, may_be_empty=True).labels == ()
    assert num_classes(load_pipeline(result.config_path)) == 1
