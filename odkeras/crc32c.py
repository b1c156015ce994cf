"""CRC-32C, the checksum of TFRecord files, without TensorFlow: with NumPy.

The remainder of a long text is that of its parts, each shifted by what follows it. So many short parts are computed at
the same time, one per element of an array, and then combined in pairs.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # reflected
_PART_BYTES = 64  # about; the number of parts is a power of two
_SHORT_BYTES = 256


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord files store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of `data`."""
    if len(data) < _SHORT_BYTES:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = crc >> 8 ^ _BYTE_TABLE[(crc ^ byte) & 255]
        return crc ^ 0xFFFFFFFF
    return _crc_of_parts(_in_parts(data)) ^ 0xFFFFFFFF


def _in_parts(data: bytes) -> np.ndarray:
    """uint32 (words of a part, parts). Zeros in front do not change a remainder that starts at 0, and a start of
    0xFFFFFFFF is the same as inverting the first four bytes."""
    parts = 1 << max(0, (len(data) // _PART_BYTES).bit_length() - 1)
    words = -(-len(data) // (4 * parts))
    padded = np.zeros(4 * parts * words, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 255
    return np.ascontiguousarray(padded.view("<u4").reshape(parts, words).T)


def _crc_of_parts(words: np.ndarray) -> int:
    low, high = _word_tables()
    crc = np.zeros(words.shape[1], np.uint32)
    for row in words:
        crc ^= row
        halves = crc.view("<u2")
        crc = low.take(halves[0::2]) ^ high.take(halves[1::2])
    shift = 4 * len(words)
    while len(crc) > 1:
        crc = _apply(_shift_tables(shift), crc[0::2]) ^ crc[1::2]
        shift *= 2
    return int(crc[0])


def _apply(tables: np.ndarray, crc: np.ndarray) -> np.ndarray:
    low = tables[0][crc & 255] ^ tables[1][crc >> 8 & 255]
    shifted: np.ndarray = low ^ tables[2][crc >> 16 & 255] ^ tables[3][crc >> 24]
    return shifted


@functools.cache
def _word_tables() -> tuple[np.ndarray, np.ndarray]:
    """`_shift_tables(4)` for two bytes at once: for the lower and the upper half, uint32 (65536,)."""
    tables = _shift_tables(4)
    low, high = ((tables[at + 1][:, None] ^ tables[at][None, :]).ravel() for at in (0, 2))
    return low, high


@functools.lru_cache(maxsize=512)
def _shift_tables(zeros: int) -> np.ndarray:
    """What `zeros` zero bytes make of a remainder, uint32 (4, 256): XOR of one entry for each of its bytes."""
    bits = _shift_of_bits(zeros)
    tables = np.zeros((4, 256), np.uint32)
    numbers = np.arange(256)
    for at in range(32):
        tables[at // 8] ^= np.where(numbers >> at % 8 & 1, bits[at], 0).astype(np.uint32)
    return tables


@functools.lru_cache(maxsize=512)
def _shift_of_bits(zeros: int) -> tuple[int, ...]:
    """What `zeros` zero bytes make of a remainder with one bit, for each of the 32 bits."""
    if zeros == 1:
        return tuple(bit >> 8 ^ _BYTE_TABLE[bit & 255] for bit in (1 << at for at in range(32)))
    half = _shift_of_bits(zeros // 2)
    whole = tuple(_combine(half, bits) for bits in half)
    return tuple(_combine(_shift_of_bits(1), bits) for bits in whole) if zeros % 2 else whole


def _combine(shifted_bits: tuple[int, ...], crc: int) -> int:
    result = 0
    for at, bits in enumerate(shifted_bits):
        if crc >> at & 1:
            result ^= bits
    return result


def _make_byte_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_BYTE_TABLE = _make_byte_table()
