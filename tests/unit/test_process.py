"""Sockets, signals and the end of our processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from odkeras.errors import SetupError
from odkeras.process import open_listener, stop_on_signals, stop_with_parent


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_every_ipv6_address_accepts_ipv4_too() -> None:
    """The session connects to 127.0.0.1 where the model server listens on "::"."""
    with open_listener("::", 0) as listener:
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5).close()


def test_a_port_that_does_not_exist() -> None:
    with pytest.raises(SetupError, match="cannot listen on port 70000"):
        open_listener("127.0.0.1", 70000)


def test_the_end_of_the_parent_stops_a_process() -> None:
    stopped = threading.Event()
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "wb", buffering=0) as parent:
        stop_with_parent(stopped.set, reading)
        parent.write(b"input is ignored")
        assert not stopped.wait(0.1)
        parent.close()
        assert stopped.wait(5)


def test_signals_stop_within_the_block() -> None:
    stopped = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(stopped.set):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("blocked_s", "expected"), [(60, ""), (0, "returned\n")])
def test_a_blocked_thread_does_not_delay_the_exit(blocked_s: int, expected: str) -> None:
    code = f"""
        import threading, time
        from odkeras.process import exit_despite_threads
        thread = threading.Thread(target=time.sleep, args=({blocked_s},))
        thread.start()
        exit_despite_threads([thread], 0.2)
        print("returned")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert process.stdout == expected
