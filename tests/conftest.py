"""Honest fixtures: pictures are not square and differ however they are turned; 0, 1 and 3 boxes, some at an edge."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import fixtures_postgres
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from pictures import IMAGE_SIZE_HW, TRUTH_XYXY_PX, draw_pixels, encode

from odkeras.annotation import Annotation
from odkeras.boxes import Groundtruth, from_xyxy_px
from odkeras.images import EncodedImage, encode_image
from odkeras.labels import LabelMap

# Here, because pytest would start a server for each module that has a fixture of its own.
postgres_server = fixtures_postgres.postgres_server
postgres_with_tables = fixtures_postgres.postgres_with_tables
postgres_url = fixtures_postgres.postgres_url

settings.register_profile("tests", deadline=None)  # the other process may have both cores
settings.load_profile("tests")


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, and their child processes inherit that: the tests of Ctrl-C
    would never end."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are not a part of a test's name: those of a protocol buffer's map differ from process to process, and
    pytest-xdist runs nothing where its workers do not collect the same names."""
    return f"{len(val)}_bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: pytest-xdist hands them out in this order, and no worker is left with one.

    Trainers lower their priority. Beside another worker that uses all cores they take several times as long, so e2e
    timeouts are generous.
    """
    order = ("e2e", "faults", "integration", "browser", "unit")
    items.sort(key=lambda item: order.index(item.path.parent.name))


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """A command that is run in this process sets up the log and the environment variables of the whole process."""
    log = logging.getLogger("odkeras")
    before = log.level, log.handlers[:], log.propagate
    variables = dict(os.environ)
    yield
    level, log.handlers[:], log.propagate = before
    log.setLevel(level)
    for name in os.environ.keys() - variables:
        del os.environ[name]
    os.environ.update(variables)


def truth_of(kind: str, label_map: LabelMap) -> Groundtruth:
    rows = TRUTH_XYXY_PX[kind]
    boxes = from_xyxy_px([box for box, _ in rows], IMAGE_SIZE_HW)
    return Groundtruth(boxes, np.array([label_map.id_of(label) for _, label in rows], np.int32))


@pytest.fixture
def label_map() -> LabelMap:
    return LabelMap.from_names(["car", "person"])


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    return draw_pixels()


@pytest.fixture
def jpeg_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    return encode(pixels, "JPEG", quality=95)


@pytest.fixture
def png_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    return encode(pixels, "PNG")


@pytest.fixture
def image(jpeg_bytes: bytes) -> EncodedImage:
    return encode_image(jpeg_bytes, source="fixture.jpg")


@pytest.fixture
def annotations(label_map: LabelMap) -> dict[str, Annotation]:
    """Annotated images by the number of their boxes: "none", "one", "three"."""
    made = {}
    for seed, kind in enumerate(TRUTH_XYXY_PX):
        picture = encode_image(encode(draw_pixels(seed=seed), "JPEG", quality=95), source=kind)
        truth = truth_of(kind, label_map)
        made[kind] = Annotation(picture, truth, picture.image_id, f"{kind}.jpg", "batch.jsonl")
    return made


@pytest.fixture
def truth_dir(tmp_path: Path) -> Path:
    """A directory with `truth.csv` and its images: none.jpg, one.jpg, three.jpg."""
    directory = tmp_path / "truth"
    directory.mkdir()
    lines = ["path,xmin,ymin,xmax,ymax,label"]
    for seed, (kind, rows) in enumerate(TRUTH_XYXY_PX.items()):
        (directory / f"{kind}.jpg").write_bytes(encode(draw_pixels(seed=seed), "JPEG", quality=95))
        lines += [f"{kind}.jpg,{','.join(f'{value:g}' for value in box)},{label}" for box, label in rows]
        lines += [f"{kind}.jpg,,,,,"] * (not rows)
    (directory / "truth.csv").write_text("\n".join(lines) + "\n")
    return directory
