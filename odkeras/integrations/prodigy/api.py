"""The parts of Prodigy that the recipes use, found in any supported version. Prodigy is imported on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from odkeras.errors import ConfigError, OdkerasError
from odkeras.formats.prodigy import HASHES, Record
from odkeras.text import say

INPUT_HASH, TASK_HASH = HASHES


def require_prodigy() -> ModuleType:
    """Import the installed Prodigy.

    Raises:
        ModuleNotFoundError: Prodigy is not installed; the message says what to do.
    """
    try:
        return import_module("prodigy")
    except ModuleNotFoundError as error:
        if error.name != "prodigy":
            raise
        raise ModuleNotFoundError(
            f"Prodigy is not installed for {sys.executable}. It needs a licence (https://prodi.gy); with one, install "
            "it into the same environment as odkeras. Without one, `odkeras annotate` takes the same arguments and "
            "has its own page; `odkeras simulate` simulates an annotator with known boxes",
            name="prodigy",
        ) from None


@contextmanager
def exit_on_error(recipe: str) -> Iterator[None]:
    """Turn an OdkerasError raised in the block into one line on stderr and its exit status."""
    try:
        yield
    except OdkerasError as error:
        say(f"{recipe}: error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


@dataclass(frozen=True)
class ProdigyApi:
    """The functions of the installed Prodigy.

    Args:
        log: `log(message, details=None)`; silent unless PRODIGY_LOGGING is basic or verbose.
        set_hashes: `set_hashes(task, input_keys=..., task_keys=..., overwrite=...)`.
    """

    log: Callable[..., None]
    set_hashes: Callable[..., Record]

    @classmethod
    def installed(cls) -> ProdigyApi:
        """Raises: ModuleNotFoundError: Prodigy is not installed."""
        prodigy = require_prodigy()
        util = import_module("prodigy.util")
        return cls(
            log=getattr(prodigy, "log", None) or util.log,
            set_hashes=getattr(prodigy, "set_hashes", None) or util.set_hashes,
        )

    def hashes(self, image_id: str) -> Record:
        """Prodigy's hashes for a task, which depend on the image alone: Prodigy's own task hash covers the spans and
        would change as the model learns."""
        keys = ("image_id",)
        hashed = self.set_hashes({"image_id": image_id}, input_keys=keys, task_keys=keys, overwrite=True)
        return {key: hashed[key] for key in HASHES}

    def input_hash(self, record: Record) -> int:
        """Prodigy's default input hash of a task, as other recipes compute it."""
        return int(self.set_hashes(dict(record), overwrite=True)[INPUT_HASH])

    def open_api(self, source: Any, api: str) -> Iterable[Record]:
        """The tasks of one of Prodigy's own API loaders.

        Raises:
            ConfigError: this version of Prodigy has no loader of that name.
        """
        for home in ("prodigy.components.stream", "prodigy.components.loaders"):
            try:
                get_stream = import_module(home).get_stream
            except (ModuleNotFoundError, AttributeError):
                continue
            try:
                return iter(get_stream(source, api=api, input_key="image"))
            except (TypeError, ValueError) as error:  # newer versions have no `api` argument
                raise ConfigError(f"--api {api}: the installed Prodigy has no such API loader ({error})") from error
        raise ConfigError(f"--api {api}: the installed Prodigy has no get_stream; give a directory or a .jsonl file")

    def connect(self) -> Any:
        """Prodigy's database."""
        return import_module("prodigy.components.db").connect()


def iter_dataset(db: Any, name: str) -> Iterator[Record]:
    """The examples of a dataset, oldest first; nothing if there is no such dataset. They are read one by one where
    Prodigy can do that; older versions return all at once."""
    if name not in db:
        return
    for method in ("iter_dataset_examples", "get_dataset_examples", "get_dataset"):
        if read := getattr(db, method, None):
            yield from read(name) or ()
            return


def read_input_hashes(db: Any, names: Sequence[str]) -> set[int]:
    """Input hashes of all examples in the datasets; names that do not exist are ignored."""
    present = [name for name in names if name in db]
    return set(map(int, db.get_input_hashes(*present))) if present else set()
