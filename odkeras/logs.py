"""Configure logging: odkeras' own messages, and TensorFlow's at the requested level.

Must run before TensorFlow is imported, because its C++ part reads its log level at import time.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from odkeras.errors import SetupError
from odkeras.text import printable

DEFAULT_TF_LOGGING_LEVEL = 40
TENSORFLOW_REQUIREMENT = "tensorflow>=2.21,<2.22"
_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_FILTER = r"""
import re, sys
noise = re.compile(rb"WARNING: All log messages before absl::|[IW]\d{4} \d\d:|To enable the following instructions:")
for line in sys.stdin.buffer:
    if not noise.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""
_FILTER_ENDS_S = 2.0


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def configure_logging(tf_logging_level: int = DEFAULT_TF_LOGGING_LEVEL, *, verbose: bool = True) -> None:
    """Log odkeras to standard error, and set the log level of TensorFlow and the Object Detection API.

    Args:
        tf_logging_level: 10 debug, 20 info, 30 warning, 40 error, 50 fatal, as in Python's logging.
        verbose: log odkeras' INFO messages, not only warnings. At a level of 20 or lower they are always logged.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", cpp_log_level(tf_logging_level))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable(_FORMAT, datefmt="%H:%M:%S"))
    ours = logging.getLogger("odkeras")
    ours.handlers[:] = [handler]
    ours.propagate = False
    ours.setLevel(logging.INFO if verbose or tf_logging_level <= logging.INFO else logging.WARNING)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(tf_logging_level)
    if tf_logging_level > logging.WARNING:
        warnings.filterwarnings("ignore", module=r"tf_keras|object_detection|tensorflow|tf_slim")


def cpp_log_level(level: int) -> str:
    """The TF_CPP_MIN_LOG_LEVEL for a Python log level: "0" hides nothing, "1" INFO, "3" also WARNING and ERROR.

    "3" rather than "2", because TensorFlow logs an error at every start on a machine without a GPU.
    """
    return "0" if level <= logging.INFO else "1" if level <= logging.WARNING else "3"


def quiet_import(name: str) -> None:
    """Import a package, usually TensorFlow, without the messages that its C++ part writes while it is loaded.

    These ("Could not find cuda drivers on your machine") are written before TensorFlow reads its log level. All other
    output, such as the reason for an abort, still appears on standard error. Call `configure_logging` first: nothing is
    filtered if TF_CPP_MIN_LOG_LEVEL is below 2, which is what a level of 30 (warning) or lower sets.

    Raises:
        SetupError: the package is not installed.
    """
    if sys.modules.get(name) is None and importlib.util.find_spec(name) is None:
        what = f"'{TENSORFLOW_REQUIREMENT}'" if name == "tensorflow" else name
        raise SetupError(f"the Python package {name!r} is not installed; run: pip install {what}")
    hides = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") >= "2"
    with _filtered_stderr() if hides and name not in sys.modules else nullcontext():
        importlib.import_module(name)


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Pipe file descriptor 2 through a child process that drops known noise.

    A child process rather than a thread, so that the last lines still appear if this process aborts.
    """
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    command = [sys.executable, "-I", "-S", "-c", _FILTER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert process.stdin is not None
    sys.stderr.flush()
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        with suppress(subprocess.TimeoutExpired):  # a child started in the meantime may keep the pipe open
            process.wait(_FILTER_ENDS_S)
