from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from odkeras.config.serving import ServerSettings
from odkeras.errors import SetupError
from odkeras.serving.launch import find_tensorflow_serving, server_command, tensorflow_serving_command


def settings(model_base_path: str = "export", **options: Any) -> ServerSettings:
    return ServerSettings(model_name="raccoon", model_base_path=Path(model_base_path), **options)


def test_the_embedded_server_on_a_port() -> None:
    assert server_command(settings("/models/raccoon")) == [
        *(sys.executable, "-m", "odkeras", "serve", "--model-name", "raccoon"),
        *("--model-base-path", "/models/raccoon", "--file-system-poll-wait-seconds", "1"),
        *("--host", "127.0.0.1", "--rest-api-port", "8501"),
    ]


def test_the_embedded_server_on_an_inherited_socket() -> None:
    command = server_command(
        settings(socket_fd=7, file_system_poll_wait_seconds=0.2, stop_on_stdin_eof=True), tf_logging_level=30
    )
    assert command[6:] == [
        *("--model-base-path", "export", "--file-system-poll-wait-seconds", "0.2"),
        *("--socket-fd", "7", "--tf-logging-level", "30", "--stop-on-stdin-eof"),
    ]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bin" / "tensorflow_model_server"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    return path


def test_tensorflow_serving(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_tensorflow_serving() == str(program)
    command = tensorflow_serving_command(settings(file_system_poll_wait_seconds=0.2))
    assert command == [
        str(program),
        "--port=0",
        "--rest_api_port=8501",
        "--model_name=raccoon",
        f"--model_base_path={tmp_path}/export",  # it takes absolute paths only
        "--file_system_poll_wait_seconds=1",  # and whole seconds; 0 would be a single look
    ]


def test_tensorflow_serving_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tensorflow_serving() is None
    with pytest.raises(SetupError, match="tensorflow_model_server is not on the PATH"):
        tensorflow_serving_command(settings())


def test_another_limit_of_pixels_is_passed_on() -> None:
    assert server_command(settings(max_pixels=7))[-2:] == ["--max-pixels", "7"]
