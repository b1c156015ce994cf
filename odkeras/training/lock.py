"""One training per model directory."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from odkeras.errors import SetupError

WAIT_S = 30.0
_POLL_S = 0.2


@contextlib.contextmanager
def lock_model_dir(model_dir: Path, wait_s: float | None = None) -> Iterator[None]:
    """Held until the block or the process ends, however it ends.

    Args:
        model_dir: made when missing.
        wait_s: a training that is just being stopped is waited for; None = `WAIT_S`.

    Raises:
        SetupError: another training has the directory.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (WAIT_S if wait_s is None else wait_s)
    with (model_dir / "trainer.lock").open("a+") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise SetupError(f"another training is using {model_dir}; stop it, or name another --model-dir")
            time.sleep(_POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
