"""Our HTTP servers under clients that connect and say nothing, or say it slowly. A thousand idle connections blocked
the page and the model server for as long as they stayed, without a token, and filled the log."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from odkeras.process import open_listener
from odkeras.serving.connection_limits import ConnectionLimits, OncePerMinute, raise_file_limit
from odkeras.serving.listening import HttpServer
from tests.waiting import wait_until

HEAD_S = 0.4
LIMITS = ConnectionLimits(connections=20, of_client=10, head_s=HEAD_S, body_s=HEAD_S, body_bytes_per_s=100_000)
ASK = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says how long the body was, after 1.5 s for /slow."""
    import asyncio

    if scope["type"] != "http":
        return
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * HEAD_S)
    body = str(length).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(limits: ConnectionLimits = LIMITS) -> Iterator[HttpServer]:
    ready = threading.Event()
    with open_listener("127.0.0.1", 0) as listener:
        server = HttpServer(app, ready.set, grace_s=1, limits=limits)
        server.config.lifespan = "off"
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert ready.wait(10)
            server.port = listener.getsockname()[1]  # type: ignore[attr-defined]
            yield server
        finally:
            server.stop()
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with serving() as running:
        yield running


def connect(server: HttpServer, host: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), 10, source_address=(host, 0))  # type: ignore[attr-defined]
    connection.settimeout(10)
    return connection


def answer(connection: socket.socket) -> bytes:
    """The body of an answer."""
    received = b""
    while not received.partition(b"\r\n\r\n")[2]:
        piece = connection.recv(1000)
        if not piece:
            return b""
        received += piece
    return received.partition(b"\r\n\r\n")[2]


def ask(server: HttpServer, request: bytes = ASK, host: str = "127.0.0.1") -> bytes:
    with connect(server, host) as connection:
        connection.sendall(request)
        return answer(connection)


def closed_after_s(connection: socket.socket) -> float:
    started = time.monotonic()
    try:
        while connection.recv(1000):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_idle_connections_block_nobody(server: HttpServer) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(server))
        assert ask(server) == b"0"
        assert ask(server, host="127.0.0.2") == b"0"
        assert len(server.connections) <= LIMITS.connections


def test_one_client_does_not_take_the_place_of_the_others(server: HttpServer) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(connect(server, "127.0.0.2")) for _ in range(8)]
        for _ in range(50):
            stack.enter_context(connect(server, "127.0.0.3"))
        assert all(map(is_open, others))


def test_running_requests_are_never_closed_for_others(server: HttpServer) -> None:
    with ExitStack() as stack:
        running = [stack.enter_context(connect(server)) for _ in range(LIMITS.of_client)]
        for connection in running:
            connection.sendall(ASK.replace(b"quick", b"slow"))
        wait_until(lambda: len(server.server_state.tasks) == len(running))
        refused = stack.enter_context(connect(server))
        assert closed_after_s(refused) < 1
        assert [answer(connection) for connection in running] == [b"0"] * len(running)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        ASK + b"GET /quick HTTP/1.1\r\n",  # the second request on a connection
    ],
)
@pytest.mark.parametrize("drips", [False, True])
def test_a_request_has_to_arrive_in_time(server: HttpServer, sent: bytes, drips: bool) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.02):
                try:
                    connection.sendall(b"a" if b"chunked" not in sent else b"1\r\na\r\n")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        if drips:
            dripping.start()
        try:
            assert closed_after_s(connection) < 10 * HEAD_S
        finally:
            stop.set()
            if drips:
                dripping.join(10)


def test_an_empty_line_after_a_request_is_timed_too(server: HttpServer) -> None:
    with connect(server) as connection:
        connection.sendall(ASK)
        assert answer(connection) == b"0"
        connection.sendall(b"\r\n")
        assert closed_after_s(connection) < 10 * HEAD_S


def test_a_large_request_has_more_time(server: HttpServer) -> None:
    """Also over a slow line: it is the rate that counts."""
    with connect(server) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"x" * 10_000)
            time.sleep(1.5 * HEAD_S / 20)
        assert answer(connection) == b"200000"
        assert is_open(connection)


def test_a_slow_answer_and_an_idle_connection_are_left_alone(server: HttpServer) -> None:
    with connect(server) as connection:
        for path in (b"slow", b"quick"):
            connection.sendall(ASK.replace(b"quick", path))
            assert answer(connection) == b"0"
        time.sleep(2 * HEAD_S)
        assert is_open(connection)


def test_the_log_does_not_grow(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        ask(server, b"\0\n\n")
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connect(server))
        ask(server)
    assert len(caplog.records) <= 2, [record.message for record in caplog.records]


def test_repeated_lines_are_counted() -> None:
    filter = OncePerMinute(every_s=0.05)
    records = [logging.LogRecord("x", logging.WARNING, "", 0, "no %s", ("room",), None) for _ in range(5)]
    assert [filter.filter(record) for record in records[:4]] == [True, False, False, False]
    time.sleep(0.06)
    assert filter.filter(records[4])
    assert records[4].getMessage() == "no room (and 3 times more since the last such line)"


def test_the_limits_leave_files_for_the_others() -> None:
    assert raise_file_limit() >= 256
    limits = ConnectionLimits.of_process()
    assert 16 <= limits.of_client * 2 <= limits.connections <= raise_file_limit() - 200
