"""Decide whether TensorFlow and browsers decode a PNG as Pillow does.

Pillow is lenient: it ignores missing rows and checksums, and takes the last of several headers. TensorFlow (libpng)
refuses such files, so that a picture that was annotated could not be trained on.
"""

from __future__ import annotations

import zlib

_SIGNATURE_SIZE = 8
_HEADER_SIZE = 13
_PLAIN = bytes([8, 2, 0, 0, 0])  # bit depth, colour type (RGB), compression, filter, interlace
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_MAX_FILTER = 4
_SLICE = 16_384


def is_plain_png(data: bytes) -> bool:
    """Whether a PNG is 8-bit RGB, without transparency, not animated, not interlaced, and correct in all that libpng
    checks.

    Raises:
        ValueError: a chunk is damaged, or the end or rows of the image are missing.
    """
    header, plain, position = b"", True, _SIGNATURE_SIZE
    pixels: list[memoryview] = []
    view, previous = memoryview(data), b""
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, start, end = data[position + 4 : position + 8], position + 8, position + 8 + length
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"PNG chunk {kind.decode('latin-1')} is damaged")
        if kind == b"IHDR":
            plain = plain and not previous and length == _HEADER_SIZE and data[end - 5 : end] == _PLAIN
            header = data[start:end]
        elif kind == b"IDAT":
            plain = plain and (not pixels or previous == kind)
            pixels.append(view[start:end])
        elif kind == b"IEND":
            return plain and bool(header) and _are_complete(b"".join(pixels), header)
        elif kind in (b"tRNS", b"acTL") or (kind not in _CRITICAL and kind[:1].isupper()):
            plain = False
        position, previous = end + 4, kind
    raise ValueError("the end of the PNG is missing")


def _are_complete(compressed: bytes, header: bytes) -> bool:
    """Whether the compressed pixels are exactly those of the image, as libpng reads them: row by row, with the window
    that the stream declares, and with a checksum.

    Raises:
        ValueError: rows are missing.
    """
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    row_size = 1 + 3 * width  # a filter type, then RGB
    window_bits = (compressed[0] >> 4) + 8 if compressed else 0
    if not 8 <= window_bits <= zlib.MAX_WBITS:
        return False
    inflater, rows = zlib.decompressobj(window_bits), bytearray()
    try:
        for start in range(0, len(compressed), _SLICE):
            piece = compressed[start : start + _SLICE]
            while piece and not inflater.eof and len(rows) <= height * row_size:
                rows += inflater.decompress(piece, row_size)
                piece = inflater.unconsumed_tail
        while rest := inflater.decompress(b"", row_size):
            rows += rest
    except zlib.error:
        return False
    if len(rows) < height * row_size:
        raise ValueError(f"rows of the PNG are missing: {len(rows) // row_size} of {height} are there")
    exact = len(rows) == height * row_size and inflater.eof and not inflater.unused_data
    return exact and max(rows[::row_size]) <= _MAX_FILTER
