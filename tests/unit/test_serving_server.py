from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from odkeras.config.serving import ServerSettings
from odkeras.errors import ConfigError, SetupError
from odkeras.serving.listening import HttpServer
from odkeras.serving.server import open_socket, prepare_tensorflow, run_server


def options(**changes: Any) -> ServerSettings:
    return ServerSettings(**{"model_name": "raccoon", "model_base_path": Path("export"), "rest_api_port": 0, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_name": ""}, "model_name is ''; allowed: a name without / and :"),
        ({"model_name": "a/b"}, "model_name is 'a/b'; allowed: "),
        ({"model_name": "a:b"}, "model_name is 'a:b'; allowed: "),
        ({"rest_api_port": 65536}, "rest_api_port is 65536; allowed: 0 to 65535"),
        ({"rest_api_port": -1}, "rest_api_port is -1; allowed: 0 to 65535"),
        ({"file_system_poll_wait_seconds": 0}, "file_system_poll_wait_seconds is 0; allowed: more than 0 seconds"),
        ({"file_system_poll_wait_seconds": float("nan")}, "file_system_poll_wait_seconds is nan; allowed: "),
    ],
)
def test_options_are_checked(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        options(**changes)


def test_port_0_takes_a_free_one() -> None:
    with open_socket(options()) as first, open_socket(options()) as second:
        assert first.getsockname()[0] == "127.0.0.1"
        assert first.getsockname()[1] != second.getsockname()[1]


def test_a_taken_port_is_reported() -> None:
    with open_socket(options()) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} of 127.0.0.1 is already in use; .* with --rest-api-port"):
            open_socket(options(rest_api_port=port))


def test_an_address_of_another_machine_is_reported() -> None:
    with pytest.raises(SetupError, match=r"cannot listen on port 0 of 203\.0\.113\.1"):  # an address for documentation
        open_socket(options(rest_api_host="203.0.113.1"))


def test_an_inherited_socket_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with open_socket(options(socket_fd=os.dup(listener.fileno()))) as inherited:
            assert inherited.getsockname() == address


def test_an_inherited_descriptor_must_be_a_listening_socket(tmp_path: Path) -> None:
    not_listening = socket.socket()
    file = (tmp_path / "file").open("w")
    with not_listening, file:
        for fd in (os.dup(not_listening.fileno()), file.fileno(), 987654):
            with pytest.raises(SetupError, match=f"file descriptor {fd} is not an open listening socket"):
                open_socket(options(socket_fd=fd))


def test_tensorflow_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SetupError, match="'tensorflow' is not installed; run: pip install"):
        run_server(options())


@pytest.mark.parametrize(("gpu", "devices"), [(False, "-1"), (True, "0,1")])
def test_gpus_are_left_to_the_trainer_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, devices: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    prepare_tensorflow(gpu)
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["TF_CPP_MIN_LOG_LEVEL"]) == (devices, "0")


@pytest.mark.parametrize("leaves", [True, False], ids=["uvicorn ends the process", "uvicorn returns"])
def test_an_application_that_fails_to_start_is_not_ready(monkeypatch: pytest.MonkeyPatch, leaves: bool) -> None:
    """The server printed its address although the application's lifespan had failed, and then ended with status 0."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no disk space")
        yield

    if not leaves:  # as older versions of uvicorn do

        async def startup(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
            await self.lifespan.startup()
            self.should_exit = self.lifespan.should_exit

        monkeypatch.setattr(uvicorn.Server, "startup", startup)
    ready: list[bool] = []
    with open_socket(options()) as listener:
        server = HttpServer(Starlette(lifespan=lifespan), lambda: ready.append(True), grace_s=1)
        with pytest.raises(SetupError, match="the HTTP server could not start; see the error above"):
            server.run(sockets=[listener])
    assert ready == []
