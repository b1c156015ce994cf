"""`prodigy image.trainmodel` with real processes and a small real model; only Prodigy is a test double."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fixtures_prodigy import prodigy_environment, running_prodigy
from prodigy_annotator import Annotator, ui_answer
from running import ShapesProject, kill_all, processes_about
from waiting import wait_until

from odkeras.boxes import to_xyxy_px
from odkeras.labels import LabelMap
from odkeras.project import read_jsonl
from odkeras.simulation.truth import read_labeled_images
from odkeras.version_dirs import list_versions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "image_train.py"
README = ROOT / "recipes" / "README.md"
SHARED = ROOT.parent / "shared" / "data"
Task = dict[str, Any]


class Truth:
    """What the annotator knows about the pictures."""

    def __init__(self, project: ShapesProject) -> None:
        label_map = LabelMap.load(project.config.parent / "label_map.pbtxt")
        pictures = project.pictures
        known = read_labeled_images(
            pictures.train_csv,
            pictures.images_dir,
            label_map,
            test_csv=pictures.test_csv,
            on_skip=lambda file, reason: None,
        )
        self._boxes = {
            known.image_id: [
                (box.tolist(), label_map.name_of(int(class_id)))
                for box, class_id in zip(
                    to_xyxy_px(known.groundtruth.boxes, known.image_size_hw), known.groundtruth.classes, strict=True
                )
            ]
            for known in (*known.annotate, *known.held_out)
        }

    def answer(self, annotator: Annotator, tasks: list[Task]) -> list[Task]:
        return annotator.answer(
            tasks, lambda task: ui_answer(task, self._boxes[task["image_id"]], session_id=annotator.session_id)
        )


@contextmanager
def annotating(
    project: ShapesProject, home: Path, *more: str, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], Annotator, Path]]:
    """The recipe in the double, an annotator in front of it, and the log."""
    images = project.config.parent / "to annotate"
    if not images.exists():
        images.symlink_to(project.pictures.images_dir)
    log_path = home / f"prodigy-{time.monotonic_ns()}.log"
    line = ["image.trainmodel", "shapes", str(images), str(project.config), *more, "-F", str(RECIPE)]
    environment = {**prodigy_environment(home), "PRODIGY_LOGGING": "verbose", **env}
    with running_prodigy(line, environment, log_path) as (process, url):
        yield process, Annotator(url), log_path


def test_answers_bring_suggestions_of_the_next_version(shapes_project: ShapesProject, tmp_path: Path) -> None:
    """The log shows the whole flow without image data, and no process is left at the end."""
    truth, folder = Truth(shapes_project), shapes_project.config.parent
    export_dir = shapes_project.directories.export_dir
    with annotating(shapes_project, tmp_path, "-spe", "8", "-t", "0.01") as (process, annotator, log):
        tasks = annotator.questions()  # at once, no model is there yet
        assert len(tasks) == 5
        first = wait_until(lambda: list_versions(export_dir))[0]
        wait_until(lambda: f"is served (version {first})" in log.read_text())
        truth.answer(annotator, tasks)
        wait_until(lambda: len(list_versions(export_dir)) > 1, timeout_s=400)
        second = list_versions(export_dir)[1]
        wait_until(lambda: f"is served (version {second})" in log.read_text())
        tasks = annotator.questions()
        assert {task["_suggestions"]["version"] for task in tasks} == {second}
        assert any(task["spans"] for task in tasks)
        truth.answer(annotator, tasks)
        wait_until(lambda: len(list_versions(export_dir)) > 2)
    assert process.returncode == 0
    assert processes_about(folder) == []
    text = log.read_text()
    for said in (
        "answers stored (5 accept)",
        "trained 8 steps on 5 images",
        "checkpoint ckpt-8 saved",
    ):
        assert said in text
    assert f"suggestions of version {second} for " in text
    assert "base64" not in text
    assert str(shapes_project.directories.model_dir / "logs" / "trainer.log") in text
    rounds = [row for row in read_jsonl(shapes_project.directories.metrics_path) if row["kind"] == "round"]
    assert [row["examples"] for row in rounds] == [5, 10]


def test_a_killed_prodigy_leaves_no_orphan_and_a_restart_resumes(shapes_project: ShapesProject, tmp_path: Path) -> None:
    truth, folder = Truth(shapes_project), shapes_project.config.parent
    with annotating(shapes_project, tmp_path, "-spe", "8") as (process, annotator, _):
        answered = truth.answer(annotator, annotator.questions())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: processes_about(folder) == [])
    with annotating(shapes_project, tmp_path, "-spe", "8", "--sync", "-t", "0.01") as (_, annotator, _log):
        tasks = annotator.questions()
        assert {task["image_id"] for task in tasks}.isdisjoint(task["image_id"] for task in answered)
        truth.answer(annotator, tasks)  # returns when a model that was trained on them is served
        served = list_versions(shapes_project.directories.export_dir)[-1]
        assert {task["_suggestions"]["version"] for task in annotator.questions()} == {served}
    rounds = [row for row in read_jsonl(shapes_project.directories.metrics_path) if row["kind"] == "round"]
    assert sum(len(row["batches"]) for row in rounds) == 2
    assert rounds[-1]["examples"] == 10


def test_an_external_server_and_an_external_trainer(
    shapes_project: ShapesProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line of 2019, the REST port in place of gRPC's; the trainer is started by hand."""
    truth = Truth(shapes_project)
    monkeypatch.chdir(tmp_path)
    children = []
    serve = [sys.executable, "-m", "odkeras", "serve", "--model-name", "shapes", "--rest-api-port", "0"]
    serve += ["--model-base-path", "export_dir", "--file-system-poll-wait-seconds", "0.2"]
    train = shapes_project.trainer_command("--data-dir", "data_dir", "--model-dir", "model_dir")
    try:
        with (tmp_path / "serve.log").open("wb") as log:
            children.append(subprocess.Popen(serve, stdout=log, stderr=log))
            children.append(subprocess.Popen([*train, "--export-dir", "export_dir"], stdout=log, stderr=log))
        port = wait_until(lambda: re.search(r"http://127\.0\.0\.1:(\d+)/", (tmp_path / "serve.log").read_text()))[1]
        more = ("127.0.0.1", port, "shapes", "--external-trainer", "--remove-base64", "-t", "0.01")
        with annotating(shapes_project, tmp_path, *more) as (_, annotator, log_path):
            truth.answer(annotator, annotator.questions())
            wait_until(
                lambda: "version" in (rows := read_jsonl(tmp_path / "model_dir" / "metrics.jsonl")) or rows,
                timeout_s=400,
            )
            served = wait_until(lambda: list_versions(tmp_path / "export_dir")[1:])[-1]
            wait_until(lambda: f"is served (version {served})" in log_path.read_text())
            assert {task["_suggestions"]["version"] for task in annotator.questions()} == {served}
    finally:
        kill_all([child.pid for child in children])
        for child in children:
            child.wait()
    stored = subprocess.run(
        [sys.executable, "-m", "prodigy", "db-out", "shapes"], env=prodigy_environment(tmp_path), capture_output=True
    )
    rows = [json.loads(line) for line in stored.stdout.splitlines()]
    assert len(rows) == 5
    assert all(row["image"] == row["path"] for row in rows)


def test_tensorflow_serving_is_started_where_it_is_installed(shapes_project: ShapesProject, tmp_path: Path) -> None:
    """A program of that name, with the flags that the real one documents; behind it is the embedded server."""
    program = tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    lines = ["#!/bin/sh", 'test "$1" = --port=0 || exit 9', "shift", f'exec "{sys.executable}" -m odkeras serve "$@"']
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), prodigy_environment(tmp_path)["PATH"]])
    with annotating(shapes_project, tmp_path, PATH=path) as (_, annotator, log):
        wait_until(lambda: " is served" in log.read_text())
        assert all("_suggestions" in task for task in annotator.questions())
        assert processes_about(program)
    assert processes_about(shapes_project.config.parent) == []


@pytest.mark.skipif(not (SHARED / "raccoon").is_dir(), reason="the raccoon data set is not beside this checkout")
@pytest.mark.timeout(900)
def test_the_walk_through_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    """From the first command to the model for others; the annotator answers two batches of real photographs.

    Rounds and evaluations are shorter than a user's: what is tested is that the commands fit each other.
    """
    blocks = re.findall(r"^```console\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    prepare, annotate, evaluate = ["\n".join(line.removeprefix("$ ") for line in each.splitlines()) for each in blocks]
    paths = {"RACCOON": str(SHARED / "raccoon"), "BACKBONE": str(SHARED / "mobilenet_v2_backbone" / "ckpt-1")}
    shorter = {"ODKERAS_STEPS_PER_EPOCH": "20", "ODKERAS_EXTRA_STEPS": "0", "ODKERAS_EVAL_STEPS": "8"}
    env = {**prodigy_environment(tmp_path), **paths, **shorter}
    run(prepare, tmp_path, env)
    with background(annotate, tmp_path, env) as (process, log):
        url = wait_until(lambda: re.search(r"web server at (http://\S+) ", log.read_text()))[1]
        annotator, truth = Annotator(url), raccoon_truth()
        tasks = annotator.questions()
        annotator.answer(tasks, lambda task: ui_answer(task, truth[task["meta"]["file"]]))
        wait_until(lambda: re.search(r"evaluation after round 1: .*mAP", log.read_text()), timeout_s=600)
        tasks = annotator.questions()
        assert {task["_suggestions"]["version"] for task in tasks} == {list_versions(tmp_path / "raccoons/export")[-1]}
        annotator.answer(tasks, lambda task: ui_answer(task, truth[task["meta"]["file"]]))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()[-3000:]
    output = run(evaluate, tmp_path, env)
    assert "DetectionBoxes_Precision/mAP" in output
    assert len((tmp_path / "raccoons.jsonl").read_text().splitlines()) == 10
    assert (tmp_path / "raccoons" / "annotated.record").stat().st_size > 10_000
    assert list_versions(tmp_path / "raccoons" / "final")


def raccoon_truth() -> dict[str, list[tuple[list[float], str]]]:
    """Boxes by file name."""
    found: dict[str, list[tuple[list[float], str]]] = {}
    for name in ("train.csv", "test.csv"):
        with (SHARED / "raccoon" / name).open(newline="") as file:
            for row in csv.DictReader(file):
                box = [float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax")]
                found.setdefault(row["path"], []).append((box, row["label"]))
    return found


def run(script: str, folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@contextmanager
def background(script: str, folder: Path, env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a block of commands in the background, with its output in a file."""
    log_path = folder / "annotate.log"
    with log_path.open("wb") as log:
        command = ["bash", "-e", "-c", f"exec env {script}"]  # no shell that waits in between
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process, log_path
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
