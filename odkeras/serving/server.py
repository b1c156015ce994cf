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

from odkeras.config.serving import ServerSettings
from odkeras.errors import SetupError
from odkeras.logs import TENSORFLOW_REQUIREMENT, quiet_import
from odkeras.process import exit_despite_threads, open_listener, stop_on_signals, stop_with_parent
from odkeras.serving.app import create_app
from odkeras.serving.listening import HttpServer
from odkeras.serving.versions import Backend, ServedModel
from odkeras.text import say
from odkeras.version_dirs import list_versions

_GRACE_S = 3  # timeout for running requests after a signal
_LAST_WAIT_S = 0.5
_THREAD_PREFIX = "odkeras-serving"


def run_server(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT. Then return, or exit with status 0 if a thread is still running in TensorFlow.

    Raises:
        SetupError: TensorFlow is not installed, the port is taken, or the HTTP server cannot start.
    """
    prepare_tensorflow(settings.gpu)
    with open_socket(settings) as listener:
        model = ServedModel(
            settings.model_name,
            settings.model_base_path,
            lambda: _open_backend(settings.gpu),
            poll_wait_s=settings.file_system_poll_wait_seconds,
        )
        app = create_app({model.name: model}, max_pixels=settings.max_pixels)
        server = HttpServer(app, lambda: _announce(settings, listener), grace_s=_GRACE_S)
        with stop_on_signals(server.stop):
            if settings.stop_on_stdin_eof:
                stop_with_parent(server.stop)
            with model:
                server.run(sockets=[listener])
        ours = [thread for thread in threading.enumerate() if thread.name.startswith(_THREAD_PREFIX)]
        exit_despite_threads(ours, _LAST_WAIT_S)  # an import, a load or a long request inside TensorFlow


def open_socket(settings: ServerSettings) -> socket.socket:
    """Open the socket to listen on, or take over the inherited one.

    Raises:
        SetupError: the port is taken or not allowed, the host does not exist, or the descriptor is not a listening
            socket.
    """
    if settings.socket_fd is not None:
        return _inherited_socket(settings.socket_fd)
    return open_listener(settings.rest_api_host, settings.rest_api_port, option="--rest-api-port")


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


def _announce(settings: ServerSettings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/models/{settings.model_name}"
    waiting = "" if list_versions(settings.model_base_path) else " (waiting for the first version)"
    with suppress(OSError):  # stdout is closed
        say(f"odkeras serve: {url} serves {settings.model_base_path}{waiting}", flush=True)
