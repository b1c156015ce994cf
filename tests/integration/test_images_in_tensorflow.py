"""The image rule: what odkeras delivers, TensorFlow decodes to the same pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pictures import draw_pixels, encode
from PIL import Image

from odkeras.errors import ImageError
from odkeras.images import decode_rgb, encode_image

pytestmark = pytest.mark.integration

RNG = np.random.default_rng(7)
PIXELS = draw_pixels((47, 63))
NOISE = np.kron(RNG.integers(0, 256, (12, 16, 3), np.uint8), np.ones((4, 4, 1), np.uint8))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


CASES: list[tuple[str, Any, str, dict[str, Any]]] = [
    ("baseline", PIXELS, "JPEG", {"quality": 90}),
    ("baseline, noise, 4:2:0", NOISE, "JPEG", {"quality": 75, "subsampling": 2}),
    ("baseline, noise, 4:4:4", NOISE, "JPEG", {"quality": 95, "subsampling": 0}),
    ("progressive", NOISE, "JPEG", {"progressive": True}),
    ("an RGB JPEG", NOISE, "JPEG", {"keep_rgb": True}),
    ("grey JPEG", NOISE[:, :, 0], "JPEG", {}),
    (
        "several pictures",
        Image.fromarray(NOISE),
        "MPO",
        {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]},
    ),
    ("turned JPEG", NOISE, "JPEG", {"exif": exif(6)}),
    ("mirrored JPEG", NOISE, "JPEG", {"exif": exif(5)}),
    ("upright JPEG with EXIF", NOISE, "JPEG", {"exif": exif(1)}),
    ("CMYK JPEG", Image.fromarray(NOISE).convert("CMYK"), "JPEG", {}),
    ("colour profile", NOISE, "JPEG", {"icc_profile": b"profile" * 50}),
    ("RGB PNG", NOISE, "PNG", {}),
    ("turned PNG", NOISE, "PNG", {"exif": exif(8)}),
    ("grey PNG", NOISE[:, :, 0], "PNG", {}),
    ("16-bit PNG", RNG.integers(0, 65536, (48, 64)).astype(np.uint16), "PNG", {}),
    ("palette PNG", Image.fromarray(NOISE).quantize(32), "PNG", {}),
    ("transparent palette PNG", Image.fromarray(NOISE).quantize(32), "PNG", {"transparency": bytes(range(0, 256, 8))}),
    ("one transparent colour", NOISE, "PNG", {"transparency": tuple(int(part) for part in NOISE[0, 0])}),
    ("RGBA PNG", np.dstack([NOISE, NOISE[:, :, 0]]), "PNG", {}),
    ("animated PNG", Image.fromarray(NOISE), "PNG", {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]}),
    ("WebP", NOISE, "WEBP", {}),
    ("WebP with alpha", np.dstack([NOISE, NOISE[:, :, 0]]), "WEBP", {}),
    ("BMP", NOISE, "BMP", {}),
    ("GIF", Image.fromarray(NOISE), "GIF", {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]}),
    ("TIFF", NOISE, "TIFF", {"compression": "tiff_lzw"}),
    ("one pixel", PIXELS[:1, :1], "JPEG", {}),
]


@pytest.mark.parametrize(
    ("picture", "format", "options"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_tensorflow_sees_what_we_see(picture: Any, format: str, options: dict[str, Any]) -> None:
    image = encode_image(encode(picture, format, **options), source="x")
    ours = decode_rgb(image)
    theirs = tf.io.decode_image(image.data, channels=3, expand_animations=False).numpy()
    assert theirs.shape == (*image.image_size_hw, 3) == ours.shape
    assert np.abs(theirs.astype(int) - ours.astype(int)).mean() <= 4


def test_images_that_tensorflow_cannot_decode_are_refused() -> None:
    """Pillow alone would take a PNG with wrong checksums or without its end; training would stop at it."""
    data = encode(NOISE, "PNG")
    damaged = bytearray(data)
    damaged[data.index(b"IEND") - 6] ^= 0xFF  # in the checksum of the pixels
    for broken in (bytes(damaged), data[:-12]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_image(broken, channels=3)
        with pytest.raises(ImageError, match="truncated or damaged"):
            encode_image(broken, source="x")
