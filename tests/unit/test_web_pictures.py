from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pictures import draw_pixels, encode
from tasks import bare_task

from odkeras.formats.prodigy import read_task
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage, encode_image
from odkeras.web.pictures import Pictures, media_type


def picture(seed: int = 0, format: str = "PNG") -> EncodedImage:
    return encode_image(encode(draw_pixels(seed=seed), format), source="test")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def kept(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "kept")


@pytest.fixture
def pictures(store: ImageStore, kept: ImageStore) -> Pictures:
    return Pictures(store, kept)


@pytest.mark.parametrize(("format", "type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_media_type(format: str, type: str) -> None:
    assert media_type(picture(format=format)) == type


class TestWhereItLies:
    def test_nowhere(self, pictures: Pictures) -> None:
        assert pictures.find(picture().image_id, None) is None
        assert pictures.find(picture().image_id, read_task({})) is None

    @pytest.mark.parametrize("which", ["store", "kept"])
    @pytest.mark.parametrize("format", ["PNG", "JPEG"])
    def test_in_a_store(self, pictures: Pictures, which: str, format: str, request: pytest.FixtureRequest) -> None:
        image = picture(format=format)
        request.getfixturevalue(which).put(image)
        assert pictures.find(image.image_id, None) == image

    @pytest.mark.parametrize("key", ["image", "path"])
    @pytest.mark.parametrize("as_url", [False, True])
    def test_in_the_task_s_file(self, pictures: Pictures, tmp_path: Path, key: str, as_url: bool) -> None:
        image, path = picture(), tmp_path / "with space é.png"
        path.write_bytes(image.data)
        assert pictures.find(image.image_id, read_task({key: path.as_uri() if as_url else str(path)})) == image

    def test_in_the_task_itself(self, pictures: Pictures) -> None:
        image = picture()
        assert pictures.find(image.image_id, read_task({"image": image.data_uri})) == image

    def test_encoded_anew_from_a_file_that_browsers_show_differently(self, pictures: Pictures, tmp_path: Path) -> None:
        data = encode(draw_pixels(), "BMP")
        (tmp_path / "a.bmp").write_bytes(data)
        image = encode_image(data, source="a.bmp")
        assert image.data != data
        assert pictures.find(image.image_id, read_task({"path": str(tmp_path / "a.bmp")})) == image

    def test_the_second_place_when_the_first_is_gone_or_holds_another(self, pictures: Pictures, tmp_path: Path) -> None:
        image, path = picture(), tmp_path / "a.png"
        path.write_bytes(image.data)
        for first in (str(tmp_path / "gone.png"), picture(1).data_uri, "https://example.org/a.png"):
            assert pictures.find(image.image_id, read_task({"image": first, "path": str(path)})) == image


class TestOnlyTheRightBytes:
    def test_another_image_at_the_path(self, pictures: Pictures, tmp_path: Path) -> None:
        """The file was changed after its task was handed out."""
        path = tmp_path / "a.png"
        path.write_bytes(picture(1).data)
        assert pictures.find(picture().image_id, read_task({"image": str(path), "path": str(path)})) is None

    def test_another_image_under_the_name_in_the_store(self, pictures: Pictures, store: ImageStore) -> None:
        path = store.put(picture())
        path.write_bytes(picture(1).data)
        assert pictures.find(picture().image_id, None) is None

    @pytest.mark.parametrize(
        "value",
        [
            "/etc/passwd",
            "file:///etc/passwd",
            "data:text/plain,hello",
            "data:image/png;base64,!!!",
            "data:",
            "https://example.org/a.png",
            "",
            ".",
            "/",
            "~/.ssh/id_rsa",
            "\0",
            "a" * 5000,
            5,
            None,
            ["a"],
            {},
            True,
        ],
    )
    def test_whatever_else_a_task_names(self, pictures: Pictures, value: Any) -> None:
        assert pictures.find(picture().image_id, read_task({"image": value, "path": value})) is None

    @pytest.mark.parametrize(
        "image_id", ["", "..", "../store/x", "a" * 32, "A" * 32, "x" * 32, "0" * 31, "0" * 32 + ".png", "\0", "*"]
    )
    def test_whatever_is_asked_for(self, pictures: Pictures, store: ImageStore, image_id: str) -> None:
        store.put(picture())
        (store.directory / "x.png").write_bytes(picture().data)
        assert pictures.find(image_id, read_task({"image": picture().data_uri})) is None

    def test_what_cannot_be_read(self, pictures: Pictures, tmp_path: Path) -> None:
        image = picture()
        (tmp_path / "cut.png").write_bytes(image.data[:-20])
        (tmp_path / "empty.png").write_bytes(b"")
        for name in ("cut.png", "empty.png"):
            assert pictures.find(image.image_id, read_task({"path": str(tmp_path / name)})) is None

    @pytest.mark.timeout(10)
    def test_what_is_no_file_is_not_waited_for(self, pictures: Pictures, tmp_path: Path) -> None:
        """A named pipe, or a device, in an imported example: reading it never ended."""
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero")):
            assert pictures.find(picture().image_id, read_task({"path": str(path)})) is None


def test_with_image(pictures: Pictures, store: ImageStore) -> None:
    image = picture()
    task = bare_task(image.image_id, image="/gone.png")
    assert pictures.with_image(task) is None
    store.put(image)
    assert pictures.with_image(task) == replace(task, image=image)
    assert pictures.with_image(bare_task("", image=image.data_uri)) is None, "without an id nothing can be compared"
