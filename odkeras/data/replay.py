"""The annotated examples of the data directory. The latest answer about an image wins; rejected and ignored images are
excluded.

Each round writes its answers as one TFRecord. `compact` moves the examples of all but the newest of these to
append-only shards, and empties a shard only when more than half of it is dead: replaced by later answers, or withdrawn.
So the cost of a round does not grow with the number of images. An index (see `replay_index`) says where each example
is, so that a start does not read the images.

A share of the images can be held out for evaluation. The hold-out split is a hash of the image id, recomputed on every
start and never stored. Training and held-out examples are in the same files. Images that were imported with a split
keep it: those of val are held out, those of test neither trained on nor evaluated.

An example with a class that is no longer in the label map stays in the files, but is not used. The Object Detection
API would silently drop such objects, and the model would learn that they are background.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from pathlib import Path

from odkeras.data import records
from odkeras.data.example_set import ExampleSet
from odkeras.data.replay_index import IndexChange, IndexContents, ReplayIndex
from odkeras.data.replay_shards import SHARD_BYTES, append_examples, is_mostly_dead, list_shards, next_shard
from odkeras.data.stored_example import StoredExample, index_record_from
from odkeras.errors import RecordError
from odkeras.project import JsonlTail, Project, append_jsonl
from odkeras.splits import is_held_out

_log = logging.getLogger(__name__)

MERGED_BYTES = 16 * 2**20
"""Most bytes of examples that one call of `compact` moves out of shards that are mostly dead."""


class ReplayStore:
    """The examples of one data directory. Call `close` at the end.

    Args:
        project: the directories.
        eval_split: share of the images that is held out from training, 0 to 1; see `splits.is_held_out`. It is about
            images without a split of their own.
        class_texts: `LabelMap.texts`; examples with other classes are not used. None uses all.

    Attributes:
        training_set: the training examples. It changes with the store.
        batches: names of all batches in the records.

    Raises:
        RecordError: a record is damaged.
    """

    def __init__(self, project: Project, eval_split: float = 0.0, class_texts: Collection[str] | None = None) -> None:
        self._project = project
        self._eval_split = eval_split
        self._class_texts = class_texts
        self.training_set = ExampleSet()
        self._held_out = ExampleSet()
        self._unknown = ExampleSet()
        self._examples: dict[str, StoredExample] = {}
        self._in_file: dict[Path, set[str]] = {}
        self._live_bytes: Counter[Path] = Counter()
        self._index = ReplayIndex(project.replay_dir / "index.sqlite", project.data_dir)
        contents = self._index.open()
        if not self._fits(contents):
            _log.info("the records have changed since they were indexed; they are read again")
            self._index.clear()
            contents = IndexContents()
        self._sizes = contents.sizes
        self.batches = contents.batches
        self._withdrawn = contents.withdrawn
        self._new_withdrawn = JsonlTail(project.withdrawn_path, self._sizes.get(project.withdrawn_path, 0))
        self._put_new(contents.examples)
        self._read_withdrawn()
        self._index_new([project.replay_record, *list_shards(project.replay_dir), *project.train_records()])

    def __len__(self) -> int:
        return len(self._examples)

    def close(self) -> None:
        """Close the index. Idempotent."""
        self._index.close()

    def examples(self, only: Collection[Path] | None = None) -> list[StoredExample]:
        """The training examples, oldest answer first.

        Args:
            only: restrict them to these TFRecord files; None for all.
        """
        if only is None:
            return _oldest_first(self.training_set)
        return _oldest_first(e for path in only for e in self._live_in(path) if self._set_of(e) is self.training_set)

    def held_out(self) -> list[StoredExample]:
        """The evaluation examples, oldest answer first."""
        return _oldest_first(self._held_out)

    @property
    def unknown_classes_message(self) -> str:
        """A message about images whose classes are not in the label map, and what to do; "" if there are none."""
        unknown = [self._unknown_classes(example) for example in self._unknown]
        if not unknown:
            return ""
        counts = sorted(Counter(name for names in unknown for name in names).items())
        listed = ", ".join(f"{name!r} in {count}" for name, count in counts)
        return (
            f"{len(unknown)} of {len(self)} annotated images are not used: they have classes that are not in the label "
            f"map ({listed}). Restore these names in the label map, or annotate these images again with the new ones"
        )

    def add_record(self, path: Path) -> None:
        """Index a record that was just written."""
        self._index_new([path])

    def withdraw(self, batch_by_image_id: dict[str, str]) -> None:
        """Durably exclude images from training. A later accepted answer includes them again.

        Args:
            batch_by_image_id: image id -> name of the batch with the rejected or ignored answer.
        """
        new = {
            image_id: batch
            for image_id, batch in batch_by_image_id.items()
            if self._withdrawn.get(image_id, "") < batch
        }
        append_jsonl(
            self._project.withdrawn_path, [{"image_id": image_id, "batch": batch} for image_id, batch in new.items()]
        )
        self._read_withdrawn()

    def leave_out_unreadable(self, examples: Sequence[StoredExample]) -> list[StoredExample]:
        """Exclude the examples that the Object Detection API cannot use from training, as `withdraw` does, and return
        the others. Decodes all images. The reasons are logged and written to rejected.jsonl. Examples whose file is
        gone are forgotten."""
        examples = self._forget_gone(examples)
        problems = {example.image_id: problem for example in examples if (problem := _problem(example))}
        unreadable = [example for example in examples if example.image_id in problems]
        for example in unreadable:
            reason = f"{example.path}: {problems[example.image_id]}; the image is no longer trained on"
            _log.error("%s", reason)
            row = {"batch": example.batch, "number": 0, "reason": reason, "answer": {"image_id": example.image_id}}
            append_jsonl(self._project.rejected_path, [row])
        self.withdraw({example.image_id: example.batch for example in unreadable})
        for example in unreadable:  # one without a batch, of another tool, cannot be withdrawn
            self._drop(example.image_id)
        return [example for example in examples if example.image_id not in problems]

    def _forget_gone(self, examples: Sequence[StoredExample]) -> list[StoredExample]:
        there = {path: path.is_file() for path in {example.path for example in examples}}
        if gone := [path for path, is_file in there.items() if not is_file]:
            names = ", ".join(sorted(map(str, gone)))
            _log.error("files with examples are gone, and training continues without these examples: %s", names)
        left = []
        for example in list(examples):  # the training set itself shrinks
            if there[example.path]:
                left.append(example)
            else:
                self._drop(example.image_id)
        return left

    def find_again(self, examples: Sequence[StoredExample]) -> Sequence[StoredExample]:
        """The examples of the same images where they are now: `compact` moves examples. `training_set` is returned as
        it is, because it changes with the store."""
        if examples is self.training_set:
            return examples
        return [self._examples[example.image_id] for example in examples if example.image_id in self._examples]

    def compact(self, keep: int) -> list[Path]:
        """Move the examples of all but the newest `keep` records to a shard, and delete those records. Also empty the
        shards that are mostly dead, by at most `MERGED_BYTES`.

        After a crash an example may be in two files. That is harmless, since there is one entry per image.

        Args:
            keep: number of records to keep; <= 0 keeps all.

        Returns:
            The deleted records.

        Raises:
            RecordError: disk full, or no permission; what was not moved is where it was.
        """
        files = self._project.train_records()
        merged = files[:-keep] if keep > 0 else []
        if merged:
            self._move([example for path in merged for example in self._live_in(path)])
            self._delete(merged)
            self._empty_dead_shards()
        return merged

    def _empty_dead_shards(self) -> None:
        left = MERGED_BYTES
        for path in [self._project.replay_record, *list_shards(self._project.replay_dir)]:
            if not self._is_mostly_dead(path):
                continue
            moved = []
            for example in self._live_in(path):
                if left <= 0:
                    break
                moved.append(example)
                left -= example.size
            self._move(moved)
            if not self._in_file.get(path):
                self._delete([path])

    def _is_mostly_dead(self, path: Path) -> bool:
        return is_mostly_dead(self._live_bytes[path], self._sizes.get(path, 0))

    def _move(self, examples: Sequence[StoredExample]) -> None:
        """Move examples to the newest shard; to a new one if it is full or mostly dead."""
        if not examples:
            return
        shard = next(reversed(list_shards(self._project.replay_dir)), None)
        if shard is None or self._sizes.get(shard, 0) >= SHARD_BYTES or self._is_mostly_dead(shard):
            shard = next_shard(self._project.replay_dir)
        moved, self._sizes[shard] = append_examples(shard, self._sizes.get(shard, 0), examples)
        self._index.write(IndexChange(sizes={shard: self._sizes[shard]}, examples=moved))
        for example in moved:
            self._put(example)

    def _delete(self, files: Sequence[Path]) -> None:
        self._index.write(IndexChange(deleted=files))
        for path in files:
            self._sizes.pop(path, None)
            path.unlink(missing_ok=True)

    def _index_new(self, paths: Iterable[Path]) -> None:
        """Index what the index does not have of these files."""
        newest_shard = next(reversed(list_shards(self._project.replay_dir)), None)
        for path in paths:
            known = self._sizes.get(path, 0)
            if not path.is_file() or path.stat().st_size <= known:
                continue
            examples, end = index_record_from(path, known, may_be_cut_off=path == newest_shard)
            for example in examples:
                self.batches.add(example.batch)
                indexed, withdrawn = self._examples.get(example.image_id), self._withdrawn.get(example.image_id)
                if indexed is not None and example.batch < indexed.batch:
                    continue
                if withdrawn is None or example.batch > withdrawn:
                    self._put(example)
            self._sizes[path] = end
            latest = [example for example in examples if self._examples.get(example.image_id) is example]
            batches = {example.batch for example in examples}
            self._index.write(IndexChange(sizes={path: end}, examples=latest, batches=batches))

    def _read_withdrawn(self) -> None:
        """Apply the rows of withdrawn.jsonl that have not been applied."""
        applied: dict[str, str] = {}
        removed = []
        for row in self._new_withdrawn.read():
            if "image_id" not in row or "batch" not in row:
                continue
            image_id, batch = str(row["image_id"]), str(row["batch"])
            applied[image_id] = self._withdrawn[image_id] = max(batch, self._withdrawn.get(image_id, ""))
            stored = self._examples.get(image_id)
            if stored is not None and stored.batch <= batch:
                self._drop(image_id)
                removed.append(image_id)
        if applied:
            self._sizes[self._project.withdrawn_path] = self._new_withdrawn.offset
            sizes = {self._project.withdrawn_path: self._new_withdrawn.offset}
            self._index.write(IndexChange(sizes=sizes, withdrawn=applied, removed=removed))

    def _fits(self, contents: IndexContents) -> bool:
        """Whether the files still have what is indexed of them. Only shards and withdrawn.jsonl grow."""
        try:
            sizes = {path: path.stat().st_size for path in contents.sizes}
        except OSError:
            return False
        growing = {self._project.withdrawn_path, *list_shards(self._project.replay_dir)}
        return all(
            sizes[path] == size or (path in growing and sizes[path] > size) for path, size in contents.sizes.items()
        )

    def _put(self, example: StoredExample) -> None:
        self._drop(example.image_id)
        self._put_new([example])

    def _put_new(self, examples: Sequence[StoredExample]) -> None:
        """Put one example about each of several images that have none."""
        for path, of_file in itertools.groupby(examples, attrgetter("path")):
            in_file = list(of_file)
            self._in_file.setdefault(path, set()).update(example.image_id for example in in_file)
            self._live_bytes[path] += sum(example.size for example in in_file)
        for example in examples:
            self._examples[example.image_id] = example
            if (of_split := self._set_of(example)) is not None:
                of_split.add(example)

    def _drop(self, image_id: str) -> None:
        example = self._examples.pop(image_id, None)
        if example is None:
            return
        self._in_file[example.path].discard(image_id)
        self._live_bytes[example.path] -= example.size
        examples = self._set_of(example)
        if examples is not None:
            examples.discard(image_id)

    def _set_of(self, example: StoredExample) -> ExampleSet | None:
        """The set that the example belongs to, by its classes, and by the split that its image was imported with or
        else by its id. None: it is neither trained on nor evaluated."""
        if self._unknown_classes(example):
            return self._unknown
        held_out = self._eval_split > 0 and is_held_out(example.image_id, self._eval_split)
        split = example.split or ("val" if held_out else "train")
        return {"train": self.training_set, "val": self._held_out}.get(split)

    def _unknown_classes(self, example: StoredExample) -> frozenset[str]:
        return frozenset() if self._class_texts is None else example.classes.difference(self._class_texts)

    def _live_in(self, path: Path) -> list[StoredExample]:
        """The examples in a file that are the latest about their image, in the order of the file."""
        examples = (self._examples[image_id] for image_id in self._in_file.get(path, ()))
        return sorted(examples, key=lambda example: example.offset)


def _oldest_first(examples: Iterable[StoredExample]) -> list[StoredExample]:
    return sorted(examples, key=lambda example: (example.batch, example.image_id))


def _problem(example: StoredExample) -> str:
    """Why the API cannot use an example; "" also if its file cannot be read now, which is not the example's fault."""
    try:
        data = example.read()
    except RecordError:
        return ""
    return records.example_problem(data)
