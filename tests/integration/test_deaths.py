"""Images with which the trainer process is killed: they are found and left out, and no others are."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from odkeras.annotation import Annotation
from odkeras.data.stored_example import StoredExample
from odkeras.project import Project, read_jsonl
from odkeras.training.deaths import MAX_DEATHS, TrainingDeaths
from odkeras.training.trainer import Trainer
from odkeras.training.undo import image_bucket
from tests.fixtures_training import TinyProject
from tests.integration.test_rounds import Killed, begin

pytestmark = pytest.mark.integration


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The ids of images with which a step ends the process."""
    ids: set[str] = set()
    real = Trainer._take_step

    def take_step(trainer: Trainer, batch: Any, guard: Any) -> Any:
        if {image_bucket(image_id) for image_id in ids} & set(batch[0]["hash"].numpy().tolist()):
            raise Killed
        return real(trainer, batch, guard)

    monkeypatch.setattr(Trainer, "_take_step", take_step)
    yield ids


def start_until_it_lives(project: TinyProject, **options: Any) -> int:
    """As a supervisor does; the number of starts."""
    for number in range(1, 12):
        rounds = begin(project, **options)
        try:
            while rounds.run_pending():
                pass
            rounds.close()
            return number
        except Killed:
            rounds._summaries.close()
            rounds._replay.close()
    raise AssertionError("it dies for ever")


@pytest.mark.usefixtures("shared_models")
class TestRounds:
    def test_one_image_is_taken_out_and_not_the_loop(
        self, project: TinyProject, shapes: list[Annotation], deadly: set[str]
    ) -> None:
        """An image with which a step needed more memory than the kernel gives killed the trainer for ever: only a batch
        that was being read was set aside."""
        deadly.add(shapes[1].image_id)
        batch = project.put(shapes[:4])
        assert start_until_it_lives(project, steps_per_epoch=4) == 2 * MAX_DEATHS + 1
        (row,) = project.metrics()
        assert (row["batches"], row["steps"], row["examples"], "failed" in row) == ([batch], 4, 3, False)
        (rejected,) = read_jsonl(project.directories.rejected_path)
        assert rejected["answer"] == {"image_id": shapes[1].image_id}
        assert rejected["reason"].startswith("the trainer died again in a step with this image alone")
        project.put(shapes[4:5])
        assert start_until_it_lives(project) == 1  # it stays left out
        assert project.metrics()[-1]["examples"] == 4
        deadly.clear()
        project.put(shapes[1:2])  # a new answer is tried
        assert start_until_it_lives(project) == 1
        assert project.metrics()[-1]["examples"] == 5
        assert len(read_jsonl(project.directories.rejected_path)) == 1

    def test_kills_from_outside_leave_no_image_out(
        self, project: TinyProject, shapes: list[Annotation], deadly: set[str]
    ) -> None:
        project.put(shapes[:3])
        for _ in range(2 * MAX_DEATHS):
            deadly.update(shape.image_id for shape in shapes[:3])
            with pytest.raises(Killed):
                begin(project).run_pending()
            deadly.clear()
            if TrainingDeaths(project.directories)._state.deaths_alone:
                break
        assert start_until_it_lives(project) == 1
        assert project.metrics()[-1]["examples"] == 3
        assert not project.directories.rejected_path.exists()


@pytest.fixture
def folders(tmp_path: Path) -> Project:
    project = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
    project.create()
    return project


def example(number: int, batch: str = "b") -> StoredExample:
    return StoredExample(f"image{number}", batch, Path("1_train.record"), 0, 1)


def run_and_die(work: Callable[[], object]) -> None:
    """In a process of its own, which is killed by SIGKILL."""
    process = os.fork()
    if process == 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def train_on(project: Project, numbers: list[int], end: Callable[[], object] = lambda: None) -> None:
    deaths = TrainingDeaths(project)
    read = deaths.noting(lambda example: b"")
    with deaths.watch():
        for number in numbers:
            read(example(number))
        end()


def die_in_training(project: Project, numbers: list[int]) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    run_and_die(lambda: train_on(project, numbers, die))


def try_alone(project: Project, deadly: int) -> list[str]:
    """Tries in another process, which dies with one image; what is left out then."""

    def step(tried: StoredExample) -> None:
        if tried == example(deadly):
            os.kill(os.getpid(), signal.SIGKILL)

    run_and_die(lambda: TrainingDeaths(project).try_alone([example(number) for number in range(9)], step))
    return [image_id for image_id, _ in TrainingDeaths(project).left_out]


def tried(project: Project) -> list[str]:
    names: list[str] = []
    examples = [example(number) for number in range(9)]
    TrainingDeaths(project).try_alone(examples, lambda each: names.append(each.image_id))
    return names


def test_killed_processes_leave_the_image_behind(folders: Project) -> None:
    for drawn in ([1, 2, 3, 4], [3, 5, 4, 6]):
        die_in_training(folders, drawn)
    assert try_alone(folders, deadly=3) == []
    assert try_alone(folders, deadly=3) == ["image3"]
    assert tried(folders) == []  # the row of deaths has ended
    assert not folders.drawn_path.exists()


def test_only_the_images_of_each_death_are_tried(folders: Project) -> None:
    die_in_training(folders, [1, 2, 3, 4])
    assert tried(folders) == []
    die_in_training(folders, [3, 5, 4, 6])
    assert tried(folders) == ["image3", "image4"]
    assert tried(folders) == []


def test_the_images_that_were_drawn_last_are_tried_if_none_was_in_all(folders: Project) -> None:
    for drawn in ([1, 2], [3, 4]):
        die_in_training(folders, drawn)
    assert sorted(tried(folders)) == ["image3", "image4"]


def test_training_that_ends_otherwise_ends_the_row(folders: Project) -> None:
    die_in_training(folders, [1])
    train_on(folders, [1])
    die_in_training(folders, [1])
    with pytest.raises(OSError):
        train_on(folders, [1], end=lambda: os.stat("/no/such/file"))  # noqa: PTH116
    die_in_training(folders, [1])
    assert tried(folders) == []


def test_a_host_that_kills_the_trainer_deletes_the_note(folders: Project) -> None:
    for _ in range(2 * MAX_DEATHS):
        die_in_training(folders, [1])
        folders.drawn_path.unlink()
    assert tried(folders) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"deaths": -1, "suspects": [1], "alone": "x", "left_out": {}}', '{"deaths": true}']
)
def test_a_damaged_file_is_forgotten(folders: Project, content: str) -> None:
    folders.deaths_path.write_text(content)
    folders.drawn_path.write_text(content + "\n")
    deaths = TrainingDeaths(folders)
    assert (deaths.left_out, deaths._state.suspects) == ((), ())
    folders.drawn_path.write_text('{"image_id": 5}\n{"image_id": "5", "batch": "b"}\n{"no": "image"')
    assert TrainingDeaths(folders)._state.suspects == (("5", "b"),)
