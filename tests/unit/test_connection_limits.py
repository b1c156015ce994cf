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
from odkeras.serving import refused_limits
from odkeras.serving.connection_limits import (
    _CLOSED_AT_ONCE,
    ConnectionLimits,
    LimitedConnections,
    OncePerMinute,
    raise_file_limit,
)
from odkeras.serving.listening import HttpServer
from odkeras.serving.refused_limits import BURST, BYTES_PER_REQUEST, PER_S, RefusedLimits
from tests.waiting import wait_until

HEAD_S = 0.4
LIMITS = ConnectionLimits(connections=20, of_client=10, head_s=HEAD_S, body_s=HEAD_S, body_bytes_per_s=100_000)
ASK = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
MISSING = ASK.replace(b"quick", b"missing")
DELAY_S = 0.5


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says how long the body was, after 1.2 s for /slow. /missing is refused, /busy holds up everybody."""
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
    if scope["path"] == "/busy":
        time.sleep(3 * HEAD_S)
    body, status = str(length).encode(), 404 if scope["path"] == "/missing" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
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


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_limits, "BURST", 2.0)
    monkeypatch.setattr(refused_limits, "PER_S", 0.1)
    monkeypatch.setattr(refused_limits, "DELAY_S", DELAY_S)


def seconds_for(server: HttpServer, request: bytes, host: str = "127.0.0.1") -> float:
    started = time.monotonic()
    assert ask(server, request, host)
    return time.monotonic() - started


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize("refused", [b"\0\n\n", MISSING])
def test_only_the_refusals_of_a_client_that_gets_many_are_delayed(refused: bytes) -> None:
    """Malformed requests, as fast as they could be sent, made answers of other clients three times as slow. A proxy's
    address is that of many: whatever else it asks is answered at once."""
    with serving(ConnectionLimits()) as server:
        assert all(seconds_for(server, refused, "127.0.0.2") < DELAY_S / 2 for _ in range(2))
        assert seconds_for(server, refused, "127.0.0.2") >= DELAY_S
        assert seconds_for(server, ASK, "127.0.0.2") < DELAY_S / 2
        assert seconds_for(server, refused, "127.0.0.3") < DELAY_S / 2


@pytest.mark.usefixtures("small_budget")
def test_without_budget_a_large_body_is_read_late() -> None:
    """Delayed after it was read, its memory would be held meanwhile."""
    post = b"POST /missing HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"x" * 400_000
    with serving(ConnectionLimits()) as server:
        assert seconds_for(server, post) < DELAY_S / 2
        assert DELAY_S <= seconds_for(server, post) < 2 * DELAY_S


@pytest.mark.usefixtures("small_budget")
def test_a_delayed_refusal_closes_its_connection(server: HttpServer) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(MISSING)
            assert answer(connection) == b"0"
        assert connection.recv(1) == b""


@pytest.mark.usefixtures("small_budget")
def test_who_does_not_wait_for_delayed_refusals_gets_no_connection_meanwhile(server: HttpServer) -> None:
    for _ in range(2):
        ask(server, MISSING, "127.0.0.2")
    for _ in range(LIMITS.of_client // 4):
        with connect(server, "127.0.0.2") as connection:
            connection.sendall(MISSING)
    wait_until(lambda: server.connections.refused.blocks("127.0.0.2"))
    with connect(server, "127.0.0.2") as connection:
        assert closed_after_s(connection) < DELAY_S / 2
    assert ask(server, host="127.0.0.3") == b"0"
    wait_until(lambda: not server.connections.refused.blocks("127.0.0.2"))
    assert ask(server, host="127.0.0.2") == b"0"


@pytest.mark.parametrize("refused", [b"\0\n\n", MISSING])
def test_a_delayed_refusal_does_not_hold_up_the_end(
    refused: bytes, small_budget: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C took until the grace period was over, and printed a traceback."""
    monkeypatch.setattr(refused_limits, "DELAY_S", 60.0)
    with serving() as server, ExitStack() as stack:
        for _ in range(2):
            ask(server, refused)
        stack.enter_context(connect(server)).sendall(refused)
        wait_until(lambda: server.connections.refused.blocks("127.0.0.1") or server.server_state.tasks)
        stopped = time.monotonic()
        server.stop()
        wait_until(lambda: not server.servers[0].is_serving() and not server.server_state.tasks)
    assert time.monotonic() - stopped < 0.9
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_budget_comes_back_and_large_bodies_take_more_of_it() -> None:
    now = 0.0
    limits = RefusedLimits(max_delayed=1, clock=lambda: now)
    assert all(limits.spend("a") for _ in range(int(BURST)))
    assert not limits.spend("a")
    now = 2 / PER_S
    assert limits.spend("a")
    assert not limits.spend("a")
    assert limits.spend("b", received=int(BURST) * BYTES_PER_REQUEST)
    assert not limits.spend("b")
    for _ in range(1000):  # the debt has a limit
        limits.spend("a")
    now += (BURST + 1) / PER_S
    assert limits.spend("a")


def test_slow_connections_are_closed_some_at_a_time() -> None:
    """A thousand at once held up all requests, and again when their client connected anew."""

    class Slow:
        host, is_idle, closed = "127.0.0.2", True, 0

        @property
        def transport(self) -> Slow:
            return self

        def is_slow(self, now: float) -> bool:
            return True

        def abort(self) -> None:
            Slow.closed += 1

    connections = LimitedConnections(ConnectionLimits())
    for _ in range(2 * _CLOSED_AT_ONCE + 1):
        assert connections.add(Slow())  # type: ignore[arg-type]
    left = []
    for tick in range(3):
        connections.close_slow(0.1 * tick)
        left.append(len(connections))
    assert left == [_CLOSED_AT_ONCE + 1, 1, 0]
    assert Slow.closed == 2 * _CLOSED_AT_ONCE + 1


def test_connections_wait_while_the_server_is_busy(server: HttpServer) -> None:
    """It accepts few at once, so that each turn of its event loop is short; the others must not be turned away."""
    with connect(server) as busy, ExitStack() as stack:
        busy.sendall(ASK.replace(b"quick", b"busy"))
        started = time.monotonic()
        waiting = [stack.enter_context(connect(server, f"127.0.0.{2 + number}")) for number in range(15)]
        assert time.monotonic() - started < HEAD_S
        for connection in waiting:
            connection.sendall(ASK)
        assert [answer(connection) for connection in waiting] == [b"0"] * len(waiting)
