"""The model server process: `odkeras serve`.

It listens at once and imports TensorFlow in the background. On SIGTERM or SIGINT it finishes the running requests and
exits within 5 s.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from odkeras.errors import ConfigError, SetupError
from odkeras.logs import TENSORFLOW_REQUIREMENT, quiet_import
from odkeras.process import exit_despite_threads, open_listener, stop_on_signals, stop_with_parent
from odkeras.project import list_versions
from odkeras.serving.app import DEFAULT_MAX_BODY_BYTES, DEFAULT_THREADS, create_app
from odkeras.serving.listening import HttpServer
from odkeras.serving.versions import Backend, ServedModel

_GRACE_S = 3  # timeout for running requests after a signal
_LAST_WAIT_S = 0.5
_THREAD_PREFIX = "odkeras-serving"


@dataclass(frozen=True)
class ServerOptions:
    """The options of the model server.

    Args:
        model_name: name of the model in request paths.
        model_base_path: the directory of the versions; it need not exist yet.
        rest_api_port: port to listen on; 0 takes a free port. The server prints its address.
        host: address to listen on.
        file_system_poll_wait_seconds: interval between polls of `model_base_path`.
        socket_fd: descriptor of an inherited listening socket, used instead of host and port.
        stop_on_stdin_eof: exit when standard input closes, as it does when the parent process dies.
        gpu: use the GPUs. By default they are left to the trainer.
        max_body_bytes: maximum size of a request body; larger ones get 413.
        threads: number of predictions that run at the same time.

    Raises:
        ConfigError: a name, port or interval that is not allowed.
    """

    model_name: str
    model_base_path: Path
    rest_api_port: int = 8501
    host: str = "127.0.0.1"
    file_system_poll_wait_seconds: float = 1.0
    socket_fd: int | None = None
    stop_on_stdin_eof: bool = False
    gpu: bool = False
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    threads: int = DEFAULT_THREADS

    def __post_init__(self) -> None:
        if not self.model_name or set(self.model_name) & set("/:"):
            raise ConfigError(f"model name {self.model_name!r} must not be empty or contain '/' or ':'")
        if not 0 <= self.rest_api_port <= 65535:
            raise ConfigError(f"port {self.rest_api_port} is not one of 0..65535")
        if not self.file_system_poll_wait_seconds > 0:
            raise ConfigError(f"file system poll wait {self.file_system_poll_wait_seconds} must be more than 0 seconds")


def run_server(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT. Then return, or exit with status 0 if a thread is still running in TensorFlow.

    Raises:
        SetupError: TensorFlow is not installed, the port is taken, or the HTTP server cannot start.
    """
    prepare_tensorflow(options.gpu)
    with open_socket(options) as listener:
        model = ServedModel(
            options.model_name,
            options.model_base_path,
            lambda: _open_backend(options.gpu),
            poll_wait_s=options.file_system_poll_wait_seconds,
        )
        app = create_app({model.name: model}, max_body_bytes=options.max_body_bytes, threads=options.threads)
        server = HttpServer(app, lambda: _announce(options, listener), grace_s=_GRACE_S)
        with stop_on_signals(server.stop):
            if options.stop_on_stdin_eof:
                stop_with_parent(server.stop)
            with model:
                server.run(sockets=[listener])
        ours = [thread for thread in threading.enumerate() if thread.name.startswith(_THREAD_PREFIX)]
        exit_despite_threads(ours, _LAST_WAIT_S)  # an import, a load or a long request inside TensorFlow


def open_socket(options: ServerOptions) -> socket.socket:
    """Open the socket to listen on, or take over the inherited one.

    Raises:
        SetupError: the port is taken or not allowed, the host does not exist, or the descriptor is not a listening
            socket.
    """
    if options.socket_fd is not None:
        return _inherited_socket(options.socket_fd)
    return open_listener(options.host, options.rest_api_port, option="--rest-api-port")


def _inherited_socket(fd: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd)
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it does not listen")
    except OSError as error:
        raise SetupError(f"file descriptor {fd} is not an open listening socket: {error}") from None
    return listener


def prepare_tensorflow(gpu: bool) -> None:
    """Set the environment variables that TensorFlow reads when it is imported.

    Raises:
        SetupError: TensorFlow is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise SetupError(
            f"the Python package 'tensorflow' is not installed; run: pip install '{TENSORFLOW_REQUIREMENT}'"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def _open_backend(gpu: bool) -> Backend:
    quiet_import("tensorflow")
    from odkeras.serving.backend import TensorFlowBackend

    gc.freeze()  # exempt TensorFlow's import-time objects from garbage collection: saves 0.2 s after each swap
    return TensorFlowBackend(gpu=gpu)


def _announce(options: ServerOptions, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/models/{options.model_name}"
    waiting = "" if list_versions(options.model_base_path) else " (waiting for the first version)"
    with suppress(OSError):  # stdout is closed
        print(f"odkeras serve: {url} serves {options.model_base_path}{waiting}", flush=True)
