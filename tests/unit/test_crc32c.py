"""CRC-32C against the definition, bit by bit."""

from __future__ import annotations

import random

import pytest

from odkeras.crc32c import crc32c, masked_crc32c


def by_definition(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_known_checksums() -> None:
    """Of RFC 3720, B.4, and the usual check value."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes([255] * 32)) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("size", [0, 1, 5, 255, 256, 257, 259, 511, 512, 1023, 1024, 1025, 4096, 10_001, 70_000])
def test_each_size(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == by_definition(data)


def test_each_bit_matters() -> None:
    data = random.Random(0).randbytes(600)
    sums = {crc32c(data)}
    for at in range(0, 8 * len(data), 7):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        sums.add(crc32c(bytes(flipped)))
    assert len(sums) == 1 + len(range(0, 8 * len(data), 7))


def test_the_mask_of_record_files() -> None:
    """Of TensorFlow's own file: the length 0 has this checksum in each TFRecord with an empty record."""
    assert masked_crc32c(bytes(8)) == 0x07980329
