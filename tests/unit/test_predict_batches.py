"""Batches of images whose size follows the time that the model takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from odkeras.boxes import Detections
from odkeras.errors import RequestError, ServerUnavailableError
from odkeras.images import EncodedImage
from odkeras.serving import batches
from odkeras.serving.batches import MAX_IMAGES, Item, predict_in_batches


def image_of(number: int, size_hw: tuple[int, int] = (48, 64), size_bytes: int = 10) -> EncodedImage:
    return EncodedImage(f"{number:04}".encode().ljust(size_bytes, b"."), size_hw, "jpeg")


def detections_of(image: EncodedImage) -> Detections:
    """One box of the class that the image's bytes name."""
    return Detections(np.array([[0, 0, 1, 1]]), np.ones(1), np.array([int(image.data[:4])]))


class Model:
    """Refuses some images, and batches of more than `most` images."""

    def __init__(self, *, most: int = 1000, refused: Sequence[int] = (), seconds: float = 0.0) -> None:
        self.most, self.refused, self.seconds = most, refused, seconds
        self.sizes: list[int] = []

    def __call__(self, images: Sequence[EncodedImage]) -> list[Detections]:
        self.sizes.append(len(images))
        time.sleep(self.seconds * len(images))
        if len(images) > self.most or any(int(image.data[:4]) in self.refused for image in images):
            raise RequestError(400, "refused")
        return [detections_of(image) for image in images]


def run(model: Model, items: Sequence[Item[int]]) -> list[int | str | None]:
    """The class of each image's box, "refused", or None."""
    results = list(predict_in_batches(items, model))
    assert [item for item, _ in results] == list(items)
    return [
        "refused" if isinstance(result, RequestError) else None if result is None else int(result.classes[0])
        for _, result in results
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 31, 200])
def test_each_image_has_its_own_detections(count: int) -> None:
    items = [Item(number, None if number % 7 == 3 else image_of(number)) for number in range(count)]
    model = Model()
    assert run(model, items) == [None if number % 7 == 3 else number for number in range(count)]
    assert max(model.sizes, default=0) <= MAX_IMAGES


def test_batches_of_a_fast_model_grow() -> None:
    model = Model()
    run(model, [Item(number, image_of(number)) for number in range(300)])
    assert model.sizes[:2] == [1, 8] and max(model.sizes) == MAX_IMAGES
    assert len(model.sizes) <= 12


def test_a_batch_grows_to_what_the_target_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It doubled, and half of 128 photographs were in batches that are slower for each image."""
    clock = [0.0]
    monkeypatch.setattr(batches.time, "monotonic", lambda: clock[0])
    model = Model()

    def predict(images: Sequence[EncodedImage]) -> list[Detections]:
        clock[0] += 0.05 * len(images)
        return model(images)

    assert len(list(predict_in_batches([Item(number, image_of(number)) for number in range(128)], predict))) == 128
    assert model.sizes[:2] == [1, 8]
    assert set(model.sizes[3:-1]) == {20}


def test_batches_of_a_slow_model_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "TARGET_S", 0.02)
    model = Model(seconds=0.015)
    run(model, [Item(number, image_of(number)) for number in range(20)])
    assert max(model.sizes) <= 4


@pytest.mark.parametrize("refused", [[0], [5], [6, 7], [199], range(40, 60), range(200)])
def test_a_refused_image_costs_itself_alone(refused: Sequence[int]) -> None:
    model = Model(refused=refused)
    expected = ["refused" if number in refused else number for number in range(200)]
    assert run(model, [Item(number, image_of(number)) for number in range(200)]) == expected


def test_a_model_with_a_batch_size_of_1_is_found_out_once() -> None:
    model = Model(most=1)
    assert run(model, [Item(number, image_of(number)) for number in range(50)]) == list(range(50))
    assert sum(size > 1 for size in model.sizes) <= 4


@pytest.mark.parametrize("size", [{"size_hw": (4000, 4000)}, {"size_bytes": 5 * 2**20}], ids=["pixels", "bytes"])
def test_batches_of_large_images_stay_small(size: dict) -> None:
    model = Model()
    run(model, [Item(number, image_of(number, **size)) for number in range(40)])
    assert max(model.sizes) <= 3


def test_other_errors_end_it() -> None:
    def gone(images: Sequence[EncodedImage]) -> list[Detections]:
        raise ServerUnavailableError("gone")

    with pytest.raises(ServerUnavailableError, match="gone"):
        list(predict_in_batches([Item(1, image_of(1))], gone))
