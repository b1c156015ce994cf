"""The lock that allows one training per model directory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from odkeras.locks import locked
from odkeras.project import LOCK_NAME

WAIT_S = 30.0


def lock_model_dir(model_dir: Path, wait_s: float | None = None) -> AbstractContextManager[None]:
    """Lock the model directory until the block ends. The system releases the lock if the process is killed.

    Args:
        model_dir: created if missing.
        wait_s: seconds to wait for another training that is being stopped; None = `WAIT_S`.

    Raises:
        SetupError: another training holds the lock.
    """
    taken = f"another training is using {model_dir}; stop it, or name another --model-dir"
    return locked(model_dir / LOCK_NAME, taken=taken, wait_s=WAIT_S if wait_s is None else wait_s)
