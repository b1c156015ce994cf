"""A child process that hangs without dying is killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from waiting import wait_until

from odkeras import heartbeat
from odkeras.heartbeat import HeartbeatPipe
from odkeras.session.supervisor import ChildSpec, RestartPolicy, Supervisor

ALIVE = """
import time
from odkeras import heartbeat
heartbeat._EVERY_S = 0.02
heartbeat.send_heartbeats(stalled_s={stalled_s})
print("up", flush=True)
{work}
"""


def run_child(
    tmp_path: Path, *, stalled_s: float = 60, work: str = "time.sleep(60)", silent_s: float = 0.5, start_s: float = 30
) -> tuple[Supervisor, list[str]]:
    program = tmp_path / "trainer.py"
    program.write_text(textwrap.dedent(ALIVE).format(stalled_s=stalled_s, work=work))
    log_path = tmp_path / "trainer.log"
    spec = ChildSpec("trainer", (sys.executable, str(program)), log_path, sends_heartbeats=True)
    policy = RestartPolicy(first_delay_s=0.02, longest_delay_s=0.05, silent_s=silent_s, start_s=start_s)
    warned: list[str] = []
    return Supervisor([spec], policy=policy, warn=warned.append), warned


def is_up(tmp_path: Path, times: int = 1) -> bool:
    return (tmp_path / "trainer.log").read_text().splitlines().count("up") >= times


def test_a_stopped_process_is_killed_and_started_again(tmp_path: Path) -> None:
    """A trainer or a server that hung was never noticed: only its end was."""
    supervisor, warned = run_child(tmp_path, silent_s=4)  # on a busy machine the new one must not count as hung
    with supervisor:
        wait_until(lambda: is_up(tmp_path))
        pid = supervisor.pids()["trainer"]
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: is_up(tmp_path, 2))
        assert supervisor.pids()["trainer"] not in (None, pid)
    assert len(warned) == 1
    assert warned[0].startswith("trainer did not respond for ") and "restarting it" in warned[0]


def test_a_stopped_process_is_started_again_on_request(tmp_path: Path) -> None:
    """SIGTERM waits until the process is continued."""
    supervisor, _ = run_child(tmp_path)
    with supervisor:
        wait_until(lambda: is_up(tmp_path))
        os.kill(supervisor.pids()["trainer"] or 0, signal.SIGSTOP)
        supervisor.restart("trainer")
        wait_until(lambda: is_up(tmp_path, 2))


def test_one_whose_work_makes_no_progress_is_killed(tmp_path: Path) -> None:
    """Its thread runs, but its work waits for something that never comes."""
    supervisor, warned = run_child(tmp_path, stalled_s=0.3)
    with supervisor:
        wait_until(lambda: is_up(tmp_path, 2))
    assert warned[0].startswith("trainer did not respond for ")


def test_one_that_never_begins_is_killed(tmp_path: Path) -> None:
    supervisor, warned = run_child(tmp_path, stalled_s=-1, start_s=1.5)
    with supervisor:
        wait_until(lambda: is_up(tmp_path, 2))
    assert warned[0].startswith("trainer did not respond for ")


def test_one_that_makes_progress_is_left_alone(tmp_path: Path) -> None:
    work = "while True: heartbeat.report_progress(); time.sleep(0.05)"
    supervisor, warned = run_child(tmp_path, stalled_s=0.5, work=work, silent_s=4)
    with supervisor:
        wait_until(lambda: is_up(tmp_path))
        pid, until = supervisor.pids()["trainer"], time.monotonic() + 5
        wait_until(lambda: time.monotonic() > until)
        assert supervisor.pids()["trainer"] == pid
    assert warned == []


def test_work_that_never_ends_stops_the_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that hangs inside TensorFlow does not stop the event loop of the server."""
    pipe = HeartbeatPipe()
    monkeypatch.setattr(heartbeat, "_EVERY_S", 0.01)
    monkeypatch.setattr(heartbeat, "_BUSY_S", 0.2)
    monkeypatch.setenv("ODKERAS_HEARTBEAT_FD", str(os.dup(pipe.writing)))
    heartbeat.send_heartbeats(stalled_s=600)
    try:
        wait_until(lambda: pipe.silent_s(time.monotonic()) < 0.1 and pipe.has_beaten)
        with heartbeat.busy():
            wait_until(lambda: pipe.silent_s(time.monotonic()) > 0.3)
        wait_until(lambda: pipe.silent_s(time.monotonic()) < 0.1)
    finally:
        pipe.close()


def test_the_time_in_which_the_parent_itself_was_suspended_does_not_count() -> None:
    pipe = HeartbeatPipe()
    try:
        now = time.monotonic()
        assert pipe.silent_s(now + 1) == pytest.approx(1, abs=0.5)
        assert pipe.silent_s(now + 3601) == pytest.approx(1, abs=0.5)
        assert pipe.silent_s(now + 3606) == pytest.approx(6, abs=0.5)
    finally:
        pipe.close()


@pytest.mark.parametrize("command", [["trainer", "CONFIG"], ["serve", "--model-name", "a", "--model-base-path", "."]])
def test_our_processes_send_heartbeats(command: list[str], tmp_path: Path) -> None:
    pipe = HeartbeatPipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "odkeras", *command],
        env={**os.environ, **pipe.env},
        pass_fds=[pipe.writing],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pipe.started()
    try:
        wait_until(lambda: pipe.silent_s(time.monotonic()) >= 0 and pipe.has_beaten)
    finally:
        process.kill()
        process.wait()
        pipe.close()


def test_no_heartbeats_without_a_parent_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODKERAS_HEARTBEAT_FD", "no number")
    heartbeat.send_heartbeats(stalled_s=1)
    assert "ODKERAS_HEARTBEAT_FD" not in os.environ
