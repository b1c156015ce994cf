"""The trainer with a fault at the n-th call: two rounds, with a correction, and what is left after a restart.

Run by tests/faults/torture.py, through pytest, for the models that the tests share. Here a kill is that all further
calls fail, since a process with TensorFlow cannot be forked; tests/e2e/test_crashes.py kills real trainers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from odkeras.annotation import Annotation
from odkeras.data.ingest import record_number
from odkeras.data.replay import ReplayStore
from odkeras.errors import OdkerasError
from odkeras.export.info import read_export_info
from odkeras.inbox import list_batches
from odkeras.training.rounds import Rounds
from odkeras.version_dirs import list_versions
from tests.faults.layer import Layer
from tests.fixtures_training import LABEL_MAP, TinyProject
from tests.integration.conftest import (  # noqa: F401
    inference,
    pictures,
    saved_once,
    session_config,
    session_dataset,
    session_inference,
    session_trainer,
    shape_records,
    shapes,
    shared_models,
    trainer,
)

OPTIONS = "ODKERAS_FAULTS"
FILES = {"saved_model.pb", "variables.index", "variables.data-00000-of-00001"}


class Session:
    """One project, and the names of the batches that were acknowledged."""

    def __init__(self, project: TinyProject, shapes: list[Annotation], seed: int) -> None:  # noqa: F811
        self.project = project
        self.shapes = shapes
        self.seed = seed
        self.batches: list[str] = []
        self.rounds: Rounds | None = None

    def begin(self) -> Rounds:
        settings = self.project.settings(steps_per_epoch=1, extra_steps=0, temp_files_num=1, max_checkpoints_num=2)
        self.rounds = Rounds(self.project.config(), LABEL_MAP, settings)
        return self.rounds

    def work(self) -> None:
        rounds = self.begin()
        for chosen in (slice(0, 2), slice(self.seed % 2, 3)):
            self.batches.append(self.project.put(self.shapes[chosen]))
            rounds.run_pending()
        rounds.close()

    def drop(self) -> None:
        """What the system does with a process that has ended."""
        if self.rounds is not None:
            with suppress(Exception):
                self.rounds._replay.close()
            with suppress(Exception):
                self.rounds._summaries.close()

    def restart(self) -> list[str]:
        rounds = self.begin()
        while rounds.run_pending():
            pass
        rounds.close()
        return self._problems()

    def _problems(self) -> list[str]:
        directories = self.project.directories
        reported = Counter(name for row in self.project.metrics() for name in row["batches"])
        problems = [f"{name}: in {reported[name]} rounds" for name in self.batches if reported[name] != 1]
        problems += [f"{path} still waits" for path in list_batches(directories.inbox_dir)]
        for version in list_versions(directories.export_dir):
            folder = directories.export_dir / str(version)
            names = {path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size}
            if not names >= FILES or read_export_info(folder) is None:
                problems.append(f"version {version} is half: {names}")
        store = ReplayStore(directories)
        images = {example.image_id for example in store.examples()}
        store.close()
        if len(self.batches) == 2 and images != {each.image_id for each in self.shapes[:3]}:
            problems.append(f"the images are {images}")
        newest = tf.train.latest_checkpoint(str(directories.model_dir))
        if self.batches:
            trained = tf.train.load_variable(newest, "loop/trained_record/.ATTRIBUTES/VARIABLE_VALUE")
            if trained != max(map(record_number, directories.train_records())):
                problems.append(f"trained up to record {trained}")
        return problems


def run(folder: Path, shapes: list[Annotation], seed: int, mode: str, at: int) -> dict[str, Any]:  # noqa: F811
    """One session with a fault, and its restart."""
    session, layer = Session(TinyProject(folder).write(), shapes, seed), Layer()
    problems: list[str] = []
    layer.arm(folder, mode, at)
    try:
        session.work()
    except (OdkerasError, OSError, tf.errors.OpError):
        pass
    except Exception as error:
        problems.append(f"raised {type(error).__name__}: {error}")
    session.drop()
    calls, what = layer.disarm(), layer.what
    try:
        problems += session.restart()
    except Exception as error:
        problems.append(f"the restart raised {type(error).__name__}: {error}")
    shutil.rmtree(folder)
    return {"calls": calls, "what": what, "problems": problems, "acknowledged": len(session.batches)}


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("shared_models")
def test_trainer(shapes: list[Annotation], tmp_path: Path) -> None:  # noqa: F811
    """The result is for the process that started this one."""
    options = json.loads(os.environ[OPTIONS])
    problems: list[str] = []
    row: Counter[str] = Counter()
    for seed in options["seeds"]:
        whole = run(tmp_path / "count", shapes, seed, "count", 0)
        row["calls"] = max(row["calls"], whole["calls"])
        problems += [f"trainer, seed {seed}, no fault: {problem}" for problem in whole["problems"]]
        for mode in options["modes"]:
            for at in range(1 + seed % options["every"], whole["calls"] + 1, options["every"]):
                outcome = run(tmp_path / f"{mode}-{at}", shapes, seed, mode, at)
                row[mode] += bool(outcome["what"])
                row["acknowledged"] += outcome["acknowledged"]
                row["problems"] += len(outcome["problems"])
                where = f"trainer, seed {seed}, {mode} at {at} of {whole['calls']} ({outcome['what']})"
                problems += [f"{where}: {problem}" for problem in outcome["problems"]]
                Path(options["out"]).write_text(json.dumps({"row": row, "problems": problems}))
