"""The server as a separate process, with tiny real SavedModels."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from waiting import wait_until

from odkeras.errors import ServerUnavailableError
from odkeras.serving.client import ServingClient

pytest.importorskip("tensorflow")

from tests.fixtures_saved_models import Publisher, png

pytestmark = pytest.mark.integration

PROGRAM = """
import json, sys
from odkeras.config.serving import ServerSettings
from odkeras.serving.server import run_server
options = json.loads(sys.argv[1])
run_server(ServerSettings(model_name="tiny", file_system_poll_wait_seconds=0.05, **options))
"""


@dataclass
class Running:
    """A server process, listening on a socket that it inherited."""

    process: subprocess.Popen[bytes]
    url: str
    client: ServingClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = ServingClient(self.url, "tiny")

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def ends(self) -> tuple[int, float]:
        """Exit status, and how many seconds it took."""
        started = time.monotonic()
        return self.process.wait(20), time.monotonic() - started


@contextmanager
def running(base_path: Path, log_path: Path, **options: Any) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as listener, log_path.open("wb") as log:
        fd = listener.fileno()
        settings = {"model_base_path": str(base_path), "socket_fd": fd, "stop_on_stdin_eof": True, **options}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[fd],
        )
        server = Running(process, f"http://127.0.0.1:{listener.getsockname()[1]}")
    with server.client, process:
        try:
            yield server
        finally:
            process.kill()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def server(workplace: Path) -> Iterator[Running]:
    """Started before its directory is there."""
    with running(workplace / "export", workplace / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def publisher(server: Running, workplace: Path) -> Publisher:
    """Of versions that the server serves: the first is 1."""
    assert server.line() == (
        f"odkeras serve: {server.url}/v1/models/tiny serves {workplace / 'export'} (waiting for the first version)\n"
    )
    assert server.client.versions() == []
    with pytest.raises(ServerUnavailableError, match="has not loaded tiny yet"):
        server.client.predict([png()])
    (workplace / "export").mkdir()
    publisher = Publisher(workplace / "export")
    publisher.publish(1, 7)
    assert server.client.wait_for_version(1, timeout_s=60) == 1
    return publisher


def next_version(publisher: Publisher) -> int:
    return max(int(path.name) for path in publisher.export_dir.iterdir() if path.name.isdigit()) + 1


def test_predictions_come_back_as_detections(server: Running, publisher: Publisher) -> None:
    version = next_version(publisher)
    publisher.publish(version, 8)
    server.client.wait_for_version(version, timeout_s=20)
    dark, bright = server.client.predict([png(51), png(102)])
    assert len(dark) == len(bright) == 2  # the third row is padding
    np.testing.assert_allclose(dark.boxes, [[0.2, 0.2, 0.9, 0.75]] * 2, rtol=1e-6)
    np.testing.assert_allclose(bright.boxes[:, 0], [0.4, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(dark.scores, np.array([0.008, 0.008], np.float32))
    np.testing.assert_array_equal(dark.classes, np.array([8, 8], np.int32))


def test_predict_with_and_without_the_server(server: Running, publisher: Publisher, tmp_path: Path) -> None:
    """Both give the same boxes; a wrong name is reported with the right one; TensorFlow prints nothing."""
    version = next_version(publisher)
    publisher.publish(version, 11, name=f"{version:08}")
    server.client.wait_for_version(version, timeout_s=20)
    (tmp_path / "a").mkdir()
    for name, level in (("1.png", 51), ("a/2.png", 102)):
        (tmp_path / name).write_bytes(png(level))

    def predict(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "odkeras", "predict", str(tmp_path), "--threshold", "0.001", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    by_server = predict("--model-name", "tiny", "--url", server.url)
    assert (by_server.returncode, by_server.stderr) == (0, "")
    rows = [json.loads(line) for line in by_server.stdout.splitlines()]
    assert [[box["label"] for box in row["boxes"]] for row in rows] == [["11", "11"]] * 2
    alone = predict("--export-dir", str(publisher.export_dir))
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == by_server.stdout
    wrong = predict("--model-name", "small", "--url", server.url)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == ("error: no model 'small'; this server serves 'tiny': pass that as --model-name\n")


def test_a_version_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "saved_model.pb").write_bytes(b"broken")
    (tmp_path / "1.png").write_bytes(png())
    command = [sys.executable, "-m", "odkeras", "predict", str(tmp_path / "1.png"), "--export-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / '3'} cannot be loaded as a SavedModel: ")


def test_swaps_under_load_fail_no_request(server: Running, publisher: Publisher) -> None:
    """Weights are updated in place and graphs are reloaded: every answer comes from one whole version, in order."""
    first = next_version(publisher)
    publisher.publish(first, first)
    server.client.wait_for_version(first, timeout_s=20)
    done = threading.Event()
    answers: list[list[int]] = [[] for _ in range(3)]
    failures: list[BaseException] = []

    def ask(seen: list[int]) -> None:
        try:
            while not done.is_set():
                (detections,) = server.client.predict([png()])
                (value,) = set(detections.classes.tolist())
                np.testing.assert_allclose(detections.scores, value / 1000, rtol=1e-6)
                seen.append(value)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seen,)) for seen in answers]
    for thread in threads:
        thread.start()
    last = first + 12
    for version in range(first + 1, last + 1):
        publisher.publish(version, version, same_graph=version % 4 != 0)
        assert server.client.wait_for_version(version, timeout_s=20) == version
    wait_until(lambda: all(seen and seen[-1] == last for seen in answers) or failures)
    done.set()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert all(seen == sorted(seen) for seen in answers)
    assert len(set().union(*answers)) >= 6  # of 13 versions, most were seen at work


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time is looked up in /proc")
def test_sigterm_lets_running_requests_finish(server: Running, publisher: Publisher) -> None:
    """The last test of this process. The request is large: it is being answered when the signal comes."""
    body = json.dumps({"signature_name": "image_tensor", "instances": np.zeros((1, 900, 1000, 3), int).tolist()})
    responses: list[httpx.Response] = []
    log = Path(f"/proc/{server.process.pid}/stat")

    def ask() -> None:
        responses.append(httpx.post(f"{server.url}/v1/models/tiny:predict", content=body, timeout=30))

    busy = cpu_ticks(log)
    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: cpu_ticks(log) > busy + 5)
    server.process.send_signal(signal.SIGTERM)
    status, seconds = server.ends()
    thread.join(10)
    assert (status, [response.status_code for response in responses]) == (0, [200])
    assert seconds < 5
    with pytest.raises(ServerUnavailableError, match="no model server at"):
        server.client.predict([png()])


def cpu_ticks(stat: Path) -> int:
    """Hundredths of a second of processor time, as the kernel counts them."""
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_it_ends_with_its_parent_even_while_tensorflow_is_imported(publisher: Publisher, tmp_path: Path) -> None:
    """Its status is known before TensorFlow is there, and closing its stdin ends it."""
    with running(publisher.export_dir, tmp_path / "server.log") as server:
        assert server.line() == f"odkeras serve: {server.url}/v1/models/tiny serves {publisher.export_dir}\n"
        (state,) = wait_until(server.client.versions)
        assert state.state == "START"
        assert server.process.stdin is not None
        server.process.stdin.close()
        status, seconds = server.ends()
        assert status == 0
        assert seconds < 5


def test_a_taken_port_ends_it_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = {"model_base_path": str(tmp_path), "rest_api_port": port}
        process = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(options)], capture_output=True, timeout=30)
    assert process.returncode != 0
    assert f"SetupError: port {port} of 127.0.0.1 is already in use".encode() in process.stderr
