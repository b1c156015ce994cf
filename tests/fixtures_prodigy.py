"""The test double of Prodigy, in this process or in others.

    import fixtures_prodigy

    prodigy_double = fixtures_prodigy.prodigy_double

    @pytest.mark.parametrize("prodigy_double", ["1.8", "1.18"], indirect=True)
    def test_something(prodigy_double): ...

A module that imports `prodigy` when it is imported itself keeps the double of the test that imported it first: have it
import inside functions, or remove it from `sys.modules` as well.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

DOUBLE_DIR = Path(__file__).parent / "prodigy_double"
VERSIONS = ("1.8", "1.11", "1.18")


@pytest.fixture
def prodigy_double(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The package `prodigy`, freshly imported; its home is `tmp_path`. Parametrise it (indirect) by version."""
    for name in [name for name in os.environ if name.startswith("PRODIGY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PRODIGY_HOME", str(tmp_path))
    monkeypatch.setenv("PRODIGY_DOUBLE_VERSION", getattr(request, "param", "1.18"))
    monkeypatch.syspath_prepend(str(DOUBLE_DIR))
    before = _take_out_modules()
    try:
        yield import_module("prodigy")
    finally:
        _take_out_modules()
        sys.modules.update(before)


def prodigy_environment(home: Path, version: str = "1.18") -> dict[str, str]:
    """For subprocesses: `prodigy` and `python -m prodigy` are the double, which listens on any free port."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PRODIGY_")}
    env |= {"PRODIGY_HOME": str(home), "PRODIGY_DOUBLE_VERSION": version, "PYTHON": sys.executable}
    env |= {"PRODIGY_HOST": "127.0.0.1", "PRODIGY_PORT": "0", "PYTHONUNBUFFERED": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(DOUBLE_DIR), env.get("PYTHONPATH")]))
    bin_dirs = [str(DOUBLE_DIR / "bin"), str(Path(sys.executable).parent), env.get("PATH")]
    return {**env, "PATH": os.pathsep.join(filter(None, bin_dirs))}


@contextmanager
def running_prodigy(
    args: Sequence[str], env: dict[str, str], log_path: Path, *, timeout_s: float = 30
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and the URL of `prodigy *args`, once it listens; its output goes to `log_path`.

    It is interrupted (SIGINT) and waited for at the end, killed if it does not end in time.

    Raises:
        AssertionError: it ended, or did not listen in time; with its output.
    """
    with log_path.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "prodigy", *args], env=env, stdout=log, stderr=log)
    try:
        yield process, _wait_for_url(process, log_path, timeout_s)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout_s)
        finally:
            process.kill()
            process.wait()


def _wait_for_url(process: subprocess.Popen[bytes], log_path: Path, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = log_path.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"Starting the web server at (http://\S+) \.\.\.\n", text):
            return found[1]
        if process.poll() is not None:
            raise AssertionError(f"prodigy ended with {process.returncode}:\n{text}")
        time.sleep(0.02)
    raise AssertionError(f"prodigy does not listen:\n{text}")


def _take_out_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "prodigy" or name.startswith("prodigy.")]
    return {name: sys.modules.pop(name) for name in names}
