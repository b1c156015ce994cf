from __future__ import annotations

import re
from pathlib import Path

import pytest

from odkeras.config.commands import declared_options
from odkeras.labels import Label, LabelMap
from odkeras.pipeline import (
    Overrides,
    PipelineConfig,
    Problem,
    Purpose,
    apply_overrides,
    check_pipeline,
    checks,
    extractors,
    learning_rate_at,
    parse_pipeline,
    read_template,
)
from odkeras.pipeline.files import checkpoint_kind
from odkeras.pipeline.schedules import problem_past_end

RACCOON = LabelMap.from_names(["raccoon"])
MIXED = LabelMap((Label(1, "car"), Label(90, "bus")))
TEMPLATE = "ssd_mobilenet_v2_fpnlite_320"


def replaced(*pairs: tuple[str, str], template: str = TEMPLATE) -> PipelineConfig:
    """A template with parts of its text replaced."""
    text = read_template(template)
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after)
    return parse_pipeline(text, source="sample")


def check(config: PipelineConfig, purpose: Purpose = "loop", *, step: int | None = None) -> list[Problem]:
    return check_pipeline(config, label_map=RACCOON, purpose=purpose, step=step)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def as_in_the_zoo(template: str = TEMPLATE) -> PipelineConfig:
    """A config as the model zoo ships it: placeholders, 90 classes, a TPU's batch size and schedule."""
    config = replaced(("num_classes: 1", "num_classes: 90"), template=template)
    train = config.train_config
    train.batch_size, train.num_steps, train.use_bfloat16, train.sync_replicas = 128, 50000, True, True
    train.fine_tune_checkpoint, train.fine_tune_checkpoint_type = "PATH_TO_BE_CONFIGURED/ckpt-0", "classification"
    train.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate.MergeFrom(
        type(train.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate)(
            learning_rate_base=0.08, total_steps=50000, warmup_learning_rate=0.026666, warmup_steps=1000
        )
    )
    for reader in (config.train_input_reader, *config.eval_input_reader):
        reader.label_map_path = "PATH_TO_BE_CONFIGURED/label_map.txt"
        reader.tf_record_input_reader.input_path.append("PATH_TO_BE_CONFIGURED/train2017-?????-of-00256.tfrecord")
    return config


def write_checkpoint(prefix: Path, names: str, *, object_based: bool = True) -> str:
    """The two files of a checkpoint, as far as they are looked at."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    graph = b"_CHECKPOINTABLE_OBJECT_GRAPH\x00" if object_based else b"\x00"
    Path(f"{prefix}.index").write_bytes(graph + names.encode())
    Path(f"{prefix}.data-00000-of-00001").write_bytes(b"\x00")
    return str(prefix)


def from_checkpoint(path: str, kind: str = "classification", template: str = TEMPLATE) -> PipelineConfig:
    overrides = Overrides(fine_tune_checkpoint=path, fine_tune_checkpoint_type=kind)
    return apply_overrides(replaced(template=template), overrides)


# the whole


@pytest.mark.parametrize("template", ["ssd_mobilenet_v2_fpnlite_320", "faster_rcnn_resnet50_640", "center_net"])
def test_a_config_of_the_zoo_has_no_errors_in_the_loop(template: str) -> None:
    """It must work unchanged once the label map is given: only real obstacles are errors."""
    name = "centernet_resnet50_512" if template == "center_net" else template
    problems = check(as_in_the_zoo(name))
    assert [problem.field for problem in problems if problem.severity == "error"] == []
    assert {problem.field.rpartition(".")[2] for problem in problems} == {
        "num_classes",
        "use_bfloat16",
        "fine_tune_checkpoint",
    }


def test_a_config_of_the_zoo_cannot_be_trained_without_its_paths() -> None:
    """All of them are listed at once."""
    problems = check_pipeline(as_in_the_zoo(), label_map=None, purpose="train")
    assert [problem.field for problem in problems if problem.severity == "error"] == [
        "train_input_reader.label_map_path",
        "train_config.fine_tune_checkpoint",
        "train_input_reader.tf_record_input_reader.input_path",
    ]


def test_a_config_without_model_gets_one_answer() -> None:
    assert only(check(parse_pipeline("", source="p"))).field == "model"
    assert only(check(parse_pipeline("model { experimental_model {} }", source="p"))).value == "experimental_model"


def test_no_advice_names_an_option_that_a_command_lacks() -> None:
    """`odkeras train` advised --fine-tune-checkpoint, which is an option of `odkeras init` alone."""
    shared = set.intersection(
        *(
            {f"--{each.name.replace('_', '-')}" for each in declared_options(command)}
            for command in ("annotate", "trainer", "train", "eval", "export")
        )
    )
    for path in sorted(Path(checks.__file__).parent.glob("*.py")):
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"`odkeras [^`]*`", "", path.read_text())))
        assert options <= shared, path


# the model


@pytest.mark.parametrize(
    ("name", "reason", "fix"),
    [
        ("ssd_mobilenet_v2", "TensorFlow 1 only", "use ssd_mobilenet_v2_keras, with a checkpoint"),
        ("ssd_mobilenet_v2_fpn", "TensorFlow 1 only", "use ssd_mobilenet_v2_fpn_keras"),
        ("ssd_inception_v2", "TensorFlow 1 only", "choose another model"),
        ("ssd_mobilenet_v2_fnp_keras", "no such feature extractor for ssd", "did you mean ssd_mobilenet_v2_fpn_keras?"),
        # of another meta-architecture
        ("resnet_v1_50_fpn", "no such feature extractor for ssd", "did you mean ssd_resnet50_v1_fpn_keras?"),
        ("", "no such feature extractor for ssd", "known: ssd_mobilenet_v1_keras"),
    ],
)
def test_feature_extractors_that_cannot_be_built(name: str, reason: str, fix: str) -> None:
    problem = only(check(replaced(("ssd_mobilenet_v2_fpn_keras", name))))
    assert (problem.field, problem.value, problem.severity) == ("model.ssd.feature_extractor.type", name, "error")
    assert reason in problem.reason and fix in problem.fix


def test_the_list_of_feature_extractors_is_the_api_s() -> None:
    """Every name of the list is in the installed model_builder.py; TF1 names are there too."""
    import object_detection

    text = (Path(object_detection.__file__).parent / "builders" / "model_builder.py").read_text()
    names = [name for kind in ("ssd", "faster_rcnn", "center_net") for name in extractors.known(kind)]
    assert [name for name in [*names, *extractors.TF1_ONLY] if f"'{name}':" not in text] == []
    replacements = {name for name in extractors.TF1_ONLY.values() if name}
    assert replacements <= set(names)


@pytest.mark.parametrize("extractor", ["mobilenet_v2", "mobilenet_v2_fpn", "mobilenet_v2_fpn_sep_conv"])
def test_weights_that_are_downloaded_are_announced_where_they_are_used(tmp_path: Path, extractor: str) -> None:
    """Evaluation and export built them in, too, and failed without a network, although a checkpoint replaced them."""
    config = replaced(template="centernet_resnet50_512")
    config.model.center_net.feature_extractor.type = extractor
    problem = only(check(config))
    assert (problem.severity, problem.field) == ("warning", "model.center_net.feature_extractor.type")
    assert check(config, "export") == check(config, step=100) == []
    config.model.center_net.feature_extractor.depth_multiplier = 0.5
    assert check(config) == []
    checkpoint = write_checkpoint(tmp_path / "ckpt-0", "model/_feature_extractor/x")
    config = from_checkpoint(checkpoint, "detection", "centernet_resnet50_512")
    config.model.center_net.feature_extractor.type = extractor
    assert check(config) == []


def test_efficientdet_and_moving_averages_need_the_model_garden(monkeypatch: pytest.MonkeyPatch) -> None:
    efficientdet = replaced(template="efficientdet_d0_512")
    averaging = replaced(("use_moving_average: false", ""))
    assert check(efficientdet) == check(averaging) == []
    monkeypatch.setattr(checks, "_has_official", lambda path: False)
    assert "pip install --no-deps" in only(check(efficientdet)).fix
    problem = only(check(averaging))
    assert (
        problem.field == "train_config.optimizer.use_moving_average" and "set use_moving_average: false" in problem.fix
    )


def test_settings_of_tensorflow_1() -> None:
    config = replaced(("eval_config {", "graph_rewriter { quantization { delay: 1 } } eval_config {"))
    problem = only(check(config))
    assert (problem.field, problem.severity) == ("graph_rewriter", "warning")
    config = replaced()
    config.model.ssd.matcher.bipartite_matcher.SetInParent()
    assert only(check(config)).value == "bipartite_matcher"
    config = replaced(template="faster_rcnn_resnet50_640")
    config.model.faster_rcnn.inplace_batchnorm_update = True
    assert only(check(config)).field == "model.faster_rcnn.inplace_batchnorm_update"


@pytest.mark.parametrize(
    ("task", "loaded_by"),
    [
        ("densepose_estimation_task", "load_dense_pose: true"),
        ("track_estimation_task", "load_track_id: true"),
    ],
)
def test_a_model_that_needs_more_than_shapes(task: str, loaded_by: str) -> None:
    config = replaced(("    num_classes: 1\n", f"    num_classes: 1 {task} {{}}\n"), template="centernet_resnet50_512")
    assert only(check(config)).field == f"model.center_net.{task}"
    assert check(config, "export") == []
    needed = f"train_input_reader.{loaded_by.partition(':')[0]}"
    assert needed in [problem.field for problem in check(config, "train")]
    config.MergeFrom(parse_pipeline(f"train_input_reader {{ {loaded_by} }}", source="p"))
    assert needed not in [problem.field for problem in check(config, "train")]


@pytest.mark.parametrize(
    ("template", "addition", "field", "purposes"),
    [
        (
            "faster_rcnn_resnet50_640",
            "context_config { num_attention_heads: 2 }",
            "model.faster_rcnn.context_config.num_attention_heads",
            ("loop", "train", "eval", "export"),
        ),
        (
            "faster_rcnn_resnet50_640",
            "context_config {}",
            "train_input_reader.load_context_features",
            ("loop", "train"),
        ),
        (
            "centernet_resnet50_512",
            "temporal_offset_task {}",
            "model.center_net.temporal_offset_task",
            ("loop", "train"),
        ),
    ],
)
def test_models_with_inputs_that_nothing_here_has(
    template: str, addition: str, field: str, purposes: tuple[str, ...]
) -> None:
    """The loop advised `odkeras train`, which ended in a traceback."""
    config = replaced(("    num_classes: 1\n", f"    num_classes: 1 {addition}\n"), template=template)
    for purpose in ("loop", "train", "eval", "export"):
        problems = [each for each in check(config, purpose) if each.field == field]  # type: ignore[arg-type]
        assert len(problems) == (1 if purpose in purposes else 0), purpose
        assert not any("odkeras train" in problem.fix for problem in problems)


def test_context_r_cnn_takes_features_of_other_images() -> None:
    config = replaced(
        ("    num_classes: 1\n", "    num_classes: 1 context_config {}\n"), template="faster_rcnn_resnet50_640"
    )
    config.eval_input_reader[0].tf_record_input_reader.input_path.append("eval.record")
    loaded = [problem.field for problem in check(config, "loop") if "load_context_features" in problem.field]
    assert loaded == ["train_input_reader.load_context_features", "eval_input_reader.load_context_features"]
    config.train_input_reader.load_context_features = config.eval_input_reader[0].load_context_features = True
    assert not any("context" in problem.field for problem in check(config, "loop"))


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("pascal_voc_metrics", "did you mean pascal_voc_detection_metrics?"),
        ("xyz", "use one of coco_detection_metrics, coco_keypoint_metrics"),
    ],
)
@pytest.mark.parametrize(("purpose", "severity"), [("eval", "error"), ("loop", "warning"), ("train", "warning")])
def test_an_unknown_set_of_metrics(name: str, fix: str, purpose: Purpose, severity: str) -> None:
    """The API looks at it when the first evaluation begins: after a round was trained."""
    config = replaced(('metrics_set: "coco_detection_metrics"', f'metrics_set: "{name}"'))
    (problem,) = (each for each in check(config, purpose) if each.field == "eval_config.metrics_set")
    assert (problem.value, problem.severity) == (name, severity) and problem.fix.startswith(fix)


def test_masks_of_two_stages_cannot_be_padded() -> None:
    """The API takes the masks for an image of three channels, and refuses the first training step."""
    padded = "keep_aspect_ratio_resizer { min_dimension: 640 max_dimension: 640 pad_to_max_dimension: true }"
    config = replaced(("fixed_shape_resizer { height: 640 width: 640 }", padded), template="mask_rcnn_resnet50_640")
    problem = only(check(config))
    assert problem.field.endswith("keep_aspect_ratio_resizer.pad_to_max_dimension")
    assert problem.fix.startswith("use fixed_shape_resizer")
    assert check(config, "export") == []


MASK_MODELS = [
    ("centernet_resnet50_512", "num_classes: 1", "num_classes: 1 mask_estimation_task {}"),
    ("centernet_resnet50_512", "num_classes: 1", "num_classes: 1 deepmac_mask_estimation {}"),
    ("faster_rcnn_resnet50_640", "use_dropout: false", "predict_instance_masks: true"),
]


@pytest.mark.parametrize(("template", "old", "new"), MASK_MODELS)
def test_a_model_that_learns_masks_needs_a_reader_that_loads_them(template: str, old: str, new: str) -> None:
    """The API refuses the first training step, after everything was built."""
    config = replaced((old, new), template=template)
    problem = next(iter(check(config)))
    assert (problem.field, problem.severity) == ("train_input_reader.load_instance_masks", "error")
    assert new.split()[-2].rstrip(":") in problem.reason
    assert problem.fix == "set load_instance_masks: true and mask_type: PNG_MASKS"
    assert check(config, "export") == []
    config.train_input_reader.load_instance_masks = True
    assert [each for each in check(config) if "pad_to_max_dimension" not in each.field] == []


def test_keypoints_need_their_label_map_even_to_build(tmp_path: Path) -> None:
    addition = "num_classes: 1 keypoint_estimation_task {} keypoint_label_map_path: 'PATH_TO_BE_CONFIGURED'"
    config = replaced(("num_classes: 1", addition), template="centernet_resnet50_512")
    assert only(check(config, "export")).field == "model.center_net.keypoint_label_map_path"
    config.model.center_net.keypoint_label_map_path = str(tmp_path / "map.pbtxt")
    assert only(check(config, "export")).value == str(tmp_path / "map.pbtxt")
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'a' keypoints { id: 0 label: 'tip' } }")
    config.model.center_net.keypoint_estimation_task[0].keypoint_class_name = "a"
    assert check(config, "export") == []
    assert [problem.field for problem in check(config, "train")][:1] == ["train_input_reader.num_keypoints"]


def keypoint_config(tmp_path: Path) -> PipelineConfig:
    """A config whose model learns the keypoints tip and tail of the class a."""
    addition = "num_classes: 1 keypoint_estimation_task {} keypoint_label_map_path: 'map.pbtxt'"
    config = replaced(("num_classes: 1", addition), template="centernet_resnet50_512")
    path = tmp_path / "keypoints.pbtxt"
    path.write_text(f"item {{ id: 1 name: 'a' {TIP_AND_TAIL} }} item {{ id: 2 name: 'b' }}")
    config.model.center_net.keypoint_label_map_path = str(path)
    config.model.center_net.keypoint_estimation_task[0].keypoint_class_name = "a"
    config.train_input_reader.num_keypoints = 2
    del config.train_config.data_augmentation_options[:]
    return config


TIP_AND_TAIL = "keypoints { id: 0 label: 'tip' } keypoints { id: 1 label: 'tail' }"


def test_the_loop_trains_keypoints_that_the_label_map_names(tmp_path: Path) -> None:
    label_map = LabelMap.from_pbtxt(f"item {{ id: 1 name: 'a' {TIP_AND_TAIL} }}")
    config = keypoint_config(tmp_path)
    assert check_pipeline(config, label_map=label_map, purpose="loop") == check_pipeline(
        config, label_map=label_map, purpose="export"
    )


@pytest.mark.parametrize(
    "keypoints",
    ["", "keypoints { id: 0 label: 'tip' }", "keypoints { id: 1 label: 'tip' } keypoints { id: 0 label: 'tail' }"],
)
def test_the_loop_needs_the_same_keypoints_in_its_label_map(tmp_path: Path, keypoints: str) -> None:
    label_map = LabelMap.from_pbtxt(f"item {{ id: 1 name: 'a' {keypoints} }}")
    problem = only(check_pipeline(keypoint_config(tmp_path), label_map=label_map, purpose="loop"))
    assert problem.field == "train_input_reader.label_map_path"
    assert "for the model (a: 0 tip, 1 tail)" in problem.reason and "keypoints.pbtxt" in problem.fix


@pytest.mark.parametrize("number", [0, 3])
def test_the_loop_needs_the_number_of_keypoints(tmp_path: Path, number: int) -> None:
    label_map = LabelMap.from_pbtxt(f"item {{ id: 1 name: 'a' {TIP_AND_TAIL} }}")
    config = keypoint_config(tmp_path)
    config.train_input_reader.num_keypoints = number
    problem = only(check_pipeline(config, label_map=label_map, purpose="loop"))
    assert problem.field == "train_input_reader.num_keypoints"
    assert (problem.reason, problem.fix) == ("the model has 2 keypoints", "set num_keypoints: 2")


KEYPOINT_MAPS = [
    ("item { id: 1 name: 'a' }", "keypoint_estimation_task.keypoint_class_name", "is no class with keypoints"),
    (
        "item { id: 1 name: 'a' keypoints { id: 1 label: 'x' } }",
        "keypoint_label_map_path",
        "must be 0 to 0, each once; got 1",
    ),
    (
        "item { id: 1 name: 'a' keypoints { id: 1 label: 'x' } keypoints { id: 0 label: 'y' } }",
        "keypoint_label_map_path",
        "the keypoints of 'a' are not in the order of their ids",
    ),
    (
        "item { id: 1 name: 'a' keypoints { id: 0 label: 'x' } keypoints { id: 0 label: 'y' } }",
        "keypoint_label_map_path",
        "must be 0 to 1, each once; got 0, 0",
    ),
    (
        "item { id: 1 name: 'a' keypoints { id: 0 label: 'x' } keypoints { id: 1 label: 'x' } }",
        "keypoint_label_map_path",
        "each keypoint needs a label of its own; got 'x', 'x'",
    ),
    ("item { id: 1", "keypoint_label_map_path", "map.pbtxt"),
]


@pytest.mark.parametrize(("label_map", "field", "said"), KEYPOINT_MAPS)
def test_keypoints_that_the_api_would_mix_up(tmp_path: Path, label_map: str, field: str, said: str) -> None:
    path = tmp_path / "map.pbtxt"
    path.write_text(label_map)
    addition = (
        f"num_classes: 1 keypoint_estimation_task {{ keypoint_class_name: 'a' }} keypoint_label_map_path: '{path}'"
    )
    config = replaced(("num_classes: 1", addition), template="centernet_resnet50_512")
    problem = only(check(config, "export"))
    assert problem.field == f"model.center_net.{field}" and said in problem.reason


def test_the_reader_loads_as_many_keypoints_as_the_model_has(tmp_path: Path) -> None:
    path = tmp_path / "map.pbtxt"
    path.write_text("item { id: 1 name: 'a' keypoints { id: 0 label: 'x' } }")
    addition = (
        f"num_classes: 1 keypoint_estimation_task {{ keypoint_class_name: 'a' }} keypoint_label_map_path: '{path}'"
    )
    config = replaced(("num_classes: 1", addition), template="centernet_resnet50_512")
    config.train_input_reader.num_keypoints = 17
    found = [problem for problem in check(config, "train") if "num_keypoints" in problem.field]
    assert only(found).fix == "set num_keypoints: 1"
    config.train_input_reader.num_keypoints = 1
    assert not [problem for problem in check(config, "train") if "num_keypoints" in problem.field]


FPN, BIFPN = "ssd_mobilenet_v2_fpnlite_320", "efficientdet_d0_512"
CENTER_NET, TWO_STAGE = "centernet_resnet50_512", "faster_rcnn_resnet50_640"


def with_images(template: str, extractor: str, height: int, width: int) -> PipelineConfig:
    config = replaced(template=template)
    model = getattr(config.model, config.model.WhichOneof("model"))
    model.feature_extractor.type = extractor or model.feature_extractor.type
    model.image_resizer.fixed_shape_resizer.height, model.image_resizer.fixed_shape_resizer.width = height, width
    return config


@pytest.mark.parametrize(
    ("template", "extractor", "wrong", "fix"),
    [
        (FPN, "", 300, "use 288 or 320"),
        (FPN, "", 32, "use 64"),  # lowest: 33
        (FPN, "ssd_resnet50_v1_fpn_keras", 128, "use 160"),  # lowest: 129
        (BIFPN, "", 300, "use 256 or 384"),
        (BIFPN, "", 320, "use 256 or 384"),
        (CENTER_NET, "", 500, "use 480 or 512"),
        (CENTER_NET, "hourglass_104", 100, "use 128"),
        (CENTER_NET, "hourglass_52", 320, "use 256 or 384"),
        (CENTER_NET, "hourglass_10", 100, "use 96 or 104"),
        (CENTER_NET, "mobilenet_v2_fpn", 100, "use 96 or 128"),
    ],
)
def test_sizes_that_an_architecture_cannot_take(template: str, extractor: str, wrong: int, fix: str) -> None:
    """They ended in a traceback of TensorFlow, such as "Dimensions must be equal, but are 20 and 19"."""
    right = int(fix.split()[-1])
    for purpose in ("loop", "train", "eval", "export"):
        config = with_images(template, extractor, wrong, right)
        problems = [each for each in check(config, purpose) if "image_resizer" in each.field]  # type: ignore[arg-type]
        assert only(problems).field.endswith("image_resizer.fixed_shape_resizer.height")
        assert (problems[0].value, problems[0].fix, problems[0].severity) == (str(wrong), fix, "error")
    assert not [each for each in check(with_images(template, extractor, right, right)) if each.severity == "error"]


@pytest.mark.parametrize(
    ("template", "extractor", "size"),
    [
        (FPN, "ssd_mobilenet_v2_keras", 300),  # without a feature pyramid
        (FPN, "", 313),  # 40, 20 and 10 cells, as 320
        (BIFPN, "", 1408),
        (TWO_STAGE, "", 333),
        (TWO_STAGE, "faster_rcnn_resnet50_fpn_keras", 333),  # pads to 32 itself
        (CENTER_NET, "hourglass_104", 1024),
    ],
)
def test_sizes_that_the_zoo_or_its_users_have(template: str, extractor: str, size: int) -> None:
    assert not [each for each in check(with_images(template, extractor, size, size)) if "resizer" in each.field]


def test_padding_in_the_feature_extractor_makes_any_size_fit() -> None:
    config = with_images(FPN, "", 300, 300)
    config.model.ssd.feature_extractor.pad_to_multiple = 32
    assert check(config) == []


@pytest.mark.parametrize("template", [FPN, CENTER_NET])
def test_images_that_keep_their_aspect_ratio_are_of_other_sizes(template: str) -> None:
    config = with_images(template, "", 320, 320)
    model = getattr(config.model, config.model.WhichOneof("model"))
    keep = model.image_resizer.keep_aspect_ratio_resizer
    keep.min_dimension = keep.max_dimension = 320
    config.train_config.batch_size = 1
    problem = only(check(config))
    assert (problem.severity, "no multiples of 32" in problem.reason) == ("warning", True)
    keep.pad_to_max_dimension = True
    assert check(config) == []
    keep.max_dimension = 330
    assert only(check(config)).field.endswith("keep_aspect_ratio_resizer.max_dimension")


@pytest.mark.parametrize(
    ("generator", "reason", "severity"),
    [
        ("multiscale_anchor_generator { min_level: 3 max_level: 6 }", "has levels 3 to 6, and", "error"),
        ("multiscale_anchor_generator { min_level: 2 max_level: 6 }", "has levels 2 to 6, and", "warning"),
        ("ssd_anchor_generator { num_layers: 6 }", "anchors for 6 feature maps, and the extractor has 5", "error"),
    ],
)
def test_anchors_for_each_feature_map(generator: str, reason: str, severity: str) -> None:
    """Other numbers ended in a traceback while the model was traced."""
    config = replaced()
    config.model.ssd.ClearField("anchor_generator")
    config.MergeFrom(parse_pipeline(f"model {{ ssd {{ anchor_generator {{ {generator} }} }} }}", source="p"))
    problem = only(check(config))
    assert reason in problem.reason and problem.severity == severity
    assert problem.field == f"model.ssd.anchor_generator.{generator.split()[0]}"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("number_of_stages", 1, "without their classes"),
        ("number_of_stages", 4, "1 to 3 stages"),
        ("initial_crop_size", 0, "must be 1 or more"),
        ("maxpool_kernel_size", 0, "must be 1 or more"),
    ],
)
def test_settings_of_two_stage_models(field: str, value: int, reason: str) -> None:
    config = replaced(template=TWO_STAGE)
    setattr(config.model.faster_rcnn, field, value)
    problem = only(check(config))
    assert (problem.field, problem.value) == (f"model.faster_rcnn.{field}", str(value))
    assert reason in problem.reason


def test_the_stride_and_the_anchors_of_two_stage_models() -> None:
    config = replaced(template=TWO_STAGE)
    config.model.faster_rcnn.feature_extractor.first_stage_features_stride = 32
    assert only(check(config)).fix == "use 16"
    config = replaced(template=TWO_STAGE)
    config.model.faster_rcnn.first_stage_anchor_generator.multiscale_anchor_generator.SetInParent()
    assert "makes anchors for 5 feature maps, and the extractor has 1" in only(check(config)).reason
    config.model.faster_rcnn.ClearField("first_stage_anchor_generator")
    assert only(check(config)).reason == "there is no anchor generator"


# classes and label map


def test_more_labels_than_classes_would_be_trained_as_background() -> None:
    problem = only(check_pipeline(replaced(), label_map=MIXED, purpose="loop"))
    assert str(problem) == ("model.ssd.num_classes '1': the label map has ids up to 90 ('bus'); set num_classes: 90")
    assert problem.severity == "error"


def test_more_classes_than_labels_are_only_a_waste() -> None:
    problem = only(check(replaced(("num_classes: 1", "num_classes: 90"))))
    assert problem.severity == "warning" and "89 outputs are never used" in problem.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("item { id: 0 name: 'background' } item { id: 1 name: 'a' }", "ids count from 1"),
        ("", "is empty"),
        ("item { id: 2 name: 'a' }", "ids up to 2"),
    ],
)
def test_the_label_map_that_the_config_names_is_read(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    config = apply_overrides(replaced(), Overrides(label_map_path=str(path)))
    assert reason in only(check_pipeline(config, label_map=None, purpose="loop")).reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "no label map is given"),
        ("PATH_TO_BE_CONFIGURED/map.txt", "placeholder"),
        ("/none/map.pbtxt", "No such file"),
    ],
)
def test_a_missing_label_map_is_an_error(path: str, reason: str) -> None:
    config = apply_overrides(replaced(), Overrides(label_map_path=path))
    problem = only(check_pipeline(config, label_map=None, purpose="loop"))
    assert (problem.field, problem.severity) == ("train_input_reader.label_map_path", "error")
    assert reason in problem.reason and "--label-map-path" in problem.fix
    assert only(check_pipeline(config, label_map=None, purpose="export")).severity == "error"


# training


def test_batch_size_and_images_of_different_sizes() -> None:
    assert only(check(replaced(("batch_size: 8", "batch_size: 0")))).field == "train_config.batch_size"
    different = ("fixed_shape_resizer { height: 320 width: 320 }", "keep_aspect_ratio_resizer { min_dimension: 320 }")
    pads = ('type: "ssd_mobilenet_v2_fpn_keras"', 'type: "ssd_mobilenet_v2_fpn_keras" pad_to_multiple: 32')
    problem = only(check(replaced(different, pads)))
    assert problem.field == "model.ssd.image_resizer" and "pad_to_max_dimension" in problem.fix
    assert check(replaced(different, pads, ("batch_size: 8", "batch_size: 1"))) == []
    assert check(replaced(different, pads), "export") == []
    none = ("fixed_shape_resizer { height: 320 width: 320 }", "pad_to_multiple_resizer {}")
    assert "cannot be used for training" in only(check(replaced(none))).reason


def test_what_only_tpus_and_tensorflow_1_can_do() -> None:
    problem = only(check(replaced(("num_steps: 3000", 'update_trainable_variables: "block_("'))))
    assert (problem.field, problem.value) == ("train_config.update_trainable_variables", "block_(")
    problem = only(check(replaced(("num_steps: 3000", "use_bfloat16: true"))))
    assert (problem.field, problem.severity) == ("train_config.use_bfloat16", "warning")
    problem = only(check(replaced(("random_horizontal_flip {}", "autoaugment_image {}"))))
    assert (problem.field, problem.severity) == ("train_config.data_augmentation_options.autoaugment_image", "error")


CONSTANT = "constant_learning_rate { learning_rate: 0.001 }"


def scheduled(schedule: str) -> PipelineConfig:
    return replaced((CONSTANT, schedule))


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        ("", "learning_rate"),
        ("constant_learning_rate { learning_rate: 0 }", "constant_learning_rate.learning_rate"),
        ("cosine_decay_learning_rate { total_steps: 0 warmup_steps: 0 }", "cosine_decay_learning_rate.total_steps"),
        # warmup_steps is 10,000 where it is not set: the API divides by zero or refuses
        ("cosine_decay_learning_rate { total_steps: 10000 }", "cosine_decay_learning_rate.total_steps"),
        (
            "cosine_decay_learning_rate { total_steps: 20 warmup_steps: 10 warmup_learning_rate: 1 }",
            "cosine_decay_learning_rate.warmup_learning_rate",
        ),
        ("exponential_decay_learning_rate { decay_steps: 0 }", "exponential_decay_learning_rate.decay_steps"),
        ("exponential_decay_learning_rate { decay_factor: 1.5 }", "exponential_decay_learning_rate.decay_factor"),
        ("manual_step_learning_rate {}", "manual_step_learning_rate.schedule"),
        (
            "manual_step_learning_rate { schedule { step: 9 } schedule { step: 5 } }",
            "manual_step_learning_rate.schedule.step",
        ),
    ],
)
def test_invalid_schedules_are_errors(schedule: str, field: str) -> None:
    config = scheduled(schedule)
    problem = only(check(config))
    assert problem.field == "train_config.optimizer.adam_optimizer." + (
        field if field == "learning_rate" else f"learning_rate.{field}"
    )
    assert problem.severity == "error"
    assert check(config, "export") == []
    with pytest.raises(ValueError, match=problem.field):
        learning_rate_at(config, 0)


def test_a_missing_optimizer_is_an_error() -> None:
    config = replaced()
    config.train_config.optimizer.ClearField("adam_optimizer")
    assert only(check(config)).field == "train_config.optimizer"


COSINE = (
    "cosine_decay_learning_rate { learning_rate_base: 0.1 total_steps: 1000 warmup_steps: 100 warmup_learning_rate: 0 }"
)


@pytest.mark.parametrize(
    ("schedule", "step", "severity"),
    [
        (CONSTANT, 10**9, None),
        (COSINE, 0, None),  # a warm-up begins at 0
        (COSINE, 900, None),
        (COSINE, 999, "warning"),  # next to nothing
        (COSINE, 5000, "error"),
        ("exponential_decay_learning_rate { decay_steps: 10 decay_factor: 0.5 }", 50, None),
        ("exponential_decay_learning_rate { decay_steps: 10 decay_factor: 0.5 }", 10**5, "error"),
        (
            "exponential_decay_learning_rate { decay_steps: 10 decay_factor: 0.5 min_learning_rate: 0.001 }",
            10**5,
            None,
        ),
        ("manual_step_learning_rate { schedule { step: 10 learning_rate: 0 } }", 11, "error"),
    ],
)
def test_a_schedule_that_has_ended_where_training_resumes(schedule: str, step: int, severity: str | None) -> None:
    """The 2019 recipe's way to train without effect: resuming a zoo schedule after its last step."""
    problems = check(scheduled(schedule), step=step)
    assert [problem.severity for problem in problems] == ([severity] if severity else [])
    if problems:
        assert f"at step {step}" in problems[0].reason and "constant_learning_rate" in problems[0].fix


@pytest.mark.parametrize(
    ("schedule", "step", "is_past"),
    [
        (CONSTANT, 10**9, False),
        (COSINE, 0, False),
        (COSINE, 1000, False),  # a training of total_steps takes the flat last steps, too
        (COSINE, 1001, True),
        ("exponential_decay_learning_rate { decay_steps: 10 decay_factor: 0.5 }", 10**5, True),
        ("manual_step_learning_rate { schedule { step: 10 learning_rate: 0 } }", 9, False),
        ("manual_step_learning_rate { schedule { step: 10 learning_rate: 0 } }", 10, True),
    ],
)
def test_training_past_the_end_of_a_schedule(schedule: str, step: int, is_past: bool) -> None:
    problem = problem_past_end(scheduled(schedule), step)
    assert (problem is not None) == is_past
    assert not problem or f"at step {step}, and training continues, it is 0" in problem.reason


# fine-tuning


def test_a_whole_checkpoint_is_fine(tmp_path: Path) -> None:
    backbone = write_checkpoint(tmp_path / "ckpt-1", "feature_extractor/layer_with_weights-0/kernel")
    detector = write_checkpoint(tmp_path / "ckpt-2", "model/_feature_extractor/x model/_box_predictor/y")
    assert check(from_checkpoint(backbone)) == check(from_checkpoint(f"{backbone}.index")) == []
    assert check(from_checkpoint(detector, "detection")) == check(from_checkpoint(detector, "full")) == []
    assert checkpoint_kind(backbone) == "classification" and checkpoint_kind(detector) == "detection"


def test_the_zoo_s_checkpoint_with_the_zoo_s_type_does_not_fit(tmp_path: Path) -> None:
    """The config of a zoo archive says "classification", its own origin; the checkpoint beside it is a detector."""
    detector = write_checkpoint(tmp_path / "ckpt-0", "model/_feature_extractor/x")
    problem = only(check(from_checkpoint(detector, "classification")))
    assert (problem.field, problem.fix) == ("train_config.fine_tune_checkpoint_type", "use detection")
    backbone = write_checkpoint(tmp_path / "ckpt-1", "feature_extractor/layer_with_weights-0/kernel")
    assert only(check(from_checkpoint(backbone, "detection"))).fix == "use classification"


def test_missing_checkpoints_are_errors_with_a_hint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "zoo" / "checkpoint" / "ckpt-0", "model/_feature_extractor/x")
    zoo = tmp_path / "zoo"
    for wrong in (zoo / "checkpoint" / "ckpt-1", zoo / "checkpoint", zoo):
        problem = only(check(from_checkpoint(str(wrong), "detection")))
        assert problem.field == "train_config.fine_tune_checkpoint"
        assert "no such checkpoint" in problem.reason
        assert problem.fix == f"did you mean {zoo / 'checkpoint' / 'ckpt-0'}?"
    problem = only(check(from_checkpoint(str(tmp_path / "none" / "ckpt-0"))))
    assert "without its suffix" in problem.fix


def test_a_checkpoint_without_data_and_one_of_tensorflow_1(tmp_path: Path) -> None:
    prefix = write_checkpoint(tmp_path / "ckpt-1", "feature_extractor/x")
    Path(f"{prefix}.data-00000-of-00001").unlink()
    assert "no data file" in only(check(from_checkpoint(prefix))).reason
    old = write_checkpoint(tmp_path / "model.ckpt", "FeatureExtractor/x", object_based=False)
    assert "TensorFlow 1" in only(check(from_checkpoint(old))).reason


def test_the_version_must_be_v2(tmp_path: Path) -> None:
    config = from_checkpoint(write_checkpoint(tmp_path / "ckpt-1", "feature_extractor/x"))
    config.train_config.ClearField("fine_tune_checkpoint_version")
    problem = only(check(config))
    assert (problem.field, problem.value) == ("train_config.fine_tune_checkpoint_version", "")
    config.train_config.fine_tune_checkpoint_version = 1
    assert only(check(config)).value == "V1"


@pytest.mark.parametrize(
    ("template", "extractor", "kind", "fix"),
    [
        (TEMPLATE, None, "fine_tune", "use classification or detection or full"),
        ("centernet_resnet50_512", None, "fine_tune", "use detection, which does the same"),
        ("centernet_resnet50_512", "hourglass_52", "classification", "use detection or full"),
        ("centernet_resnet50_512", "hourglass_52", "detection", None),
        ("faster_rcnn_resnet50_640", None, "Detection", "use classification or detection or full"),
    ],
)
def test_what_can_be_restored(tmp_path: Path, template: str, extractor: str | None, kind: str, fix: str | None) -> None:
    config = from_checkpoint(write_checkpoint(tmp_path / "ckpt-1", "?"), kind, template)
    if extractor:
        config.model.center_net.feature_extractor.type = extractor
    assert [problem.fix for problem in check(config)] == ([fix] if fix else [])


# records


@pytest.mark.parametrize(
    ("pattern", "reason", "fix"),
    [
        ("PATH_TO_BE_CONFIGURED/x.record", "is a placeholder", "put the path"),
        ("none.record", "no such file", "odkeras records from-csv"),
        ("none-*.record", "nothing matches", "odkeras records from-csv"),
        ("train.record@10", "not supported", "write train.record-?????-of-00010"),
    ],
)
def test_missing_records_are_errors(pattern: str, reason: str, fix: str) -> None:
    config = apply_overrides(replaced(), Overrides(train_records=(pattern,)))
    problem = only(check(config, "train"))
    assert (problem.field, problem.value) == ("train_input_reader.tf_record_input_reader.input_path", pattern)
    assert reason in problem.reason and fix in problem.fix
    assert check(config, "loop") == []


def test_records_by_name_by_pattern_and_in_shards(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"train-{number:05d}-of-00003").touch()
    (tmp_path / "[1].record").touch()
    for pattern in ("train-00000-of-00003", "train-?????-of-00003", "train-*"):
        config = apply_overrides(replaced(), Overrides(train_records=(str(tmp_path / pattern), "gs://b/*.record")))
        assert check(config, "train") == []
    (tmp_path / "train-00001-of-00003").unlink()
    config = apply_overrides(replaced(), Overrides(train_records=(str(tmp_path / "train-?????-of-00003"),)))
    problem = only(check(config, "train"))
    assert problem.severity == "warning" and "only 2 of 3 shards" in problem.reason


def test_the_label_map_of_an_evaluation_reader() -> None:
    """The training reader's alone was looked at, and `odkeras eval` ended in a traceback."""
    config = apply_overrides(replaced(), Overrides(eval_records=("gs://b/*.record",)))
    config.eval_input_reader[0].label_map_path = "/none/map.pbtxt"
    problem = only(check(config, "eval"))
    assert problem.field == "eval_input_reader.label_map_path" and "No such file" in problem.reason


def test_no_records_named() -> None:
    assert only(check(replaced(), "train")).reason == "no records are given"
    assert only(check(replaced(), "eval")).field == "eval_input_reader.tf_record_input_reader.input_path"
    config = replaced()
    config.ClearField("eval_input_reader")
    assert only(check(config, "eval")).field == "eval_input_reader"
