"""Generated inputs for each door, made from the files of tests/corpus: an error of ours, or none.

    ODKERAS_FUZZ=50 pytest tests/unit/test_fuzz.py       # 50 times as many

What is found is written to the corpus as `find-*`: commit it with its fix, and it is tried, and changed, from then on.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from odkeras.errors import OdkerasError
from odkeras.formats.label_files import LabelFile, ReadNotes
from odkeras.formats.label_formats import FORMATS, read_label_files
from odkeras.formats.prodigy import read_annotation
from odkeras.images import encode_image
from odkeras.labels import LabelMap
from odkeras.serving.json_tensors import PredictRequest
from odkeras.serving.protocol import ApiRequest, TensorSpec
from odkeras.web.imports import read_line

CORPUS = Path(__file__).parents[1] / "corpus"
INPUTS = 60 * int(os.environ.get("ODKERAS_FUZZ", "1"))  # per file
MAX_PIXELS = 10**6
HANGS_S = 2.0
"""In a long run no input may take more CPU time."""
LABELS = LabelMap.from_names(["cat", "dog"])
TOKENS = [
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"\r", b"-", b"-1", b"0", b"1e999", b"NaN", b"Infinity"),
    *(b"9" * 400, b"0.0000001", b'"', b"'", b"\\ud800", b"\\", b"[", b"{" * 99, b"[" * 3000, b"null", b"true", b"{}"),
    *(b"<", b"&x;", b"]]>", b"%00", b"../../", b"/", b",", b";", b"item {", b"\x7f\xff\xff\xff", b"\xf0\x9f\x90\x88"),
]


@dataclass(frozen=True)
class Door:
    """A function that takes what others wrote.

    Args:
        read: takes the bytes, and the path of a file with them.
        errors: what it may raise.
    """

    read: Callable[[bytes, Path], object]
    errors: tuple[type[Exception], ...] = (OdkerasError,)


def _predict(data: bytes, path: Path) -> None:
    request = PredictRequest.parse(data)
    for spec in (TensorSpec("DT_STRING", (-1,)), TensorSpec("DT_UINT8", (-1, -1, -1, 3)), TensorSpec("DT_FLOAT", None)):
        try:
            request.decode({"image": spec})
        except OdkerasError:
            continue


def _answer(data: bytes, path: Path) -> None:
    read_line(data, "d", base_dir=path.parent, decision="accept", now=1.0)
    read_annotation(json.loads(data), LABELS, max_pixels=MAX_PIXELS)


def _labels(format: str) -> Door:
    def read(data: bytes, path: Path) -> None:
        if format == "yolo":  # a file with the names, and one with the rows of an image
            for name, text in (("data.yaml", "names: [cat, dog]"), ("rows.txt", "0 0.5 0.5 0.2 0.3")):
                if path.name != name:
                    path.with_name(name).write_text(text)
            path = path.with_name("data.yaml")
        for _ in read_label_files([LabelFile(path, format, path.parent)], ReadNotes()):
            pass

    return Door(read)


DOORS = {
    "image": Door(lambda data, path: encode_image(data, source="x", max_pixels=MAX_PIXELS)),
    "predict": Door(_predict),
    "request_path": Door(lambda data, path: ApiRequest.parse("POST", data.decode("latin-1"))),
    "label_map": Door(lambda data, path: LabelMap.load(path)),
    # Lines that `db in` and the trainer leave out, whatever is raised; these are what they count on.
    "answer": Door(_answer, (OdkerasError, ValueError, RecursionError, KeyError, TypeError, OverflowError)),
    **{name: _labels(name) for name in FORMATS},
}


def changed(data: bytes, chance: random.Random) -> bytes:
    """The data with a few random changes."""
    for _ in range(chance.choice([1, 1, 2, 4])):
        start, end = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
        part = data[start : min(end, start + 40)]
        how = chance.randrange(7)
        if how == 0:  # a flipped bit
            flipped = bytes([data[start] ^ (1 << chance.randrange(8))]) if start < len(data) else b""
            data = data[:start] + flipped + data[start + 1 :]
        elif how == 1:
            data = data[:start] + data[start + len(part) :]
        elif how == 2:
            data = data[:start] + part * chance.choice([2, 2, 50]) + data[start + len(part) :]
        elif how == 3:
            data = data[:start]
        elif how == 4:
            data = data[:start] + chance.choice(TOKENS) + data[start + chance.choice([0, 1, len(part)]) :]
        elif how == 5:
            at = chance.randrange(len(data) + 1)
            data = data[:at] + part + data[at:]
        else:
            data = data[:start] + chance.randbytes(4) + data[start + 4 :]
    return data


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # its remarks about damaged files
SEEDS = [(door, path) for door in DOORS for path in sorted((CORPUS / door).glob("*"))]


def test_every_door_has_a_corpus_and_every_corpus_a_door() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {door for door, _ in SEEDS} == set(DOORS)


@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=[f"{name}-{path.name}" for name, path in SEEDS])
def test_an_error_of_ours_or_none(name: str, seed: Path, tmp_path: Path) -> None:
    door, original = DOORS[name], seed.read_bytes()
    chance = random.Random(zlib.crc32(f"{name}/{seed.name}".encode()))
    place = tmp_path / seed.name
    for number in range(INPUTS + 1):
        data = changed(original, chance) if number else original
        place.write_bytes(data)
        started = time.thread_time()
        try:
            door.read(data, place)
        except door.errors:
            pass
        except Exception:
            find = seed.with_name(f"find-{hashlib.sha256(data).hexdigest()[:10]}{seed.suffix}")
            find.write_bytes(data)
            print(f"written to {find}; commit it with its fix")
            raise
        cpu_s = time.thread_time() - started
        assert INPUTS == 60 or cpu_s < HANGS_S, f"input {number} took {cpu_s:.1f} s of CPU time"
