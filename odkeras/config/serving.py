"""The options of the commands that need no project: the model server's, and those of its clients."""

# No `from __future__ import annotations`: evaluated later, the functions in annotations would not see this module.
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from odkeras.config.option import DIRECTORIES, SERVING, SUGGESTIONS, Option, Settings
from odkeras.config.parsing import is_host
from odkeras.config.settings import (
    DEFAULT_MAX_PIXELS,
    DEFAULT_REST_PORT,
    PREDICT_BATCH_SIZE,
    Api,
    Exclude,
    Label,
    MaxPixels,
    ModelName,
    PredictBatchSize,
    reachable,
)


class ServerSettings(Settings, frozen=True, kw_only=True):
    """What the model server needs.

    Args:
        socket_fd: descriptor of an inherited listening socket, used instead of host and port.
        stop_on_stdin_eof: exit when standard input closes, as it does when the parent process dies.

    Raises:
        ConfigError: a value is not allowed.
    """

    model_name: ModelName
    model_base_path: Annotated[
        Path,
        Option("Directory with the numbered versions; need not exist yet.", "", SERVING, "serve", underscores=True),
    ]
    rest_api_port: Annotated[
        int,
        Meta(ge=0, le=65535),
        Option("Port to listen on; 0 selects a free one.", "", SERVING, "serve", "0 to 65535", underscores=True),
    ] = DEFAULT_REST_PORT
    file_system_poll_wait_seconds: Annotated[
        float,
        Meta(gt=0),
        Option("How often to look for a new version.", "", SERVING, "serve", "more than 0 seconds", underscores=True),
    ] = 1.0
    # Not ODKERAS_HOST: who lets the page listen on all addresses does not mean the model server, which has no token.
    rest_api_host: Annotated[str, Option("Address to listen on.", "", SERVING, "serve", flag="host")] = "127.0.0.1"
    gpu: Annotated[bool, Option("Use the GPU; by default only the trainer uses it.", "", SERVING, "serve")] = False
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS
    socket_fd: int | None = None
    stop_on_stdin_eof: bool = False


class PredictSettings(Settings, frozen=True, kw_only=True):
    """What `odkeras predict` needs, besides images and output.

    Raises:
        ConfigError: a value is not allowed.
    """

    model_name: Annotated[
        str | None, Option("Name of the model on the server.", "", SERVING, "predict", underscores=True)
    ] = None
    url: Annotated[str, Option("The model server.", "", SERVING, "predict")] = f"http://127.0.0.1:{DEFAULT_REST_PORT}"
    wait: Annotated[
        float,
        Meta(ge=0),
        Option("Seconds to wait for a server that is being started.", "", SERVING, "predict", "0 or more seconds"),
    ] = 1.0
    export_dir: Annotated[
        Path | None,
        Option(
            "Without a server: load the newest version of this directory, or this version.", "ed", SERVING, "predict"
        ),
    ] = None
    # Not ODKERAS_THRESHOLD, which may be auto: thresholds that a session learns.
    min_score: Annotated[
        float,
        Meta(ge=0, le=1),
        Option("Leave out boxes with a lower score.", "t", SUGGESTIONS, "predict", "0 to 1", flag="threshold"),
    ] = 0.5
    label_map: Annotated[
        Path | None,
        Option("Label map for names instead of ids; not needed with --export-dir.", "lmp", SUGGESTIONS, "predict"),
    ] = None
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS


class RollbackSettings(Settings, frozen=True, kw_only=True):
    """What `odkeras rollback` needs."""

    export_dir: Annotated[Path, Option("Directory with the numbered versions.", "ed", DIRECTORIES, "rollback")]
    to: Annotated[
        int | None, Option("Go back to this version; default: the one before the newest.", "", DIRECTORIES, "rollback")
    ] = None


class UploadSettings(Settings, frozen=True, kw_only=True):
    """What `odkeras upload` needs, besides the URL."""

    export_dir: Annotated[Path, Option("Directory with the numbered versions.", "ed", DIRECTORIES, "upload")]
    keep: Annotated[
        int, Option("How many of the newest versions are at the URL; 0 or less = all.", "", SERVING, "upload")
    ] = 3


class ServingmodelSettings(Settings, frozen=True, kw_only=True):
    """What the recipe `image.servingmodel` needs.

    Raises:
        ConfigError: a value is not allowed.
    """

    dataset: Any
    ip: Annotated[
        str,
        Option(
            "Address of the TensorFlow Serving.",
            "",
            SERVING,
            "servingmodel",
            "an address or host name, without http:// and without a port",
            is_host,
            argument_of={"servingmodel": 1},
        ),
    ]
    port: Annotated[
        int,
        Meta(ge=1, le=65535),
        Option(
            f"Its REST port, usually {DEFAULT_REST_PORT}.",
            "",
            SERVING,
            "servingmodel",
            f"1 to 65535, usually {DEFAULT_REST_PORT}",
            argument_of={"servingmodel": 2},
        ),
    ]
    model_name: ModelName
    label_map_path: Annotated[
        Path,
        Option(
            "Label map (.pbtxt) that the model was trained with.",
            "",
            DIRECTORIES,
            "servingmodel",
            argument_of={"servingmodel": 4},
        ),
    ]
    source: Any = None
    threshold: Annotated[
        float, Meta(ge=0, le=1), Option("Lowest score of a suggestion.", "t", SUGGESTIONS, "servingmodel", "0 to 1")
    ] = 0.5
    api: Api = None
    exclude: Exclude = None
    label: Label = None
    predict_batch_size: PredictBatchSize = PREDICT_BATCH_SIZE

    @property
    def url(self) -> str:
        """Base URL of the model server."""
        return f"http://{reachable(self.ip)}:{self.port}"
