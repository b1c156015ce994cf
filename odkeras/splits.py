"""Divide images into train, val and test, always in the same way.

    splits = Splits.parse("0.8/0.1/0.1")
    splits.of(image_id)                              # "train", "val" or "test"

`val` has the images that `--eval-split` with the same share holds out from training.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

from odkeras.errors import ConfigError

NAMES = ("train", "val", "test")
FOLDER = "folder"
"""The value of --group-by for the parent folder."""
_HASH = re.compile(r"[0-9a-f]{8}", re.ASCII)
_EXAMPLE = "for example 0.8/0.2 for train and val, or 0.8/0.1/0.1 for train, val and test"


@dataclass(frozen=True)
class Splits:
    """Shares of the images.

    Args:
        shares: of train, val and test, in this order; they sum to 1. Later ones may be missing.
    """

    shares: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, text: str) -> Splits:
        """The splits of a text such as `0.8/0.1/0.1` or `80/10/10`.

        Raises:
            ConfigError: not one to three numbers from 0, or they sum neither to 1 nor to 100.
        """
        try:
            values = [float(part) for part in text.split("/")]
        except ValueError:
            values = []
        if not 1 <= len(values) <= len(NAMES) or not all(math.isfinite(value) and value >= 0 for value in values):
            raise ConfigError(f"--split must be one to three numbers with / between them, {_EXAMPLE}; got {text!r}")
        total = sum(values)
        if math.isclose(total, 100.0, abs_tol=1e-6):
            values = [value / 100 for value in values]
        elif not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ConfigError(f"--split must sum to 1 (or to 100), {_EXAMPLE}; {text!r} sums to {total:g}")
        return cls(tuple(values))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the splits that have a share."""
        return tuple(name for name, share in zip(NAMES, self.shares, strict=False) if share > 0)

    def of(self, key: str) -> str:
        """The split of an image.

        Args:
            key: the image's id, or `group_key`.
        """
        _, val, test = (*self.shares, 0.0, 0.0)[:3]
        if is_held_out(key, val):
            return "val"
        return "test" if is_held_out(key, val + test) or (test and not self.shares[0]) else "train"


@dataclass(frozen=True)
class GroupBy:
    """What puts images into one group, whose images are all in the same split, as the frames of a video should be.

    Args:
        pattern: a regular expression that is searched in the file name. The group is what its first parenthesis
            matches, without one the whole match. None: the parent folder is the group.
    """

    pattern: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, text: str) -> GroupBy:
        """Raises: ConfigError: not a regular expression."""
        if text == FOLDER:
            return cls()
        try:
            return cls(re.compile(text))
        except re.error as error:
            raise ConfigError(
                f"--group-by must be {FOLDER!r} or a regular expression for the file name, for example '^(.*)_'; "
                f"got {text!r}: {error}"
            ) from error

    def __str__(self) -> str:
        return FOLDER if self.pattern is None else self.pattern.pattern

    def group(self, name: str, folder: str | None) -> str | None:
        """The name of an image's group; None if it is in none, because it has no folder or its name does not match.

        Args:
            name: its file name.
            folder: its parent folder; None if it has no file.
        """
        if self.pattern is None:
            return folder
        match = self.pattern.search(name)
        if match is None:
            return None
        return match[1] if self.pattern.groups else match[0]


def own_split(name: object) -> str | None:
    """The split that an image was imported with; None for any other value than train, val and test."""
    return name if isinstance(name, str) and name in NAMES else None


def group_key(group: str) -> str:
    """The key of a group for `Splits.of`. It is hashed: a name such as `deadbeef-7` would be read as an image's id."""
    return hashlib.sha256(group.encode("utf-8", "replace")).hexdigest()


def is_held_out(image_id: str, eval_split: float) -> bool:
    """Whether an image belongs to the hold-out split for evaluation.

    The first 8 hexadecimal digits of the id, a hash of the image, are read as a fraction and compared with
    `eval_split` (0 to 1). The split is therefore the same in every round and on every machine, and independent of the
    answers. Raising `eval_split` only adds images to the split. An id without such digits is hashed first (SHA-256).
    """
    digits = image_id[:8].lower()
    if not _HASH.fullmatch(digits):
        digits = hashlib.sha256(image_id.encode("utf-8", "replace")).hexdigest()[:8]
    return int(digits, 16) < eval_split * 16**8
