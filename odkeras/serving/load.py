"""Limits what the predict requests of the model server hold in memory at the same time. No TensorFlow.

An encoded image says little about the memory that it takes: a PNG of 292 kB can have 100 million pixels. The pixels are
counted from the headers, before anything is decoded.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from odkeras.config.settings import DEFAULT_MAX_PIXELS
from odkeras.errors import RequestError
from odkeras.images import count_pixels, too_many_pixels
from odkeras.serving.json_tensors import Array

MAX_INSTANCES = 128
"""Images in a request: each one has its model input and its outputs in memory until the last one is ready."""

_IMAGES_AT_ONCE = 2
# A BMP, which TensorFlow decodes, too, cannot have more pixels than bytes.
_IMAGE_START = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a")
_MAX_STARTS = 16


class PixelBudget:
    """Counts the pixels of requests, refuses too large ones, and lets the others run while there is room. Thread-safe.

    Args:
        max_pixels: maximum pixels of an image. A request may have twice as many in all, and so may all running ones.
    """

    def __init__(self, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self.max_pixels = max_pixels
        self.max_request_pixels = _IMAGES_AT_ONCE * max_pixels
        self._running = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, inputs: Mapping[str, Array]) -> Iterator[None]:
        """Wait until the images of a request fit beside those that are being predicted, in the order of the requests:
        a large one must not wait for ever, nor a small one behind large ones that come later.

        Raises:
            RequestError: 413, an image or the request is too large.
        """
        pixels = self.count(inputs)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._has_room(pixels))
            self._waiting.popleft()
            self._running += pixels
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= pixels
                self._changed.notify_all()

    def _has_room(self, pixels: int) -> bool:
        return self._running == 0 or self._running + pixels <= self.max_request_pixels

    def count(self, inputs: Mapping[str, Array]) -> int:
        """Pixels of the images in the input tensors: encoded images, examples that contain one, and pixels.

        Raises:
            RequestError: as `reserve`.
        """
        total = 0
        for array in inputs.values():
            if array.ndim and len(array) > MAX_INSTANCES:
                raise RequestError(
                    413, f"the request has {len(array)} images, and at most {MAX_INSTANCES} are predicted at once"
                )
            if array.dtype == object:
                total += sum(self._pixels(value, number) for number, value in enumerate(array.flat))
            elif array.ndim == 4:
                total += self._checked(array[0].size // 3, 0) * len(array) if len(array) else 0
        if total > self.max_request_pixels:
            raise RequestError(
                413,
                f"the images of the request have {total:,} pixels, and at most {self.max_request_pixels:,} are "
                "predicted at once; send fewer or smaller images",
            )
        return total

    def _pixels(self, value: object, number: int) -> int:
        if not isinstance(value, bytes):
            return 0
        return self._checked(count_pixels(value) or _embedded_pixels(value, number), number)

    def _checked(self, pixels: int, number: int) -> int:
        if pixels > self.max_pixels:
            raise RequestError(413, f"image {number} is {too_many_pixels(pixels, self.max_pixels)}")
        return pixels


def _embedded_pixels(value: bytes, number: int) -> int:
    """Pixels of the largest image inside a serialized `tf.train.Example`; 0 if there is none.

    Raises:
        RequestError: 413, it seems to have many images, so that counting them would take long.
    """
    starts = [match.start() for match in itertools.islice(_IMAGE_START.finditer(value), _MAX_STARTS + 1)]
    if len(starts) > _MAX_STARTS:
        raise RequestError(413, f"input {number} seems to contain more than {_MAX_STARTS} images; send one")
    return max((count_pixels(value[start:]) for start in starts), default=0)
