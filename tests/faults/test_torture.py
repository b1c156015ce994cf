"""A sample of `make torture`: faults at some of the calls of short sessions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.faults.layer import preload_into
from tests.faults.torture import ROOT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is for Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, which builds tests/faults/layer.c"),
]


@pytest.mark.parametrize(
    ("sessions", "every", "modes"),
    [
        ("page", 250, "kill error full readonly"),
        ("ingest import export rollback", 100, "kill error full readonly denied gone"),
        ("backup prodigy", 150, "kill error full"),
        ("simulate", 300, "kill error"),
        ("trainer", 700, "kill full readonly"),
    ],
)
def test_nothing_is_lost_and_nothing_needs_repair(sessions: str, every: int, modes: str) -> None:
    """Every acknowledged answer is there once, every version, record and export is whole."""
    command = [sys.executable, "-m", "tests.faults.torture", "--every", str(every), "--seeds", "1"]
    done = subprocess.run(
        [*command, "--sessions", *sessions.split(), "--modes", *modes.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert all(counts[mode] for mode in modes.split()), "no fault has hit"


def test_a_directory_that_cannot_be_written_for_some_time() -> None:
    """Of each kind of directory; see unwritable_session.py."""
    session = "tests/faults/unwritable_session.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", session]
    done = subprocess.run(command, env=preload_into(command), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "8 passed" in done.stdout
