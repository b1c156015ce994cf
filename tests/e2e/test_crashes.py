"""kill -9 at any instant: nothing is lost, nothing is half-written, nothing has to be repaired."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ShapesProject, kill_all, processes_about
from waiting import wait_until

from odkeras.export.info import read_export_info
from odkeras.inbox import list_batches
from odkeras.labels import LabelMap
from odkeras.pipeline import load_pipeline, num_classes
from odkeras.pipeline.class_history import read_class_history
from odkeras.project import TEMPORARY_PREFIX, read_jsonl
from odkeras.shapes import CLASSES
from odkeras.version_dirs import list_versions, version_dir

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# In which state the trainer is killed, and after how many seconds in it at most.
KILLS = [
    ("starting", 2.5),
    ("building", 1.0),
    ("publishing", 0.3),
    ("building", 0.5),
    ("training", 0.6),
    ("waiting", 0.1),
]
CLASS_ADDED_AT = 6
"""Before the kill of this number: the kills that follow hit the start of the larger model, and its extension if there
is a checkpoint by then."""


def test_the_trainer_is_killed_again_and_again(shapes_project: ShapesProject, tmp_path: Path) -> None:
    """Also after a class was added, by a command that was killed as well."""
    chance = random.Random(2019)
    images = shapes_project.known_images()
    batches = [images[start : start + 2] for start in range(0, 18, 2)]
    names: list[str] = []
    for number, ((state, longest_s), batch) in enumerate(zip(itertools.cycle(KILLS), batches, strict=False)):
        if number == CLASS_ADDED_AT:
            add_class_and_kill(shapes_project, "star")
        names.append(shapes_project.answer(batch).name)
        run_until_killed(shapes_project, state, chance.uniform(0, longest_s), tmp_path / "trainer.log")
    names.append(shapes_project.answer(images[18:20]).name)
    with (tmp_path / "trainer.log").open("ab") as log:
        command = shapes_project.trainer_command("--once")
        done = subprocess.run(command, stdout=log, stderr=log, timeout=400, check=False)
    assert done.returncode == 0, (tmp_path / "trainer.log").read_text()[-4000:]
    assert_everything_is_trained(shapes_project, names, [image.image_id for image in images[:20]])
    assert_nothing_is_half_written(shapes_project)
    assert_all_classes_are_served(shapes_project, [*CLASSES, "star"])


def add_class_and_kill(project: ShapesProject, name: str) -> None:
    """Kill the command as soon as it has raised num_classes, and repeat it if the label map lacks the class."""
    command = [sys.executable, "-m", "odkeras", "labels", "add", str(project.config), name]
    adding = subprocess.Popen(command)
    while adding.poll() is None and num_classes(load_pipeline(project.config)) == len(CLASSES):
        pass
    adding.kill()
    adding.wait()
    label_map = LabelMap.load(project.config.parent / "label_map.pbtxt")
    assert label_map.names in (CLASSES, (*CLASSES, name))
    subprocess.run(command, check=True, timeout=100)


def assert_all_classes_are_served(project: ShapesProject, names: list[str]) -> None:
    export_dir = project.directories.export_dir
    info = read_export_info(version_dir(export_dir, list_versions(export_dir)[-1]))
    assert info is not None and [name for _, name in info.labels] == names
    history = read_class_history(project.directories)
    assert history is not None
    assert [name for name, added_s in history.added_s.items() if added_s > 0] == names[len(CLASSES) :]


def run_until_killed(project: ShapesProject, state: str, after_s: float, log_path: Path) -> None:
    """Start the trainer and kill it some time after it has come into a state."""
    project.directories.status_path.unlink(missing_ok=True)
    with log_path.open("ab") as log:
        trainer = subprocess.Popen(project.trainer_command(), stdout=log, stderr=log)
    try:
        if state != "starting":
            wait_until(lambda: project.state() == state or trainer.poll() is not None, timeout_s=200)
        time.sleep(after_s)
        assert trainer.poll() is None, log_path.read_text()[-4000:]
    finally:
        trainer.kill()
        trainer.wait()


def assert_everything_is_trained(project: ShapesProject, batches: list[str], image_ids: list[str]) -> None:
    import tensorflow as tf

    from odkeras.data.ingest import record_number
    from odkeras.data.replay import ReplayStore

    directories = project.directories
    assert list_batches(directories.inbox_dir) == []
    store = ReplayStore(directories)
    assert {example.image_id for example in store.examples()} == set(image_ids)
    rounds = [row for row in read_jsonl(directories.metrics_path) if row["kind"] == "round"]
    assert {name for row in rounds for name in row["batches"]} == set(batches)
    newest = tf.train.latest_checkpoint(str(directories.model_dir))
    trained = tf.train.load_variable(newest, "loop/trained_record/.ATTRIBUTES/VARIABLE_VALUE")
    assert trained == max(record_number(path) for path in directories.train_records())
    assert rounds[-1]["step"] == tf.train.load_variable(newest, "step/.ATTRIBUTES/VARIABLE_VALUE")


def assert_nothing_is_half_written(project: ShapesProject) -> None:
    import tensorflow as tf

    directories = project.directories
    for folder in (directories.data_dir, directories.model_dir, directories.export_dir):
        assert [path for path in folder.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)] == []
    checkpoints = {path.name for path in directories.model_dir.iterdir() if path.name[0] == "c"} - {"checkpoint"}
    numbers = {name.partition(".")[0] for name in checkpoints}
    assert checkpoints == {f"{each}{suffix}" for each in numbers for suffix in (".index", ".data-00000-of-00001")}
    assert len(numbers) <= 5
    versions = list_versions(directories.export_dir)
    assert versions
    for version in versions:
        loaded = tf.saved_model.load(str(directories.export_dir / str(version)))
        assert set(loaded.signatures) == {"serving_default", "image_tensor", "tf_example"}
    assert len(list(directories.train_records())) <= 5
    assert len(versions) <= 5


def test_the_whole_tree_is_killed(shapes_project: ShapesProject, tmp_path: Path) -> None:
    """The host with its trainer and server, twice; then the same command runs to the end."""
    chance = random.Random(7)
    folder = shapes_project.config.parent
    pictures = shapes_project.pictures
    command = [sys.executable, "-m", "odkeras", "simulate", str(pictures.train_csv), str(shapes_project.config)]
    command += ["--images", str(pictures.images_dir), "--test", str(pictures.test_csv)]
    command += ["--annotations", "24", "--batch-size", "6", "--steps-per-epoch", "12"]
    log_path = tmp_path / "simulate.log"
    for kill_after_s in (chance.uniform(1, 5), chance.uniform(7, 13)):
        with log_path.open("ab") as log:
            host = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        time.sleep(kill_after_s)
        kill_all(processes_about(folder))
        host.wait()
        wait_until(lambda: processes_about(folder) == [])
    with log_path.open("ab") as log:
        done = subprocess.run(command, stdout=log, stderr=log, timeout=600, check=False)
    assert done.returncode == 0, log_path.read_text()[-4000:]
    assert processes_about(folder) == []
    curve = json.loads((folder / "report" / "curve.json").read_text())
    assert [row["annotations"] for row in curve] == [0, 6, 12, 18, 24]
    assert_nothing_is_half_written(shapes_project)


def test_children_end_when_their_host_is_killed(shapes_project: ShapesProject, tmp_path: Path) -> None:
    folder = shapes_project.config.parent
    pictures = shapes_project.pictures
    command = [sys.executable, "-m", "odkeras", "simulate", str(pictures.train_csv), str(shapes_project.config)]
    with (tmp_path / "simulate.log").open("ab") as log:
        host = subprocess.Popen([*command, "--images", str(pictures.images_dir)], stdout=log, stderr=log)
    wait_until(lambda: len(processes_about(folder)) >= 3)
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    wait_until(lambda: processes_about(folder) == [], timeout_s=30)
