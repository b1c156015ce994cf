"""The plan of a part of a round: which examples the workers of a cluster train on, in which order.

The chief draws the examples and writes the plan to the model directory; each worker takes every n-th of them. It is as
long as the steps need, however many examples there are.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from odkeras.data.example_set import DrawnExamples
from odkeras.data.stored_example import StoredExample
from odkeras.errors import ClusterError
from odkeras.heartbeat import report_progress
from odkeras.project import Project, write_atomically

PLAN_NAME = "cluster-plan.json"
MAX_DRAWS = 100_000
"""After so many the plan is repeated, so that it stays small."""
_VISIBLE_S = 60.0  # network file systems show a new file later on other machines
_POLL_S = 0.05


class _Row(msgspec.Struct, array_like=True):
    image_id: str
    batch: str
    file: str
    offset: int
    length: int
    classes: list[str]
    split: str
    answered_s: float


class _Plan(msgspec.Struct):
    examples: list[_Row]
    draws: list[int]


@dataclass(frozen=True)
class Plan:
    """Drawn examples.

    Args:
        examples: each once.
        draws: positions in `examples`, in the order of training.
    """

    examples: Sequence[StoredExample]
    draws: Sequence[int]

    @classmethod
    def of(cls, drawn: DrawnExamples, count: int) -> Plan:
        """The next examples of a set. Empty if the set is.

        Args:
            count: how many the steps need; at most `MAX_DRAWS` are drawn.
        """
        positions: dict[StoredExample, int] = {}
        sequence = itertools.islice(drawn.sequence(), min(count, MAX_DRAWS))
        draws = [positions.setdefault(example, len(positions)) for example in sequence]
        return cls(list(positions), draws)

    def share(
        self, read: Callable[[StoredExample], bytes], index: int, workers: int, batch_size: int
    ) -> Iterator[bytes]:
        """The serialized examples of one worker, repeated without end: of every batch its part, so that the batches are
        the same with any number of workers.

        Args:
            read: reads an example.
            index: of the worker.
            workers: how many there are.
            batch_size: of all workers together; a multiple of `workers`.
        """
        part, count = batch_size // workers, len(self.draws)
        for start in itertools.count(index * part, batch_size) if count else ():
            for position in range(start, start + part):
                yield read(self.examples[self.draws[position % count]])


def write_plan(plan: Plan, directories: Project) -> int:
    """Write a plan for the other workers; returns its checksum."""
    rows = [
        _Row(
            example.image_id,
            example.batch,
            example.path.relative_to(directories.data_dir).as_posix(),
            example.offset,
            example.length,
            sorted(example.classes),
            example.split,
            example.answered_s,
        )
        for example in plan.examples
    ]
    content = msgspec.json.encode(_Plan(rows, list(plan.draws)))
    write_atomically(directories.model_dir / PLAN_NAME, content)
    return zlib.crc32(content)


def read_plan(checksum: int, directories: Project, visible_s: float = _VISIBLE_S) -> Plan:
    """Read the plan that the chief has written.

    Args:
        checksum: of the plan.
        directories: this machine may see them at other paths than the chief.
        visible_s: seconds to wait until the file is there.

    Raises:
        ClusterError: it is not there.
    """
    path: Path = directories.model_dir / PLAN_NAME
    until = time.monotonic() + visible_s
    while zlib.crc32(content := _content(path)) != checksum:
        if time.monotonic() > until:
            raise ClusterError(
                f"{path} is not the plan that the chief has written {visible_s:.0f} s ago; all workers need the same "
                "data and model directories, for example on a shared file system"
            )
        report_progress()
        time.sleep(_POLL_S)
    plan = msgspec.json.decode(content, type=_Plan)
    examples = [
        StoredExample(
            row.image_id,
            row.batch,
            directories.data_dir / row.file,
            row.offset,
            row.length,
            frozenset(row.classes),
            row.split,
            row.answered_s,
        )
        for row in plan.examples
    ]
    return Plan(examples, plan.draws)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
