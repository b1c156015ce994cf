from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from odkeras.errors import SetupError
from odkeras.serving.launch import find_tensorflow_serving, server_command


def test_the_embedded_server_on_a_port() -> None:
    assert server_command("raccoon", "/models/raccoon", rest_api_port=8501) == [
        *(sys.executable, "-m", "odkeras", "serve", "--model-name", "raccoon"),
        *("--model-base-path", "/models/raccoon", "--file-system-poll-wait-seconds", "1"),
        *("--host", "127.0.0.1", "--rest-api-port", "8501"),
    ]


def test_the_embedded_server_on_an_inherited_socket() -> None:
    command = server_command("raccoon", Path("export"), socket_fd=7, poll_wait_s=0.2, stop_on_stdin_eof=True)
    assert command[6:] == [
        *("--model-base-path", "export", "--file-system-poll-wait-seconds", "0.2"),
        *("--socket-fd", "7", "--stop-on-stdin-eof"),
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
    command = server_command("raccoon", "export", rest_api_port=8501, poll_wait_s=0.2, tensorflow_serving=True)
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
        server_command("raccoon", "export", rest_api_port=8501, tensorflow_serving=True)


@pytest.mark.parametrize(
    "where", [{}, {"rest_api_port": 1, "socket_fd": 2}, {"socket_fd": 2, "tensorflow_serving": True}]
)
def test_there_is_one_place_to_listen(where: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give"):
        server_command("raccoon", "export", **where)
