"""Where a record's image is: one rule, and no error but ImageError."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pictures import draw_pixels, encode
from PIL import Image

from odkeras.errors import ImageError
from odkeras.image_ref import ImageRef
from odkeras.images import local_path, read_image

PIXELS = draw_pixels()
HOSTILE = (
    "file://[x].jpg",  # urlsplit takes it for a broken IPv6 address: ValueError
    "file://[::1",
    "a" * 5000 + ".png",
    "nul\0byte.png",
    "\ud800.png",
    "data:image/png;base64,###",
    "data:",
    "http://",
    "https://example.org/a.png",
    "",
)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    Image.new("RGB", (64, 48), "red").save(path)
    return path


@pytest.mark.parametrize("place", HOSTILE)
@pytest.mark.parametrize("key", ["image", "path"])
def test_no_place_raises_anything_but_an_image_error(place: str, key: str, tmp_path: Path) -> None:
    """`file://[x].jpg` ended the stream for good, killed the trainer, and gave `db in` and `db out` a traceback."""
    reference = ImageRef.of_record({key: place}, tmp_path)
    reference.locate()
    local_path(place)
    assert reference.find("0" * 32) is None
    for read in (reference.read, reference.read_bytes):
        with pytest.raises(ImageError):
            read()


class TestLocate:
    def test_a_data_uri_comes_first_then_files_that_exist_then_urls(self, picture: Path) -> None:
        uri, url, missing = "data:image/png;base64,AAAA", "https://example.org/a.png", "/gone.png"
        for image, path, expected in (
            (str(picture), uri, uri),
            (url, str(picture), picture),
            (missing, str(picture), picture),
            (missing, url, url),
            (missing, "", Path(missing)),
        ):
            assert ImageRef.of_record({"image": image, "path": path}).locate() == expected

    def test_nothing_named(self) -> None:
        assert ImageRef.of_record({"image": 3, "path": None}).locate() is None

    def test_relative_to_the_base_where_the_file_is(self, picture: Path) -> None:
        assert ImageRef.of_record({"path": picture.name}, picture.parent).locate() == picture
        assert ImageRef.of_record({"path": "gone.png"}, picture.parent).locate() == Path("gone.png")

    def test_a_file_url_percent_encoded_or_not(self, picture: Path) -> None:
        for place in (picture.as_uri(), f"file://{picture}"):
            assert ImageRef.of_record({"image": place}).read() == read_image(picture)


class TestFind:
    def test_the_place_whose_image_has_the_id(self, picture: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.png"
        Image.new("RGB", (64, 48), "blue").save(other)
        wanted = read_image(picture)
        found = ImageRef.of_record({"image": str(other), "path": str(picture)}).find(wanted.image_id)
        assert found == wanted
        assert ImageRef.of_record({"image": str(other)}).find(wanted.image_id) is None

    def test_in_the_record(self, picture: Path) -> None:
        uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
        wanted = read_image(picture)
        assert ImageRef.of_record({"image": uri}).find(wanted.image_id) == wanted


class TestIdentify:
    def test_by_content_where_there_is_some(self, picture: Path) -> None:
        assert ImageRef.of_record({"path": str(picture)}).identify() == read_image(picture).image_id

    def test_by_the_place_otherwise(self) -> None:
        one, other = (ImageRef.of_record({"image": f"https://example.org/{name}"}).identify() for name in "ab")
        assert one != other
        assert len(one) == 32

    def test_without_a_place(self) -> None:
        with pytest.raises(ImageError, match="neither 'image' nor 'path'"):
            ImageRef.of_record({}).identify()


class TestAnotherPicture:
    """The stored copy of an annotated image is gone, and its file was overwritten: its boxes must not be trained."""

    @pytest.fixture
    def annotated(self, tmp_path: Path) -> tuple[Path, str]:
        path = tmp_path / "a.png"
        path.write_bytes(encode(PIXELS, "PNG"))
        return path, read_image(path).image_id

    def test_of_the_same_size(self, annotated: tuple[Path, str]) -> None:
        path, image_id = annotated
        assert ImageRef.of_record({"path": str(path)}).read(image_id=image_id).image_id == image_id
        path.write_bytes(encode(PIXELS[::-1], "PNG"))
        with pytest.raises(ImageError, match="the file holds another picture than the one that was annotated"):
            ImageRef.of_record({"path": str(path)}).read(image_id=image_id)

    def test_ids_that_are_no_hash_of_a_picture(self, annotated: tuple[Path, str]) -> None:
        """Names that others gave, and the hash of a location that could not be read before."""
        path, _ = annotated
        reference = ImageRef.of_record({"path": str(path)})
        for image_id in ("", "my-image-7", reference.place_id):
            assert reference.read(image_id=image_id).image_size_hw == PIXELS.shape[:2]

    def test_a_picture_that_is_encoded_anew(self, tmp_path: Path) -> None:
        """Another version of Pillow encodes it otherwise, so that its id proves nothing."""
        path = tmp_path / "a.webp"
        path.write_bytes(encode(PIXELS, "WEBP"))
        assert ImageRef.of_record({"path": str(path)}).read(image_id="0" * 32).image_size_hw == PIXELS.shape[:2]
