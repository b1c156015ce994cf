from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import draw_pixels, encode
from PIL import Image

from odkeras.data_uri import bytes_from_data_uri
from odkeras.errors import ImageError
from odkeras.image_files import list_image_files
from odkeras.image_ref import ImageRef
from odkeras.images import (
    EncodedImage,
    decode_rgb,
    encode_image,
    is_image_file,
    is_turned,
    local_path,
    read_image,
    recall_image,
)

Pixels = npt.NDArray[Any]
PIXELS = draw_pixels()
HEIGHT, WIDTH = 48, 64


def check(data: bytes) -> EncodedImage:
    return encode_image(data, source="x")


def assert_close(image: EncodedImage, expected: Pixels, levels: float = 2.0) -> None:
    """Within `levels` of mean absolute difference; turned or swapped pictures are some 50 levels apart."""
    found = decode_rgb(image)
    assert found.shape == expected.shape
    assert image.image_size_hw == expected.shape[:2]
    assert np.abs(found.astype(int) - expected.astype(int)).mean() <= levels


def png(
    rows: list[bytes], depth: int, colour: int, extra: bytes = b"", interlace: int = 0, width: int = WIDTH
) -> bytes:
    """A PNG file from its raw rows, for the kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, interlace)
    body = zlib.compress(b"".join(b"\x00" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def stored_as(upright: Pixels, orientation: int) -> Pixels:
    """What a camera stores so that a viewer, following `orientation`, shows `upright` (TIFF 6.0, tag 274)."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright).copy()


# --- bytes that are kept


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (PIXELS, {}),
        (PIXELS, {"progressive": True}),
        (PIXELS, {"optimize": True, "quality": 30}),
        (PIXELS, {"keep_rgb": True}),  # an RGB JPEG, with Adobe's marker
        (PIXELS, {"exif": exif(1)}),
        (PIXELS, {"exif": exif(9)}),  # not a valid orientation: nothing to do
        (PIXELS, {"icc_profile": b"not a real profile" * 9}),
        (PIXELS, {"comment": b"\xff\xd9 an end marker in a comment"}),
        (PIXELS, {"restart_marker_blocks": 2}),
        (PIXELS[:, :, 0], {}),  # grey
        (draw_pixels((47, 63)), {}),  # sides that are no multiple of 8
        (draw_pixels((1, 1)), {}),
    ],
)
def test_a_jpeg_that_all_decode_alike_keeps_its_bytes(pixels: Pixels, options: dict[str, Any]) -> None:
    data = encode(pixels, "JPEG", **options)
    image = check(data)
    assert image.data == data
    assert image.format == "jpeg"
    assert image.image_size_hw == pixels.shape[:2]


def test_a_plain_png_keeps_its_bytes(png_bytes: bytes) -> None:
    image = check(png_bytes)
    assert image == EncodedImage(png_bytes, (HEIGHT, WIDTH), "png")
    np.testing.assert_array_equal(decode_rgb(image), PIXELS)


def test_bytes_after_the_end_do_no_harm(jpeg_bytes: bytes, png_bytes: bytes) -> None:
    assert check(jpeg_bytes + b"more").data == jpeg_bytes + b"more"
    assert check(png_bytes + b"more").data == png_bytes + b"more"


def test_a_photo_of_several_pictures_as_phones_write_it() -> None:
    data = encode(Image.fromarray(PIXELS), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 24))])
    assert_close(check(data), PIXELS)
    assert check(data).format == "jpeg"


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow, about it
def test_damaged_exif_does_not_matter(jpeg_bytes: bytes) -> None:
    segment = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff broken"
    data = jpeg_bytes[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg_bytes[2:]
    assert check(data).data == data


# --- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "kind"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "jpeg"), ("TIFF", "png")])
def test_orientation_is_applied(orientation: int, format: str, kind: str) -> None:
    stored = stored_as(PIXELS, orientation)
    if format == "TIFF":
        data = encode(stored, "TIFF", tiffinfo={0x0112: orientation})
    else:
        data = encode(stored, format, exif=exif(orientation))
    image = check(data)
    assert_close(image, PIXELS)
    assert image.format == kind
    assert Image.open(io.BytesIO(image.data)).getexif().get(0x0112, 1) == 1


# --- colours


def test_cmyk_inverted_as_adobe_writes_it() -> None:
    cmyk = Image.fromarray(PIXELS).convert("CMYK")
    image = check(encode(cmyk, "JPEG", quality=95))
    assert_close(image, PIXELS, levels=4)
    assert image.format == "jpeg"


def test_cmyk_without_adobe_s_marker_is_read_as_inverted() -> None:
    """Pillow and browsers agree on it."""
    data = encode(Image.fromarray(PIXELS).convert("CMYK"), "JPEG", quality=95)
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    assert_close(check(data[:start] + data[start + 2 + length :]), PIXELS, levels=4)


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF"])
def test_grey_becomes_three_equal_channels(format: str) -> None:
    grey = PIXELS[:, :, 0]
    image = check(encode(grey, format))
    assert image.format == "png"
    np.testing.assert_array_equal(decode_rgb(image), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF"])
def test_palette(format: str) -> None:
    palette = Image.fromarray(PIXELS).quantize(64)
    image = check(encode(palette, format))
    np.testing.assert_array_equal(decode_rgb(image), np.asarray(palette.convert("RGB")))


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[:, :, None] / 255
    return np.round(pixels * share + 255 * (1 - share)).astype(np.uint8)


_ALPHA = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, axis=0)


@pytest.mark.parametrize(
    ("format", "options", "levels"), [("PNG", {}, 1), ("TIFF", {}, 1), ("WEBP", {"lossless": True}, 2), ("WEBP", {}, 4)]
)
def test_rgba_is_composited_on_white(format: str, options: dict[str, Any], levels: float) -> None:
    image = check(encode(np.dstack([PIXELS, _ALPHA]), format, **options))
    assert_close(image, _over_white(PIXELS, _ALPHA), levels)


def test_a_palette_with_a_transparent_colour() -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    index = int(np.asarray(palette)[0, 0])
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[np.asarray(palette) == index] = 255
    for format in ("PNG", "GIF"):
        np.testing.assert_array_equal(decode_rgb(check(encode(palette, format, transparency=index))), expected)


# --- 16 bits and more

_SIXTEEN = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 21  # 0 to 64 491
_EIGHT = np.repeat((_SIXTEEN / 257).round().astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    image = check(encode(_SIXTEEN, format))
    assert_close(image, _EIGHT, levels=1)
    assert decode_rgb(image).max() == 251


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_png_with_several_channels(colour: int, channels: int) -> None:
    planes = [_SIXTEEN, _SIXTEEN[::-1], _SIXTEEN[:, ::-1]][: 3 if channels > 2 else 1]
    if channels != 3:
        planes.append(np.full_like(_SIXTEEN, 0xFFFF))
    rows = [row.astype(">u2").tobytes() for row in np.dstack(planes)]
    expected = np.dstack([(plane / 257).round() for plane in planes[:3]]) if channels > 2 else _EIGHT
    assert_close(check(png(rows, depth=16, colour=colour)), expected.astype(np.uint8), levels=1)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(dtype: Any) -> None:
    with pytest.raises(ImageError, match="32-bit pixels have no fixed range"):
        check(encode(Image.fromarray((_SIXTEEN.astype(dtype) - 9) * 99), "TIFF"))


# --- formats


@pytest.mark.parametrize(
    ("format", "options", "kind", "levels"),
    [
        ("WEBP", {"quality": 95}, "jpeg", 3),
        ("WEBP", {"lossless": True}, "jpeg", 2),
        ("BMP", {}, "png", 0),
        ("TIFF", {}, "png", 0),
        ("TIFF", {"compression": "tiff_lzw"}, "png", 0),
        ("TIFF", {"compression": "jpeg", "quality": 95}, "png", 3),
        ("GIF", {}, "png", 6),  # 256 colours
    ],
)
def test_other_formats_are_re_encoded(format: str, options: dict[str, Any], kind: str, levels: float) -> None:
    image = check(encode(PIXELS, format, **options))
    assert image.format == kind
    assert_close(image, PIXELS, levels)


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_picture_of_several_counts(format: str) -> None:
    first = Image.fromarray(PIXELS).quantize(256).convert("RGB")
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    data = encode(first, format, save_all=True, append_images=others)
    assert_close(check(data), np.asarray(first), levels=4)
    assert Image.open(io.BytesIO(check(data).data)).format in ("PNG", "JPEG")
    assert getattr(Image.open(io.BytesIO(check(data).data)), "n_frames", 1) == 1


def test_an_interlaced_png_is_re_encoded() -> None:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row.tobytes() for y, x, dy, dx in passes for row in PIXELS[y::dy, x::dx]]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    body = zlib.compress(b"".join(b"\x00" + row for row in rows))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    image = check(data)
    assert image.data != data
    np.testing.assert_array_equal(decode_rgb(image), PIXELS)


def test_re_encoding_drops_metadata() -> None:
    data = encode(stored_as(PIXELS, 6), "JPEG", exif=exif(6), comment=b"secret", icc_profile=b"profile" * 20)
    assert set(Image.open(io.BytesIO(check(data).data)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    palette = encode(Image.fromarray(PIXELS).quantize(8), "PNG", transparency=1, icc_profile=b"profile" * 20)
    assert Image.open(io.BytesIO(check(palette).data)).info == {}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_result_encodes_to_itself(format: str) -> None:
    image = check(encode(stored_as(PIXELS, 6), format))
    assert check(image.data) == image


def test_the_format_is_read_from_the_bytes_not_the_extension(
    tmp_path: Path, jpeg_bytes: bytes, png_bytes: bytes
) -> None:
    (tmp_path / "a.png").write_bytes(jpeg_bytes)
    (tmp_path / "b.jpg").write_bytes(png_bytes)
    (tmp_path / "c").write_bytes(encode(PIXELS, "GIF"))
    formats = [read_image(tmp_path / name).format for name in ("a.png", "b.jpg", "c")]
    assert formats == ["jpeg", "png", "png"]


# --- what is no image


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (bytes(1000), "only zero bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC; convert it to JPEG first"),
        (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", "AVIF; convert it to JPEG first"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"just text", "not an image of a known format"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "not an image of a known format",
        ),  # never to Ghostscript
        (b"P6 2 2 255 " + bytes(12), "not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "not an image of a known format"),
    ],
)
def test_bytes_that_are_not_an_image_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as raised:
        encode_image(data, source="a.jpg")
    assert reason in raised.value.reason
    assert str(raised.value) == f"a.jpg: {raised.value.reason}"


def places(length: int) -> list[int]:
    """Bytes of a file: of its header, of its pixels, of its end."""
    return [2, 20, length // 3, length // 2, length - 12, length - 2, length - 1]


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow, about damaged EXIF
def test_truncated_files_are_refused(format: str, options: dict[str, Any]) -> None:
    data = encode(draw_pixels((30, 40)), format, **options)
    check(data)
    for length in places(len(data)):
        with pytest.raises(ImageError):
            encode_image(data[:length], source=f"the first {length} bytes")


def test_truncation_is_noticed_even_if_the_host_program_told_pillow_not_to(
    monkeypatch: pytest.MonkeyPatch, jpeg_bytes: bytes, png_bytes: bytes
) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    for data in (jpeg_bytes, png_bytes):
        check(data)
        for length in (len(data) // 2, len(data) - 30, len(data) - 1):
            with pytest.raises(ImageError, match="truncated or damaged"):
                check(data[:length])


def test_a_flipped_byte_of_a_png_is_noticed(png_bytes: bytes) -> None:
    """Pillow does not look at the checksums of the pixels; TensorFlow does, and would fail in mid-training."""
    for place in places(len(png_bytes)):
        damaged = bytearray(png_bytes)
        damaged[place] ^= 0x55
        with pytest.raises(ImageError):
            check(bytes(damaged))


@settings(max_examples=100)
@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
@pytest.mark.filterwarnings("ignore")  # Pillow, about damaged EXIF
def test_damage_gives_an_image_or_an_image_error(format: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encode(draw_pixels((12, 16)), format))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    with contextlib.suppress(ImageError):
        image = encode_image(bytes(data), source="x", max_pixels=1_000_000)
        assert decode_rgb(image).shape == (*image.image_size_hw, 3)


# --- size


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    header = struct.pack(">IIBBBBB", 12_000, 10_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(ImageError, match="large: 120,000,000 pixels"),
    ):
        check(bomb)


def test_the_limit_itself_is_allowed(jpeg_bytes: bytes) -> None:
    assert encode_image(jpeg_bytes, source="x", max_pixels=HEIGHT * WIDTH)
    with pytest.raises(ImageError, match="x: too large: 3,072 pixels, and at most 3,071 are decoded"):
        encode_image(jpeg_bytes, source="x", max_pixels=HEIGHT * WIDTH - 1)


# --- the value


def test_the_id_is_the_start_of_the_sha256(image: EncodedImage) -> None:
    assert image.image_id == hashlib.sha256(image.data).hexdigest()[:32]


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_the_data_uri_holds_the_bytes(format: str) -> None:
    image = check(encode(PIXELS, format))
    assert image.data_uri.startswith(f"data:image/{image.format};base64,")
    assert bytes_from_data_uri(image.data_uri) == image.data


def test_recalling_reads_only_the_header(monkeypatch: pytest.MonkeyPatch, image: EncodedImage) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert recall_image(image.data, image.image_id, source="x") == image
    assert recall_image(image.data + b" ", image.image_id, source="x") is None
    assert recall_image(image.data, "", source="x") is None


# --- data URIs and files


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("data:;base64,QUJD", b"ABC"),
        ("data:image/jpeg;charset=utf-8;base64,QUJD", b"ABC"),
        ("DATA:image/jpeg;BASE64,QUJD", b"ABC"),
        ("data:image/jpeg;base64,QU\nJD\r\n", b"ABC"),
        ("data:image/jpeg;base64,QUI%3D", b"AB"),
        ("data:,A%42C", b"ABC"),
        ("data:image/jpeg;base64,", b""),
    ],
)
def test_data_uris(uri: str, data: bytes) -> None:
    assert bytes_from_data_uri(uri) == data


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://example.org/a.jpg", "not a data URI: 'http://example.org/a.jpg'"),
        ("data:image/png;base64", "not a data URI"),
        ("", "not a data URI"),
        ("data:image/png;base64,QUJ", "broken base64"),
        ("data:image/png;base64,Q*JD", "broken base64"),
        ("data:image/png;base64,QUJé", "broken base64"),
    ],
)
def test_malformed_data_uris_are_refused(uri: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason.replace("(", r"\(")):
        bytes_from_data_uri(uri)


def test_files_that_cannot_be_read(tmp_path: Path, jpeg_bytes: bytes) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg: cannot be read: No such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match=r"cannot be read: Is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("nul\0byte.jpg")
    (tmp_path / "large.jpg").write_bytes(jpeg_bytes)
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "large.jpg", max_pixels=100)


def test_listing_image_files(tmp_path: Path) -> None:
    names = ["b.JPG", "a.png", "deep/er/c.webp", "deep/d.tiff", "e.jpeg", "f.bmp", "g.gif"]
    others = ["notes.txt", ".hidden.jpg", ".git/x.jpg", "deep/.cache/x.png", "._b.JPG", "jpg", "x.csv"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_image_files(tmp_path) == sorted(tmp_path / name for name in names)
    assert list_image_files(str(tmp_path / "deep")) == [tmp_path / "deep/d.tiff", tmp_path / "deep/er/c.webp"]


def test_listing_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.jpg").touch()
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown/linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/back").symlink_to(tmp_path / "shown")
    assert list_image_files(tmp_path / "shown") == [tmp_path / "shown/linked/a.jpg"]


@pytest.mark.parametrize("name", ["a b.png", "b#1.png", "e?x.png", "c%20d.png"])
def test_a_file_url_may_be_encoded_or_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert local_path(f"file://{tmp_path}/{name}") == tmp_path / name
    assert local_path((tmp_path / name).as_uri()) == tmp_path / name
    assert local_path(str(tmp_path / name)) == tmp_path / name


def test_is_image_file_compares_the_content(tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    for name in ("a.png", "a.bmp"):  # bytes that are kept, and bytes that are encoded anew
        Image.fromarray(pixels).save(tmp_path / name)
        assert is_image_file(tmp_path / name, read_image(tmp_path / name).image_id)
        assert not is_image_file(tmp_path / name, "0" * 32)
    assert not is_image_file(tmp_path / "none.png", "0" * 32)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_files_whose_reading_never_ends_are_refused_unread(tmp_path: Path, kind: str) -> None:
    """One such file in a folder made the page wait for it for ever, or took all of the memory."""
    path = tmp_path / "a.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(10 * 2**30)
    said = "10,240 MB, and at most 512 MB" if kind == "sparse" else "not a regular file, but a pipe, socket or device"
    with pytest.raises(ImageError, match=said):
        read_image(path)
    assert not is_image_file(path, "0" * 64)
    assert not is_turned(path)
    with pytest.raises(ImageError, match=said):
        ImageRef.of_record({"image": str(path)}).read()
