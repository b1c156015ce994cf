from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkeras.boxes import Detections
from odkeras.errors import ConfigError, ImageError, RequestError, ServerUnavailableError
from odkeras.labels import LabelMap
from odkeras.loop.stream import Suggester, Task, TaskStream, image_bytes, suggested_tasks, tasks_from_source

LABELS = LabelMap.from_names(["car", "person"])


def save_image(path: Path, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (shade, 50, 200)).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(6):
        save_image(tmp_path / "images" / f"{number}.png", 10 * number)
    return tmp_path / "images"


class FakePredictor:
    """One detection per image; `version` None, or an error, stands for a server in trouble."""

    def __init__(self, version: int | None = 1) -> None:
        self.version = version
        self.error: Exception | None = None
        self.asked: list[int] = []

    def available_version(self) -> int | None:
        return self.version

    def predict(self, images: Sequence[bytes]) -> list[Detections]:
        self.asked.append(len(images))
        if self.error is not None:
            raise self.error
        return [
            Detections(np.array([[0.25, 0.5, 0.75, 1.0]]), np.array([0.9]), np.array([2], np.int32)) for _ in images
        ]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def bare(count: int) -> list[Task]:
    return [{"image_id": str(number)} for number in range(count)]


class TestTasksFromSource:
    def test_a_directory(self, images: Path) -> None:
        tasks = list(tasks_from_source(images, on_skip=lambda *_: None))
        assert [task["meta"]["file"] for task in tasks] == [f"{number}.png" for number in range(6)]
        assert tasks[0]["path"] == str(images / "0.png")
        assert (tasks[0]["width"], tasks[0]["height"], tasks[0]["spans"]) == (64, 48, [])
        assert image_bytes(tasks[3]) == (images / "3.png").read_bytes()

    def test_one_file_and_a_text_path(self, images: Path) -> None:
        assert len(list(tasks_from_source(str(images / "0.png"), on_skip=lambda *_: None))) == 1

    def test_paths_and_ready_tasks(self, images: Path) -> None:
        ready = {"image": "data:image/png;base64,AAAA", "image_id": "x"}
        tasks = list(tasks_from_source([images / "5.png", ready], on_skip=lambda *_: None))
        assert tasks[0]["meta"]["file"] == "5.png"
        assert tasks[1] is ready

    def test_images_are_read_when_they_are_asked_for(self, images: Path) -> None:
        tasks = tasks_from_source(images, on_skip=lambda *_: None)
        next(tasks)
        (images / "1.png").unlink()
        skipped: list[str] = []
        tasks = tasks_from_source([images / "0.png", images / "1.png"], on_skip=lambda file, why: skipped.append(file))
        next(tasks)
        assert skipped == []

    def test_broken_images_are_skipped_with_a_reason(self, images: Path) -> None:
        (images / "1.png").write_bytes(b"")
        (images / "2.png").write_bytes((images / "3.png").read_bytes()[:60])
        (images / "4.png").write_text("not an image")
        skipped: dict[str, str] = {}
        tasks = list(tasks_from_source(images, on_skip=skipped.__setitem__))
        assert [task["meta"]["file"] for task in tasks] == ["0.png", "3.png", "5.png"]
        assert sorted(Path(file).name for file in skipped) == ["1.png", "2.png", "4.png"]
        assert all(skipped.values())

    def test_a_file_that_went_away_is_skipped(self, images: Path) -> None:
        skipped: dict[str, str] = {}
        assert list(tasks_from_source([images / "none.png"], on_skip=skipped.__setitem__)) == []
        assert list(skipped) == [str(images / "none.png")]

    def test_nothing_there_is_said_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such file or directory"):
            tasks_from_source(tmp_path / "none", on_skip=lambda *_: None)
        with pytest.raises(ConfigError, match="no images"):
            tasks_from_source(tmp_path, on_skip=lambda *_: None)


class TestSuggestedTasks:
    def test_a_few_at_a_time_and_not_before_they_are_wanted(self) -> None:
        asked: list[list[str]] = []

        def suggest(tasks: Sequence[Task]) -> list[Task]:
            asked.append([task["image_id"] for task in tasks])
            return [{**task, "round": len(asked)} for task in tasks]

        stream = suggested_tasks(bare(5), suggest, together=3, clock=Clock())
        assert asked == []
        assert [next(stream)["image_id"] for _ in range(3)] == ["0", "1", "2"]
        assert asked == [["0", "1", "2"]]
        assert [task["image_id"] for task in stream] == ["3", "4"]
        assert asked == [["0", "1", "2"], ["3", "4"]]

    def test_what_was_not_fetched_soon_is_predicted_again(self) -> None:
        clock, rounds = Clock(), iter(range(10))

        def suggest(tasks: Sequence[Task]) -> list[Task]:
            number = next(rounds)
            return [{**task, "round": number} for task in tasks]

        stream = suggested_tasks(bare(4), suggest, together=3, fresh_for_s=1.0, clock=clock)
        first = next(stream)
        clock.now += 60  # a training round
        rest = list(stream)
        assert [first["round"], *(task["round"] for task in rest)] == [0, 1, 1, 1]
        assert [first["image_id"], *(task["image_id"] for task in rest)] == ["0", "1", "2", "3"]


class TestSuggester:
    def suggester(self, predictor: FakePredictor, clock: Clock | None = None, **options: object) -> Suggester:
        return Suggester(predictor, LABELS, threshold=0.5, clock=clock or Clock(), **options)  # type: ignore[arg-type]

    def tasks(self, images: Path) -> list[Task]:
        return list(tasks_from_source(images, on_skip=lambda *_: None))

    def test_suggestions_of_the_served_version(self, images: Path) -> None:
        suggested = self.suggester(FakePredictor(1700000000))(self.tasks(images))
        (span,) = suggested[5]["spans"]
        assert span["label"] == "person"
        assert span["points"] == [[32.0, 12.0], [32.0, 36.0], [64.0, 36.0], [64.0, 12.0]]
        assert suggested[5]["_suggestions"]["version"] == 1700000000
        assert suggested[5]["meta"]["file"] == "5.png"

    def test_threshold(self, images: Path) -> None:
        strict = Suggester(FakePredictor(), LABELS, threshold=0.95)
        assert [task["spans"] for task in strict(self.tasks(images))] == [[]] * 6

    def test_server_away_then_back(self, images: Path) -> None:
        clock, predictor = Clock(), FakePredictor(None)
        said: list[str] = []
        suggester = self.suggester(predictor, clock, on_problem=said.append)
        tasks = self.tasks(images)
        assert suggester(tasks) == tasks
        assert "_suggestions" not in suggester(tasks)[0]
        predictor.version = 7
        assert suggester(tasks) == tasks  # it is not asked again so soon
        clock.now += 1.5
        assert suggester(tasks)[0]["_suggestions"]["version"] == 7
        assert predictor.asked == [6]
        assert len(said) == 2
        assert "away" in said[0]
        assert said[1] == ""

    def test_server_dies_during_the_prediction(self, images: Path) -> None:
        predictor = FakePredictor()
        said: list[str] = []
        predictor.error = ServerUnavailableError("connection refused")
        tasks = self.tasks(images)
        assert self.suggester(predictor, on_problem=said.append)(tasks) == tasks
        assert said == ["connection refused"]

    def test_one_refused_image_does_not_cost_the_others_their_suggestions(self, images: Path) -> None:
        tasks = self.tasks(images)
        bad = image_bytes(tasks[2])

        class Picky(FakePredictor):
            def predict(self, images: Sequence[bytes]) -> list[Detections]:
                if bad in images:
                    raise RequestError(400, "cannot decode")
                return super().predict(images)

        suggested = self.suggester(Picky())(tasks)
        assert [len(task["spans"]) for task in suggested] == [1, 1, 0, 1, 1, 1]
        assert "_suggestions" not in suggested[2]

    def test_the_version_may_come_from_elsewhere(self, images: Path) -> None:
        suggester = self.suggester(FakePredictor(1), available_version=lambda: 2)
        assert suggester(self.tasks(images))[0]["_suggestions"]["version"] == 2

    def test_a_task_without_data_uri(self) -> None:
        with pytest.raises(ImageError):
            image_bytes({"image": "https://example.org/a.jpg"})


class TestTaskStream:
    def test_exclude_and_prepare(self, images: Path) -> None:
        everything = list(tasks_from_source(images, on_skip=lambda *_: None))
        excluded = {everything[0]["image_id"]}
        stream = TaskStream(
            images,
            lambda tasks: [{**task, "hash_seen": task["hash"], "spans": [1]} for task in tasks],
            exclude=excluded,
            prepare=lambda task: {**task, "hash": len(task["spans"])},
            together=1,
        )
        first = next(stream)
        assert first["meta"]["file"] == "1.png"
        assert first["hash_seen"] == 0
        excluded.add(everything[2]["image_id"])
        assert [task["meta"]["file"] for task in stream] == ["3.png", "4.png", "5.png"]

    def test_several_threads_share_one_stream(self, images: Path) -> None:
        """A bare generator raises `generator already executing` here; Prodigy's handlers run on several threads."""
        together = threading.Barrier(3)

        def slow(tasks: Sequence[Task]) -> list[Task]:
            return [task for task in tasks if sum(range(20_000)) > 0]

        stream = TaskStream([path for path in sorted(images.iterdir()) for _ in range(20)], slow, together=1)
        found: list[str] = []
        errors: list[BaseException] = []

        def fetch() -> None:
            together.wait()
            try:
                found.extend(task["meta"]["file"] for task in stream)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=fetch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(found) == sorted(f"{number}.png" for number in range(6) for _ in range(20))
