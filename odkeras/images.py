"""Normalise images, so that the annotator's browser, the trainer and the model server decode the same pixels.

Every image is converted to an `EncodedImage` when it enters the program: a JPEG or PNG that all decoders read alike,
with 8-bit RGB (or greyscale JPEG), upright, without transparency. Bytes that already meet these rules are kept. All
others are decoded and re-encoded:

- EXIF orientation is applied. Colour profiles and gamma are ignored, as TensorFlow ignores them.
- CMYK (including Adobe's inverted variant), grey and palette become RGB. Transparency is composited on white.
- 16 bits per channel are reduced to the high byte, so 65535 is white. 32-bit pixels have no fixed range and are
  refused.
- Only the first frame of an animation or a multi-page file is used.
- Lossy sources (JPEG, WebP) become JPEG with quality 95 and 4:4:4 sampling; the others become PNG.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import stat
import sys
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from odkeras.config.settings import DEFAULT_MAX_PIXELS
from odkeras.errors import ImageError
from odkeras.orientation import UPRIGHT, read_orientation
from odkeras.png import is_plain_png

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
ImageFormat = Literal["jpeg", "png"]
MAX_FILE_BYTES = 512 * 2**20
"""Larger image files are refused: a file can claim a size that no memory has."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # MPO, several pictures in one JPEG, opens as JPEG
_LOSSY = ("JPEG", "MPO", "WEBP")
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG or PNG that all decoders read alike; created by `encode_image`.

    Args:
        data: the bytes of the file.
        image_size_hw: height and width in pixels.
        format: "jpeg" or "png".

    Raises:
        ValueError: another format.
    """

    data: bytes
    image_size_hw: tuple[int, int]
    format: ImageFormat

    def __post_init__(self) -> None:
        if self.format not in ("jpeg", "png"):
            raise ValueError(f"format must be 'jpeg' or 'png'; got {self.format!r}")

    @cached_property
    def image_id(self) -> str:
        """The stable id of the image: the first 32 hexadecimal digits of the SHA-256 of `data`."""
        return _image_id(self.data)

    @property
    def data_uri(self) -> str:
        """The image as a base64 `data:` URI."""
        return f"data:image/{self.format};base64,{base64.b64encode(self.data).decode('ascii')}"


def encode_image(
    data: bytes, *, source: str, max_pixels: int = DEFAULT_MAX_PIXELS, check_pixels: bool = True
) -> EncodedImage:
    """Validate the bytes of an image file by decoding them, and normalise them. Idempotent: the result is unchanged by
    a second call.

    Args:
        data: the bytes of an image file.
        source: file name or task, for messages.
        max_pixels: larger images are refused before they are decoded; 0 leaves only Pillow's own limit.
        check_pixels: False decodes only files that must be converted, so that damage in the pixels of others goes
            unnoticed.

    Raises:
        ImageError: empty, truncated, damaged, too large, or not an image of a known format.
    """
    with _opened(data, source, max_pixels) as image:
        if check_pixels:
            image.load()
        orientation = read_orientation(image)
        kept = _format_to_keep(data, image, orientation)
        if kept is not None:
            return EncodedImage(bytes(data), (image.height, image.width), kept)
        rgb = _to_rgb(image)
        if orientation in UPRIGHT:
            rgb = rgb.transpose(UPRIGHT[orientation])
        return _encode_anew(rgb, "jpeg" if image.format in _LOSSY else "png")


class ImageFacts(NamedTuple):
    """What is known of an image without its pixels.

    Args:
        image_id: as that of the `EncodedImage`.
        image_size_hw: height and width of the upright image in pixels.
        orientation: of its file, as in EXIF; 1 = stored upright.
    """

    image_id: str
    image_size_hw: tuple[int, int]
    orientation: int


def inspect_image(data: bytes, *, source: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageFacts:
    """What `encode_image` would find. The pixels are decoded only if the file must be converted, so that damage in
    them may go unnoticed. Args and Raises: as `encode_image`."""
    with _opened(data, source, max_pixels) as image:
        orientation = read_orientation(image)
        if _format_to_keep(data, image, orientation) is not None:
            return ImageFacts(_image_id(data), (image.height, image.width), orientation)
    encoded = encode_image(data, source=source, max_pixels=max_pixels)
    return ImageFacts(encoded.image_id, encoded.image_size_hw, orientation)


def read_image(path: Path | str, *, max_pixels: int = DEFAULT_MAX_PIXELS, check_pixels: bool = True) -> EncodedImage:
    """`encode_image` on a file.

    Raises:
        ImageError: as `encode_image`, or the file cannot be read.
    """
    data = read_image_bytes(path)
    return encode_image(data, source=str(path), max_pixels=max_pixels, check_pixels=check_pixels)


def read_image_bytes(path: Path | str) -> bytes:
    """The bytes of an image file. A named pipe or a device, whose reading may never end, is refused unread.

    Raises:
        ImageError: the file cannot be read, is no regular file, or has more than `MAX_FILE_BYTES`.
    """
    try:
        info = Path(path).stat()
        if stat.S_ISREG(info.st_mode) and info.st_size > MAX_FILE_BYTES:
            raise ImageError(
                f"too large: {info.st_size / 2**20:,.0f} MB, and at most {MAX_FILE_BYTES / 2**20:,.0f} MB are read",
                str(path),
            )
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
            raise ImageError("not a regular file, but a pipe, socket or device", str(path))
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from error


def is_image_file(path: Path | str, image_id: str) -> bool:
    """Whether `path` is an image file with this id. Decodes the image only if the hash of its bytes differs. Never
    raises."""
    try:
        data = read_image_bytes(path)
        return _image_id(data) == image_id or encode_image(data, source=str(path)).image_id == image_id
    except ImageError:
        return False


def is_turned(path: Path) -> bool:
    """Whether the picture in a file lies on its side or head, with an EXIF orientation that says so. Never raises."""
    try:
        if not path.is_file():  # a pipe might never end
            return False
        with Image.open(path, formats=_FORMATS) as image:  # reads the header
            is_late = image.format == "PNG" and "exif" not in image.info  # Pillow would decode it to look at its end
            return not is_late and read_orientation(image) != 1
    except Exception:  # not an image: there is nothing to turn
        return False


def absolute_path(path: Path | str) -> Path:
    """Make a path absolute. Symbolic links are kept, unless the path contains `..`: then they are resolved."""
    path = Path(path)
    return path.resolve() if ".." in path.parts else path.absolute()


def local_path(name: str) -> Path:
    """Convert a path or a `file:` URL, percent-encoded or not, to a path. Never raises."""
    literal = Path(name.removeprefix("file://"))
    if not name.lower().startswith("file:") or os.path.exists(literal):  # noqa: PTH110 (raises for a long name)
        return literal
    try:
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(name).path))
    except ValueError:  # `file://[x].jpg` parses as a broken IPv6 address
        return literal


def recall_image(
    data: bytes, image_id: str, *, source: str, max_pixels: int = DEFAULT_MAX_PIXELS
) -> EncodedImage | None:
    """The image without decoding it, if `data` is what `encode_image` returned for this id; else None.

    Reads only the header for the size and format.

    Raises:
        ImageError: the header is damaged, or the image is too large.
    """
    if _image_id(data) != image_id:
        return None
    with _opened(data, source, max_pixels) as image:
        format: ImageFormat | None = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png"}.get(str(image.format))  # type: ignore[assignment]
        return EncodedImage(data, (image.height, image.width), format) if format else None


def decode_rgb(image: EncodedImage) -> npt.NDArray[np.uint8]:
    """Decode to RGB pixels, uint8 (H, W, 3).

    Raises:
        ImageError: the bytes are damaged, which cannot happen to the result of `encode_image`.
    """
    with _opened(image.data, "image", max_pixels=0) as opened:
        return np.array(opened.convert("RGB"))


def encode_again(image: EncodedImage) -> EncodedImage:
    """The same picture with new bytes, for an image that another decoder refuses. A JPEG loses a little quality.

    Raises:
        ImageError: the bytes are damaged.
    """
    with _opened(image.data, "image", max_pixels=0) as opened:
        return _encode_anew(_to_rgb(opened), image.format)


def make_thumbnail(data: bytes, *, side_px: int, source: str = "image", max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """An upright JPEG thumbnail of an image file.

    Args:
        data: the bytes of the image file.
        side_px: maximum width and height.
        source: file name, for messages.
        max_pixels: larger images are refused.

    Raises:
        ImageError: as `encode_image`.
    """
    with _opened(data, source, max_pixels) as image:
        orientation = read_orientation(image)
        image.draft("RGB", (side_px, side_px))  # faster: libjpeg decodes a JPEG at a fraction of its size
        rgb = _to_rgb(image)
        if orientation in UPRIGHT:
            rgb = rgb.transpose(UPRIGHT[orientation])
        rgb.thumbnail((side_px, side_px))
        rgb.info = {}
        buffer = io.BytesIO()
        rgb.save(buffer, "JPEG", quality=82)
        return buffer.getvalue()


def _image_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


@contextmanager
def _opened(data: bytes, source: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image and read its header. Any exception in the block becomes an ImageError. For `max_pixels` see
    `encode_image`."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if 0 < max_pixels < image.width * image.height:
                raise ImageError(too_many_pixels(image.width * image.height, max_pixels), source)
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too large: more than Pillow's own limit, PIL.Image.MAX_IMAGE_PIXELS", source) from error
    except Exception as error:  # Pillow's decoders raise nearly any exception type on damaged bytes
        raise ImageError(_what_is_wrong(data, error), source) from error


def too_many_pixels(pixels: int, max_pixels: int) -> str:
    """What is wrong with an image of more than `max_pixels`, and what to do."""
    return f"too large: {pixels:,} pixels, and at most {max_pixels:,} are decoded; scale it down, or raise --max-pixels"


def count_pixels(data: bytes) -> int:
    """Width times height of an image file, from its header; 0 if it is not an image of a known format. Never raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                return image.width * image.height
    except Image.DecompressionBombError:
        return sys.maxsize
    except Exception:  # as in `_opened`
        return 0


def _what_is_wrong(data: bytes, error: Exception) -> str:
    head = bytes(data[:512]).lstrip().lower()
    if not data:
        return "empty file"
    if not head.strip(b"\x00"):
        return "no image data: only zero bytes"
    if isinstance(error, Image.UnidentifiedImageError):
        for start, name in _NOT_IMAGES.items():
            if start in head[:32]:
                return f"no image data: {name}"
        return f"not an image of a known format ({', '.join(_FORMATS)}), or its header is damaged"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    return f"truncated or damaged: {error or type(error).__name__}"


_NOT_IMAGES = {
    b"<!doctype html": "an HTML page (a failed download?)",
    b"<html": "an HTML page (a failed download?)",
    b"<svg": "SVG, which has no pixels",
    b"<?xml": "an XML text",
    b"%pdf": "a PDF document",
    b"ftypheic": "HEIC; convert it to JPEG first",
    b"ftypmif1": "HEIF; convert it to JPEG first",
    b"ftypavif": "AVIF; convert it to JPEG first",
    b"version https://git-lfs": "a Git LFS pointer; run 'git lfs pull'",
}


def _format_to_keep(data: bytes, image: Image.Image, orientation: int) -> ImageFormat | None:
    """The format if TensorFlow and browsers decode these bytes as we do; None if they must be re-encoded."""
    if image.format in ("JPEG", "MPO"):
        common = _jpeg_frame_type(data) in (0xC0, 0xC1, 0xC2)  # browsers lack arithmetic and lossless coding
        return "jpeg" if common and image.mode in ("RGB", "L") and orientation == 1 else None
    if image.format == "PNG":
        return "png" if is_plain_png(data) and orientation == 1 else None
    return None


def _jpeg_frame_type(data: bytes) -> int:
    """The start-of-frame marker (0xC0 baseline, 0xC2 progressive, ...); 0 if there is none.

    Raises:
        ValueError: the end-of-image marker is missing.
    """
    frame, position = 0, 2
    while match := _JPEG_MARKER.search(data, position):
        marker = match.group()[1]
        if marker == 0xD9:
            return frame
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = marker
        length = 0 if marker in (0x01, 0xD8) else int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + length
    raise ValueError("the end of the JPEG is missing")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise ValueError("32-bit pixels have no fixed range; convert to 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("32-bit pixels have no fixed range; convert to 8 or 16 bits")
    grey = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _encode_anew(rgb: Image.Image, format: ImageFormat) -> EncodedImage:
    rgb.info = {}  # Pillow would write the comments, colour profile and transparency stored here
    buffer = io.BytesIO()
    if format == "jpeg":
        rgb.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        rgb.save(buffer, "PNG", compress_level=3)
    return EncodedImage(buffer.getvalue(), (rgb.height, rgb.width), format)
