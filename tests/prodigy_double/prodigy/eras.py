"""Which version of Prodigy is played, and what that changes."""

from __future__ import annotations

import os
from dataclasses import dataclass

DEFAULT_VERSION = "1.18"


@dataclass(frozen=True)
class Era:
    """A version, and the behaviour that the tests distinguish."""

    version: str

    def since(self, version: str) -> bool:
        return _numbers(self.version) >= _numbers(version)

    @property
    def uses_radicli(self) -> bool:
        """Else plac. (The change to radicli: inferred from a commit to the public recipes.)"""
        return self.since("1.14")

    @property
    def has_stream_class(self) -> bool:
        """`components.stream`; image loaders give paths; `get_dataset_examples`."""
        return self.since("1.12")

    @property
    def has_config_overrides(self) -> bool:
        """PRODIGY_CONFIG_OVERRIDES (recalled)."""
        return self.since("1.11")

    @property
    def updates_before_db(self) -> bool:
        """Whether `update` comes before `before_db` and the database. Attested for old versions, unknown for newer."""
        choice = os.environ.get("PRODIGY_DOUBLE_UPDATE") or ("after_db" if self.since("1.10") else "before_db")
        if choice not in ("before_db", "after_db"):
            raise ValueError(f"PRODIGY_DOUBLE_UPDATE is {choice!r}; it must be before_db or after_db")
        return choice == "before_db"


def current_era() -> Era:
    return Era(os.environ.get("PRODIGY_DOUBLE_VERSION") or DEFAULT_VERSION)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
