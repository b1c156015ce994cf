"""The child processes of a session: the command lines of the trainer and the model server."""

from __future__ import annotations

import shlex
import socket
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from odkeras.config.run import write_run
from odkeras.config.serving import ServerSettings
from odkeras.config.settings import SessionSettings
from odkeras.connections import is_loopback
from odkeras.errors import ServingError, TrainingError
from odkeras.logs import cpp_log_level
from odkeras.serving.launch import server_command, tensorflow_serving_command
from odkeras.session.exit_with_parent import exit_with_parent
from odkeras.session.supervisor import ChildSpec

_SERVER_POLL_S = 0.25
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}  # stdout is a log file: buffered output would be missing after a crash


def trainer_child(settings: SessionSettings, log_path: Path, serving_url: str) -> ChildSpec:
    """The trainer process. It asks the server at `serving_url` which version is live and must not be deleted."""
    command = tuple(trainer_command(settings, serving_url))
    return ChildSpec("trainer", command, log_path, env=_UNBUFFERED, error=TrainingError, sends_heartbeats=True)


def server_child(settings: SessionSettings, log_path: Path, bound: socket.socket) -> ChildSpec:
    """The model server process, which inherits a listening socket.

    TensorFlow Serving cannot inherit a socket: `bound` is closed, and its port is passed instead.
    """
    server = partial(
        ServerSettings,
        model_name=settings.model_name,
        model_base_path=settings.project.export_dir,
        max_pixels=settings.max_pixels,
    )
    if settings.tensorflow_serving:
        port = bound.getsockname()[1]
        bound.close()
        command = tensorflow_serving_command(server(rest_api_port=port))
        env = {"TF_CPP_MIN_LOG_LEVEL": cpp_log_level(settings.tf_logging_level)}
        return ChildSpec("server", tuple(exit_with_parent(command)), log_path, env=env, error=ServingError)
    embedded = server(socket_fd=bound.fileno(), file_system_poll_wait_seconds=_SERVER_POLL_S, stop_on_stdin_eof=True)
    command = server_command(embedded, tf_logging_level=settings.tf_logging_level)
    fds = (bound.fileno(),)
    return ChildSpec("server", tuple(command), log_path, fds, _UNBUFFERED, ServingError, sends_heartbeats=True)


def trainer_command(settings: SessionSettings, serving_url: str) -> list[str]:
    """The command line of the trainer process; its configuration is written to the model directory."""
    run = write_run(settings, serving_url)
    return [sys.executable, "-m", "odkeras", "trainer", "--config", str(run), "--give-way", "--stop-on-stdin-eof"]


def external_trainer_command(settings: SessionSettings, serving_url: str) -> str:
    """The shell command to start the trainer on another machine; its configuration is written to the model directory.

    Its paths are absolute; both machines must share them. The server's URL is left out if it is a loopback address,
    which the other machine cannot reach.
    """
    host = urlsplit(serving_url).hostname or ""
    run = write_run(settings, "" if is_loopback(host) else serving_url)
    return shlex.join(["odkeras", "trainer", "--config", str(run)])
