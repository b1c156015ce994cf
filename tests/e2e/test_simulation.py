"""The whole loop with a simulated annotator, interrupted in the middle and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import ShapesProject, processes_about
from waiting import wait_until

from odkeras.project import read_jsonl
from odkeras.version_dirs import list_versions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_simulation_resumes_after_ctrl_c(shapes_project: ShapesProject, tmp_path: Path) -> None:
    folder, pictures = shapes_project.config.parent, shapes_project.pictures
    command = [sys.executable, "-m", "odkeras", "simulate", str(pictures.train_csv), str(shapes_project.config)]
    command += ["--images", str(pictures.images_dir), "--test", str(pictures.test_csv)]
    command += ["--annotations", "12", "--batch-size", "6", "--steps-per-epoch", "30"]
    log_path, curve_path = tmp_path / "simulate.log", folder / "report" / "curve.json"
    with log_path.open("wb") as log:
        host = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: curve_path.exists() and len(json.loads(curve_path.read_text())) >= 2, timeout_s=400)
        host.send_signal(signal.SIGINT)
        assert host.wait(30) == 130, log_path.read_text()[-3000:]
    finally:
        host.kill()
    assert "the same command continues from here" in log_path.read_text()
    assert processes_about(folder) == []

    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert processes_about(folder) == []
    curve = json.loads(curve_path.read_text())
    assert [row["annotations"] for row in curve] == [0, 6, 12]
    assert all(0 <= row["mAP"] <= row["mAP50"] <= 1 for row in curve)
    assert [row["version"] for row in curve] == sorted({row["version"] for row in curve})
    assert (folder / "report" / "curve.png").stat().st_size > 10_000
    rounds = [row for row in read_jsonl(shapes_project.directories.metrics_path) if row["kind"] == "round"]
    assert [(row["round"], row["step"], row["examples"]) for row in rounds] == [(1, 30, 6), (2, 60, 12)]
    assert rounds[1]["loss"] < rounds[0]["loss"]
    assert curve[-1]["version"] == rounds[-1]["version"] == list_versions(shapes_project.directories.export_dir)[-1]
