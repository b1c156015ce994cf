"""Archives with the layout of the model zoo's, whole and broken, and a server that sends them badly."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path

DETECTOR_INDEX = b"_CHECKPOINTABLE_OBJECT_GRAPH model/_feature_extractor/x"


def zoo_files(name: str, config: str = "model {}", *, step: int = 0) -> dict[str, bytes]:
    """The files of an archive of the zoo, by path. The weights are not real."""
    return {
        f"{name}/saved_model/saved_model.pb": b"graph",
        f"{name}/saved_model/variables/variables.index": b"other",
        f"{name}/checkpoint/checkpoint": b'model_checkpoint_path: "ckpt-0"',
        f"{name}/checkpoint/ckpt-{step}.index": DETECTOR_INDEX,
        f"{name}/checkpoint/ckpt-{step}.data-00000-of-00001": bytes(range(256)) * 4096,
        f"{name}/pipeline.config": config.encode(),
    }


def tar_gz(files: Mapping[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda info: None) -> bytes:
    """A .tar.gz archive; `change` may alter the header of each file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            change(info)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def save_archive(path: Path, config: str = "model {}") -> Path:
    path.write_bytes(tar_gz(zoo_files(path.name.removesuffix(".tar.gz"), config)))
    return path


class ResumablePage:
    """A file that the server sends in pieces of at most `piece` bytes, each time from where the client asks.

    Args:
        etag: changes with the content, as that of a real server.
    """

    def __init__(self, data: bytes, *, piece: int, etag: str = '"one"') -> None:
        self.data, self.piece, self.etag = data, piece, etag
        self.starts: list[int] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        start = 0
        if handler.headers.get("If-Range") == self.etag:
            start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.starts.append(start)
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(self.data) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        handler.end_headers()
        handler.wfile.write(self.data[start : start + self.piece])
        handler.close_connection = True
