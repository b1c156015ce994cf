"""`prodigy.util`: what the recipes import from there."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from prodigy.hashing import INPUT_HASH_ATTR, SESSION_ID_ATTR, TASK_HASH_ATTR, set_hashes

__all__ = ["INPUT_HASH_ATTR", "SESSION_ID_ATTR", "TASK_HASH_ATTR", "log", "set_hashes"]


def log(message: str, details: Any = None) -> None:
    """To stderr when PRODIGY_LOGGING is `basic` or `verbose`; the details when it is `verbose`."""
    mode = os.environ.get("PRODIGY_LOGGING", "")
    if mode in ("basic", "verbose"):
        shown = [message] if details is None or mode == "basic" else [message, str(details)]
        for text in shown:
            print(f"{time.strftime('%H:%M:%S')}: {text}", file=sys.stderr, flush=True)
