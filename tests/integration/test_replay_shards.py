"""The shards and the index of the replay store: constant cost, and nothing lost at any instant."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_replay import example, loaded, places, write

from odkeras.data import records, replay, replay_index, replay_shards, stored_example
from odkeras.data.example_set import NEWEST_DRAWS, DrawnExamples, ExampleSet, shuffle_and_repeat
from odkeras.data.replay import ReplayStore
from odkeras.data.replay_shards import list_shards
from odkeras.data.stored_example import StoredExample, index_record
from odkeras.errors import RecordError
from odkeras.project import Project

pytestmark = pytest.mark.integration


@pytest.fixture
def directories(tmp_path: Path) -> Project:
    project = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
    project.create()
    return project


class Killed(BaseException):
    """SIGKILL, as far as one process can feel it."""


def read_nothing(*_: object) -> Any:
    raise AssertionError("a record is read")


def put(directories: Project, store: ReplayStore, number: int, *images: str, size: int = 40) -> None:
    path = directories.data_dir / f"{number}_train.record"
    records.write_records(path, [example(image, f"b{number:03}", size) for image in images])
    store.add_record(path)


class TestStart:
    def test_no_record_is_read(self, directories: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        store = loaded(directories)
        for number in range(1, 5):
            put(directories, store, number, f"i{number}", "always")
            store.compact(2)
        store.withdraw({"i1": "b009"})
        expected = places(store)
        monkeypatch.setattr(stored_example, "iter_records", read_nothing)
        again = loaded(directories)
        assert places(again) == expected == [("i2", "b002"), ("i3", "b003"), ("always", "b004"), ("i4", "b004")]
        assert again.batches == {f"b00{number}" for number in range(1, 5)}
        again.withdraw({"i2": "b001"})  # older than its answer
        assert places(again) == expected

    def test_classes_and_splits_are_in_the_index(self, directories: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        path = directories.data_dir / "1_train.record"
        records.write_records(path, [example("a", "b1", classes=("cat", "dog")), example("b", "b1", split="val")])
        loaded(directories).close()
        monkeypatch.setattr(stored_example, "iter_records", read_nothing)
        store = ReplayStore(directories, class_texts=["cat"])
        assert (store.examples(), [each.image_id for each in store.held_out()]) == ([], ["b"])
        assert "'dog' in 1" in store.unknown_classes_message

    def test_a_directory_of_an_earlier_version_is_taken_over(self, directories: Project) -> None:
        """Its replay.record is used where it is, and deleted once its examples are replaced."""
        old = [example(f"i{number}", "b000") for number in range(4)]
        records.write_records(directories.replay_record, old)
        write(directories, 1, ("i0", "b001"), ("new", "b001"))
        store = loaded(directories)
        assert [each.path for each in store.examples()][:3] == [directories.replay_record] * 3
        put(directories, store, 2, "x")
        before = directories.replay_record.read_bytes()
        store.compact(1)
        assert directories.replay_record.read_bytes() == before
        for number in range(3, 5):
            put(directories, store, number, f"i{number - 2}")
            store.compact(1)
        assert not directories.replay_record.exists()
        expected = [("i3", "b000"), ("i0", "b001"), ("new", "b001"), ("x", "b002"), ("i1", "b003"), ("i2", "b004")]
        assert places(store) == places(loaded(directories)) == expected

    @pytest.mark.parametrize("data", [b"", b"no database", None])
    def test_an_index_that_cannot_be_used_is_made_again(self, directories: Project, data: bytes | None) -> None:
        store = loaded(directories)
        for number in range(1, 4):
            put(directories, store, number, f"i{number}", "always")
            store.compact(1)
        store.withdraw({"i1": "b009"})
        expected = places(store)
        store.close()
        index = directories.replay_dir / "index.sqlite"
        if data is None:
            index.unlink()
        else:
            index.write_bytes(data)
        assert places(loaded(directories)) == places(loaded(directories)) == expected

    def test_a_record_that_was_moved_away_leaves_the_older_answers(self, directories: Project) -> None:
        write(directories, 1, ("a", "b1"))
        newer = write(directories, 2, ("a", "b2"))
        loaded(directories).close()
        newer.unlink()
        assert places(loaded(directories)) == [("a", "b1")]

    def test_a_locked_index_costs_a_read_of_the_records(
        self, directories: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(directories, 1, ("a", "b1"))
        write(directories, 2, ("b", "b2"))

        def locked(path: Path) -> sqlite3.Connection:
            raise sqlite3.OperationalError("database is locked")

        with monkeypatch.context() as patched:
            patched.setattr(replay_index, "_connect", locked)
            store = loaded(directories)
            store.compact(1)
            assert places(store) == [("a", "b1"), ("b", "b2")]
        assert places(loaded(directories)) == [("a", "b1"), ("b", "b2")]


class TestShards:
    def test_a_round_writes_its_own_images_alone(self, directories: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        written: list[int] = []
        append = replay_shards.append_examples

        def counted(shard: Path, position: int, examples: list[StoredExample]) -> Any:
            written.append(sum(each.size for each in examples))
            return append(shard, position, examples)

        monkeypatch.setattr(replay, "append_examples", counted)
        store = loaded(directories)
        for number in range(1, 30):
            put(directories, store, number, f"i{number}", size=1000)
            store.compact(1)
        assert len(set(written)) <= 2 and max(written) < 1200
        assert len(written) == 28

    def test_full_shards_are_sealed(self, directories: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replay, "SHARD_BYTES", 2000)
        store = loaded(directories)
        for number in range(1, 8):
            put(directories, store, number, f"i{number}", size=1000)
            store.compact(1)
        assert [len(index_record(shard)) for shard in list_shards(directories.replay_dir)] == [2, 2, 2]
        assert len(places(loaded(directories))) == 7

    def test_dead_shards_are_emptied_within_a_budget(
        self, directories: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay, "SHARD_BYTES", 8000)
        monkeypatch.setattr(replay, "MERGED_BYTES", 1500)  # two examples a round
        store = loaded(directories)
        put(directories, store, 1, *(f"i{number}" for number in range(8)), size=1000)
        put(directories, store, 2, "x")
        store.compact(1)
        first = list_shards(directories.replay_dir)[0]
        store.withdraw({f"i{number}": "b009" for number in range(4)})
        put(directories, store, 3, "y")
        store.compact(1)
        assert {each.path for each in store.examples()} >= {first}  # half of it is used
        store.withdraw({"i4": "b009"})
        for number, used in ((4, 1), (5, 0)):
            put(directories, store, number, f"z{number}")
            store.compact(1)
            assert sum(each.path == first for each in store.examples()) == used
        assert not first.exists()
        expected = {"i5", "i6", "i7", "x", "y", "z4", "z5"}
        assert {image for image, _ in places(store)} == {image for image, _ in places(loaded(directories))} == expected

    def test_what_a_crash_left_at_the_end_of_a_shard_is_overwritten(self, directories: Project) -> None:
        store = loaded(directories)
        for number in range(1, 4):
            put(directories, store, number, f"i{number}")
            store.compact(1)
        store.close()
        (shard,) = list_shards(directories.replay_dir)
        whole = shard.read_bytes()
        for cut_off in (1, 11, 13, len(whole) // 2 - 1):
            shard.write_bytes(whole + whole[:cut_off])
            assert len(places(loaded(directories))) == 3
        again = loaded(directories)
        put(directories, again, 4, "i4")
        again.compact(1)
        assert len(list(records.read_records(shard))) == 3
        assert len(places(loaded(directories))) == 4

    def test_a_sealed_shard_that_was_cut_off_is_an_error(
        self, directories: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay, "SHARD_BYTES", 1)
        store = loaded(directories)
        for number in range(1, 4):
            put(directories, store, number, f"i{number}")
            store.compact(1)
        first, _ = list_shards(directories.replay_dir)
        first.write_bytes(first.read_bytes()[:-1])
        with pytest.raises(RecordError, match="is damaged at byte 12; move it away"):
            loaded(directories)


STEPS: list[tuple[Any, str]] = [
    (replay, "append_examples"),
    (replay_shards, "sync_to_disk"),
    (replay_index.ReplayIndex, "write"),
    (replay_index.ReplayIndex, "_write"),
    (Path, "unlink"),
    (ReplayStore, "_put"),
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_killed_again_and_again(
    directories: Project, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool, seed: int
) -> None:
    """Rounds with new, corrected and withdrawn answers; each is killed at some call of a step, and the next start must
    have what a store has that was never killed."""
    monkeypatch.setattr(replay, "SHARD_BYTES", 3000)
    monkeypatch.setattr(replay, "MERGED_BYTES", 600)
    chance = random.Random(seed)
    truth: dict[str, str] = {}
    for number in range(1, 25):
        images = [f"i{chance.randrange(12)}", f"j{number}"]
        rejected = {image: f"b{number:03}" for image in [f"i{chance.randrange(12)}"] if image not in images}
        truth = {image: batch for image, batch in truth.items() if image not in rejected}
        path = write(directories, number, *((image, f"b{number:03}") for image in dict.fromkeys(images)))
        truth |= dict.fromkeys(images, f"b{number:03}")

        def work(path: Path = path, rejected: dict[str, str] = rejected) -> None:
            store = loaded(directories)
            store.add_record(path)
            store.withdraw(rejected)
            store.compact(2)

        with monkeypatch.context() as patched:
            install(patched, owner, name, chance.randint(1, 6), after)
            with contextlib.suppress(Killed):
                work()
        work()
        again = loaded(directories)
        assert dict(places(again)) == truth
        again.close()
    live = sum(each.size for each in loaded(directories).examples())
    assert sum(shard.stat().st_size for shard in list_shards(directories.replay_dir)) < 2 * live + 2 * 3000


def install(patched: pytest.MonkeyPatch, owner: Any, name: str, call: int, after: bool) -> None:
    works: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def replacement(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Killed
        result = works(*args, **kwargs)
        if calls == call:
            raise Killed
        return result

    patched.setattr(owner, name, replacement)


def test_an_example_set_draws_each_example_once_per_epoch(directories: Project) -> None:
    stored = index_record(write(directories, 1, *((f"i{number}", "b1") for number in range(20))))
    examples = ExampleSet()
    for each in stored:
        examples.add(each)
    examples.discard("i3")
    examples.discard("i19")
    examples.discard("unknown")
    examples.add(stored[0])
    assert len(examples) == 18
    drawn = shuffle_and_repeat(examples, seed=1)
    epochs = [[next(drawn) for _ in range(18)] for _ in range(3)]
    expected = sorted(each.read() for each in stored if each.image_id not in ("i3", "i19"))
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_example_set_may_shrink_while_it_is_drawn_from(directories: Project) -> None:
    stored = index_record(write(directories, 1, *((f"i{number}", "b1") for number in range(20))))
    examples = ExampleSet()
    for each in stored:
        examples.add(each)
    drawn = shuffle_and_repeat(examples, seed=1)
    next(drawn)
    for each in stored[:15]:
        examples.discard(each.image_id)
    rest = [next(drawn) for _ in range(30)]  # 19 of them at most are of the first epoch
    assert {*rest[19:]} == {each.read() for each in stored[15:]}


@pytest.mark.parametrize("as_set", [True, False])
def test_newest_examples_are_drawn_more_often_in_less_than_a_pass(directories: Project, as_set: bool) -> None:
    """With one pass as the only length of a round, its time grew with the images; in a shorter one, drawn evenly, most
    new answers were not trained on at all."""
    stored = index_record(write(directories, 1, *((f"i{number}", "b1") for number in range(400))))
    examples = ExampleSet()
    for each in stored[:-1]:
        examples.add(each)
    newest = stored[-4:]  # the last of them has been withdrawn
    drawn = DrawnExamples.of_round(examples if as_set else list(examples), newest, draws=200)
    counts = Counter(itertools.islice(drawn.draw(StoredExample.read, seed=1), 200))
    assert sum(counts.values()) == 200
    of_newest = [counts.pop(each.read(), 0) for each in newest]
    assert of_newest[3] == 0 and all(NEWEST_DRAWS <= number <= NEWEST_DRAWS + 1 for number in of_newest[:3])
    assert max(counts.values()) == 1, "the others are drawn evenly"


def test_many_newest_examples_are_at_most_half_of_the_draws(directories: Project) -> None:
    stored = index_record(write(directories, 1, *((f"i{number}", "b1") for number in range(100))))
    newest = {each.read() for each in stored[50:]}
    drawn = DrawnExamples.of_round(stored, stored[50:], draws=40).draw(StoredExample.read, seed=1)
    first = [serialized in newest for serialized in itertools.islice(drawn, 40)]
    assert 20 <= sum(first) < 40
    assert DrawnExamples.of_round(stored, stored[50:], draws=100).newest_share == 0, "each is drawn once in a pass"
