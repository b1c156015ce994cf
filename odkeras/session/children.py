"""The child processes of a session: the command lines of the trainer and the model server."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from odkeras.connections import is_loopback
from odkeras.errors import ServingError, TrainingError
from odkeras.logs import cpp_log_level
from odkeras.serving.launch import server_command
from odkeras.session.leash import leash_command
from odkeras.session.options import LoopOptions
from odkeras.session.supervisor import ChildSpec

_SERVER_POLL_S = 0.25
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}  # stdout is a log file: buffered output would be missing after a crash


def trainer_child(options: LoopOptions, log_path: Path, serving_url: str) -> ChildSpec:
    """The trainer process. It asks the server at `serving_url` which version is live and must not be deleted."""
    command = tuple(trainer_command(options, serving_url))
    return ChildSpec("trainer", command, log_path, env=_UNBUFFERED, error=TrainingError)


def server_child(options: LoopOptions, log_path: Path, bound: socket.socket) -> ChildSpec:
    """The model server process, which inherits a listening socket.

    TensorFlow Serving cannot inherit a socket: `bound` is closed, and its port is passed instead.
    """
    name, base_path = options.model_name, options.project.export_dir
    if options.tensorflow_serving:
        port = bound.getsockname()[1]
        bound.close()
        command = server_command(name, base_path, rest_api_port=port, poll_wait_s=1, tensorflow_serving=True)
        env = {"TF_CPP_MIN_LOG_LEVEL": cpp_log_level(options.tf_logging_level)}
        return ChildSpec("server", tuple(leash_command(command)), log_path, env=env, error=ServingError)
    command = server_command(
        name,
        base_path,
        socket_fd=bound.fileno(),
        poll_wait_s=_SERVER_POLL_S,
        tf_logging_level=options.tf_logging_level,
        stop_on_stdin_eof=True,
    )
    return ChildSpec(
        "server", tuple(command), log_path, pass_fds=(bound.fileno(),), env=_UNBUFFERED, error=ServingError
    )


def trainer_command(options: LoopOptions, serving_url: str) -> list[str]:
    """The command line of the trainer process."""
    arguments = _trainer_arguments(options, serving_url)
    return [sys.executable, "-m", "odkeras", *arguments, "--give-way", "--stop-on-stdin-eof"]


def external_trainer_command(options: LoopOptions, serving_url: str) -> str:
    """The shell command to start the trainer on another machine.

    Its paths are absolute; both machines must share them. The server's URL is left out if it is a loopback address,
    which the other machine cannot reach.
    """
    host = urlsplit(serving_url).hostname or ""
    url = "" if is_loopback(host) else serving_url
    return shlex.join(["odkeras", *_trainer_arguments(options, url)])


def _trainer_arguments(options: LoopOptions, serving_url: str) -> list[str]:
    project = options.project
    command = ["trainer", str(options.config.absolute())]
    for name in ("data_dir", "model_dir", "export_dir"):
        command += [f"--{name.replace('_', '-')}", str(getattr(project, name).absolute())]
    if serving_url:
        command += ["--serving-url", serving_url, "--model-name", options.model_name]
    command += ["--steps-per-epoch", str(options.steps_per_epoch), "--temp-files-num", str(options.temp_files_num)]
    command += ["--max-checkpoints-num", str(options.max_checkpoints_num), "--replay", options.replay]
    command += ["--strategy", options.strategy, "--tf-logging-level", str(options.tf_logging_level)]
    if options.label_map is not None:
        command += ["--label-map-path", str(options.label_map.absolute())]
    if options.run_eval:
        command += ["--run-eval"]
    if options.eval_steps is not None:
        command += ["--eval-steps", str(options.eval_steps)]
    if options.eval_split:
        command += ["--eval-split", str(options.eval_split)]
    if options.publish_if_better:
        command += ["--publish-if-better", "--publish-tolerance", str(options.publish_tolerance)]
    return command


def server_url(ip: str, port: int) -> str:
    """The base URL of a server that listens on this address and port."""
    return f"http://{_reachable(ip)}:{port}"


def _reachable(ip: str) -> str:
    """The address to connect to, given the address that a server listens on."""
    if ip in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{ip}]" if ":" in ip else ip
