"""Builds the command line of a model server: TensorFlow Serving's binary or the embedded server."""

from __future__ import annotations

import shutil
import sys

from odkeras.config.serving import ServerSettings
from odkeras.config.settings import DEFAULT_MAX_PIXELS
from odkeras.errors import SetupError

TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"


def server_command(settings: ServerSettings, *, tf_logging_level: int | None = None) -> list[str]:
    """The command of the embedded server.

    Args:
        tf_logging_level: TensorFlow's log level, 10 to 50; None for the default.
    """
    command = [sys.executable, "-m", "odkeras", "serve", "--model-name", settings.model_name]
    command += ["--model-base-path", str(settings.model_base_path)]
    command += ["--file-system-poll-wait-seconds", f"{settings.file_system_poll_wait_seconds:g}"]
    if settings.socket_fd is None:
        command += ["--host", settings.rest_api_host, "--rest-api-port", str(settings.rest_api_port)]
    else:
        command += ["--socket-fd", str(settings.socket_fd)]
    if settings.max_pixels != DEFAULT_MAX_PIXELS:
        command += ["--max-pixels", str(settings.max_pixels)]
    if tf_logging_level is not None:
        command += ["--tf-logging-level", str(tf_logging_level)]
    command += ["--gpu"] if settings.gpu else []
    return command + (["--stop-on-stdin-eof"] if settings.stop_on_stdin_eof else [])


def find_tensorflow_serving() -> str | None:
    """The path of `tensorflow_model_server`, None if it is not on the PATH."""
    return shutil.which(TENSORFLOW_MODEL_SERVER)


def tensorflow_serving_command(settings: ServerSettings) -> list[str]:
    """The command of `tensorflow_model_server`, which listens on all interfaces and reads its log level from the
    environment.

    Raises:
        SetupError: it is not on the PATH.
    """
    program = find_tensorflow_serving()
    if program is None:
        raise SetupError(
            f"{TENSORFLOW_MODEL_SERVER} is not on the PATH; install TensorFlow Serving, or use the embedded server"
        )
    return [
        program,
        "--port=0",  # disables gRPC, whose default port a second server on this machine could not bind
        f"--rest_api_port={settings.rest_api_port}",
        f"--model_name={settings.model_name}",
        f"--model_base_path={settings.model_base_path.absolute()}",
        f"--file_system_poll_wait_seconds={max(1, round(settings.file_system_poll_wait_seconds))}",
    ]
