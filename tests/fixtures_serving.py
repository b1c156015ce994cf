"""A stand-in for TensorFlow in the model server: versions are directories with two small files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from odkeras.errors import RequestError
from odkeras.serving.protocol import Signature, TensorSpec

SIGNATURES = {
    "serving_default": Signature(
        inputs={"x": TensorSpec("DT_FLOAT", (-1,), "x:0")}, outputs={"y": TensorSpec("DT_FLOAT", (-1,), "y:0")}
    ),
    "two": Signature(
        inputs={"a": TensorSpec("DT_FLOAT", (-1,)), "b": TensorSpec("DT_STRING", (-1,))},
        outputs={"sum": TensorSpec("DT_FLOAT", (-1,)), "text_bytes": TensorSpec("DT_STRING", (-1,))},
    ),
}


def write_version(base_path: Path, version: int, value: str, graph: str = "graph") -> Path:
    """A version that adds `value` to its input; "" makes a broken one."""
    directory = base_path / str(version)
    partial = base_path / f".tmp-{version}"
    partial.mkdir(parents=True)
    (partial / "graph.txt").write_text(graph)
    if value:
        (partial / "value.txt").write_text(value)
    partial.rename(directory)
    return directory


class FakeServable:
    """Adds its value. `entered` and `leave` let a test hold a request in the middle."""

    def __init__(self, directory: Path) -> None:
        self.signatures: Mapping[str, Signature] = SIGNATURES
        self.graph = (directory / "graph.txt").read_text()
        self.value = _value(directory)
        self.hold = False
        self.entered, self.leave = threading.Event(), threading.Event()
        self.fails_to_update = False

    def run(self, signature_name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        value = self.value
        if self.hold:
            self.entered.set()
            self.leave.wait(10)
        if signature_name == "two":
            return {"sum": inputs["a"] + np.float32(self.value), "text_bytes": inputs["b"]}
        if (inputs["x"] < 0).any():
            raise RequestError(400, "x must not be negative")
        if (inputs["x"] > 1e6).any():
            raise ZeroDivisionError("a mistake of ours")
        assert value == self.value, "the weights changed under a request"
        return {"y": inputs["x"] + np.float32(value)}

    def prepare_update(self, directory: Path) -> Callable[[], None] | None:
        if (directory / "graph.txt").read_text() != self.graph:
            return None
        value = _value(directory)

        def update() -> None:
            if self.fails_to_update:
                raise RuntimeError("half of the weights are in")
            self.value = value

        return update


class FakeBackend:
    """Keeps what it loaded."""

    def __init__(self) -> None:
        self.loaded: list[FakeServable] = []

    def load(self, directory: Path) -> FakeServable:
        self.loaded.append(FakeServable(directory))
        return self.loaded[-1]


def _value(directory: Path) -> float:
    return float((directory / "value.txt").read_text())
