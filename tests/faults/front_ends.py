"""Sessions of the other commands that write, as those of sessions.py: the backup, Prodigy's recipe, the simulated
annotator."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from odkeras.config import SimulationSettings
from odkeras.inbox import list_batches, read_batch
from odkeras.integrations.prodigy.recipes import trainmodel
from odkeras.project import read_jsonl
from odkeras.simulation import simulate as simulate_module
from odkeras.simulation import state as state_module
from odkeras.simulation.report import CurvePoint, read_curve
from odkeras.simulation.simulate import simulate
from odkeras.upkeep.backup import back_up
from odkeras.upkeep.project import ProjectPlaces, check_project
from tests import fixtures_web
from tests.faults.sessions import Ack, Session, temporaries
from tests.fixtures_prodigy import DOUBLE_DIR
from tests.prodigy_annotator import ui_answer

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does

from tests.unit import test_simulate, test_upkeep


class Backup(Session):
    """`odkeras backup`."""

    def prepare(self, folder: Path) -> None:
        test_upkeep.make_project(folder / "project")

    def places(self, folder: Path, name: str) -> ProjectPlaces:
        return ProjectPlaces.of(folder / name / "pipeline.config")

    def work(self, folder: Path, ack: Ack) -> None:
        if not back_up(self.places(folder, "project"), folder / "out"):  # else its check could not read the copy
            ack("copied")

    def check_at_once(self, folder: Path, acknowledged: list[str]) -> list[str]:
        problems = [f"project: {found}" for found in check_project(self.places(folder, "project"))]
        if not (folder / "out").exists():
            return problems + (["the backup was reported, and is gone"] if acknowledged else [])
        problems += [f"backup: {found}" for found in check_project(self.places(folder, "out"))]
        copied, answers = (test_upkeep.answers_of(self.places(folder, name)) for name in ("out", "project"))
        return problems if copied == answers else [*problems, f"the backup has {copied}, the project {answers}"]

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        if not (folder / "out").exists():
            self.work(folder, lambda text: None)
        return self.check_at_once(folder, ["copied"]) + temporaries(folder)


class Prodigy(Session):
    """The recipe `image.trainmodel` in a stand-in for Prodigy, whose dataset in SQLite is under the layer, too."""

    images, version = 6, "1.18"

    def prepare(self, folder: Path) -> None:
        fixtures_web.save_project(folder / "project", self.images)

    def work(self, folder: Path, ack: Ack) -> None:
        os.chdir(folder / "project")
        os.environ.update(PRODIGY_HOME=str(folder / "prodigy"), PRODIGY_DOUBLE_VERSION=self.version)
        sys.path.insert(0, str(DOUBLE_DIR))
        with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as free:
            fixtures_web.fake_processes.use_fakes(patch.setattr)
            nobody = {"ip": "127.0.0.1", "port": free.getsockname()[1], "external_trainer": True}
            free.close()
            try:
                components = trainmodel(config_path="pipeline.config", dataset="d", source="images", **nobody)
                controller = import_module("prodigy.core").Controller.from_components("image.trainmodel", components)
                with controller:
                    for _ in range(self.images + 3):
                        if not self._answer_next(controller, ack):
                            break
                    self._wait(folder)
            except (SystemExit, sqlite3.Error) as end:  # the recipe's way to end with one line; the stand-in's dataset
                raise OSError(str(end)) from end

    def _answer_next(self, controller: Any, ack: Ack) -> bool:
        """As the browser does: what was not confirmed is sent again."""
        tasks = controller.get_questions()
        truth = [([20, 10, 50, 30], "thing")]
        for some in (tasks[start : start + 2] for start in range(0, len(tasks), 2)):
            answers = [ui_answer(task, truth, "accept", era=self.version, session_id=None) for task in some]
            for _ in range(3):
                with suppress(Exception):
                    controller.receive_answers(answers, None)
                    for task in some:
                        ack(task["meta"]["file"])
                    break
        return bool(tasks)

    def _wait(self, folder: Path) -> None:
        """For the answers that an earlier start did not deliver."""
        until = time.monotonic() + 10
        while len(self._delivered(folder)) < self.images and time.monotonic() < until:
            time.sleep(0.05)

    def _delivered(self, folder: Path) -> set[str]:
        answers = [answer for path in list_batches(folder / "project/data_dir/inbox") for answer, _ in read_batch(path)]
        return {str(answer["meta"]["file"]) for answer in answers if answer}

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        self.work(folder, lambda text: None)
        delivered = self._delivered(folder)
        lost = {*acknowledged} - delivered
        problems = [f"{name} was acknowledged, and is not delivered" for name in sorted(lost)]
        return problems if len(delivered) == self.images else [*problems, f"delivered: {sorted(delivered)}"]


class Simulated(Session):
    """`odkeras simulate` with processes that only pretend to train and serve: two rounds of two images."""

    annotations = (0, 2, 4)

    def prepare(self, folder: Path) -> None:
        test_simulate.make_project(folder)

    def work(self, folder: Path, ack: Ack) -> None:
        display = test_simulate.Recorder()
        display.on_point = lambda point: ack(str(point.annotations))
        with pytest.MonkeyPatch.context() as patch:
            fixtures_web.fake_processes.use_fakes(patch.setattr)
            patch.setattr(simulate_module, "_POLL_S", 0.02)
            patch.setattr(state_module, "draw_curve", lambda points, path, title: path.write_bytes(b""))
            options = {"annotations": self.annotations[-1], "images_per_round": 2, "steps_per_epoch": 5}
            settings = SimulationSettings(config=folder / "pipeline.config", **options)
            simulate(folder / "truth.csv", settings, folder / "images", display=display)

    def points(self, folder: Path) -> list[CurvePoint]:
        return read_curve(folder / "report" / "curve.json")

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        measured = [point.annotations for point in self.points(folder)]
        problems = [f"the point at {at} was shown, and is gone" for at in acknowledged if int(at) not in measured]
        self.work(folder, lambda text: None)
        measured = [point.annotations for point in self.points(folder)]
        rows = read_jsonl(folder / "report" / "answered.jsonl")
        images = [image_id for row in rows for image_id in row["image_ids"]]
        if tuple(measured) != self.annotations or len({*images}) != len(images) or len(images) != measured[-1]:
            problems.append(f"points at {measured}, {len(images)} answers about {len({*images})} images")
        return problems


FRONT_ENDS: dict[str, type[Session]] = {"backup": Backup, "prodigy": Prodigy, "simulate": Simulated}
