"""Finds images that are nearly the same: another frame of a scene, a burst, a copy with other compression.

    seen = NearDuplicates(max_distance=6)
    kept = [path for path in files if seen.is_new(perceptual_hash(path))]

Two images are near-duplicates if their perceptual hashes differ in few of 64 bits. The hash is the sign of the lowest
frequencies of the picture (ImageHash's `phash`): it does not change with size and compression, and little with light.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from odkeras.errors import ImageError, SetupError, error_reason

HASH_BITS = 64
INSTALL = "pip install 'odkeras[video]'"


class NearDuplicates:
    """Remembers hashes. Comparing one with n others takes n operations of NumPy, 0.1 ms for 100,000.

    Args:
        max_distance: number of bits, of 64, in which two hashes may differ.
    """

    def __init__(self, max_distance: int) -> None:
        self._max_distance = max_distance
        self._hashes: npt.NDArray[np.uint64] = np.zeros(64, np.uint64)
        self._count = 0

    def is_new(self, image_hash: int) -> bool:
        """Whether no image that was new before has nearly the same hash. A new one is remembered."""
        value = np.uint64(image_hash)
        if self._count and _distances(self._hashes[: self._count], value).min() <= self._max_distance:
            return False
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[self._count] = value
        self._count += 1
        return True


def perceptual_hash(image: Image.Image | Path) -> int:
    """The hash of an image, 64 bits. Of a JPEG file, only a small version is decoded.

    Raises:
        ImageError: the file cannot be decoded.
        SetupError: ImageHash is not installed.
    """
    try:
        from imagehash import phash
    except ImportError as error:
        raise SetupError(f"finding near-duplicates needs the package ImageHash: {INSTALL}") from error
    if isinstance(image, Image.Image):
        bits = phash(image).hash
    else:
        try:
            with Image.open(image) as opened:
                opened.draft("L", (64, 64))
                bits = phash(opened).hash
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageError(f"cannot be decoded: {error_reason(error)}", str(image)) from error
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _distances(hashes: npt.NDArray[np.uint64], value: np.uint64) -> npt.NDArray[np.uint8]:
    """The number of different bits, (N,)."""
    different = np.bitwise_xor(hashes, value)
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(different)
    return np.unpackbits(different.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1, dtype=np.uint8)
