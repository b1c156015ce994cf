from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tasks import FakeSuggester, bare_task

from odkeras.annotation import Span, Suggestions, Task
from odkeras.boxes import Detections
from odkeras.errors import ConfigError, ImageError, RequestError, ServerUnavailableError
from odkeras.formats.prodigy import write_task
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage, read_image
from odkeras.labels import LabelMap
from odkeras.session.events import Event, Listener
from odkeras.session.image_ids import ImageIds
from odkeras.session.order import Order
from odkeras.session.reader import ImageReader
from odkeras.session.sources import Item, load_task, open_source
from odkeras.session.stream import SuggestedTasks, TaskStream
from odkeras.session.suggester import Suggester, SuggestionRules, image_bytes, is_control
from odkeras.session.thresholds import FixedThreshold, Threshold
from tests import poison

LABELS = LabelMap.from_names(["car", "person"])
SPAN = Span("car", ((1.0, 1.0), (9.0, 9.0)))


def save_image(path: Path, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (shade, 50, 200)).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(6):
        save_image(tmp_path / "images" / f"{number}.png", 10 * number)
    return tmp_path / "images"


@pytest.fixture
def opened(images: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read, in that order."""
    found: list[str] = []
    read_bytes = Path.read_bytes

    def noting(self: Path) -> bytes:
        found.append(self.name)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", noting)
    return found


class FakeModel:
    """One detection per image, of class `found`; `version` None, or an error, stands for a server in trouble."""

    def __init__(self, version: int | None = 1, found: int = 2) -> None:
        self.version = version
        self.found = found
        self.trained_from = 0
        self.error: Exception | None = None
        self.asked: list[int] = []
        self.asked_versions: list[int | None] = []

    def available_version(self) -> int | None:
        return self.version

    def has_learned(self, version: int) -> bool:
        return version >= self.trained_from

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
        assert batch_size == len(images)  # one request
        self.asked.append(len(images))
        self.asked_versions.append(version)
        if self.error is not None:
            raise self.error
        found = np.array([self.found], np.int32)
        return [Detections(np.array([[0.25, 0.5, 0.75, 1.0]]), np.array([0.9]), found) for _ in images]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def bare(count: int) -> list[Task]:
    return [bare_task(str(number)) for number in range(count)]


class Noted(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tasks: list[tuple[Task, float]] = []

    def event(self, event: Event) -> None:
        self.lines.append(event.line)

    def suggested(self, task: Task, seconds: float) -> None:
        self.tasks.append((task, seconds))


def names(tasks: Iterator[Task] | Sequence[Task]) -> list[str]:
    return [task.file for task in tasks]


def tasks_of(images: Path) -> list[Task]:
    return [load_task(item) for item in open_source(images, on_skip=lambda *_: None)[0]]


class Numbered:
    """Suggestions that tell how often they were asked for; `asked` has the ids of each time."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, tasks: Sequence[Task]) -> list[Task]:
        self.asked.append([task.image_id for task in tasks])
        return [replace(task, suggestions=Suggestions(len(self.asked))) for task in tasks]


class TestSuggestedTasks:
    def test_suggestions_are_requested_in_batches_on_demand(self) -> None:
        suggest = Numbered()
        stream = SuggestedTasks(bare(5), FakeSuggester(suggest, batch_size=3))
        assert suggest.asked == []
        assert [next(stream).image_id for _ in range(3)] == ["0", "1", "2"]
        assert suggest.asked == [["0", "1", "2"]]
        assert [task.image_id for task in stream] == ["3", "4"]
        assert suggest.asked == [["0", "1", "2"], ["3", "4"]]

    def test_prefetched_tasks_are_predicted_again_by_a_newer_version(self) -> None:
        suggest, fresh = Numbered(), [True, False, True, True]
        stream = SuggestedTasks(bare(4), FakeSuggester(suggest, lambda task: fresh.pop(0), batch_size=3))
        tasks = [next(stream), next(stream)]
        assert suggest.asked == [["0", "1", "2"]]  # a minute later, or an hour: it is the same version
        tasks += stream
        assert [task.version for task in tasks] == [1, 1, 2, 2]
        assert suggest.asked[1:] == [["2", "3"]]

    def test_a_slow_source_does_not_delay_available_tasks(self) -> None:
        clock = Clock()

        def slow() -> Iterator[Task]:
            for task in bare(4):
                yield task
                clock.now += 4

        suggest = Numbered()
        stream = SuggestedTasks(slow(), FakeSuggester(suggest, batch_size=3), clock=clock)
        assert next(stream).image_id == "0"
        assert suggest.asked == [["0", "1"]]  # the first, and the one that took too long
        assert [task.image_id for task in stream] == ["1", "2", "3"]

    def test_an_error_loses_no_task(self) -> None:
        errors: list[Exception] = [ValueError("not this time")]

        def suggest(tasks: Sequence[Task]) -> list[Task]:
            if errors:
                raise errors.pop()
            return list(tasks)

        stream = SuggestedTasks(bare(3), FakeSuggester(suggest, batch_size=2))
        with pytest.raises(ValueError, match="not this time"):
            next(stream)
        assert [task.image_id for task in stream] == ["0", "1", "2"]

    def test_the_end_stays_the_end(self) -> None:
        stream = SuggestedTasks([], FakeSuggester(Numbered()))
        assert list(stream) == list(stream) == []


class TestSuggester:
    def suggester(
        self,
        model: FakeModel,
        clock: Clock | None = None,
        *,
        threshold: Threshold | None = None,
        control: float = 0.0,
        listener: Listener | None = None,
        **options: Any,
    ) -> Suggester:
        rules = SuggestionRules(threshold or FixedThreshold(0.5), control=control)
        return Suggester(model, LABELS, rules, listener or Listener(), clock=clock or Clock(), **options)

    def test_suggestions_of_the_served_version(self, images: Path) -> None:
        model = FakeModel(1700000000)
        suggested = self.suggester(model)(tasks_of(images))
        assert suggested[5].spans == (Span("person", ((32.0, 12.0), (64.0, 36.0)), 0.9),)
        assert suggested[5].version == 1700000000
        assert suggested[5].file == "5.png"
        assert model.asked_versions == [1700000000]  # no other one

    def test_threshold(self, images: Path) -> None:
        strict = self.suggester(FakeModel(), threshold=FixedThreshold(0.95))
        assert [task.spans for task in strict(tasks_of(images))] == [()] * 6

    def test_a_version_that_has_learnt_nothing_is_not_asked(self, images: Path) -> None:
        model = FakeModel(7)
        model.trained_from = 8
        suggest = self.suggester(model)
        (task,) = suggest(tasks_of(images)[:1])
        assert (task.spans, task.version, model.asked_versions) == ((), 7, [])
        assert suggest.is_fresh(task)
        model.version = 8
        assert not suggest.is_fresh(task)
        assert suggest([task])[0].spans

    def test_learned_thresholds_apply_per_class_and_store_candidates(self, images: Path) -> None:
        class Learning:
            def of(self, class_id: int) -> float:
                return {1: 0.2, 2: 1.01}.get(class_id, 0.5)

            def note(self, answers: object) -> None: ...

        tasks = tasks_of(images)[:1]
        (hidden,) = self.suggester(FakeModel(found=2), threshold=Learning())(tasks)
        (shown,) = self.suggester(FakeModel(found=1), threshold=Learning())(tasks)
        assert (len(hidden.spans), len(shown.spans)) == (0, 1)
        assert hidden.suggestions is not None
        assert hidden.suggestions.candidates == (Span("person", ((32.0, 12.0), (64.0, 36.0)), 0.9),)
        assert shown.suggestions is not None
        assert shown.suggestions.threshold == 0.2

    def test_what_is_below_the_threshold_is_a_candidate(self, images: Path) -> None:
        (task,) = self.suggester(FakeModel(), threshold=FixedThreshold(0.95))(tasks_of(images)[:1])
        assert task.suggestions is not None
        assert task.spans == ()
        assert [(span.label, span.score) for span in task.suggestions.candidates] == [("person", 0.9)]
        assert task.suggestions.uncertainty == pytest.approx(0.04)

    def test_control_images_are_shown_without_suggestions(self, images: Path) -> None:
        tasks = tasks_of(images)
        assert all(task.spans for task in self.suggester(FakeModel(), control=0.0)(tasks))
        everything = self.suggester(FakeModel(), control=0.999999)(tasks)
        assert [task.spans for task in everything] == [()] * 6
        record = write_task(everything[0])
        made = record["_suggestions"]
        assert (made["control"], made["spans"], len(made["hidden_spans"])) == (True, [], 1)
        assert "score" not in record["meta"]
        some = {task.image_id: is_control(task.image_id, 0.5) for task in tasks}
        assert all(is_control(image_id, 0.9) for image_id in some if some[image_id])

    def test_server_away_then_back(self, images: Path) -> None:
        clock, model = Clock(), FakeModel(None)
        said = Noted()
        suggester = self.suggester(model, clock, listener=said)
        tasks = tasks_of(images)
        assert suggester(tasks) == tasks
        assert suggester(tasks)[0].suggestions is None
        model.version = 7
        assert suggester(tasks) == tasks  # it is not asked again so soon
        clock.now += 1.5
        assert suggester(tasks)[0].version == 7
        assert model.asked == [6]
        away = "no suggestions: the model server is unreachable or has no version loaded yet"
        assert said.lines == [away, "suggestions are available again"]

    def test_server_dies_during_the_prediction(self, images: Path) -> None:
        model = FakeModel()
        said = Noted()
        model.error = ServerUnavailableError("connection refused")
        tasks = tasks_of(images)
        assert self.suggester(model, listener=said)(tasks) == tasks
        assert said.lines == ["no suggestions: connection refused"]
        assert model.asked == [6]  # the version is the same: it is not asked once more

    def test_a_version_that_is_swapped_in_between_is_asked_for_the_next_one(self, images: Path) -> None:
        """Suggestions carried the number of the version that was served before they were made."""

        class Swapping(FakeModel):
            def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
                self.version = 8
                self.error = None if version == 8 else ServerUnavailableError("Servable not found")
                return super().predict(images, batch_size=batch_size, version=version)

        model, said = Swapping(7), Noted()
        suggested = self.suggester(model, listener=said)(tasks_of(images))
        assert {task.version for task in suggested} == {8}
        assert model.asked_versions == [7, 8]
        assert said.lines == []

    def test_a_swapped_version_is_retried_once(self, images: Path) -> None:
        class Racing(FakeModel):
            def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
                assert version is not None
                self.version, self.error = version + 1, ServerUnavailableError(f"version {version} is gone")
                return super().predict(images, batch_size=batch_size, version=version)

        model, said = Racing(7), Noted()
        tasks = tasks_of(images)
        assert self.suggester(model, listener=said)(tasks) == tasks
        assert model.asked_versions == [7, 8]
        assert said.lines == ["no suggestions: version 8 is gone"]

    def test_one_refused_image_does_not_cost_the_others_their_suggestions(self, images: Path) -> None:
        tasks = tasks_of(images)
        bad = image_bytes(tasks[2])

        class Picky(FakeModel):
            def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
                if bad in images:
                    raise RequestError(400, "cannot decode")
                return super().predict(images, batch_size=batch_size, version=version)

        said = Noted()
        suggester = self.suggester(Picky(), listener=said)
        for _ in range(2):
            suggested = suggester(tasks)
            assert [len(task.spans) for task in suggested] == [1, 1, 0, 1, 1, 1]
            assert suggested[2].suggestions is None
        assert said.lines == ["no suggestions for 2.png: the server rejects it: cannot decode"]

    def test_is_fresh_compares_versions(self, images: Path) -> None:
        model = FakeModel(None)
        suggester, tasks = self.suggester(model, ask_again_after_s=0.0), tasks_of(images)[:1]
        assert not suggester.is_fresh(suggester(tasks)[0])  # nothing was suggested
        model.version = 7
        (task,) = suggester(tasks)
        assert suggester.is_fresh(task)
        model.version = 8
        assert not suggester.is_fresh(task)
        suggester(tasks)
        assert not suggester.is_fresh(task)  # whatever was said about others since
        model.version = None
        assert suggester.is_fresh(task)  # nobody there who knows better

    def test_another_program_at_the_port_is_asked_once(self, images: Path) -> None:
        """It was taken for a refusal of one of the images, and asked again for each of them, every time."""
        asked: list[int] = []

        class Stranger(FakeModel):
            def available_version(self) -> int | None:
                asked.append(1)
                raise RequestError(200, "not TensorFlow Serving's REST API")

        said = Noted()
        suggester = self.suggester(Stranger(), listener=said)
        tasks = tasks_of(images)
        assert suggester(tasks) == suggester(tasks) == tasks
        assert len(asked) == 1
        assert said.lines == ["no suggestions: not TensorFlow Serving's REST API"]

    def test_each_task_with_suggestions_is_told_of(self, images: Path) -> None:
        model, said = FakeModel(), Noted()
        suggester = self.suggester(model, listener=said)
        suggested = suggester(tasks_of(images))
        assert [task for task, _ in said.tasks] == suggested
        assert all(0 <= seconds < 1 for _, seconds in said.tasks)
        model.version = None
        suggester(tasks_of(images))
        assert len(said.tasks) == 6  # no suggestions, nothing to tell

    def test_an_unknown_class_is_reported_once(self, images: Path) -> None:
        said = Noted()
        suggester = self.suggester(FakeModel(found=5), listener=said)
        for _ in range(2):
            assert [task.spans for task in suggester(tasks_of(images))] == [()] * 6
        (text,) = said.lines
        assert text.startswith("the served model detects class 5, which is not in the label map (ids: 1, 2)")

    def test_an_unknown_class_below_the_threshold_is_nothing_to_tell(self, images: Path) -> None:
        said = Noted()
        self.suggester(FakeModel(found=5), threshold=FixedThreshold(0.95), listener=said)(tasks_of(images))
        assert said.lines == []

    def test_a_task_without_its_image(self) -> None:
        with pytest.raises(ImageError):
            image_bytes(bare_task("1", image="https://example.org/a.jpg"))


class TestTaskStream:
    def test_exclude_and_prepare(self, images: Path) -> None:
        everything = tasks_of(images)
        excluded = {everything[0].image_id}
        stream = TaskStream(
            images,
            FakeSuggester(lambda tasks: [replace(task, spans=(SPAN,)) for task in tasks], batch_size=1),
            exclude=excluded,
            prepare=lambda task: replace(task, other={"spans_seen": len(task.spans)}),
        )
        first = next(stream)
        assert (first.file, first.spans, first.other) == ("1.png", (SPAN,), {"spans_seen": 0})
        excluded.add(everything[2].image_id)
        assert names(stream) == ["3.png", "4.png", "5.png"]
        assert (stream.total, stream.excluded, stream.skipped) == (6, 2, 0)

    def test_images_answered_after_reading_are_skipped(self, images: Path) -> None:
        """A copy of an image, a few files further, was handed out although the image had just been answered."""
        (images / "1.png").write_bytes((images / "0.png").read_bytes())
        answered: set[str] = set()
        stream = TaskStream(images, FakeSuggester(batch_size=6), exclude=answered)
        answered.add(next(stream).image_id)
        assert names(stream) == ["2.png", "3.png", "4.png", "5.png"]
        assert stream.excluded == 1

    def test_prepare_may_leave_a_task_out(self, images: Path, tmp_path: Path) -> None:
        store = ImageStore(tmp_path / "store")
        stream = TaskStream(
            images,
            FakeSuggester(),
            ImageReader(store=store),
            prepare=lambda task: None if task.file < "4" else task,
        )
        assert names(stream) == ["4.png", "5.png"]
        assert stream.excluded == 4
        assert len(list(store.directory.iterdir())) == 2

    def test_an_image_that_is_known_to_be_answered_is_not_read(
        self, images: Path, tmp_path: Path, opened: list[str]
    ) -> None:
        known = tmp_path / "known.jsonl"
        answered = {task.image_id for task in TaskStream(images, FakeSuggester(), ImageReader(ids=ImageIds(known)))}
        fresh = save_image(images / "1.png", 99)  # changed since
        opened.clear()
        stream = TaskStream(images, FakeSuggester(), ImageReader(ids=ImageIds(known)), exclude=answered)
        assert names(stream) == [fresh.name]
        assert [name for name in opened if name.endswith(".png")] == [fresh.name]
        assert (stream.total, stream.excluded) == (6, 5)

    def test_an_image_that_is_known_but_not_answered_is_read(self, images: Path, tmp_path: Path) -> None:
        known = ImageIds(tmp_path / "known.jsonl")
        for _ in range(2):
            assert len(list(TaskStream(images, FakeSuggester(), ImageReader(ids=known)))) == 6

    def test_nothing_is_read_before_it_is_asked_for(self, images: Path, opened: list[str]) -> None:
        stream = TaskStream(images, FakeSuggester(batch_size=2))
        assert opened == []
        next(stream)
        assert opened == ["0.png", "1.png"]
        next(stream)
        assert opened == ["0.png", "1.png"]
        next(stream)
        assert opened == ["0.png", "1.png", "2.png", "3.png"]

    def test_broken_images_are_skipped_with_a_reason(self, images: Path) -> None:
        (images / "1.png").write_bytes(b"")
        (images / "2.png").write_bytes((images / "3.png").read_bytes()[:60])
        (images / "4.png").write_text("not an image")
        skipped: dict[str, str] = {}
        stream = TaskStream(images, FakeSuggester(), on_skip=skipped.__setitem__)
        assert names(stream) == ["0.png", "3.png", "5.png"]
        assert [Path(file).name for file in skipped] == ["1.png", "2.png", "4.png"]
        assert skipped[str(images / "1.png")] == "empty file"
        assert (stream.total, stream.excluded, stream.skipped) == (6, 0, 3)

    def test_a_file_that_went_away_is_skipped(self, images: Path) -> None:
        skipped: dict[str, str] = {}
        stream = TaskStream(images, FakeSuggester(), on_skip=skipped.__setitem__)
        (images / "3.png").unlink()
        assert len(list(stream)) == 5
        assert skipped == {str(images / "3.png"): "cannot be read: No such file or directory"}

    def test_broken_lines_and_broken_records_are_skipped(self, images: Path, tmp_path: Path) -> None:
        lines = tmp_path / "tasks.jsonl"
        lines.write_text('{"image": "images/0.png"}\nnonsense\n{"image": "https://example.org/a.png"}\n{}\n')
        skipped: list[str] = []
        stream = TaskStream(lines, FakeSuggester(), on_skip=lambda name, reason: skipped.append(name))
        assert names(stream) == ["0.png"]
        assert skipped == [f"{lines}:2", f"{lines}:3", f"{lines}:4"]
        assert (stream.total, stream.skipped) == (4, 3)

    @pytest.mark.parametrize("order", ["sequential", "random", "uncertain"])
    def test_no_line_of_a_source_ends_the_stream(self, images: Path, tmp_path: Path, order: str) -> None:
        """After `file://[x].jpg` the page said that all images were answered."""
        uri = read_image(images / "0.png").data_uri
        changes = [*poison.UNUSABLE.values(), *poison.HARMLESS.values()]
        lines = [json.dumps({"image": uri, **change}).encode() for change in changes]
        lines += [*poison.NOT_RECORDS.values(), json.dumps({"image": "images/5.png"}).encode()]
        path = tmp_path / "tasks.jsonl"
        path.write_bytes(b"\n".join(lines))
        skipped: dict[str, str] = {}
        stream = TaskStream(path, FakeSuggester(), on_skip=skipped.__setitem__, order=Order(order))
        tasks = list(stream)
        assert read_image(images / "5.png").image_id in {task.image_id for task in tasks}
        assert len(tasks) + len(skipped) == len(lines)
        bad_images = [number for number, change in enumerate(changes, start=1) if change.get("image", uri) != uri]
        expected = {f"{path}:{number}" for number in [*bad_images, *range(len(changes) + 1, len(lines))]}
        assert set(skipped) == expected

    @pytest.mark.parametrize("step", ["fingerprint", "read", "prepare", "keep"])
    def test_an_exception_that_nobody_expects_skips_one_image(
        self, images: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        calls: list[str] = []

        def fail_once(*_: Any) -> Any:
            calls.append(step)
            if len(calls) == 2:
                raise ZeroDivisionError("division by zero")
            return _[-1]

        reader = ImageReader()
        read = reader.read
        if step == "fingerprint":
            monkeypatch.setattr(Item, "fingerprint", property(lambda item: str(fail_once(item.number))))
        elif step == "read":
            monkeypatch.setattr(reader, "read", lambda item: read(fail_once(item)))
        elif step == "keep":
            monkeypatch.setattr(reader, "keep", fail_once)
        skipped: dict[str, str] = {}
        stream = TaskStream(
            images,
            FakeSuggester(),
            reader,
            prepare=fail_once if step == "prepare" else None,
            on_skip=skipped.__setitem__,
        )
        stream.remaining.follow(None)
        assert len(list(stream)) == 5
        assert list(skipped.values()) == ["ZeroDivisionError: division by zero"]
        assert stream.remaining.left(None) == 5

    def test_a_file_that_can_no_longer_be_read_is_reported(
        self, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "tasks.jsonl"
        path.write_text('{"image": "images/0.png"}\n{"image": "images/1.png"}\n')
        skipped: dict[str, str] = {}
        stream = TaskStream(path, FakeSuggester(), on_skip=skipped.__setitem__)

        def fail(*_: Any, **__: Any) -> Any:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Path, "open", fail)
        assert list(stream) == []
        assert skipped == {f"{path}:1": "this line and those after it cannot be read: Input/output error"}

    def test_images_of_urls_are_fetched(self, images: Path) -> None:
        data = (images / "0.png").read_bytes()
        stream = TaskStream([{"image": "https://example.org/a.png"}], FakeSuggester(), ImageReader(lambda url: data))
        assert image_bytes(next(stream)) == data

    def test_what_is_handed_out_is_in_the_store(self, images: Path, tmp_path: Path) -> None:
        store = ImageStore(tmp_path / "store")
        answered = {read_image(images / "0.png").image_id}
        tasks = list(TaskStream(images, FakeSuggester(), ImageReader(store=store), exclude=answered))
        assert len(tasks) == len(list(store.directory.iterdir())) == 5
        for task in tasks:
            name = store.claim(task.image_id)
            path = store.locate(name) if name else None
            assert path is not None
            assert path.read_bytes() == image_bytes(task)

    def test_a_full_disk_does_not_stop_it(self, images: Path, tmp_path: Path) -> None:
        class Full(ImageStore):
            def put(self, image: EncodedImage) -> Path:
                raise OSError(28, "No space left on device")

        stream = TaskStream(images, FakeSuggester(), ImageReader(store=Full(tmp_path / "store")))
        assert len(list(stream)) == 6
        assert stream.skipped == 0

    def test_too_many_pixels(self, images: Path) -> None:
        skipped: dict[str, str] = {}
        assert (
            list(TaskStream(images, FakeSuggester(), ImageReader(max_pixels=3000), on_skip=skipped.__setitem__)) == []
        )
        assert set(skipped.values()) == {
            "too large: 3,072 pixels, and at most 3,000 are decoded; scale it down, or raise --max-pixels"
        }

    def test_what_is_read_ahead_is_predicted_by_the_newest_version(self, images: Path) -> None:
        suggest, fresh = Numbered(), [False, True]
        stream = TaskStream(images, FakeSuggester(suggest, lambda task: fresh.pop(0), batch_size=3))
        assert [next(stream).version for _ in range(3)] == [1, 2, 2]
        assert [len(ids) for ids in suggest.asked] == [3, 3]

    @pytest.mark.parametrize(
        ("source", "total"),
        [
            (lambda images: images, 6),
            (lambda images: images / "0.png", 1),
            (lambda images: [images / "0.png", {"image": str(images / "1.png")}], 2),
            (lambda images: iter([images / "0.png"]), None),
        ],
    )
    def test_total(self, images: Path, source: Callable[[Path], Any], total: int | None) -> None:
        stream = TaskStream(source(images), FakeSuggester())
        assert stream.total == total
        assert len(list(stream)) == (total or 1)

    def test_nothing_there_is_said_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such file or directory"):
            TaskStream(tmp_path / "none", FakeSuggester())

    def test_several_threads_share_one_stream(self, images: Path) -> None:
        """A bare generator raises `generator already executing` here; Prodigy's handlers run on several threads."""
        together = threading.Barrier(3)

        def slow(tasks: Sequence[Task]) -> list[Task]:
            return [task for task in tasks if sum(range(20_000)) > 0]

        stream = TaskStream(
            [path for path in sorted(images.iterdir()) for _ in range(20)], FakeSuggester(slow, batch_size=1)
        )
        found: list[str] = []
        errors: list[BaseException] = []

        def fetch() -> None:
            together.wait()
            try:
                found.extend(task.file for task in stream)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=fetch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(found) == sorted(f"{number}.png" for number in range(6) for _ in range(20))


def test_what_is_answered_stays_answered_when_the_order_of_files_changes(tmp_path: Path, opened: list[str]) -> None:
    """Images are known by their contents, and by path, size and time: not by their place in the folder."""
    for number in (1, 2, 10):
        save_image(tmp_path / "folder" / f"{number}.png", 10 * number)
    files = [tmp_path / "folder" / f"{number}.png" for number in (1, 10, 2)]  # as folders were read before
    before = TaskStream(files, FakeSuggester(), ImageReader(ids=ImageIds(tmp_path / "ids.jsonl")))
    answered = {next(before).image_id, next(before).image_id}
    opened.clear()
    again = TaskStream(
        tmp_path / "folder", FakeSuggester(), ImageReader(ids=ImageIds(tmp_path / "ids.jsonl")), exclude=answered
    )
    assert [task.file for task in again] == ["2.png"]
    assert [name for name in opened if name.endswith(".png")] == ["2.png"], "the answered ones are not even read"


def test_a_slow_image_does_not_hold_up_newer_suggestions(images: Path) -> None:
    """They waited for each dead URL of the source, 15 s at a time."""
    reading, go_on = threading.Event(), threading.Event()

    class SlowReader(ImageReader):
        def read(self, item: Item, *, fetch: bool = True) -> Task:
            if reading.is_set():
                go_on.wait(10)
            return super().read(item, fetch=fetch)

    stream = TaskStream(images, FakeSuggester(), SlowReader())
    task = next(stream)
    reading.set()
    thread = threading.Thread(target=lambda: [next(stream, None) for _ in range(9)])
    thread.start()
    try:
        assert len(stream.suggest_again([task])) == 1
        assert not go_on.is_set()
    finally:
        go_on.set()
        thread.join(10)
