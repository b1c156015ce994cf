from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
import tensorflow as tf

from odkeras.annotation import Annotation
from odkeras.data import records, replay_shards
from odkeras.data.example_set import shuffle_and_repeat
from odkeras.data.replay import ReplayStore
from odkeras.data.replay_shards import list_shards
from odkeras.data.stored_example import StoredExample, index_record
from odkeras.errors import RecordError
from odkeras.labels import Label, LabelMap
from odkeras.project import Project
from tests.fixtures_training import LABEL_MAP as SHAPES

pytestmark = pytest.mark.integration

Place = tuple[str, str]


def example(image_id: str, batch: str, size: int = 40, classes: tuple[str, ...] = (), split: str = "") -> bytes:
    """A serialized example whose picture tells which answer it is of."""
    picture = f"{image_id} of {batch} ".encode().ljust(size, b".")
    features = {
        "image/source_id": [image_id.encode()],
        records.BATCH_FEATURE: [batch.encode()],
        "image/encoded": [picture],
        "image/object/class/text": [name.encode() for name in classes],
        records.SPLIT_FEATURE: [split.encode()] if split else [],
    }
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)) for name, values in features.items()
            }
        )
    ).SerializeToString()


@pytest.fixture
def directories(tmp_path: Path) -> Project:
    made = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
    made.create()
    return made


def write(directories: Project, number: int, *places: Place) -> Path:
    path = directories.data_dir / f"{number}_train.record"
    records.write_records(path, [example(*place) for place in places])
    return path


def loaded(directories: Project) -> ReplayStore:
    return ReplayStore(directories)


def places(store: ReplayStore) -> list[Place]:
    """(image, batch) of what counts; what is read must be the example itself."""
    for each in store.examples():
        assert each.read().startswith(b"\n") and f"{each.image_id} of {each.batch} ".encode() in each.read()
    return [(each.image_id, each.batch) for each in store.examples()]


class TestWhatCounts:
    def test_the_latest_answer_about_an_image(self, directories: Project) -> None:
        write(directories, 5, ("a", "b1"), ("b", "b1"), ("c", "b1"))
        write(directories, 10, ("b", "b2"), ("d", "b2"))  # after 5, although "10" sorts before "5"
        store = loaded(directories)
        assert places(store) == [("a", "b1"), ("c", "b1"), ("b", "b2"), ("d", "b2")]
        assert len(store) == 4
        assert store.batches == {"b1", "b2"}

    def test_the_later_batch_wins_in_any_file(self, directories: Project) -> None:
        write(directories, 1, ("a", "b9"))
        write(directories, 2, ("a", "b3"))
        assert places(loaded(directories)) == [("a", "b9")]

    def test_some_files_only(self, directories: Project) -> None:
        first = write(directories, 1, ("a", "b1"), ("b", "b1"))
        second = write(directories, 2, ("b", "b2"))
        store = loaded(directories)
        assert [each.image_id for each in store.examples(only={first})] == ["a"]  # "b" counts in the second alone
        assert [each.image_id for each in store.examples(only={second})] == ["b"]
        assert store.examples(only=set()) == []


class TestClassesThatTheLabelMapDoesNotHave:
    """A class was renamed or removed: the Object Detection API dropped its objects without a word, and the model was
    trained that there is nothing in these images."""

    @pytest.fixture
    def written(self, directories: Project) -> Project:
        examples = [
            example("old", "b1", classes=("raccoon", "raccoon")),
            example("both", "b1", classes=("raccoon", "cat")),
            example("new", "b2", classes=("racoon",)),
            example("shown", "b2", classes=("Tom",)),
            example("nothing", "b2"),
        ]
        records.write_records(directories.data_dir / "1_train.record", examples)
        return directories

    def store(self, directories: Project, label_map: LabelMap, eval_split: float = 0.0) -> ReplayStore:
        store = ReplayStore(directories, eval_split, label_map.texts)
        return store

    def test_images_with_unknown_classes_are_skipped_and_reported(self, written: Project) -> None:
        label_map = LabelMap((Label(1, "racoon"), Label(2, "cat", "Tom")))
        store = self.store(written, label_map)
        assert [each.image_id for each in store.examples()] == ["new", "nothing", "shown"]
        assert "2 of 5 annotated images are not used" in store.unknown_classes_message
        assert "('cat' in" not in store.unknown_classes_message and "('raccoon' in 2)" in store.unknown_classes_message
        assert "Restore these names in the label map" in store.unknown_classes_message
        assert [each.image_id for each in self.store(written, label_map, 1.0).held_out()] == ["new", "nothing", "shown"]

    def test_they_stay_in_the_records(self, written: Project) -> None:
        store = self.store(written, LabelMap.from_names(["racoon"]))
        records.write_records(written.data_dir / "2_train.record", [example("later", "b3")])
        store.add_record(written.data_dir / "2_train.record")
        assert len(store.compact(1)) == 1
        store = self.store(written, LabelMap.from_names(["raccoon", "racoon", "cat", "Tom"]))
        assert len(store.examples()) == 6
        assert store.unknown_classes_message == ""


class TestWithdrawal:
    def test_a_later_reject_takes_an_image_out(self, directories: Project) -> None:
        write(directories, 1, ("a", "b1"), ("b", "b1"))
        store = loaded(directories)
        store.withdraw({"a": "b2"})
        assert places(store) == places(loaded(directories)) == [("b", "b1")]

    def test_a_later_accept_brings_it_back(self, directories: Project) -> None:
        write(directories, 1, ("a", "b1"))
        store = loaded(directories)
        store.withdraw({"a": "b2"})
        store.add_record(write(directories, 2, ("a", "b3")))
        assert places(store) == places(loaded(directories)) == [("a", "b3")]

    def test_an_earlier_reject_does_not_matter(self, directories: Project) -> None:
        store = loaded(directories)
        store.withdraw({"a": "b1"})
        store.add_record(write(directories, 1, ("a", "b2")))
        store.withdraw({"a": "b1"})  # the batch is read again after a crash
        assert places(store) == places(loaded(directories)) == [("a", "b2")]


class TestCompaction:
    def test_compaction_moves_only_current_examples(self, directories: Project) -> None:
        first = write(directories, 1, ("a", "b1"), ("b", "b1"), ("c", "b1"))
        second = write(directories, 2, ("b", "b2"), ("d", "b2"))
        third = write(directories, 3, ("c", "b3"), ("e", "b3"))
        store = loaded(directories)
        store.withdraw({"d": "b4"})
        before = {each.image_id: each.read() for each in store.examples()}
        assert store.compact(1) == [first, second]
        assert directories.train_records() == [third]
        (shard,) = list_shards(directories.replay_dir)
        assert [(each.image_id, each.batch) for each in index_record(shard)] == [("a", "b1"), ("b", "b2")]
        for now in (store, loaded(directories)):
            assert {each.image_id: each.read() for each in now.examples()} == before
            assert {each.path for each in now.examples()} == {shard, third}
        assert list(records.read_records(shard)) == [before["a"], before["b"]]  # with TensorFlow's checksums

    def test_again_and_again(self, directories: Project) -> None:
        store = loaded(directories)
        for number in range(1, 8):
            store.add_record(write(directories, number, (f"i{number}", f"b{number}"), ("always", f"b{number}")))
            store.compact(2)
        expected = [*((f"i{number}", f"b{number}") for number in range(1, 7)), ("always", "b7"), ("i7", "b7")]
        assert places(store) == places(loaded(directories)) == expected
        assert [path.name for path in directories.train_records()] == ["6_train.record", "7_train.record"]
        (shard,) = list_shards(directories.replay_dir)
        assert [each.image_id for each in index_record(shard)] == [f"i{number}" for number in range(1, 6)]

    @pytest.mark.parametrize("keep", [0, -1, 2, 5])
    def test_compaction_does_nothing_below_the_limit(self, directories: Project, keep: int) -> None:
        write(directories, 1, ("a", "b1"))
        write(directories, 2, ("b", "b2"))
        assert loaded(directories).compact(keep) == []
        assert len(directories.train_records()) == 2
        assert list_shards(directories.replay_dir) == []

    def test_a_crash_before_the_old_records_are_deleted(
        self, directories: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(directories, 1, ("a", "b1"), ("b", "b1"))
        write(directories, 2, ("b", "b2"))
        store = loaded(directories)

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                store.compact(1)
        assert len(directories.train_records()) == 2
        again = loaded(directories)
        assert places(again) == [("a", "b1"), ("b", "b2")]
        again.compact(1)
        assert places(again) == places(loaded(directories)) == [("a", "b1"), ("b", "b2")]

    def test_a_crash_between_two_deletions(self, directories: Project) -> None:
        """The newest of an image's answers moved, and its record is gone; an older record is still there."""
        first = write(directories, 1, ("a", "b1"))
        data = first.read_bytes()
        write(directories, 2, ("a", "b2"))
        write(directories, 3, ("c", "b3"))
        loaded(directories).compact(1)
        first.write_bytes(data)
        again = loaded(directories)
        assert places(again) == [("a", "b2"), ("c", "b3")]
        again.compact(1)
        assert places(again) == places(loaded(directories)) == [("a", "b2"), ("c", "b3")]

    def test_a_full_disk_leaves_everything_as_it_was(
        self, directories: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(directories, 1, ("a", "b1"))
        write(directories, 2, ("b", "b2"))
        store = loaded(directories)

        def full(path: Path) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(replay_shards, "sync_to_disk", full)
            with pytest.raises(RecordError, match=r"cannot write .*00000001\.record: No space left on device"):
                store.compact(1)
        assert len(directories.train_records()) == 2
        assert places(store) == places(loaded(directories)) == [("a", "b1"), ("b", "b2")]
        assert store.compact(1) and places(store) == places(loaded(directories)) == [("a", "b1"), ("b", "b2")]


class TestPositions:
    def test_the_index_has_tensorflow_s_positions(self, directories: Project) -> None:
        path = directories.data_dir / "1_train.record"
        written = [example(f"i{number}", "b1", size) for number, size in enumerate([1, 200, 70_000])]
        records.write_records(path, written)
        assert [each.read() for each in index_record(path)] == written == list(records.read_records(path))

    @pytest.mark.parametrize("missing", [1, 3, 4, 5, 50])  # in the last checksum, at its start, in the example
    def test_a_record_that_was_cut_off(self, directories: Project, missing: int) -> None:
        path = write(directories, 1, ("a", "b1"), ("b", "b1"))
        second = index_record(path)[1].offset
        path.write_bytes(path.read_bytes()[:-missing])
        with pytest.raises(RecordError, match=rf"1_train\.record is damaged at byte {second}; move it away"):
            loaded(directories)

    @pytest.mark.parametrize("length", [1 << 39, 1 << 41, (1 << 64) - 1])
    def test_a_length_that_cannot_be(self, directories: Project, length: int) -> None:
        """A damaged length of some hundred gigabytes was read in one piece: MemoryError instead of RecordError."""
        path = write(directories, 1, ("a", "b1"))
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
        with pytest.raises(RecordError, match=r"is damaged at byte 12"):
            index_record(path)

    def test_a_file_that_is_not_a_record_is_an_error(self, directories: Project) -> None:
        path = directories.replay_record
        path.write_text("path,xmin,ymin,xmax,ymax,label\nraccoon-1.jpg,81,88,522,408,raccoon\n")
        with pytest.raises(RecordError, match=r"replay\.record is damaged at byte 12; move it away"):
            loaded(directories)

    def test_examples_of_another_tool(self, directories: Project) -> None:
        """They have no batch, so they are older than every answer; they did not count at all."""
        foreign = [tf.train.Example() for _ in range(2)]
        for name, each in zip((b"a", b"b"), foreign, strict=True):
            each.features.feature["image/source_id"].bytes_list.value.append(name)
        path = directories.data_dir / "1_train.record"
        records.write_records(path, [each.SerializeToString() for each in foreign])
        write(directories, 2, ("b", "b1"))
        store = loaded(directories)
        assert [(each.image_id, each.batch) for each in store.examples()] == [("a", ""), ("b", "b1")]
        store.withdraw({"a": "b2"})
        assert places(store) == places(loaded(directories)) == [("b", "b1")]

    def test_examples_without_an_image_s_name(
        self, directories: Project, annotations: dict[str, Annotation], label_map: LabelMap
    ) -> None:
        """All of them were taken for one image, so that only the last one counted."""
        foreign = []
        for annotation in annotations.values():
            example = records.example_from_annotation(annotation, label_map)
            del example.features.feature["image/source_id"]
            foreign.append(example.SerializeToString())
        records.write_records(directories.data_dir / "1_train.record", foreign)
        ids = {each.image_id for each in loaded(directories).examples()}
        assert ids == {annotation.image_id for annotation in annotations.values()}

    def test_a_deleted_or_truncated_record_is_an_error(self, directories: Project) -> None:
        path = write(directories, 1, ("a", "b1"))
        (stored,) = index_record(path)
        path.write_bytes(path.read_bytes()[:30])
        with pytest.raises(RecordError, match=rf"should have {stored.length} bytes; it has 18"):
            stored.read()
        path.unlink()
        with pytest.raises(RecordError, match=r"cannot read .*1_train\.record: No such file"):
            stored.read()


class TestShuffling:
    @pytest.fixture
    def stored(self, directories: Project) -> list[StoredExample]:
        return index_record(write(directories, 1, *((f"i{number}", "b1") for number in range(12))))

    def test_every_example_once_per_pass(self, stored: list[StoredExample]) -> None:
        stream = shuffle_and_repeat(stored)
        passes = [list(itertools.islice(stream, len(stored))) for _ in range(3)]
        for one in passes:
            assert sorted(one) == sorted(each.read() for each in stored)
        assert len({tuple(one) for one in passes}) == 3

    def test_a_seed_gives_the_same_order(self, stored: list[StoredExample]) -> None:
        def first(seed: int | None) -> list[bytes]:
            return list(itertools.islice(shuffle_and_repeat(stored, seed), 30))

        assert first(1) == first(1) != first(2)


def test_what_is_no_example_is_left_out(
    tmp_path: Path, shapes: list[Annotation], caplog: pytest.LogCaptureFixture
) -> None:
    """One such record kept the trainer from starting."""
    path = tmp_path / "1_train.record"
    good = [records.example_from_annotation(each, SHAPES).SerializeToString() for each in shapes[:2]]
    no_image = tf.train.Example().SerializeToString()
    records.write_records(path, [good[0], b"\xff\xff", no_image, good[1]])
    (tmp_path / "2_train.record").mkdir()
    assert [each.image_id for each in index_record(path)] == [each.image_id for each in shapes[:2]]
    assert caplog.text.count(f"{path}: the example at byte") == 2
    assert index_record(tmp_path / "2_train.record") == []


def test_images_keep_the_split_that_they_were_imported_with(directories: Project) -> None:
    """The share of the others is held out by their ids, as without imported images. Also after a merge of records."""
    low, high = "0" * 32, "f" * 32  # by their ids, the first is held out, the second is not
    splits = {f"{low[:-1]}{number}": split for number, split in enumerate(("train", "val", "test", ""))}
    splits |= {f"{high[:-1]}{number}": split for number, split in enumerate(("train", "val", "test", ""))}
    path = directories.data_dir / "1_train.record"
    records.write_records(path, [example(image_id, "b", split=split) for image_id, split in splits.items()])
    (directories.data_dir / "2_train.record").touch()
    store = ReplayStore(directories, 0.5)
    for _ in range(2):
        trained = {example.image_id for example in store.examples()}
        held_out = {example.image_id for example in store.held_out()}
        assert trained == {f"{low[:-1]}0", f"{high[:-1]}0", f"{high[:-1]}3"}
        assert held_out == {f"{low[:-1]}1", f"{high[:-1]}1", f"{low[:-1]}3"}
        store.compact(1)
