"""Sockets, signals and the end of our processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from odkeras.errors import SetupError
from odkeras.process import exit_with_parent, open_listener, stop_on_signals, stop_with_parent

ROOT = Path(__file__).parents[2]


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


def test_a_process_that_does_not_stop_in_time_is_ended() -> None:
    code = "import time\nfrom odkeras.process import exit_with_parent\n"
    code += "with exit_with_parent(lambda: print('told', flush=True), 0, after_s=0.2): time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=30) == ("told\n", None)
    assert process.returncode == 1


def test_a_process_that_has_stopped_in_time_may_do_other_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that had been run inside another program, as tests do, ended that program later."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    stopped = threading.Event()
    reading, writing = os.pipe()
    with os.fdopen(reading):
        with exit_with_parent(stopped.set, reading, after_s=0.2):
            os.close(writing)
            assert stopped.wait(5)
        for thread in threading.enumerate():
            if thread.name == "stdin":
                thread.join(1)
    assert exits == []


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


BLOCKED = """
import ctypes, threading
from odkeras.process import exit_on_second_signal, stop_on_signals

stop = threading.Event()
with stop_on_signals(stop.set), exit_on_second_signal():
    print("ready", flush=True)
    if {blocked}:
        mutex = ctypes.create_string_buffer(128)
        lock = ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        lock(mutex)  # waits for ever, outside of Python
    stop.wait()
print("stopped in order", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_process_that_waits_outside_of_python(number: signal.Signals) -> None:
    """`odkeras train` on an empty record ignored Ctrl-C and SIGTERM: only SIGKILL ended it."""
    command = [sys.executable, "-c", BLOCKED.format(blocked=True)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        process.send_signal(number)  # as `timeout` does
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1.5)
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number


def test_the_first_signal_stops_in_order() -> None:
    command = [sys.executable, "-c", BLOCKED.format(blocked=False)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stopped in order\n"
        assert process.wait(timeout=30) == 0
