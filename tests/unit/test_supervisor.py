from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from odkeras.errors import ConfigError, SetupError, TrainingError
from odkeras.process import open_listener
from odkeras.session import supervisor as supervisor_module
from odkeras.session.exit_with_parent import exit_with_parent
from odkeras.session.supervisor import (
    ChildSpec,
    RestartPolicy,
    Supervisor,
    log_tail,
    rotate_log,
)

QUICK = RestartPolicy(first_delay_s=0.02, longest_delay_s=0.05)
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def has_line(path: Path, line: str, times: int) -> bool:
    return path.read_text().splitlines().count(line) >= times


def full_disk(source: Path, target: Path) -> None:
    target.write_text("so")
    raise OSError(errno.ENOSPC, "No space left on device")


def exists(pid: int) -> bool:
    """A zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def child(tmp_path: Path, code: str, name: str = "trainer", **options: Any) -> ChildSpec:
    program = tmp_path / f"{name}.py"  # not -c: the command line is in the log too
    program.write_text(textwrap.dedent(code))
    return ChildSpec(
        name, (sys.executable, str(program)), tmp_path / "logs" / f"{name}.log", error=TrainingError, **options
    )


class TestRestartPolicy:
    def test_restart_delay_grows_exponentially(self) -> None:
        policy = RestartPolicy(max_crashes=9)
        assert [policy.delay_s(crashes, 1) for crashes in range(1, 10)] == [1, 2, 4, 8, 16, 30, 30, 30, None]

    @pytest.mark.parametrize("status", [ConfigError.exit_code, SetupError.exit_code])
    def test_a_configuration_error_is_not_retried(self, status: int) -> None:
        assert RestartPolicy().delay_s(1, status) is None


class TestSupervisor:
    def test_runs_children_and_stops_them(self, tmp_path: Path) -> None:
        said: list[str] = []
        specs = [child(tmp_path, SLEEP), child(tmp_path, SLEEP, "server")]
        with Supervisor(specs, say=said.append) as supervisor:
            wait_until(lambda: log_tail(specs[1].log_path).endswith("up"))
            pids = [pid for pid in supervisor.pids().values() if pid is not None]
            assert len(pids) == 2
            assert all(exists(pid) for pid in pids)
            assert supervisor.alive()
            assert supervisor.running("server")
        assert not any(exists(pid) for pid in pids)
        assert supervisor.pids() == {"trainer": None, "server": None}
        assert len(said) == 2
        assert str(specs[0].log_path) in said[0]

    def test_output_is_appended_to_the_log(self, tmp_path: Path) -> None:
        spec = child(tmp_path, "import sys; print('out'); print('err', file=sys.stderr); sys.stdin.read()")
        for times in (1, 2):
            with Supervisor([spec]):
                wait_until(partial(has_line, spec.log_path, "out", times))
        text = spec.log_path.read_text()
        assert text.count("\nout\n") == 2
        assert text.count("\n--- ") == 2

    def test_a_log_that_grows_is_rotated_while_the_child_writes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Logs grew without end: 175 MB in 80 s under attack."""
        monkeypatch.setattr(supervisor_module, "_ROTATE_EVERY_S", 0.05)
        monkeypatch.setattr(supervisor_module.rotate_log, "__defaults__", (5000,))
        spec = child(tmp_path, "import time\nfor n in range(10**6): print('x' * 99, n, flush=True); time.sleep(0.001)")
        old = spec.log_path.with_name("trainer.log.1")
        with Supervisor([spec]) as supervisor:
            wait_until(old.exists)
            first = old.stat().st_ino
            wait_until(lambda: old.stat().st_ino != first)
            assert supervisor.alive()
            wait_until(lambda: log_tail(spec.log_path).startswith("xxx"))
        assert "\0" not in spec.log_path.read_text()
        assert [path.name for path in sorted(tmp_path.glob("logs/*"))] == ["trainer.log", "trainer.log.1"]

    def test_a_log_is_left_as_it_is_where_there_is_no_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = tmp_path / "trainer.log"
        log.write_text("some lines")
        rotate_log(log, 100)
        rotate_log(tmp_path / "none.log", 100)
        monkeypatch.setattr(supervisor_module.shutil, "copyfile", full_disk)
        rotate_log(log, 5)
        assert log.read_text() == "some lines" and list(tmp_path.iterdir()) == [log]

    def test_environment_and_own_session(self, tmp_path: Path) -> None:
        spec = child(tmp_path, "import os; print(os.environ['A'], os.getsid(0) == os.getpid())", env={"A": "b"})
        with Supervisor([spec], policy=QUICK):
            wait_until(lambda: "b True" in log_tail(spec.log_path))

    def test_a_crash_is_reported_and_the_child_restarted(self, tmp_path: Path) -> None:
        said: list[str] = []
        warned: list[str] = []
        spec = child(tmp_path, SLEEP)
        with Supervisor([spec], policy=QUICK, say=said.append, warn=warned.append) as supervisor:
            pid = supervisor.pids()["trainer"]
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: warned)
        log = spec.log_path
        assert warned == [f"trainer was killed by SIGKILL; restarting it in 0.02 s (log: {log})"]
        assert said == [f"trainer: process {pid}, output in {log}"]

    def test_a_child_is_started_again_on_request(self, tmp_path: Path) -> None:
        """That is no crash: nothing is warned about, and the other child is left alone."""
        warned: list[str] = []
        specs = [child(tmp_path, SLEEP), child(tmp_path, SLEEP, "server")]
        with Supervisor(specs, policy=QUICK, warn=warned.append) as supervisor:
            for _ in range(3):
                before = supervisor.pids()
                supervisor.restart("trainer")
                wait_until(lambda: supervisor.pids()["trainer"] not in (None, before["trainer"]))  # noqa: B023
                assert supervisor.pids()["server"] == before["server"]
            supervisor.restart("nobody")
        assert warned == []
        assert supervisor.pids() == {"trainer": None, "server": None}

    def test_a_failed_child_is_tried_again_on_request(self, tmp_path: Path) -> None:
        mark = tmp_path / "works"
        spec = child(tmp_path, f"import pathlib, sys; pathlib.Path({str(mark)!r}).exists() or sys.exit(2); {SLEEP}")
        with Supervisor([spec], policy=QUICK) as supervisor:
            wait_until(lambda: not supervisor.alive())
            mark.touch()
            supervisor.restart("trainer")
            wait_until(lambda: supervisor.running("trainer") and supervisor.alive())

    def test_gives_up_with_the_end_of_the_log(self, tmp_path: Path) -> None:
        spec = child(tmp_path, "import sys; print('out of memory'); sys.exit(1)")
        with Supervisor([spec, child(tmp_path, SLEEP, "server")], policy=QUICK) as supervisor:
            wait_until(lambda: not supervisor.alive())
            failure = supervisor.failure()
            assert isinstance(failure, TrainingError)
            assert "the trainer ended with status 1, 5 times in a row" in str(failure)
            assert str(failure).partition("\n")[0] == "the trainer ended with status 1, 5 times in a row"
            assert str(failure).endswith("out of memory")
            assert not supervisor.running("trainer")
            assert supervisor.running("server")
        assert spec.log_path.read_text().count("out of memory") == 5

    @pytest.mark.parametrize("kind", [ConfigError, SetupError])
    def test_a_wrong_configuration_ends_at_once(self, tmp_path: Path, kind: type[ConfigError]) -> None:
        spec = child(tmp_path, f"import sys; print('batch_size is 0'); sys.exit({kind.exit_code})")
        with Supervisor([spec]) as supervisor:
            wait_until(lambda: not supervisor.alive())
            assert isinstance(supervisor.failure(), kind)
            assert "batch_size is 0" in str(supervisor.failure())
        assert spec.log_path.read_text().count("batch_size is 0") == 1

    def test_a_failed_child_is_tried_again_and_can_recover(self, tmp_path: Path) -> None:
        """It was given up for good, also if the disk had been full for seconds or another trainer was about to end."""
        policy = RestartPolicy(first_delay_s=0.01, max_crashes=2, rest_s=0.3, recovered_s=0.05)
        reason = tmp_path / "full"
        reason.touch()
        spec = child(
            tmp_path,
            f"import pathlib, sys, time; pathlib.Path({str(reason)!r}).exists() and sys.exit(1); time.sleep(60)",
        )
        with Supervisor([spec], policy=policy) as supervisor:
            wait_until(lambda: not supervisor.alive())
            reason.unlink()
            wait_until(supervisor.alive)
            assert supervisor.running("trainer") and supervisor.failed() == ""

    def test_a_log_that_cannot_be_written_for_a_while(self, tmp_path: Path) -> None:
        spec = child(tmp_path, "import sys; sys.stdin.read()")
        policy = RestartPolicy(first_delay_s=0.05, longest_delay_s=0.05, max_crashes=1000)
        said: list[str] = []
        with Supervisor([spec], policy=policy, warn=said.append) as supervisor:
            pid = supervisor.pids()["trainer"]
            assert pid is not None
            spec.log_path.unlink()
            spec.log_path.mkdir()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: any("could not be started" in text for text in said))
            spec.log_path.rmdir()
            wait_until(lambda: supervisor.running("trainer"))

    def test_a_healthy_run_clears_the_count(self, tmp_path: Path) -> None:
        policy = RestartPolicy(first_delay_s=0.01, max_crashes=2, healthy_s=0.15)
        spec = child(tmp_path, "import time, sys; print('run'); time.sleep(0.2); sys.exit(1)")
        with Supervisor([spec], policy=policy) as supervisor:
            wait_until(lambda: spec.log_path.read_text().count("run\n") >= 4)
            assert supervisor.alive()

    def test_a_missing_program_is_an_error(self, tmp_path: Path) -> None:
        good = child(tmp_path, SLEEP, "server")
        bad = ChildSpec("trainer", (str(tmp_path / "nothing"),), tmp_path / "logs" / "trainer.log")
        supervisor = Supervisor([good, bad])
        with pytest.raises(SetupError, match="cannot start the trainer"):
            supervisor.__enter__()
        assert supervisor.pids() == {"server": None, "trainer": None}

    def test_a_child_that_ignores_sigterm_is_killed(self, tmp_path: Path) -> None:
        spec = child(tmp_path, STUBBORN)
        with Supervisor([spec], stop_timeout_s=0.2) as supervisor:
            wait_until(lambda: log_tail(spec.log_path).endswith("up"))
            pid = supervisor.pids()["trainer"]
            assert pid is not None
            started = time.monotonic()
        assert time.monotonic() - started < 2
        assert not exists(pid)

    def test_no_start_after_closing(self, tmp_path: Path) -> None:
        spec = child(tmp_path, "print('run')")
        with Supervisor([spec], policy=RestartPolicy(first_delay_s=0.5)):
            wait_until(lambda: "run" in log_tail(spec.log_path))
        count = spec.log_path.read_text().count("run\n")
        time.sleep(0.6)
        assert spec.log_path.read_text().count("run\n") == count == 1

    def test_the_socket_survives_a_restart_of_the_server(self, tmp_path: Path) -> None:
        bound = open_listener("127.0.0.1", 0)
        port = bound.getsockname()[1]
        code = f"""
            import os, socket
            server = socket.socket(fileno={bound.fileno()})
            while True:
                connection, _ = server.accept()
                connection.sendall(str(os.getpid()).encode())
                connection.close()
        """
        with (
            bound,
            Supervisor([child(tmp_path, code, "server", pass_fds=(bound.fileno(),))], policy=QUICK) as supervisor,
        ):
            wait_until(lambda: _ask(port))
            first = _ask(port)
            assert first is not None
            assert first == supervisor.pids()["server"]
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: _ask(port) not in (None, first))


def _ask(port: int) -> int | None:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return int(connection.recv(100) or 0) or None
    except ConnectionError:
        return None


class TestTheHostDies:
    """By kill -9, so that nothing of it can run: its children have to notice by themselves."""

    HOST = """
        import sys, time
        from pathlib import Path
        from odkeras.session.exit_with_parent import exit_with_parent
        from odkeras.session.supervisor import ChildSpec, Supervisor
        specs = [ChildSpec("trainer", (sys.executable, "child.py"), Path("trainer.log")),
                 ChildSpec("server", tuple(exit_with_parent([sys.executable, "deaf.py"])), Path("server.log"))]
        with Supervisor(specs, say=print) as supervisor:
            print("pids", *supervisor.pids().values(), flush=True)
            time.sleep(60)
    """
    CHILD = "import sys; print('up', flush=True); sys.stdin.read(); print('host is gone', flush=True)"

    def test_no_child_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "child.py").write_text(self.CHILD)
        (tmp_path / "deaf.py").write_text("import os, time; print('deaf', os.getpid(), flush=True); time.sleep(60)")
        code = [sys.executable, "-c", textwrap.dedent(self.HOST)]
        host = subprocess.Popen(code, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=_env())
        assert host.stdout is not None
        line = next(line for line in host.stdout if line.startswith("pids"))
        pids = [int(pid) for pid in line.split()[1:]]
        wait_until(lambda: "deaf " in log_tail(tmp_path / "server.log"))
        wait_until(lambda: log_tail(tmp_path / "trainer.log").endswith("up"))
        pids.append(int(log_tail(tmp_path / "server.log").split()[-1]))
        assert all(exists(pid) for pid in pids)
        host.kill()
        host.wait()
        host.stdout.close()
        wait_until(lambda: not any(exists(pid) for pid in pids))
        assert log_tail(tmp_path / "trainer.log").endswith("host is gone")


def _env() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


class TestLeash:
    def run(self, code: str) -> subprocess.Popen[str]:
        command = exit_with_parent([sys.executable, "-c", code])
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_env())

    @pytest.mark.parametrize(
        ("code", "status"), [("", 0), ("import sys; sys.exit(7)", 7), ("import os; os.abort()", 134)]
    )
    def test_passes_the_status_on(self, code: str, status: int) -> None:
        with self.run(code) as process:
            assert process.wait(20) == status

    @pytest.mark.parametrize("how", ["eof", "sigterm"])
    def test_ends_the_program(self, how: str) -> None:
        process = self.run("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
        assert process.stdin is not None
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        if how == "eof":
            process.stdin.close()
        else:
            process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
        assert not exists(pid)
        process.stdout.close()
        if how != "eof":
            process.stdin.close()

    def test_kills_a_program_that_ignores_sigterm(self) -> None:
        process = self.run(STUBBORN)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(10) == 128 + signal.SIGKILL
        process.stdout.close()
