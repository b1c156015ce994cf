"""Names for exported images: unique, readable, and valid on every system."""

from __future__ import annotations

import re
import unicodedata
from itertools import chain, count
from pathlib import PurePath

from odkeras.text import replace_surrogates

_MAX_BYTES = 120
"""Of a name in UTF-8. File systems allow 255; annotation tools add endings of their own."""
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)  # devices of Windows


class FileNames:
    """Gives each image a name. Two names of one export differ in their stems, also where case is ignored, because most
    formats call the file with the labels after the stem.

    Args:
        spaces: names may have spaces.
    """

    def __init__(self, *, spaces: bool = True) -> None:
        self._spaces = spaces
        self._taken: set[str] = set()

    def unique(self, name: str, image_id: str, suffix: str | None = None) -> str:
        """A name like `name` that was not returned before. Of several images with one name the first keeps it; the
        others get part of their id appended.

        Args:
            suffix: replaces the suffix of `name`; None keeps it.
        """
        path = PurePath(name)
        stem = safe_stem(path.stem, self._spaces) or safe_stem(image_id, self._spaces) or "image"
        digits = safe_stem(image_id[:8], self._spaces)
        endings = chain(("", f"-{digits}"), (f"-{digits}-{number}" for number in count(2)))
        free = next(f"{stem}{ending}" for ending in endings if _folded(f"{stem}{ending}") not in self._taken)
        self._taken.add(_folded(free))
        return free + (_UNSAFE.sub("", replace_surrogates(path.suffix)).strip() if suffix is None else suffix)


def safe_stem(stem: str, spaces: bool = True) -> str:
    """A file name without suffix that is valid on every system; "" if nothing is left of it."""
    text = _UNSAFE.sub("_", replace_surrogates(unicodedata.normalize("NFC", stem)))
    if not spaces:
        text = re.sub(r"\s", "_", text)
    text = text.encode("utf-8")[:_MAX_BYTES].decode("utf-8", "ignore").strip(" .")
    return f"_{text}" if _RESERVED.fullmatch(text) else text


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())
