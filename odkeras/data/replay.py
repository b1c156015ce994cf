"""An index of all annotated examples in the data directory's TFRecords.

The latest answer about an image wins; rejected and ignored images are excluded. Only the positions of the examples are
kept in memory, not the images.

A share of the images can be held out for evaluation. The hold-out split is a hash of the image id, recomputed on every
read and never stored. Training and held-out examples are in the same records. Images that were imported with a split
keep it: those of val are held out, those of test neither trained on nor evaluated.

An example with a class that is no longer in the label map stays in the records, but is not used. The Object Detection
API would silently drop such objects, and the model would learn that they are background.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from odkeras.data import records
from odkeras.errors import RecordError, error_reason
from odkeras.project import Project, append_jsonl, is_held_out, read_jsonl
from odkeras.tfrecord import DamagedRecordError, iter_records

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredExample:
    """The position of one serialized `tf.train.Example` in a TFRecord file.

    Args:
        image_id: stable id of the image.
        batch: name of the inbox batch with its answer; names sort by age.
        path: the TFRecord file.
        offset: byte offset of the example.
        length: number of bytes.
        classes: class texts of its objects.
        split: train, val or test, if its labels were imported with it; else "".
    """

    image_id: str
    batch: str
    path: Path
    offset: int
    length: int
    classes: frozenset[str] = frozenset()
    split: str = ""

    def read(self) -> bytes:
        """The serialized example.

        Raises:
            RecordError: the file is gone or truncated.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        except OSError as error:
            raise RecordError(f"cannot read {self.path}: {error.strerror}") from error
        if len(data) != self.length:
            raise RecordError(
                f"{self.path} ends at an example that should have {self.length} bytes; it has {len(data)}"
            )
        return data


class ReplayStore:
    """The examples of one data directory.

    Args:
        project: the directories.
        eval_split: share of the images that is held out from training, 0 to 1; see `project.is_held_out`. It is about
            images without a split of their own.
        class_texts: `LabelMap.texts`; examples with other classes are not used. None uses all.

    Raises:
        RecordError: a record is damaged.
    """

    def __init__(self, project: Project, eval_split: float = 0.0, class_texts: Collection[str] | None = None) -> None:
        self._project = project
        self._eval_split = eval_split
        self._class_texts = class_texts
        self._examples: dict[str, StoredExample] = {}
        self._withdrawn: dict[str, str] = {}
        self.batches: set[str] = set()
        for row in read_jsonl(project.withdrawn_path):
            if "image_id" in row and "batch" in row:
                self._withdraw(str(row["image_id"]), str(row["batch"]))
        self._index([project.replay_record, *project.train_records()])

    def __len__(self) -> int:
        return len(self._examples)

    def examples(self, only: Collection[Path] | None = None) -> list[StoredExample]:
        """The training examples, oldest answer first.

        Args:
            only: restrict them to these TFRecord files; None for all.
        """
        return [example for example in self._usable(only) if self._split(example) == "train"]

    def held_out(self) -> list[StoredExample]:
        """The evaluation examples, oldest answer first."""
        return [example for example in self._usable() if self._split(example) == "val"]

    def _split(self, example: StoredExample) -> str:
        """train, val or test: the split that the image was imported with, else by its id."""
        return example.split or ("val" if is_held_out(example.image_id, self._eval_split) else "train")

    @property
    def unknown_classes_message(self) -> str:
        """A message about images whose classes are not in the label map, and what to do; "" if there are none."""
        unknown = [names for example in self._examples.values() if (names := self._unknown_classes(example))]
        if not unknown:
            return ""
        counts = sorted(Counter(name for names in unknown for name in names).items())
        listed = ", ".join(f"{name!r} in {count}" for name, count in counts)
        return (
            f"{len(unknown)} of {len(self)} annotated images are not used: they have classes that are not in the label "
            f"map ({listed}). Restore these names in the label map, or annotate these images again with the new ones"
        )

    def _usable(self, only: Collection[Path] | None = None) -> list[StoredExample]:
        return [example for example in self._all(only) if not self._unknown_classes(example)]

    def _unknown_classes(self, example: StoredExample) -> frozenset[str]:
        return frozenset() if self._class_texts is None else example.classes.difference(self._class_texts)

    def _all(self, only: Collection[Path] | None = None) -> list[StoredExample]:
        chosen = [example for example in self._examples.values() if only is None or example.path in only]
        return sorted(chosen, key=lambda example: (example.batch, example.image_id))

    def add_record(self, path: Path) -> None:
        """Index a record that was just written."""
        self._index([path])

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
        for image_id, batch in new.items():
            self._withdraw(image_id, batch)

    def leave_out_unreadable(self, examples: Sequence[StoredExample]) -> list[StoredExample]:
        """Exclude the examples that the Object Detection API cannot use from training, as `withdraw` does, and return
        the others. Decodes all images. The reasons are logged and written to rejected.jsonl."""
        problems = {example.image_id: problem for example in examples if (problem := _problem(example))}
        unreadable = [example for example in examples if example.image_id in problems]
        for example in unreadable:
            reason = f"{example.path}: {problems[example.image_id]}; the image is no longer trained on"
            _log.error("%s", reason)
            row = {"batch": example.batch, "number": 0, "reason": reason, "answer": {"image_id": example.image_id}}
            append_jsonl(self._project.rejected_path, [row])
        self.withdraw({example.image_id: example.batch for example in unreadable})
        for example in unreadable:  # one without a batch, of another tool, cannot be withdrawn
            self._examples.pop(example.image_id, None)
        return [example for example in examples if example.image_id not in problems]

    def find_again(self, examples: Iterable[StoredExample]) -> list[StoredExample]:
        """The examples of the same images where they are now: `compact` moves examples."""
        return [self._examples[example.image_id] for example in examples if example.image_id in self._examples]

    def compact(self, keep: int) -> list[Path]:
        """Move the examples of all but the newest `keep` records to replay.record, and delete those records.

        After a crash an example may be in two records. That is harmless, since the index has one entry per image.

        Args:
            keep: number of records to keep; <= 0 keeps all.

        Returns:
            The deleted records.
        """
        files = self._project.train_records()
        merged = files[:-keep] if keep > 0 else []
        if not merged:
            return []
        target = self._project.replay_record
        examples = self._all(only={target, *merged})
        records.write_records(target, (example.read() for example in examples))
        for path in merged:
            path.unlink(missing_ok=True)
        self._index([target])
        return merged

    def _withdraw(self, image_id: str, batch: str) -> None:
        self._withdrawn[image_id] = max(batch, self._withdrawn.get(image_id, ""))
        stored = self._examples.get(image_id)
        if stored is not None and stored.batch <= batch:
            del self._examples[image_id]

    def _index(self, paths: Iterable[Path]) -> None:
        for path in paths:
            for example in index_record(path):
                self.batches.add(example.batch)
                indexed, withdrawn = self._examples.get(example.image_id), self._withdrawn.get(example.image_id)
                if indexed is not None and example.batch < indexed.batch:
                    continue
                if withdrawn is None or example.batch > withdrawn:
                    self._examples[example.image_id] = example


def index_record(path: Path) -> list[StoredExample]:
    """The position of each example in a TFRecord; [] if there is no such file. One that cannot be parsed is logged and
    left out.

    Raises:
        RecordError: not a TFRecord, or truncated.
    """
    examples = []
    try:
        with path.open("rb") as file:
            for offset, data in iter_records(file):
                try:
                    examples.append(_stored_example(path, offset, data))
                except Exception as error:  # whatever it is, the other examples can be trained on
                    _log.error("%s: the example at byte %d is not used: %s", path, offset, error_reason(error))
        return examples
    except (FileNotFoundError, IsADirectoryError):
        return []
    except DamagedRecordError as error:
        raise RecordError(f"{path} {error}; move it away to continue without its examples") from error


def _problem(example: StoredExample) -> str:
    """Why the API cannot use an example; "" also if its file cannot be read now, which is not the example's fault."""
    try:
        data = example.read()
    except RecordError:
        return ""
    return records.example_problem(data)


def _stored_example(path: Path, offset: int, data: bytes) -> StoredExample:
    try:
        features = tf.train.Example.FromString(data).features.feature
    except Exception as error:  # the import path of protobuf's DecodeError differs between versions
        raise RecordError(f"{path} has a record that is not a tf.train.Example: {error}") from error
    image_id = _text(features, "image/source_id") or records.annotation_from_example(data).image_id
    batch, classes = _text(features, records.BATCH_FEATURE), records.class_texts(features)
    return StoredExample(image_id, batch, path, offset, len(data), classes, _text(features, records.SPLIT_FEATURE))


def _text(features: tf.train.Features, name: str) -> str:
    values = features[name].bytes_list.value if name in features else ()
    return values[0].decode("utf-8", "replace") if values else ""


def shuffle_and_repeat(examples: Sequence[StoredExample], seed: int | None = None) -> Iterator[bytes]:
    """Yield the serialized examples endlessly, reshuffled for every epoch. Yields nothing if there are none.

    Args:
        seed: random seed; None for a different order in every process.
    """
    order = list(examples)
    generator = random.Random(seed)
    while order:
        generator.shuffle(order)
        for example in order:
            yield example.read()
