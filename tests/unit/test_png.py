"""PNG files that Pillow reads and TensorFlow refuses: a correct file is kept, others are re-encoded or refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pictures import encode
from PIL import Image

from odkeras.errors import ImageError
from odkeras.images import decode_rgb, encode_again, encode_image
from odkeras.png import is_plain_png
from tests.odd_pngs import CLEAN, PIXELS, UNCLEAN


@pytest.mark.parametrize("file", CLEAN.values(), ids=CLEAN)
def test_a_correct_file_keeps_its_bytes(file: bytes) -> None:
    assert is_plain_png(file)
    assert encode_image(file, source="a").data == file


@pytest.mark.parametrize("file", UNCLEAN.values(), ids=UNCLEAN)
def test_any_other_file_is_re_encoded_or_refused(file: bytes) -> None:
    """These bytes were kept. Each later round failed after 0 steps, without a word about the file."""
    try:
        image = encode_image(file, source="a")
    except ImageError:
        return
    assert image.data != file
    assert is_plain_png(image.data)
    with Image.open(io.BytesIO(file)) as opened:
        np.testing.assert_array_equal(decode_rgb(image), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("name", ["missing rows", "too high"])
def test_missing_rows_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match="truncated or damaged"):
        encode_image(UNCLEAN[name], source="a")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_encoding_again_keeps_the_picture(format: str) -> None:
    image = encode_image(encode(PIXELS, format), source="a")
    again = encode_again(image)
    assert (again.format, again.image_size_hw) == (image.format, image.image_size_hw)
    assert np.abs(decode_rgb(again).astype(int) - PIXELS).mean() < 3
