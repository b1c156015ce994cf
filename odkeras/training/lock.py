"""One training per model directory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from odkeras.locks import locked
from odkeras.project import LOCK_NAME

WAIT_S = 30.0


def lock_model_dir(model_dir: Path, wait_s: float | None = None) -> AbstractContextManager[None]:
    """Held until the block or the process ends, however it ends.

    Args:
        model_dir: made when missing.
        wait_s: a training that is just being stopped is waited for; None = `WAIT_S`.

    Raises:
        SetupError: another training has the directory.
    """
    taken = f"another training is using {model_dir}; stop it, or name another --model-dir"
    return locked(model_dir / LOCK_NAME, taken=taken, wait_s=WAIT_S if wait_s is None else wait_s)
