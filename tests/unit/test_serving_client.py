"""The client, against servers of a few lines that answer over real sockets."""

from __future__ import annotations

import json
import re
import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from odkeras.errors import ConfigError, RequestError, ServerUnavailableError
from odkeras.serving.client import ServingClient

Answer = tuple[int, str, bytes]  # status, content type, body


class Server(ThreadingHTTPServer):
    """Answers each request with what `answer(method, path, body)` gives; `requests` has them all."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str, bytes], Answer | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests: list[tuple[str, str, bytes]] = []
        self.logins: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.path, body))
        self.server.logins.append(self.headers["authorization"])
        answer = self.server.answer(self.command, self.path, body)
        if answer is None:  # hang up
            self.close_connection = True
            return
        status, content_type, payload = answer
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = handle_request

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(answer: Callable[[str, str, bytes], Answer | None]) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(document: Any, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(document).encode()


def status_of(*rows: tuple[int, str, str, str]) -> Answer:
    keys = [
        {"version": str(version), "state": state, "status": {"error_code": code, "error_message": message}}
        for version, state, code, message in rows
    ]
    return reply({"model_version_status": keys})


def parse_detections(image: bytes) -> dict[str, Any]:
    """Two boxes, the first of which depends on the image's only byte, and one row of padding."""
    mark = image[0] / 256
    return {
        "detection_boxes": [[mark, 0.1, 0.9, 0.5], [0.0, 0.25, 0.5, 1.0], [0, 0, 0, 0]],
        "detection_scores": [0.75, 0.5, 0.0],
        "detection_classes": [1.0, 2.0, 1.0],
        "num_detections": 2.0,
    }


def predict(_method: str, _path: str, body: bytes) -> Answer:
    images = [b64decode(instance["b64"]) for instance in json.loads(body)["instances"]]
    return reply({"predictions": [parse_detections(image) for image in images]})


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_images_go_in_batches_and_come_back_in_order() -> None:
    images = [bytes([number]) for number in (10, 20, 30, 40, 50)]
    with serving(predict) as server, ServingClient(server.url, "raccoon") as client:
        found = client.predict(images, batch_size=2)
    assert [len(json.loads(body)["instances"]) for _, _, body in server.requests] == [2, 2, 1]
    assert {path for _, path, _ in server.requests} == {"/v1/models/raccoon:predict"}
    assert [float(detections.boxes[0, 0] * 256) for detections in found] == [10, 20, 30, 40, 50]
    np.testing.assert_array_equal(found[0].boxes[1], np.array([0, 0.25, 0.5, 1], np.float32))
    np.testing.assert_array_equal(found[0].scores, np.array([0.75, 0.5], np.float32))
    np.testing.assert_array_equal(found[0].classes, np.array([1, 2], np.int32))


def test_one_version_is_asked() -> None:
    with serving(predict) as server, ServingClient(server.url, "my model") as client:
        assert len(client.predict([b"x", b"y", b"z"], batch_size=2, version=1700000000)) == 3
    assert [path for _, path, _ in server.requests] == ["/v1/models/my%20model/versions/1700000000:predict"] * 2


@pytest.mark.parametrize(
    "error",
    [
        "Servable not found for request: Specific(raccoon, 3)",  # unloaded, or not there yet
        "Could not find version 3 of model raccoon",
        "no loaded version 3 of model 'raccoon'",  # our own server
    ],
)
def test_a_version_that_is_not_loaded_any_longer_is_unavailable(error: str) -> None:
    with serving(lambda *_: reply({"error": error}, 404)) as server, ServingClient(server.url, "raccoon") as client:
        with pytest.raises(ServerUnavailableError, match=f"has not loaded raccoon version 3: {re.escape(error)}"):
            client.predict([b"x"], version=3)
        assert len(server.requests) == 1


def test_an_unreachable_server_is_unavailable(free_port: int) -> None:
    with ServingClient(f"http://127.0.0.1:{free_port}", "raccoon") as client:
        assert client.available_version() is None
        for call in (client.versions, lambda: client.predict([b"x"])):
            with pytest.raises(ServerUnavailableError, match=f"no model server at http://127.0.0.1:{free_port}"):
                call()


@pytest.mark.parametrize(
    "answer",
    [
        reply({"error": "Could not find any versions of model raccoon"}, 404),
        reply({"error": "no loaded version of model 'raccoon'"}, 404),  # our own server
        status_of((3, "LOADING", "OK", "")),
        reply({"error": "shutting down"}, 503),
    ],
)
def test_a_server_without_a_version_has_none_available(answer: Answer) -> None:
    with serving(lambda *_: answer) as server, ServingClient(server.url, "raccoon") as client:
        assert client.available_version() is None


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (reply({"error": "Unknown image file format"}, 400), 400, "^Unknown image file format$"),
        (reply({"error": "no such label"}, 404), 404, "^no such label$"),
        (
            (200, "text/html", b"<html>hello</html>"),
            200,
            "is not TensorFlow Serving's REST API: .* status 200 and text/html",
        ),
        ((200, "application/json", b"[1, 2]"), 200, "is not TensorFlow Serving's REST API"),
        (reply({"detail": "Not Found"}, 404), 404, "is not TensorFlow Serving's REST API"),  # another web framework
        (reply({"outputs": []}), 200, "has no list 'predictions'; it has \\['outputs'\\]"),
        (reply({"predictions": []}), 200, "gave 0 predictions for 1 images"),
        (reply({"predictions": [1.5]}), 200, "not an exported detection model: .* missing in its answer \\(float\\)"),
        (
            reply({"predictions": [{"detection_boxes": [], "scores": []}]}),
            200,
            "\\['detection_scores', 'detection_classes', 'num_detections'\\] missing",
        ),
        (
            reply({"predictions": [{**parse_detections(b"x"), "detection_scores": [0.5]}]}),
            200,
            "not that of a detection model: scores must have shape \\(2,\\)",
        ),
    ],
)
def test_refusals_and_answers_of_other_servers_are_request_errors(answer: Answer, status: int, words: str) -> None:
    with serving(lambda *_: answer) as server, ServingClient(server.url, "raccoon") as client:
        with pytest.raises(RequestError, match=words) as refused:
            client.predict([b"x"])
        assert len(server.requests) == 1  # a refusal is not asked for again
    assert refused.value.status == status


@contextmanager
def talking(first_words: bytes) -> Iterator[str]:
    """A server that sends these bytes on every connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(first_words)
                    connection.recv(65536)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_a_grpc_port_is_recognised() -> None:
    """gRPC is HTTP/2, which opens with a binary SETTINGS frame."""
    frame = b"\x00\x00\x18\x04\x00\x00\x00\x00\x00" + b"\x00" * 24
    with talking(frame) as url, ServingClient(url, "raccoon") as client, pytest.raises(RequestError) as refused:
        client.predict([b"x"])
    assert "is not TensorFlow Serving's REST API: its answer is not HTTP/1.1" in refused.value.message
    assert "8500 is gRPC" in refused.value.message


def test_broken_connections_are_retried() -> None:
    answers: list[Answer | None] = [None, None, reply({"predictions": [parse_detections(b"x")]})]
    with serving(lambda *_: answers.pop(0)) as server, ServingClient(server.url, "raccoon") as client:
        assert len(client.predict([b"x"])) == 1
        assert len(server.requests) == 3


def test_retries_are_limited() -> None:
    with serving(lambda *_: None) as server, ServingClient(server.url, "raccoon", retries=1) as client:
        with pytest.raises(ServerUnavailableError, match="no model server at"):
            client.predict([b"x"])
        assert len(server.requests) == 2


def test_a_timeout_is_not_retried() -> None:
    go_on = threading.Event()

    def never(*_: object) -> None:
        go_on.wait(10)

    with serving(never) as server, ServingClient(server.url, "raccoon", timeout_s=0.1) as client:
        with pytest.raises(ServerUnavailableError, match=r"did not answer within 0\.1 s"):
            client.predict([b"x"])
        go_on.set()
        assert len(server.requests) == 1


def test_waiting_ends_with_the_version() -> None:
    answers = [
        reply({"error": "Could not find any versions of model raccoon"}, 404),
        reply({"error": "no loaded version of model 'raccoon'"}, 404),  # our own server
        status_of((3, "AVAILABLE", "OK", "")),
        status_of((3, "AVAILABLE", "OK", ""), (4, "LOADING", "OK", "")),
        status_of((3, "END", "OK", ""), (5, "AVAILABLE", "OK", "")),
    ]
    with serving(lambda *_: answers.pop(0)) as server, ServingClient(server.url, "raccoon") as client:
        assert client.wait_for_version(4, timeout_s=10) == 5


@pytest.fixture
def absent(free_port: int) -> Iterator[ServingClient]:
    with ServingClient(f"http://127.0.0.1:{free_port}", "raccoon") as client:
        yield client


def test_a_wait_that_times_out_reports_the_versions() -> None:
    answer = status_of((3, "AVAILABLE", "OK", ""), (4, "END", "NOT_FOUND", "no saved_model.pb"))
    with serving(lambda *_: answer) as server, ServingClient(server.url, "raccoon") as client:
        words = r"no version 4 of raccoon after 0\.05 s: version 3 is AVAILABLE, version 4 is END \(no saved_model.pb\)"
        with pytest.raises(ServerUnavailableError, match=words):
            client.wait_for_version(4, timeout_s=0.05)


def test_waiting_can_be_stopped(absent: ServingClient) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(ServerUnavailableError, match="stopped waiting for version 1 of raccoon"):
        absent.wait_for_version(1, timeout_s=60, stop=stop)


def test_a_proxy_in_the_environment_is_not_used_for_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `http_proxy` set, as in many offices, a request to 127.0.0.1 was answered by the proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(predict) as server, ServingClient(server.url, "raccoon") as client:
        assert len(client.predict([b"x"])) == 1


def test_the_client_is_thread_safe() -> None:
    with serving(predict) as server, ServingClient(server.url, "raccoon") as client:
        found: dict[int, float] = {}

        def ask(number: int) -> None:
            (detections,) = client.predict([bytes([number])])
            found[number] = float(detections.boxes[0, 0] * 256)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert found == {number: float(number) for number in range(16)}


@pytest.mark.parametrize("url", ["", "127.0.0.1:8501", "localhost:8501", "ftp://host", "http://", "http://host:port"])
def test_an_address_must_be_a_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"it should look like http://127\.0\.0\.1:8501"):
        ServingClient(url, "raccoon")


def test_credentials_are_sent_but_not_shown() -> None:
    with (
        serving(lambda *_: reply({"error": "later"}, 503)) as server,
        ServingClient(server.url.replace("http://", "http://me:p%40ss@"), "raccoon") as client,
    ):
        with pytest.raises(ServerUnavailableError) as refused:
            client.predict([b"x"])
        assert client.available_version() is None
    assert server.logins == ["Basic bWU6cEBzcw=="] * 2
    assert "p%40ss" not in str(refused.value) and "p@ss" not in str(refused.value)
