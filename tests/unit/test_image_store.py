from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from pictures import draw_pixels, encode

from odkeras.image_store import KEEP_S, ImageStore
from odkeras.images import EncodedImage, encode_image


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "inbox" / "images")


@pytest.fixture
def png(png_bytes: bytes) -> EncodedImage:
    return encode_image(png_bytes, source="fixture.png")


def make_older(path: Path, seconds: float = 2 * KEEP_S) -> None:
    when = path.stat().st_mtime - seconds
    os.utime(path, (when, when))


def test_the_first_image_makes_the_directory(store: ImageStore, image: EncodedImage, png: EncodedImage) -> None:
    assert not store.directory.exists()
    paths = [store.put(image), store.put(png)]
    assert paths == [store.directory / f"{image.image_id}.jpeg", store.directory / f"{png.image_id}.png"]
    assert [path.read_bytes() for path in paths] == [image.data, png.data]
    assert sorted(store.directory.iterdir()) == sorted(paths)  # nothing temporary


def test_a_full_disk_raises_and_leaves_no_file(
    store: ImageStore, image: EncodedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        store.put(image)
    assert [*store.directory.iterdir()] == []
    assert store.claim(image.image_id) is None


def test_a_claimed_name_leads_to_the_file(store: ImageStore, image: EncodedImage, png: EncodedImage) -> None:
    for each in (image, png):
        path = store.put(each)
        name = store.claim(each.image_id)
        assert name == path.name
        assert store.locate(name) == path


@pytest.mark.parametrize("image_id", ["", "0" * 32, "../../etc/passwd", "0" * 31 + "/", "A" * 32, "0" * 32 + "\n"])
def test_what_is_not_there_cannot_be_claimed(store: ImageStore, image: EncodedImage, image_id: str) -> None:
    store.put(image)
    assert store.claim(image_id) is None


def test_unclaimed_images_are_removed(store: ImageStore, image: EncodedImage, png: EncodedImage) -> None:
    old, new = store.put(image), store.put(png)
    make_older(old)
    assert store.remove_unclaimed() == [old]
    assert [*store.directory.iterdir()] == [new]
    assert store.remove_unclaimed() == []


def test_claimed_images_stay(store: ImageStore, image: EncodedImage) -> None:
    make_older(store.put(image))
    name = store.claim(image.image_id)
    assert name is not None
    assert store.remove_unclaimed() == []
    assert store.locate(name).read_bytes() == image.data


def test_images_that_are_put_again_stay(store: ImageStore, image: EncodedImage) -> None:
    """An image that was handed out in an earlier session kept its age: it could go a second after it was put."""
    path = store.put(image)
    make_older(path)
    store.put(image)
    assert store.remove_unclaimed() == []
    assert path.exists()


def test_stale_temporary_files_are_removed(store: ImageStore, image: EncodedImage) -> None:
    store.put(image)
    half, being_written = store.directory / ".tmp-1-aaaaaaaa", store.directory / ".tmp-2-bbbbbbbb"
    for path in (half, being_written):
        path.write_bytes(image.data[:100])
    make_older(half)
    assert store.remove_unclaimed() == [half]
    assert being_written.exists()


def test_many_threads_may_put(store: ImageStore) -> None:
    images = [encode_image(encode(draw_pixels(seed=seed), "PNG"), source="test") for seed in range(4)]
    together = threading.Barrier(4)
    errors: list[BaseException] = []

    def put() -> None:
        together.wait()
        try:
            for each in images:
                store.put(each)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(path.name for path in store.directory.iterdir()) == sorted(f"{each.image_id}.png" for each in images)
