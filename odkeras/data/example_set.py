"""A set of stored examples that changes and is drawn from at constant cost, however many examples it has.

In training that is shorter than one pass over the examples, new ones are drawn more often: see `DrawnExamples`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from odkeras.data.stored_example import StoredExample

NEWEST_DRAWS = 4
"""How often each of the newest examples is drawn in a round that is shorter than one pass."""
_MAX_NEWEST_SHARE = 0.5  # of the draws, so that an import of many examples does not displace all earlier ones


class ExampleSet(Sequence[StoredExample]):
    """At most one example about each image, in an arbitrary order."""

    def __init__(self) -> None:
        self._items: list[StoredExample] = []
        self._positions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> StoredExample: ...

    @overload
    def __getitem__(self, index: slice) -> list[StoredExample]: ...

    def __getitem__(self, index: int | slice) -> StoredExample | list[StoredExample]:
        return self._items[index]

    def __iter__(self) -> Iterator[StoredExample]:
        return iter(self._items)

    def add(self, example: StoredExample) -> None:
        """Add an example; it replaces the one about the same image."""
        position = self._positions.get(example.image_id)
        if position is not None:
            self._items[position] = example
            return
        self._positions[example.image_id] = len(self._items)
        self._items.append(example)

    def __contains__(self, example: object) -> bool:
        if not isinstance(example, StoredExample):
            return False
        position = self._positions.get(example.image_id)
        return position is not None and self._items[position] == example

    def discard(self, image_id: str) -> None:
        """Remove the example about an image, if there is one. The last example takes its position."""
        position = self._positions.pop(image_id, None)
        if position is None:
            return
        last = self._items.pop()
        if position < len(self._items):
            self._items[position] = last
            self._positions[last.image_id] = position


def shuffle_and_repeat(
    examples: Sequence[StoredExample],
    seed: int | None = None,
    read: Callable[[StoredExample], bytes] = StoredExample.read,
) -> Iterator[bytes]:
    """Yield the serialized examples endlessly; see `shuffled`.

    Args:
        read: reads an example.
    """
    return map(read, shuffled(examples, seed))


def shuffled(examples: Sequence[StoredExample], seed: int | None = None) -> Iterator[StoredExample]:
    """Yield the examples endlessly, reshuffled for every epoch. Yields nothing if there are none.

    The order is drawn step by step, so that a round of a few steps does not shuffle a million examples.

    Args:
        examples: may change meanwhile, also in another thread; an epoch has the length that it began with.
        seed: random seed; None for a different order in every process.
    """
    generator = random.Random(seed)
    while count := len(examples):
        moved: dict[int, int] = {}  # Fisher-Yates: what the positions hold that are no longer their own
        for last in range(count - 1, -1, -1):
            drawn = generator.randint(0, last)
            position = moved.get(drawn, drawn)
            moved[drawn] = moved.pop(last, last)
            try:
                example = examples[position]
            except IndexError:  # the set has become smaller
                continue
            yield example


@dataclass(frozen=True)
class DrawnExamples:
    """The examples that a dataset draws from.

    Args:
        examples: all of them.
        newest: those that are drawn more often.
        newest_share: share of the draws that is of `newest`; the others are of all, evenly.
    """

    examples: Sequence[StoredExample] = ()
    newest: Sequence[StoredExample] = ()
    newest_share: float = 0.0

    @classmethod
    def of_round(cls, examples: Sequence[StoredExample], newest: Sequence[StoredExample], draws: int) -> DrawnExamples:
        """For so many draws. In less than one pass over the examples, each of the newest is drawn `NEWEST_DRAWS` times,
        because else many of them would not be drawn at all; otherwise they are drawn as all others.

        Args:
            newest: those that `examples` lacks are left out.
        """
        if draws >= len(examples):
            return cls(examples)
        among = examples if isinstance(examples, ExampleSet) else {*examples}
        newest = [example for example in newest if example in among]
        return cls(examples, newest, min(NEWEST_DRAWS * len(newest) / max(1, draws), _MAX_NEWEST_SHARE))

    def draw(self, read: Callable[[StoredExample], bytes], seed: int | None = None) -> Iterator[bytes]:
        """Yield the serialized examples endlessly; see `shuffled`."""
        return map(read, self.sequence(seed))

    def sequence(self, seed: int | None = None) -> Iterator[StoredExample]:
        """Yield the examples endlessly, in the order of `draw`."""
        newest = shuffled(self.newest, seed)
        due = 0.0
        for example in shuffled(self.examples, seed):
            while due >= 1:
                yield next(newest)
                due -= 1
            yield example
            due += self.newest_share / (1 - self.newest_share)
