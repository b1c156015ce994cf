"""The files of the built page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from odkeras.errors import SetupError

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the built page, kept in memory."""

    data: bytes
    media_type: str


def page_files(directory: Path | None = None) -> dict[str, PageFile]:
    """The files of the built page, keyed by URL path.

    Raises:
        SetupError: the page has not been built.
    """
    directory = directory or Path(__file__).with_name("static")
    files = {
        f"/{path.name}": PageFile(path.read_bytes(), _MEDIA_TYPES[path.suffix])
        for path in (sorted(directory.iterdir()) if directory.is_dir() else ())
        if path.suffix in _MEDIA_TYPES
    }
    if "/index.html" not in files:
        raise SetupError(
            "the page has not been built; in a source checkout run `make install` or `python scripts/build_page.py` "
            "(which needs Node.js 18 or later)"
        )
    return {**files, "/": files["/index.html"]}
