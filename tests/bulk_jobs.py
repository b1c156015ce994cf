"""Jobs of `odkeras bulk` for tests, and what they wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pictures import draw_pixels, encode
from waiting import wait_until

from tests.unit.image_server import ImageServer

ROOT = Path(__file__).parents[1]
IMAGES = 12


def write_images(folder: Path, number: int = IMAGES) -> Path:
    """Pictures of two formats, and a file that is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(number):
        kind = ("JPEG", "PNG")[seed % 2]
        (folder / f"{seed:02}.{kind.lower()}").write_bytes(encode(draw_pixels(seed=seed), kind))
    (folder / "03.png").write_bytes(b"<html>not found</html>")
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`odkeras bulk` as a process of its own session, to which a test can send what a terminal sends."""
    command = [sys.executable, "-m", "odkeras", "bulk", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True
    )


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run the command; returns what it said."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=200)
    assert process.returncode == status, err
    return out + err


def results(folder: Path) -> dict[str, bytes]:
    """The files that a job has written, with the refused images; not its manifest and its list."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name.startswith(("shard", "ref"))}


def interrupt_at_last_image(
    folder: Path, arguments: Sequence[str], out: Path, server: ImageServer, last: str, number: signal.Signals
) -> subprocess.Popen[str]:
    """Start a job whose last image does not arrive, wait until two shards are finished and the last image is asked for,
    and send the signal. All workers have ended afterwards."""
    server.requests.clear()
    process = start(folder, *arguments)
    wait_until(lambda: last in server.requests, "the request for the last image", 120)
    wait_until(lambda: len(list(out.glob("shard-*"))) >= 2, "two shards", 120)
    workers = _descendants(process.pid)
    assert workers
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.wait(timeout=60)
    wait_until(lambda: not any(map(_is_running, workers)), "the end of the workers", 60)
    return process


def _descendants(process: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return [*children, *(each for child in children for each in _descendants(child))]


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False
