"""The trainer's configuration, `run.json` in the model directory: `odkeras trainer --config run.json` takes it."""

# No `from __future__ import annotations`: evaluated later, the annotations would not see this module.
from pathlib import Path
from typing import Annotated

import msgspec

from odkeras import __version__
from odkeras.config.option import SERVING, Option, field_types, is_path
from odkeras.config.settings import TrainingSettings
from odkeras.errors import ConfigError, SetupError
from odkeras.project import write_atomically

RUN_NAME = "run.json"


class RunConfig(TrainingSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The resolved settings of a trainer.

    Args:
        odkeras: version that wrote the file.
    """

    odkeras: str = __version__
    serving_url: Annotated[
        str,
        Option(
            "The model server, so that the version it serves is never deleted: http://HOST:PORT.",
            "",
            SERVING,
            "trainer",
        ),
    ] = ""


def write_run(settings: TrainingSettings, serving_url: str = "") -> Path:
    """Write `run.json` with absolute paths into the model directory; returns its absolute path.

    Raises:
        SetupError: it cannot be written.
    """
    types = field_types(TrainingSettings)
    values = {name: getattr(settings, name) for name in types}
    places = settings.project
    values |= {name: getattr(places, name) for name in ("data_dir", "model_dir", "export_dir")}
    values = {
        name: str(Path(value).absolute()) if is_path(types[name]) and value else value for name, value in values.items()
    }
    path = places.model_dir.absolute() / RUN_NAME
    document = {"odkeras": __version__, **values, "serving_url": serving_url}
    try:
        write_atomically(path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    except OSError as error:
        raise SetupError(f"cannot write the trainer's configuration {path}: {error.strerror or error}") from error
    return path


def read_run(path: Path) -> RunConfig:
    """Read a `run.json`.

    Raises:
        ConfigError: it cannot be read, or has an unknown key or a wrong value.
    """
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
        return msgspec.convert(document, RunConfig, dec_hook=lambda type_, value: type_(value))
    except (OSError, msgspec.MsgspecError, ConfigError) as error:
        raise ConfigError(f"{path}: cannot be used as the trainer's configuration: {error}") from error
