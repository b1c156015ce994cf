from __future__ import annotations

import glob
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from odkeras import odapi
from odkeras.errors import ConfigError, SetupError
from odkeras.pipeline import (
    ODAPI_REQUIREMENTS,
    Overrides,
    PipelineConfig,
    Problem,
    apply_overrides,
    checkpoint_prefix,
    get_fine_tune_checkpoint,
    get_fine_tune_type,
    is_placeholder,
    list_templates,
    load_pipeline,
    loads_masks,
    model_type,
    num_classes,
    parse_pipeline,
    raise_for_problems,
    read_png_masks,
    read_template,
    save_pipeline,
    set_num_classes,
    starts_from_random_weights,
    template_header,
)
from odkeras.pipeline.proto import CHECKPOINT_V2, PNG_MASKS

SMALL = """\
# a comment
model {
  ssd {
    num_classes: 3
    feature_extractor { type: "ssd_mobilenet_v2_keras" }
  }
}
train_config { batch_size: 8 }
train_input_reader { label_map_path: "train.pbtxt" tf_record_input_reader { input_path: "a.record" } }
eval_input_reader { label_map_path: "eval.pbtxt" tf_record_input_reader { input_path: "b.record" } }
"""


@pytest.fixture
def config() -> PipelineConfig:
    return parse_pipeline(SMALL, source="small.config")


def test_the_package_and_the_protos_come_without_tensorflow() -> None:
    """A host that waits for TensorFlow takes ten seconds to start."""
    code = (
        "import sys; from odkeras.pipeline import *; import odkeras.init_project, odkeras.doctor; "
        "parse_pipeline(read_template(list_templates()[0]), source='x'); "
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'matplotlib'} & set(sys.modules); assert not heavy, heavy; "
        "assert 'object_detection.protos.pipeline_pb2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# reading


def test_load_reads_what_save_wrote(tmp_path: Path, config: PipelineConfig) -> None:
    path = tmp_path / "new" / "pipeline.config"
    save_pipeline(config, path, header="# made by hand\n")
    assert path.read_text().startswith("# made by hand\n\nmodel {")
    assert load_pipeline(path) == config


def test_paths_below_a_folder_with_brackets(tmp_path: Path) -> None:
    """The records' path became a pattern that matches nothing, and a label map with brackets was not found."""
    folder = tmp_path / "my [v1]"
    folder.mkdir()
    for name in ("train-1.record", "lm[1].pbtxt", "ckpt[1].index"):
        (folder / name).touch()
    (folder / "pipeline.config").write_text(
        "train_config { fine_tune_checkpoint: 'ckpt[1]' } train_input_reader { label_map_path: 'lm[1].pbtxt' "
        "tf_record_input_reader { input_path: ['train-?.record', 'none.record'] } }"
    )
    config = load_pipeline(folder / "pipeline.config")
    reader = config.train_input_reader
    assert reader.label_map_path == str(folder / "lm[1].pbtxt")
    assert config.train_config.fine_tune_checkpoint == str(folder / "ckpt[1]")
    pattern, missing = reader.tf_record_input_reader.input_path
    assert glob.glob(pattern) == [str(folder / "train-1.record")]  # noqa: PTH207
    assert missing == "none.record"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # a slip of the pen, on line 3
        (
            "model {\n  ssd {\n    num_clases: 3\n  }\n}",
            "p:3:5: unknown field 'num_clases' in Ssd; did you mean num_classes?",
        ),
        # nothing is near: the known ones are shown
        (
            "model { retina {} }",
            "p:1:9: unknown field 'retina' in DetectionModel; known: center_net, experimental_model,",
        ),
        # more than can be shown
        ("train_config { zzz: 1 }", "p:1:16: unknown field 'zzz' in TrainConfig; known: .*, ... \\d+ more"),
        # an enum
        (
            "train_config {\n  fine_tune_checkpoint_version: V3 }",
            "p:2:.*unknown value 'V3' of CheckpointVersion; known: UNKNOWN, V1, V2",
        ),
        ("model { ssd { num_classes: many } }", "p:1:28: Couldn't parse integer: many"),
        ("model { ssd {", 'p:1:13: Expected "}".'),
        ("model { ssd {} center_net {} }", 'p:1:16: Field "center_net" is specified along with field "ssd"'),
        ("<html>", "p:1:1: Expected identifier or number, got <"),
    ],
)
def test_a_syntax_error_names_line_column_and_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("{", "\\{").replace("?", "\\?")):
        parse_pipeline(text, source="p")


def test_a_missing_file_a_directory_and_a_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the pipeline config .*none.config: No such file"):
        load_pipeline(tmp_path / "none.config")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_pipeline(tmp_path)
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(
        ConfigError, match=r"picture.jpg is not a text file in UTF-8 \(byte 0\); expected a pipeline.config"
    ):
        load_pipeline(tmp_path / "picture.jpg")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'object_detection'", name="object_detection"),
            "not installed .*make install.*pip install --no-deps -r requirements-odapi.txt",
        ),
        # a clone of the API's repository without compiled protos
        (
            ModuleNotFoundError("No module named ...pipeline_pb2", name="object_detection.protos.pipeline_pb2"),
            "protos are not compiled.*protoc object_detection/protos",
        ),
        # one whose protoc was too old
        (TypeError("Descriptors cannot be created directly."), "protoc too old for the installed protobuf"),
    ],
)
def test_a_missing_object_detection_api_is_a_setup_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def refuse(name: str) -> Any:
        raise error

    monkeypatch.setattr(odapi, "import_module", refuse)
    with pytest.raises(SetupError, match=message):
        parse_pipeline(SMALL, source="p")


def test_the_requirements_in_messages_are_those_of_the_file() -> None:
    lines = (Path(__file__).parents[2] / "requirements-odapi.txt").read_text().splitlines()
    assert tuple(line for line in lines if line and not line.startswith("#")) == ODAPI_REQUIREMENTS


# parts


@pytest.mark.parametrize("kind", ["ssd", "faster_rcnn", "center_net"])
def test_the_number_of_classes_is_that_of_the_model_which_is_set(kind: str) -> None:
    config = parse_pipeline(f"model {{ {kind} {{ num_classes: 7 }} }}", source="p")
    set_num_classes(config, 2)
    assert (model_type(config), num_classes(config)) == (kind, 2)
    assert str(config.model).split() == [kind, "{", "num_classes:", "2", "}"]


def test_a_config_without_model_or_with_an_experimental_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no model; expected model \{ ssd"):
        model_type(parse_pipeline("train_config {}", source="p"))
    experimental = parse_pipeline("model { experimental_model { name: 'x' } }", source="p")
    assert model_type(experimental) == "experimental_model"
    with pytest.raises(ConfigError, match="experimental_model is not supported"):
        num_classes(experimental)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("PATH_TO_BE_CONFIGURED/ckpt-0", True),
        ("PATH_TO_MSCOCO/x.record", True),
        ("/path/to/label_map.pbtxt", True),
        ("path/to", True),
        ("/data/ckpt-0", False),
        ("footpath/total", False),
        ("", False),
    ],
)
def test_placeholders(path: str, expected: bool) -> None:
    assert is_placeholder(path) is expected


@pytest.mark.parametrize(
    ("train_config", "checkpoint", "kind"),
    [
        ("", None, "classification"),
        ("fine_tune_checkpoint: 'PATH_TO_BE_CONFIGURED'", None, "classification"),
        ("fine_tune_checkpoint: 'a' fine_tune_checkpoint_type: 'full'", "a", "full"),
        ("fine_tune_checkpoint: 'a' from_detection_checkpoint: true", "a", "detection"),
    ],
)
def test_where_training_starts_from(train_config: str, checkpoint: str | None, kind: str) -> None:
    config = parse_pipeline(f"train_config {{ {train_config} }}", source="p")
    assert (get_fine_tune_checkpoint(config), get_fine_tune_type(config)) == (checkpoint, kind)


@pytest.mark.parametrize(
    ("model", "train_config", "random"),
    [
        ("ssd { feature_extractor { type: 'ssd_mobilenet_v2_keras' } }", "", True),
        ("ssd {}", "fine_tune_checkpoint: 'PATH_TO_BE_CONFIGURED/ckpt-0'", True),
        ("ssd {}", "fine_tune_checkpoint: 'zoo/ckpt-0'", False),
        ("center_net { feature_extractor { type: 'resnet_v1_50_fpn' } }", "", True),
        ("center_net { feature_extractor { type: 'mobilenet_v2_fpn' } }", "", False),  # the API downloads ImageNet's
        ("center_net { feature_extractor { type: 'mobilenet_v2_fpn' depth_multiplier: 0.5 } }", "", True),
    ],
)
def test_random_weights(model: str, train_config: str, random: bool) -> None:
    config = parse_pipeline(f"model {{ {model} }} train_config {{ {train_config} }}", source="p")
    assert starts_from_random_weights(config) is random


# overrides


def test_all_overrides_together_on_a_copy(config: PipelineConfig) -> None:
    overrides = Overrides(
        batch_size=4,
        fine_tune_checkpoint="/c/ckpt-0.index",
        fine_tune_checkpoint_type="detection",
        label_map_path="map.pbtxt",
        num_classes=2,
        train_records=("t1.record", "t2.record"),
        eval_records=("e*.record",),
    )
    changed = apply_overrides(config, overrides)
    assert config == parse_pipeline(SMALL, source="p")
    train = changed.train_config
    assert (train.batch_size, num_classes(changed)) == (4, 2)
    assert (train.fine_tune_checkpoint, train.fine_tune_checkpoint_type) == ("/c/ckpt-0", "detection")
    assert train.fine_tune_checkpoint_version == CHECKPOINT_V2
    assert [changed.train_input_reader.label_map_path, changed.eval_input_reader[0].label_map_path] == ["map.pbtxt"] * 2
    assert list(changed.train_input_reader.tf_record_input_reader.input_path) == ["t1.record", "t2.record"]
    assert list(changed.eval_input_reader[0].tf_record_input_reader.input_path) == ["e*.record"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/ckpt-0", "a/ckpt-0"),
        ("a/ckpt-0.index", "a/ckpt-0"),
        ("a/ckpt-0.data-00000-of-00001", "a/ckpt-0"),
        ("a/model.ckpt.meta", "a/model.ckpt"),
        ("a.index/ckpt", "a.index/ckpt"),
    ],
)
def test_checkpoint_prefix(path: str, expected: str) -> None:
    assert checkpoint_prefix(path) == expected


@pytest.mark.parametrize(
    ("reader", "loads", "changes"),
    [
        ("", False, False),
        ("mask_type: NUMERICAL_MASKS", False, False),
        ("load_instance_masks: true", True, True),  # NUMERICAL_MASKS where nothing is said
        ("load_instance_masks: true mask_type: NUMERICAL_MASKS", True, True),
        ("load_instance_masks: true mask_type: PNG_MASKS", True, False),
    ],
)
def test_masks_that_are_loaded_can_be_made_pngs(reader: str, loads: bool, changes: bool) -> None:
    config = parse_pipeline(f"train_input_reader {{ {reader} }}", source="x")
    before = str(config)
    assert loads_masks(config) is loads
    assert read_png_masks(config) is changes
    assert (str(config) != before) is changes
    assert (config.train_input_reader.mask_type == PNG_MASKS) is loads
    assert read_png_masks(config) is False


# problems


def test_one_error_is_one_line_and_warnings_pass() -> None:
    warning = Problem("a.b", "1", "is odd", "make it even", "warning")
    error = Problem("c", "", "is not set", "set it")
    raise_for_problems([warning])
    with pytest.raises(ConfigError) as caught:
        raise_for_problems([warning, error], source="my.config")
    assert str(caught.value) == "my.config: c: is not set; set it"
    assert str(warning) == "a.b '1': is odd; make it even"


# templates


def test_the_default_template_is_there_with_and_without_ending() -> None:
    assert "ssd_mobilenet_v2_fpnlite_320" in list_templates()
    text = read_template("ssd_mobilenet_v2_fpnlite_320")
    assert read_template("ssd_mobilenet_v2_fpnlite_320.config") == text
    assert template_header(text).splitlines()[0].startswith("# SSD with MobileNetV2")
    assert "model {" not in template_header(text)


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"no template 'ssd_mobilenet_v2'; did you mean ssd_mobilenet_v2_fpnlite_320\?.*known: center"
    ):
        read_template("ssd_mobilenet_v2")
    with pytest.raises(ConfigError, match=r"no template '\.\./setup'; \(known:"):
        read_template("../setup")
