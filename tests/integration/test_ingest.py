from __future__ import annotations

import inspect
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras import inbox
from odkeras import project as rules
from odkeras.annotation import Annotation
from odkeras.data import attempts, records, replay
from odkeras.data import ingest as ingesting
from odkeras.data.attempts import MAX_DEATHS, ReadAttempts
from odkeras.data.ingest import IngestResult, ingest, record_number
from odkeras.data.replay import ReplayStore
from odkeras.data.replay_shards import list_shards
from odkeras.data.stored_example import index_record
from odkeras.errors import InboxError, RecordError
from odkeras.image_store import ImageStore
from odkeras.inbox import list_batches, put_batch
from odkeras.polygons import fill, from_xy_px
from odkeras.project import Project, read_jsonl
from tests import poison
from tests.fixtures_training import LABEL_MAP, Answer, answer

pytestmark = pytest.mark.integration


class Data:
    """A data directory, as a trainer process that was just started sees it."""

    def __init__(self, folder: Path) -> None:
        self.directories = Project(folder / "data", folder / "model", folder / "export")
        self.directories.create()

    def put(self, *answers: Answer) -> str:
        return put_batch(self.directories.inbox_dir, answers).name

    def take(self, store: ReplayStore | None = None, **options: Any) -> IngestResult:
        return ingest(self.directories, self.store() if store is None else store, LABEL_MAP, **options)

    def store(self) -> ReplayStore:
        return ReplayStore(self.directories)

    def counting(self) -> dict[str, str]:
        """Image to batch of what is trained on."""
        return {each.image_id: each.batch for each in self.store().examples()}

    def on_disk(self) -> list[tuple[str, str]]:
        """(image, batch) of all examples in all records."""
        found = [each for path in self.directories.train_records() for each in index_record(path)]
        return sorted((each.image_id, each.batch) for each in found)

    def inbox(self) -> list[Path]:
        return list_batches(self.directories.inbox_dir)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def span(label: str, *corners: float) -> dict[str, Any]:
    x1, y1, x2, y2 = corners
    return {"label": label, "points": [[x1, y1], [x1, y2], [x2, y2], [x2, y1]]}


class TestImagesBesideTheInbox:
    """Hosts put images there when they hand them out, and leave them out of the answers."""

    def put(self, data: Data, annotation: Annotation, **changes: Any) -> Path:
        """An answer without its image, which is stored beside the inbox; returns the image's file."""
        path = ImageStore(inbox.images_dir(data.directories.inbox_dir)).put(annotation.image)
        whole = {**answer(annotation), "stored_image": path.name, **changes}
        data.put({key: value for key, value in whole.items() if key != "image"})
        return path

    def test_stored_images_get_into_the_record(self, data: Data, shapes: list[Annotation]) -> None:
        path = self.put(data, shapes[0])
        taken = data.take()
        assert taken.accepted == 1
        (example,) = data.store().examples()
        assert records.annotation_from_example(example.read()).image == shapes[0].image
        assert path.exists()  # another session may answer about it within the hour

    def test_stored_images_are_removed_after_an_hour(self, data: Data, shapes: list[Annotation]) -> None:
        path = self.put(data, shapes[0])
        os.utime(path, (0, 0))
        assert data.take().accepted == 1  # read before it goes
        assert not path.exists()

    def test_an_answer_that_cannot_be_used_is_kept_with_its_image(self, data: Data, shapes: list[Annotation]) -> None:
        self.put(data, shapes[0], spans=[span("zebra", 1, 1, 20, 20)])
        assert data.take().unusable == 1
        (row,) = read_jsonl(data.directories.rejected_path)
        assert Path(row["answer"]["image"]).read_bytes() == shapes[0].image.data
        assert Path(row["answer"]["image"]).parent == data.directories.kept_images_dir
        assert "stored_image" not in row["answer"]

    def test_a_large_backlog_is_taken_in_parts(
        self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Days of answers, taken into memory at once, ended the trainer again and again."""
        monkeypatch.setattr(ingesting, "MAX_BYTES", 1.5 * len(shapes[0].image.data))
        paths = [self.put(data, each) for each in shapes[:4]]
        for path in paths:
            os.utime(path, (0, 0))  # and nothing of what still waits is deleted
        assert [data.take().accepted for _ in range(3)] == [2, 2, 0]
        assert len(data.counting()) == 4

    @pytest.mark.parametrize("name", ["../../secret.png", 7, None, "a.jpeg"])
    def test_invalid_names_of_stored_images_are_refused(self, data: Data, shapes: list[Annotation], name: Any) -> None:
        self.put(data, shapes[0], stored_image=name)
        assert data.take().unusable == 1


class TestOneRecord:
    def test_from_several_batches(self, data: Data, shapes: list[Annotation]) -> None:
        first = data.put(answer(shapes[0]), answer(shapes[1]))
        second = data.put(answer(shapes[2]))
        found = data.take(clock=lambda: 1_700_000_000.9)
        record = data.directories.data_dir / "1700000000_train.record"
        assert found == IngestResult(batches=(first, second), record=record, accepted=3)
        read = [records.annotation_from_example(example) for example in records.read_records(record)]
        assert [each.batch for each in read] == [first, first, second]
        for given, got in zip(shapes, read, strict=False):
            assert (got.image.data, got.image_id, got.file) == (given.image.data, given.image_id, given.file)
            np.testing.assert_allclose(got.groundtruth.boxes, given.groundtruth.boxes, atol=1e-6)
            assert got.groundtruth.classes.tolist() == given.groundtruth.classes.tolist()
        assert data.inbox() == []
        assert rules.read_jsonl(data.directories.rejected_path) == []

    def test_the_latest_answer_about_an_image(self, data: Data, shapes: list[Annotation]) -> None:
        image_id = shapes[0].image_id
        data.put(answer(shapes[0]))
        last = data.put({**answer(shapes[0]), "spans": []})
        found = data.take()
        assert (found.accepted, data.on_disk()) == (1, [(image_id, last)])

    def test_numbers_increase_although_the_clock_goes_back(self, data: Data, shapes: list[Annotation]) -> None:
        numbers = []
        for shape, now_s in zip(shapes, [2000.0, 1000.0, 1500.0, 2001.0, 3000.0], strict=False):
            data.put(answer(shape))
            record = data.take(clock=lambda now_s=now_s: now_s).record
            assert record is not None
            numbers.append(record_number(record))
        assert numbers == [2000, 2001, 2002, 2003, 3000]
        assert [record_number(path) for path in data.directories.train_records()] == numbers


class TestMasks:
    CORNERS = ([10, 10], [50, 12], [30, 60])

    @pytest.fixture
    def outlined(self, shapes: list[Annotation]) -> Answer:
        polygon = {"label": "triangle", "type": "polygon", "points": list(self.CORNERS)}
        return {**answer(shapes[0]), "spans": [polygon, span("circle", 60, 20, 80, 40)]}

    def masks(self, found: IngestResult) -> list[list[np.ndarray]]:
        """The masks of each example in the record, in the order of its objects."""
        assert found.record is not None
        features = [tf.train.Example.FromString(each).features.feature for each in records.read_records(found.record)]
        return [
            [tf.io.decode_png(mask)[..., 0].numpy() > 0 for mask in each["image/object/mask"].bytes_list.value]
            for each in features
        ]

    def test_a_polygon_brings_them(self, data: Data, shapes: list[Annotation], outlined: Answer) -> None:
        data.put(outlined, answer(shapes[1]))
        (polygon, box), others = self.masks(data.take())
        size_hw = shapes[0].image.image_size_hw
        assert polygon.shape == box.shape == size_hw
        np.testing.assert_array_equal(polygon, fill(from_xy_px(self.CORNERS, size_hw), size_hw))
        assert box[20:40, 60:80].all() and box.sum() == 400
        assert others == []

    def test_for_every_example_when_the_model_learns_them(
        self, data: Data, shapes: list[Annotation], outlined: Answer
    ) -> None:
        data.put(outlined, answer(shapes[1]), {**answer(shapes[2]), "spans": []})
        counts = [len(masks) for masks in self.masks(data.take(masks=True))]
        assert counts == [2, len(shapes[1].groundtruth), 0]


class TestWithdrawals:
    @pytest.mark.parametrize("decision", ["reject", "ignore"])
    def test_a_batch_of_them_leaves_no_record(self, data: Data, shapes: list[Annotation], decision: str) -> None:
        data.put(answer(shapes[0]), answer(shapes[1]))
        data.take()
        batch = data.put(answer(shapes[0], decision))
        found = data.take()
        assert replace(found, work=()) == IngestResult(batches=(batch,), withdrawn=1)
        assert [row["image_id"] for row in found.work if row["withdrawn"]] == [shapes[0].image_id]
        assert len(data.directories.train_records()) == 1
        assert list(data.counting()) == [shapes[1].image_id]
        assert data.inbox() == []

    @pytest.mark.parametrize("decisions", [("accept", "reject"), ("reject", "accept"), ("accept", "reject", "accept")])
    def test_the_last_answer_of_one_batch(
        self, data: Data, shapes: list[Annotation], decisions: tuple[str, ...]
    ) -> None:
        data.put(*(answer(shapes[0], decision) for decision in decisions))
        found = data.take()
        accepted = decisions[-1] == "accept"
        assert (found.accepted, found.withdrawn, found.record is not None) == (accepted, not accepted, accepted)
        assert list(data.counting()) == [shapes[0].image_id] * accepted


class TestUnusableAnswers:
    def test_they_are_kept_with_their_reason(self, data: Data, shapes: list[Annotation]) -> None:
        broken = {**answer(shapes[1]), "image": "data:image/jpeg;base64,AAAA"}
        unknown = {**answer(shapes[2]), "answer": "perhaps"}
        batch = data.put(answer(shapes[0]), broken, unknown)
        found = data.take()
        assert (found.accepted, found.unusable) == (1, 2)
        rows = read_jsonl(data.directories.rejected_path)
        assert [(row["batch"], row["number"]) for row in rows] == [(batch, 2), (batch, 3)]
        assert rows[0]["answer"] == broken
        kept = rows[1]["answer"]  # its image is a file, so that this one stays small
        assert {**kept, "image": unknown["image"]} == unknown
        assert Path(kept["image"]).read_bytes() == shapes[2].image.data
        assert rows[1]["reason"].endswith("answer must be 'accept', 'reject' or 'ignore'; got 'perhaps'")
        assert shapes[1].file in rows[0]["reason"]
        assert list(data.counting()) == [shapes[0].image_id]

    def test_a_line_that_is_not_json(self, data: Data, shapes: list[Annotation]) -> None:
        path = data.directories.inbox_dir / "00000000000000000001-dropped-by-hand.jsonl"
        path.write_text(json.dumps(answer(shapes[0])) + "\nnot json\n")
        assert data.take().unusable == 1
        (row,) = read_jsonl(data.directories.rejected_path)
        assert row["reason"].startswith(f"{path.name}:2: not JSON")
        assert (row["number"], row["answer"]) == (2, None)

    def test_none_is_noted_twice(self, data: Data) -> None:
        """After a crash the same batch is read again."""
        batch = data.put({"answer": "accept"}, {"answer": "maybe"})
        waiting = data.inbox()[0].read_bytes()
        for _ in range(3):
            (data.directories.inbox_dir / batch).write_bytes(waiting)
            data.take()
        assert [(row["batch"], row["number"]) for row in read_jsonl(data.directories.rejected_path)] == [
            (batch, 1),
            (batch, 2),
        ]

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            (span("hexagon", 10, 10, 40, 40), "label 'hexagon' is not in the label map"),
            (span("circle", float("nan"), 10, 40, 40), "coordinates must be finite numbers; got nan"),
            (span("circle", 20, 20, 20, 40), "'circle' has no area inside the image"),
            (span("circle", -50, 10, -5, 40), "'circle' has no area inside the image"),
            ({"label": "circle", "x": 1, "y": 1, "width": None, "height": 4}, "must be finite numbers; got None"),
            ({"points": [[1, 1], [9, 9]]}, "it has no label"),
        ],
        ids=["unknown label", "NaN", "zero area", "outside", "null", "no label"],
    )
    def test_a_box_that_cannot_be_used_is_reported(
        self, data: Data, shapes: list[Annotation], bad: dict[str, Any], problem: str
    ) -> None:
        good = span("circle", 10, 10, 40, 40)
        data.put({**answer(shapes[0]), "spans": [good, bad]})
        data.put({**answer(shapes[1]), "spans": [bad]})
        found = data.take()
        assert (found.accepted, found.unusable) == (1, 1)
        (told,) = found.problems
        assert told.startswith(f"{shapes[0].file}: span 2: ") and problem in told
        assert found.record is not None
        (example,) = records.read_records(found.record)
        assert len(records.annotation_from_example(example).groundtruth) == 1
        (row,) = read_jsonl(data.directories.rejected_path)  # as a negative example it would teach a wrong thing
        assert "none of its 1 spans is usable" in row["reason"] and problem in row["reason"]


class TestPoison:
    """An answer that raised anything but AnswerError ended the trainer, which read it again at each of its starts."""

    @pytest.mark.parametrize("change", poison.UNUSABLE.values(), ids=poison.UNUSABLE)
    def test_one_answer_is_rejected_and_the_others_are_trained_on(
        self, data: Data, shapes: list[Annotation], change: dict[str, Any]
    ) -> None:
        data.put(answer(shapes[0]), {**answer(shapes[1]), **change}, answer(shapes[2]))
        taken = data.take()
        assert (taken.accepted, taken.unusable, data.inbox()) == (2, 1, [])
        (row,) = read_jsonl(data.directories.rejected_path)
        assert row["number"] == 2 and row["reason"]
        row["reason"].encode()  # the page and the terminal show it

    @pytest.mark.parametrize("facts", poison.HARMLESS.values(), ids=poison.HARMLESS)
    def test_facts_that_training_does_not_need(
        self, data: Data, shapes: list[Annotation], facts: dict[str, Any]
    ) -> None:
        data.put({**answer(shapes[0]), **facts})
        assert data.take().accepted == 1
        assert data.store().examples()

    @pytest.mark.parametrize("digits", [400, 5000])
    def test_numbers_with_many_digits(self, data: Data, shapes: list[Annotation], digits: int) -> None:
        """Python refuses to parse an integer of more than 4300 digits."""
        text = json.dumps({**answer(shapes[0]), "x": 7}).replace('"x": 7', f'"x": {"9" * digits}')
        path = data.directories.inbox_dir / "00000000000000000001-a.jsonl"
        path.write_text(f"{text}\n{json.dumps(answer(shapes[1]))}\n")
        taken = data.take()
        assert (taken.accepted, taken.unusable) == ((2, 0) if digits < 4300 else (1, 1))

    @pytest.mark.parametrize(("step", "accepted"), [("read_annotation", 1), ("work_row", 2)])
    def test_an_exception_that_nobody_expects(
        self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch, step: str, accepted: int
    ) -> None:
        """Counting the edits is no part of training: the answer is used."""
        works = getattr(ingesting, step)

        calls = itertools.count()

        def fail(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == 1:
                raise ZeroDivisionError("division by zero")
            return works(*args, **kwargs)

        monkeypatch.setattr(ingesting, step, fail)
        data.put(answer(shapes[0]), answer(shapes[1]))
        assert data.take().accepted == accepted
        reasons = [row["reason"] for row in read_jsonl(data.directories.rejected_path)]
        assert reasons == ["ZeroDivisionError: division by zero"] * (2 - accepted)

    def test_an_example_that_cannot_be_written(
        self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        works = records.example_from_annotation

        def fail(annotation: Annotation, *args: Any, **kwargs: Any) -> Any:
            if annotation.image_id == shapes[0].image_id:
                raise OverflowError("too large")
            return works(annotation, *args, **kwargs)

        monkeypatch.setattr(records, "example_from_annotation", fail)
        data.put(answer(shapes[0]), answer(shapes[1]))
        taken = data.take()
        assert (taken.accepted, taken.unusable) == (1, 1)

    def test_a_batch_that_kills_the_process_is_set_aside(
        self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deadly, other = data.put(answer(shapes[0])), data.put(answer(shapes[1]))
        works = inbox.read_batch

        def die(path: Path) -> Any:
            if path.name == deadly:
                raise Killed
            return works(path)

        monkeypatch.setattr(inbox, "read_batch", die)
        for _ in range(MAX_DEATHS):
            with pytest.raises(Killed):
                data.take()
        taken = data.take()
        assert (taken.batches, taken.accepted, taken.unusable) == ((deadly, other), 1, 1)
        (row,) = read_jsonl(data.directories.rejected_path)
        assert "the trainer ended 3 times while it read this batch" in row["reason"]
        assert data.inbox() == []
        aside = data.directories.inbox_dir / "set-aside" / deadly
        monkeypatch.setattr(inbox, "read_batch", works)
        aside.rename(data.directories.inbox_dir / deadly)  # by the user
        assert data.take().accepted == 1

    def test_deaths_count_only_for_one_batch_in_a_row(
        self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data.put(answer(shapes[0]))
        for _ in range(MAX_DEATHS - 1):
            with monkeypatch.context() as patched, pytest.raises(Killed):
                CrashPoint(inbox, "read_batch", call=1, after=True).install(patched)
                data.take()
        assert data.take().accepted == 1
        assert not data.directories.reading_path.exists()

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"batch": 7, "attempts": 9}', '{"batch": "a", "attempts": "9"}'])
    def test_a_damaged_count_is_no_count(self, data: Data, shapes: list[Annotation], text: str) -> None:
        data.directories.reading_path.write_text(text)
        data.put(answer(shapes[0]))
        assert data.take().accepted == 1

    def test_entries_that_are_no_batches(self, data: Data, shapes: list[Annotation]) -> None:
        inbox_dir = data.directories.inbox_dir
        (inbox_dir / "folder.jsonl").mkdir()
        (inbox_dir / "link.jsonl").symlink_to("nowhere")
        Path(os.fsdecode(os.fsencode(inbox_dir) + b"/\xff.jsonl")).write_text(json.dumps(answer(shapes[1])))
        data.put(answer(shapes[0]))
        assert (data.take().accepted, data.inbox()) == (1, [])
        reasons = [row["reason"] for row in read_jsonl(data.directories.rejected_path)]
        assert len(reasons) == 3 and all("not a regular file" in reason for reason in reasons)
        assert len(list((inbox_dir / "set-aside").iterdir())) == 3


def test_more_boxes_than_the_reader_takes_are_reported(data: Data, shapes: list[Annotation]) -> None:
    """The others were trained as background, without a word."""
    spans = [span("circle", 10 + number, 10, 40, 40) for number in range(4)]
    data.put({**answer(shapes[0]), "spans": spans}, {**answer(shapes[1]), "spans": spans[:3]})
    (problem,) = data.take(max_boxes=3).problems
    assert problem.startswith(f"{shapes[0].file}: 4 boxes, but train_input_reader.max_number_of_boxes is 3: the others")


class TestFailures:
    def test_a_batch_that_cannot_be_read(
        self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data.put(answer(shapes[0]))

        def fail(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        store = data.store()
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", fail)
            with pytest.raises(InboxError, match=r"cannot read the batch .*: Permission denied"):
                data.take(store)
        assert len(data.inbox()) == 1

    def test_a_full_disk(self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch) -> None:
        batch = data.put(answer(shapes[0]))

        def full(path: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", full)
            patched.setattr(attempts, "write_atomically", lambda path, data: None)
            with pytest.raises(RecordError, match=r"_train\.record: No space left on device"):
                data.take()
        assert [path.name for path in data.inbox()] == [batch]
        assert data.take().accepted == 1


class Killed(BaseException):
    """SIGKILL, as far as one process can feel it."""


class CrashPoint:
    """Raises at the first, second, ... call of a function, before or after its work; later calls go through."""

    def __init__(self, owner: Any, name: str, *, call: int, after: bool) -> None:
        self.owner, self.name, self._call, self._after = owner, name, call, after
        self._works = getattr(owner, name)
        self.calls = 0

    def install(self, patched: pytest.MonkeyPatch) -> None:
        def replacement(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls != self._call:
                return self._works(*args, **kwargs)
            if self._after:
                result = self._works(*args, **kwargs)
                _ = list(result) if inspect.isgenerator(result) else None
            raise Killed

        patched.setattr(self.owner, self.name, replacement)


# What ingest calls, in its order, each with the number of its calls for the batches below.
STEPS: list[tuple[Any, str, int]] = [
    (inbox, "read_batch", 4),
    (attempts, "write_atomically", 4),
    (ReadAttempts, "clear", 4),
    (ingesting, "_note_rejected", 1),
    (rules, "append_jsonl", 1),
    (ReplayStore, "withdraw", 1),
    (replay, "append_jsonl", 1),
    (records, "write_records", 1),
    (rules, "sync_to_disk", 10),  # of each attempt and of the record, and of their names
    (Path, "replace", 5),
    (ReplayStore, "add_record", 1),
    (Path, "unlink", 8),
]
CRASHES = [
    pytest.param(owner, name, call, after, id=f"{'after' if after else 'before'} {name} {call}")
    for owner, name, calls in STEPS
    for call, after in itertools.product(range(1, calls + 1), (False, True))
]


class TestCrashes:
    @pytest.mark.parametrize(("owner", "name", "call", "after"), CRASHES)
    def test_between_any_two_steps(
        self,
        data: Data,
        shapes: list[Annotation],
        monkeypatch: pytest.MonkeyPatch,
        owner: Any,
        name: str,
        call: int,
        after: bool,
    ) -> None:
        a, b, c, d, e = shapes[:5]
        before = data.put(answer(e))
        data.take()
        broken: Answer = {"answer": "accept"}
        first = data.put(answer(a), answer(b), broken)
        second = data.put(answer(b), answer(e, "reject"), broken)
        third = data.put(answer(c, "reject"), broken)  # nothing of it gets into a record
        last = data.put(answer(d))
        point = CrashPoint(owner, name, call=call, after=after)
        with monkeypatch.context() as patched:
            point.install(patched)
            with pytest.raises(Killed):
                data.take()
        data.take()
        assert data.inbox() == []
        expected = {a.image_id: first, b.image_id: second, d.image_id: last}
        assert data.counting() == expected
        assert data.on_disk() == sorted([*expected.items(), (e.image_id, before)])
        assert [(row["batch"], row["number"]) for row in read_jsonl(data.directories.rejected_path)] == [
            (first, 3),
            (second, 3),
            (third, 2),
        ]
        withdrawn = [(row["image_id"], row["batch"]) for row in read_jsonl(data.directories.withdrawn_path)]
        assert withdrawn == [(e.image_id, second), (c.image_id, third)]
        assert data.take() == IngestResult()

    def test_answers_that_a_later_batch_undid_do_not_come_back(
        self, data: Data, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first batch has nothing in the record, so after the crash it is not recognised and is written again;
        the batch it came in tells that it is out of date."""
        a, b, c = shapes[:3]
        data.put(answer(a), answer(b))
        second = data.put({**answer(a), "spans": []}, answer(b, "reject"), answer(c))
        with monkeypatch.context() as patched:
            CrashPoint(ReplayStore, "add_record", call=1, after=False).install(patched)
            with pytest.raises(Killed):
                data.take()
        data.take()
        assert data.inbox() == []
        assert data.counting() == {a.image_id: second, c.image_id: second}
        data.put(answer(shapes[3]))
        data.take()
        data.store().compact(1)
        (shard,) = list_shards(data.directories.replay_dir)
        moved = index_record(shard)
        assert {(each.image_id, each.batch) for each in moved} == {(a.image_id, second), (c.image_id, second)}
