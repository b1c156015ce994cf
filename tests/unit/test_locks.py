from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from odkeras.errors import SetupError
from odkeras.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from odkeras.locks import locked
with locked(Path(sys.argv[1]), taken="", wait_s=0.0):
    print("held", flush=True)
    time.sleep(60)
"""
HOLD_AS_BEFORE = """
import fcntl, sys, time
with open(sys.argv[1], "a+") as file:
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("held", flush=True)
    time.sleep(60)
"""
FLOCK_IS_TRIED = """
import fcntl, sys
with open(sys.argv[1], "a+") as file:
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
ON_UNIX = pytest.mark.skipif(sys.platform == "win32", reason="flock is of Unix")


def holder(program: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("program", [HOLD, pytest.param(HOLD_AS_BEFORE, marks=ON_UNIX)], ids=["this", "before"])
def test_another_process_is_refused_until_the_holder_is_killed(tmp_path: Path, program: str) -> None:
    path = tmp_path / "my.lock"
    with holder(program, path) as process:
        try:
            with pytest.raises(SetupError, match="it is taken"), locked(path, taken="it is taken", wait_s=0.0):
                pass
        finally:
            process.kill()
    with locked(path, taken="", wait_s=0.0):
        pass


@ON_UNIX
def test_a_process_of_the_previous_version_is_locked_out(tmp_path: Path) -> None:
    path = tmp_path / "my.lock"
    with locked(path, taken="", wait_s=0.0):
        tried = subprocess.run([sys.executable, "-c", FLOCK_IS_TRIED, str(path)], capture_output=True, text=True)
    assert "BlockingIOError" in tried.stderr
    subprocess.run([sys.executable, "-c", FLOCK_IS_TRIED, str(path)], check=True)


def test_the_lock_waits_for_a_process_that_is_stopping(tmp_path: Path) -> None:
    path = tmp_path / "my.lock"
    with holder(HOLD, path) as process:
        started = time.monotonic()
        with pytest.raises(SetupError), locked(path, taken="", wait_s=0.5):
            pass
        assert time.monotonic() - started >= 0.5
        process.kill()
        with locked(path, taken="", wait_s=30.0):
            pass


def test_a_lock_is_made_with_its_directory_and_released_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "new" / "my.lock"
    with pytest.raises(ZeroDivisionError), locked(path, taken="", wait_s=0.0):
        _ = 1 / 0
    with locked(path, taken="", wait_s=0.0):
        pass
