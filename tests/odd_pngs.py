"""PNG files, correct ones and ones that Pillow reads and TensorFlow refuses."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from pictures import draw_pixels, encode

HEIGHT, WIDTH = 48, 64
PIXELS = draw_pixels((HEIGHT, WIDTH))
NOISE = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def raw_rows(pixels: np.ndarray = PIXELS, filter_type: int = 0) -> bytes:
    return b"".join(bytes([filter_type]) + row.tobytes() for row in pixels)


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def data(rows: bytes | None = None) -> bytes:
    return chunk(b"IDAT", zlib.compress(raw_rows() if rows is None else rows))


def small_window() -> bytes:
    """A stream that declares a window of 256 bytes and refers back further."""
    stream = bytearray(zlib.compress(raw_rows(np.vstack([NOISE[:24], NOISE[:24]])), 9))
    stream[0] = 0x08
    stream[1] = next(flag for flag in range(256) if (stream[0] * 256 + flag) % 31 == 0 and not flag & 0x20)
    return bytes(stream)


CLEAN = {
    "as Pillow writes it": encode(PIXELS, "PNG"),
    "several pieces": png(
        header(), *(chunk(b"IDAT", piece) for piece in (zlib.compress(raw_rows())[:50], zlib.compress(raw_rows())[50:]))
    ),
    "unknown ancillary chunk": png(header(), chunk(b"abCd", b"x"), data()),
    "palette that is only advice": png(header(), chunk(b"PLTE", bytes(6)), data()),
    "comment": png(header(), chunk(b"tEXt", b"Comment\x00x"), data()),
    "large": encode(np.tile(NOISE, (20, 20, 1)), "PNG"),
}
UNCLEAN = {
    "missing checksum": png(header(), chunk(b"IDAT", zlib.compress(raw_rows())[:-4])),
    "two headers": png(header(), header(), data()),
    "unknown critical chunk": png(header(), chunk(b"ABCD", b"x"), data()),
    "small zlib window": png(header(), chunk(b"IDAT", small_window())),
    "more rows than in the header": png(header(HEIGHT - 8), data()),
    "bytes after the pixels": png(header(), chunk(b"IDAT", zlib.compress(raw_rows()) + b"more")),
    "pieces with another chunk between them": png(
        header(),
        chunk(b"IDAT", zlib.compress(raw_rows())[:50]),
        chunk(b"tEXt", b"a\x00b"),
        chunk(b"IDAT", zlib.compress(raw_rows())[50:]),
    ),
    "missing rows": png(header(), data(raw_rows(PIXELS[:-5]))),
    "too high": png(header(HEIGHT + 100), data()),
    "unknown filter": png(header(), data(raw_rows(filter_type=9))),
    "no pixels": png(header(), chunk(b"IDAT", b"")),
}
