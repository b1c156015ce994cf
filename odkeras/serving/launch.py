"""Builds the command line of a model server: TensorFlow Serving's binary or the embedded server."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from odkeras.errors import SetupError

TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"


def server_command(
    model_name: str,
    model_base_path: Path | str,
    *,
    rest_api_port: int | None = None,
    socket_fd: int | None = None,
    poll_wait_s: float = 1.0,
    host: str = "127.0.0.1",
    stop_on_stdin_eof: bool = False,
    tf_logging_level: int | None = None,
    tensorflow_serving: bool = False,
) -> list[str]:
    """The command of a model server that serves the newest version in `model_base_path`.

    Args:
        rest_api_port: the port to listen on; give either this or `socket_fd`.
        socket_fd: an open listening socket that the process inherits (embedded server only).
        poll_wait_s: seconds between two polls for new versions.
        stop_on_stdin_eof: let the server exit with its parent (embedded server only).
        tf_logging_level: TensorFlow's log level, 10 to 50 (embedded server only; TensorFlow Serving reads its own from
            the environment).
        tensorflow_serving: run `tensorflow_model_server`, which must be on the PATH and listens on all interfaces.

    Raises:
        SetupError: `tensorflow_model_server` is wanted, but is not on the PATH.
        ValueError: not exactly one of rest_api_port and socket_fd, or TensorFlow Serving with a socket.
    """
    if (rest_api_port is None) == (socket_fd is None):
        raise ValueError("give either rest_api_port or socket_fd")
    if tensorflow_serving:
        if rest_api_port is None:
            raise ValueError(f"{TENSORFLOW_MODEL_SERVER} cannot inherit a socket: give rest_api_port")
        return _tensorflow_serving_command(model_name, Path(model_base_path), rest_api_port, poll_wait_s)
    command = [sys.executable, "-m", "odkeras", "serve", "--model-name", model_name]
    command += ["--model-base-path", str(model_base_path), "--file-system-poll-wait-seconds", f"{poll_wait_s:g}"]
    if socket_fd is None:
        command += ["--host", host, "--rest-api-port", str(rest_api_port)]
    else:
        command += ["--socket-fd", str(socket_fd)]
    if tf_logging_level is not None:
        command += ["--tf-logging-level", str(tf_logging_level)]
    return command + (["--stop-on-stdin-eof"] if stop_on_stdin_eof else [])


def find_tensorflow_serving() -> str | None:
    """The path of `tensorflow_model_server`, None if it is not on the PATH."""
    return shutil.which(TENSORFLOW_MODEL_SERVER)


def _tensorflow_serving_command(
    model_name: str, model_base_path: Path, rest_api_port: int, poll_wait_s: float
) -> list[str]:
    program = find_tensorflow_serving()
    if program is None:
        raise SetupError(
            f"{TENSORFLOW_MODEL_SERVER} is not on the PATH; install TensorFlow Serving, or use the embedded server"
        )
    return [
        program,
        "--port=0",  # disables gRPC, whose default port a second server on this machine could not bind
        f"--rest_api_port={rest_api_port}",
        f"--model_name={model_name}",
        f"--model_base_path={model_base_path.absolute()}",
        f"--file_system_poll_wait_seconds={max(1, round(poll_wait_s))}",
    ]
