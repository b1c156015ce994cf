"""A picture with far more pixels than bytes is refused on every way in, before it is decoded. A PNG of 292 kB with
10,000 x 10,000 pixels took the trainer to 5.5 GB, and one with four times as many killed the model server."""

from __future__ import annotations

import base64
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkeras.annotation import Answer, Decision, Task
from odkeras.errors import OdkerasError, RequestError
from odkeras.formats.prodigy import read_annotation, write_answer
from odkeras.image_ref import ImageRef
from odkeras.images import count_pixels, encode_image, inspect_image, is_image_file, make_thumbnail, read_image
from odkeras.labels import Label, LabelMap
from odkeras.serving.load import MAX_INSTANCES, PixelBudget
from odkeras.serving.predict import predict_files
from odkeras.session.stream import TaskStream
from tests.odd_pngs import chunk, header

SIZE_HW = (10_000, 10_000)


def empty_png(image_size_hw: tuple[int, int]) -> bytes:
    """A PNG that claims a size, without the pixels."""
    return b"\x89PNG\r\n\x1a\n" + header(*image_size_hw) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


BOMB = empty_png(SIZE_HW)
REASON = "too large: 100,000,000 pixels, and at most 50,000,000 are decoded; scale it down, or raise --max-pixels"
LABEL_MAP = LabelMap((Label(1, "car"),))
DATA_URI = "data:image/png;base64," + base64.b64encode(BOMB).decode()


@pytest.fixture(autouse=True)
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "bomb.png"
    path.parent.mkdir()
    path.write_bytes(BOMB)
    return path


@pytest.mark.parametrize(
    "read",
    [
        read_image,
        lambda path: encode_image(path.read_bytes(), source="x"),
        lambda path: inspect_image(path.read_bytes(), source="x"),  # the import of labels
        lambda path: make_thumbnail(path.read_bytes(), side_px=64),  # the gallery
        lambda path: ImageRef((str(path),), name="x").read(),  # a source of JSON lines
        lambda path: ImageRef((DATA_URI,), name="x").read(),
        lambda path: ImageRef((DATA_URI,), name="x").read(image_id="0" * 32),
        lambda path: read_annotation(  # the trainer
            write_answer(Answer(Task("0" * 32, "x", DATA_URI, SIZE_HW), Decision.ACCEPT, "s", 1.0)),
            LabelMap((Label(1, "car"),)),
        ),
    ],
)
def test_every_reader_refuses_it(bomb: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(OdkerasError) as refused:
        read(bomb)
    assert str(refused.value).endswith(REASON)


def test_the_stream_and_predict_skip_it(bomb: Path) -> None:
    skipped: dict[str, str] = {}
    assert list(TaskStream(bomb.parent, _NoSuggestions(), on_skip=skipped.__setitem__)) == []
    assert skipped == {str(bomb): REASON}
    (prediction,) = predict_files([bomb], lambda images: [], threshold=0.5)
    assert (prediction.image, prediction.error) == (None, REASON)
    assert not is_image_file(bomb, "0" * 32)


class _NoSuggestions:
    batch_size = 1

    def __call__(self, tasks: Sequence[Task]) -> list[Task]:
        return list(tasks)

    def is_fresh(self, task: Task) -> bool:
        return True


def strings(*values: bytes) -> dict[str, np.ndarray]:
    return {"image_bytes": np.array([*values, b""], object)[:-1]}


def test_the_model_server_counts_before_it_decodes() -> None:
    small = empty_png((48, 64))
    assert count_pixels(BOMB) == 100_000_000
    assert count_pixels(b"text") == count_pixels(b"") == 0
    budget = PixelBudget(100_000)
    assert budget.count(strings(small, b"text", b"")) == 48 * 64
    assert budget.count({"image": np.zeros((3, 48, 64, 3), np.uint8)}) == 3 * 48 * 64
    assert budget.count({"x": np.zeros(5, np.float32), "empty": np.zeros((0, 4, 4, 3), np.uint8)}) == 0


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (strings(b"text", BOMB), "image 1 is too large: 100,000,000 pixels"),
        (strings(b"\n\x90\x01\n\x0dimage/encoded" + BOMB), "image 0 is too large: 100,000,000 pixels"),  # an Example
        (strings(*[b"x\xff\xd8\xff" * 17]), "input 0 seems to contain more than 16 images"),
        (strings(*[empty_png((300, 300))] * 3), "the images of the request have 270,000 pixels"),
        (strings(*[b"x"] * (MAX_INSTANCES + 1)), "the request has 129 images"),
        ({"image": np.zeros((1, 400, 400, 3), np.uint8)}, "image 0 is too large: 160,000 pixels"),
    ],
)
def test_the_model_server_refuses(inputs: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as refused, PixelBudget(100_000).reserve(inputs):
        pass
    assert refused.value.status == 413


def test_large_requests_are_predicted_one_after_the_other() -> None:
    """Four requests at a time, each as large as one may be, would need four times the memory."""
    budget, large = PixelBudget(100_000), {"image": np.zeros((2, 300, 300, 3), np.uint8)}
    running, most = [0], [0]
    lock, both = threading.Lock(), threading.Barrier(4)

    def predict() -> None:
        both.wait(10)
        with budget.reserve(large):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            with budget.reserve(strings(b"x")):  # a small request need not wait
                pass
            with lock:
                running[0] -= 1

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (running, most) == ([0], [1])
