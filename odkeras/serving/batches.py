"""Predicts many images with batches whose size follows the time that the model takes, and reads images meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from odkeras.boxes import Detections
from odkeras.errors import RequestError
from odkeras.images import EncodedImage

MAX_IMAGES = 32
MAX_BYTES = 8 * 2**20
MAX_PIXELS = 32 * 2**20
TARGET_S = 1.0
"""A batch grows to what takes so long. It is much less than the timeout of a request, whatever the model's speed."""
_MAX_GROWTH = 8

PredictBatch = Callable[[Sequence[EncodedImage]], Sequence[Detections]]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Item(Generic[Key]):
    """One image of many.

    Args:
        key: whatever identifies the image to the caller.
        image: the image; None if it could not be read, which is passed through.
    """

    key: Key
    image: EncodedImage | None


def predict_in_batches(
    items: Iterable[Item[Key]], predict: PredictBatch | SizedBatches
) -> Iterator[tuple[Item[Key], Detections | RequestError | None]]:
    """Yield each item in order with its detections, with the error if the model refuses it, or with None.

    Args:
        predict: the model; or batches of it, whose size is kept from one call to the next.

    Raises: what `predict` and the iteration of `items` raise, other than RequestError.
    """
    sized = predict if isinstance(predict, SizedBatches) else SizedBatches(predict)
    source = iter(items)
    with ThreadPoolExecutor(1, "odkeras-predict") as pool:
        batch = sized.take(source)
        while batch:
            results: Future[list[Detections | RequestError]] = pool.submit(
                sized.predict, [item.image for item in batch if item.image is not None]
            )
            if not sized.is_measured:  # else the second batch would be as small as the first one
                wait([results])
            following = sized.take(source)
            detections = iter(results.result())
            for item in batch:
                yield item, None if item.image is None else next(detections)
            batch = following


class SizedBatches:
    """The current size of a batch. One thread takes batches, another one predicts them.

    It grows by the time that an image took. If it doubled from 1 to 32 instead, most of 100 images would be in small
    batches, which are slower for each image.

    Args:
        predict: the model.
        target_s: seconds that a batch should take; None for `TARGET_S`.
    """

    def __init__(self, predict: PredictBatch, target_s: float | None = None) -> None:
        self.is_measured = False
        self._predict = predict
        self._target_s = TARGET_S if target_s is None else target_s
        self._size = 1
        self._most = MAX_IMAGES

    def take(self, items: Iterator[Item[Key]]) -> list[Item[Key]]:
        """The next batch; [] at the end."""
        batch: list[Item[Key]] = []
        count = size_bytes = pixels = 0
        for item in items:
            batch.append(item)
            if item.image is not None:
                height, width = item.image.image_size_hw
                count, size_bytes, pixels = count + 1, size_bytes + len(item.image.data), pixels + height * width
            if count >= self._size or size_bytes >= MAX_BYTES or pixels >= MAX_PIXELS or len(batch) >= MAX_IMAGES:
                break
        return batch

    def predict(self, images: Sequence[EncodedImage]) -> list[Detections | RequestError]:
        """The detections of each image, or the error of one that the model refuses."""
        if not images:
            return []
        if len(images) > self._most:  # taken before that was known
            return self._predict_apart(images)
        started = time.monotonic()
        try:
            detections = list(self._predict(images))
        except RequestError as error:
            if len(images) == 1:
                return [error]
            return self._predict_apart(images)
        seconds = time.monotonic() - started
        self.is_measured = True
        if seconds > 2 * self._target_s:
            self._size = max(1, self._size // 2)
        else:
            in_time = int(len(images) * self._target_s / max(seconds, 1e-3))
            self._size = max(self._size, min(in_time, _MAX_GROWTH * len(images), self._most))
        return [*detections]

    def _predict_apart(self, images: Sequence[EncodedImage]) -> list[Detections | RequestError]:
        """Halve a refused batch until the refused images are alone."""
        middle = len(images) // 2
        parts = [*self.predict(images[:middle]), *self.predict(images[middle:])]
        if len(images) == 2 and not any(isinstance(part, RequestError) for part in parts):
            self._most = self._size = 1  # a model with a batch size of 1
        return parts
