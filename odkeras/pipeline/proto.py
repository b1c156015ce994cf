"""The TrainEvalPipelineConfig proto: parse it with helpful error messages, access its parts, save it.

The classes come from `object_detection.protos`, generated code that depends only on the protobuf package.
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
"""An object_detection.protos.pipeline_pb2.TrainEvalPipelineConfig. `Any`, because generated code has no types."""

CHECKPOINT_V2 = 2
"""train_pb2.CheckpointVersion.V2: object-based, the only kind that TensorFlow 2 models restore."""

PNG_MASKS = 2
"""input_reader_pb2.InstanceMaskType.PNG_MASKS: one PNG per object, the format that odkeras writes."""

_PLACEHOLDER = re.compile(r"PATH_TO|TO_BE_CONFIGURED|(?:^|/)path/to(?:/|$)")
_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]+)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named "?(\w+)')
_MAX_NAMES_SHOWN = 15


def load_pipeline(path: Path | str) -> PipelineConfig:
    """Read a pipeline.config.

    Relative paths in it that exist below the config's directory are made absolute, so that a project works from any
    working directory. The others stay relative to the working directory, as in the API.

    Raises:
        ConfigError: the file cannot be read, is not text, or is not a pipeline.config; names file, line and column.
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
    """Parse the text of a pipeline.config.

    Args:
        source: file name, for messages.

    Raises:
        ConfigError: not a pipeline.config; the message has source, line and column, and suggests similar names for an
            unknown field or value.
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
    """`folder / path` if `path` is relative and a file matches that plus the glob pattern `ending`; else `path`."""
    below = folder / path
    there = _is_relative(path) and glob.glob(glob.escape(str(below)) + ending)  # noqa: PTH207
    return str(below) if there else path


def _anchored_pattern(pattern: str, folder: Path) -> str:
    """`folder / pattern` if `pattern` is relative and matches a file there; else `pattern`.

    `folder` is escaped, because its name may contain glob characters.
    """
    below = str(Path(glob.escape(str(folder)), pattern))
    there = _is_relative(pattern) and glob.glob(below)  # noqa: PTH207 (Path.glob refuses absolute patterns)
    return below if there else pattern


def _is_relative(path: str) -> bool:
    return "://" not in path and not Path(path).is_absolute()


def save_pipeline(config: PipelineConfig, path: Path | str, *, header: str = "") -> None:
    """Write the config as text, atomically. Creates the directory.

    Args:
        header: comment lines ("# ...") to put above the config.
    """
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


def get_model(config: PipelineConfig) -> Any:
    """The meta-architecture's own message (Ssd, FasterRcnn, CenterNet).

    Raises:
        ConfigError: no model, or an experimental_model, which has neither num_classes nor a feature extractor.
    """
    name = model_type(config)
    if name == "experimental_model":
        raise ConfigError("model.experimental_model is not supported; use ssd, faster_rcnn or center_net")
    return getattr(config.model, name)


def feature_extractor_type(config: PipelineConfig) -> str:
    """The feature extractor's type, for example "ssd_mobilenet_v2_fpn_keras"; "" if it is not set."""
    return str(get_model(config).feature_extractor.type)


def num_classes(config: PipelineConfig) -> int:
    """Number of classes without background; label-map ids must be in 1..num_classes."""
    return int(get_model(config).num_classes)


def set_num_classes(config: PipelineConfig, count: int) -> None:
    """Set the number of classes in `config`, in place."""
    get_model(config).num_classes = count


def get_label_map_path(config: PipelineConfig) -> str | None:
    """The label map path of the training reader, else of the first evaluation reader that has one; None if none has."""
    readers = (config.train_input_reader, *config.eval_input_reader)
    return next((str(reader.label_map_path) for reader in readers if reader.label_map_path), None)


def loads_masks(config: PipelineConfig) -> bool:
    """Whether the training reader loads instance masks."""
    return bool(config.train_input_reader.load_instance_masks)


def read_png_masks(config: PipelineConfig) -> bool:
    """Set mask_type to PNG_MASKS, in place, if the training reader loads masks. Returns whether that was a change."""
    reader = config.train_input_reader
    if not loads_masks(config) or reader.mask_type == PNG_MASKS:
        return False
    reader.mask_type = PNG_MASKS
    return True


def is_placeholder(path: str) -> bool:
    """Whether the path is a placeholder as in the API's sample configs, for example PATH_TO_BE_CONFIGURED/ckpt-0."""
    return bool(_PLACEHOLDER.search(path))


def get_fine_tune_checkpoint(config: PipelineConfig) -> str | None:
    """The checkpoint to start from; None if it is not set or a placeholder (training starts from random weights)."""
    path = str(config.train_config.fine_tune_checkpoint)
    return path if path and not is_placeholder(path) else None


def get_fine_tune_type(config: PipelineConfig) -> str:
    """The fine_tune_checkpoint_type. If it is not set, the deprecated from_detection_checkpoint decides, as in the
    API."""
    train = config.train_config
    fallback = "detection" if train.from_detection_checkpoint else "classification"
    return str(train.fine_tune_checkpoint_type) or fallback


def _explain(error: ParseError) -> str:
    """The reason of a parse error, with similar names if a field or value is unknown."""
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
    lowered = {field.lower(): field for field in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=2)
    if near:
        return f"did you mean {' or '.join(lowered[each] for each in near)}?"
    more = f", ... {len(known) - _MAX_NAMES_SHOWN} more" if len(known) > _MAX_NAMES_SHOWN else ""
    return f"known: {', '.join(known[:_MAX_NAMES_SHOWN])}{more}"
