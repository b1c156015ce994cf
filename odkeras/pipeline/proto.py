"""The TrainEvalPipelineConfig proto: parse it with errors a person can act on, read its parts, write it.

The classes come from `object_detection.protos`, generated code that needs the protobuf package and nothing else.
"""

from __future__ import annotations

import difflib
import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from odkeras.errors import ConfigError
from odkeras.odapi import import_protos, parse_error_reason

if TYPE_CHECKING:
    from google.protobuf.text_format import ParseError

PipelineConfig: TypeAlias = Any
"""An object_detection.protos.pipeline_pb2.TrainEvalPipelineConfig. Generated code without type information."""

CHECKPOINT_V2 = 2
"""train_pb2.CheckpointVersion.V2: object-based, the only kind that TensorFlow 2 models restore."""

PNG_MASKS = 2
"""input_reader_pb2.InstanceMaskType.PNG_MASKS: a PNG for each object, as odkeras writes them."""

_PLACEHOLDER = re.compile(r"PATH_TO|TO_BE_CONFIGURED|(?:^|/)path/to(?:/|$)")
_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]+)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named "?(\w+)')
_MOST_NAMES_SHOWN = 15


def load_pipeline(path: Path | str) -> PipelineConfig:
    """Read a pipeline.config. A relative path in it that leads somewhere from the config's folder becomes absolute, so
    that a project is the same from every working directory; others start in the working directory, as in the API.

    Raises:
        ConfigError: no such file, not text, or not a pipeline.config; names file, line and column.
        SetupError: the Object Detection API is not installed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the pipeline config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); expected a pipeline.config"
        ) from error
    config = parse_pipeline(text, source=str(path))
    _anchor_paths(config, Path(path).absolute().parent)
    return config


def parse_pipeline(text: str, *, source: str) -> PipelineConfig:
    """Read the text of a pipeline.config; `source` is the file name for error messages.

    Raises:
        ConfigError: with source, line and column, and near matches of an unknown field or value.
        SetupError: the Object Detection API is not installed.
    """
    from google.protobuf import text_format

    config = import_protos("pipeline_pb2").TrainEvalPipelineConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        where = f"{source}:{error.GetLine()}:{error.GetColumn()}"
        raise ConfigError(f"{where}: {_explain(error)}") from error
    return config


def _anchor_paths(config: PipelineConfig, folder: Path) -> None:
    for reader in (config.train_input_reader, *config.eval_input_reader):
        if reader.label_map_path:
            reader.label_map_path = _anchored(reader.label_map_path, folder)
        paths = reader.tf_record_input_reader.input_path
        if any(paths):
            paths[:] = [_anchored_pattern(path, folder) for path in paths]
    checkpoint = config.train_config.fine_tune_checkpoint
    if checkpoint:
        config.train_config.fine_tune_checkpoint = _anchored(checkpoint, folder, ending="*")


def _anchored(path: str, folder: Path, *, ending: str = "") -> str:
    """`path` below `folder` if something is there, its name ending as the pattern `ending` says; else as it is."""
    below = folder / path
    there = _is_relative(path) and glob.glob(glob.escape(str(below)) + ending)  # noqa: PTH207
    return str(below) if there else path


def _anchored_pattern(pattern: str, folder: Path) -> str:
    """`pattern` below `folder`, which stands for itself whatever its name is, if it matches something; else as it
    is."""
    below = str(Path(glob.escape(str(folder)), pattern))
    there = _is_relative(pattern) and glob.glob(below)  # noqa: PTH207 (the pattern is a person's)
    return below if there else pattern


def _is_relative(path: str) -> bool:
    return "://" not in path and not Path(path).is_absolute()


def save_pipeline(config: PipelineConfig, path: Path | str, *, header: str = "") -> None:
    """Write the text form, atomically. `header` is comment text ("# ..." lines) to put above it."""
    from google.protobuf import text_format

    from odkeras.project import write_atomically

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (f"{header.rstrip()}\n\n" if header else "") + text_format.MessageToString(config))


def model_type(config: PipelineConfig) -> str:
    """The meta-architecture: "ssd", "faster_rcnn", "center_net" or "experimental_model".

    Raises:
        ConfigError: the config has no model.
    """
    name = config.model.WhichOneof("model")
    if name is None:
        raise ConfigError("the pipeline config has no model; expected model { ssd {...} }, faster_rcnn or center_net")
    return str(name)


def model_of(config: PipelineConfig) -> Any:
    """The meta-architecture's own message (Ssd, FasterRcnn, CenterNet).

    Raises:
        ConfigError: no model, or an experimental one, which has neither classes nor a feature extractor.
    """
    name = model_type(config)
    if name == "experimental_model":
        raise ConfigError("model.experimental_model is not supported; use ssd, faster_rcnn or center_net")
    return getattr(config.model, name)


def feature_extractor_type(config: PipelineConfig) -> str:
    """As written in the config, for example "ssd_mobilenet_v2_fpn_keras"; "" where it is not set."""
    return str(model_of(config).feature_extractor.type)


def num_classes(config: PipelineConfig) -> int:
    """Classes without background: the label map's ids must lie in 1..num_classes."""
    return int(model_of(config).num_classes)


def set_num_classes(config: PipelineConfig, count: int) -> None:
    """Change `config` in place."""
    model_of(config).num_classes = count


def label_map_path_of(config: PipelineConfig) -> str | None:
    """The training reader's label map, else the first evaluation reader's; None where neither has one."""
    readers = (config.train_input_reader, *config.eval_input_reader)
    return next((str(reader.label_map_path) for reader in readers if reader.label_map_path), None)


def loads_masks(config: PipelineConfig) -> bool:
    """Whether the training reader expects masks in its examples."""
    return bool(config.train_input_reader.load_instance_masks)


def read_png_masks(config: PipelineConfig) -> bool:
    """Change `config` in place so that a training reader that loads masks expects PNGs; whether it did not."""
    reader = config.train_input_reader
    if not loads_masks(config) or reader.mask_type == PNG_MASKS:
        return False
    reader.mask_type = PNG_MASKS
    return True


def is_placeholder(path: str) -> bool:
    """Whether the path waits to be filled in, as in the API's sample configs: PATH_TO_BE_CONFIGURED/ckpt-0."""
    return bool(_PLACEHOLDER.search(path))


def fine_tune_checkpoint_of(config: PipelineConfig) -> str | None:
    """The checkpoint to start from; None where there is none or a placeholder: training starts from random weights."""
    path = str(config.train_config.fine_tune_checkpoint)
    return path if path and not is_placeholder(path) else None


def fine_tune_type_of(config: PipelineConfig) -> str:
    """What to restore; where it is not set, decided by the deprecated from_detection_checkpoint, as the API does."""
    train = config.train_config
    fallback = "detection" if train.from_detection_checkpoint else "classification"
    return str(train.fine_tune_checkpoint_type) or fallback


def _explain(error: ParseError) -> str:
    """The reason, with near matches where a name is unknown."""
    message = str(error)
    field = _UNKNOWN_FIELD.search(message)
    if field is not None:
        message_type, name = field.groups()
        return f"unknown field {name!r} in {message_type.rpartition('.')[2]}; {_near(name, _field_names(message_type))}"
    value = _UNKNOWN_VALUE.search(message)
    if value is not None:
        enum_type, name = value.groups()
        return f"unknown value {name!r} of {enum_type.rpartition('.')[2]}; {_near(name, _value_names(enum_type))}"
    return parse_error_reason(error)


def _field_names(message_type: str) -> list[str]:
    from google.protobuf import descriptor_pool

    return sorted(descriptor_pool.Default().FindMessageTypeByName(message_type).fields_by_name)


def _value_names(enum_type: str) -> list[str]:
    from google.protobuf import descriptor_pool

    return sorted(descriptor_pool.Default().FindEnumTypeByName(enum_type).values_by_name)


def _near(name: str, known: list[str]) -> str:
    lowered = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=2)
    if near:
        return f"did you mean {' or '.join(lowered[each] for each in near)}?"
    more = f", ... {len(known) - _MOST_NAMES_SHOWN} more" if len(known) > _MOST_NAMES_SHOWN else ""
    return f"known: {', '.join(known[:_MOST_NAMES_SHOWN])}{more}"
