"""Logging of our processes: our own lines, and as much of TensorFlow's as was asked for. Call before TensorFlow is
imported."""

from __future__ import annotations

import logging
import os
import sys
import warnings

DEFAULT_TF_LOGGING_LEVEL = 40
_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def configure_logging(tf_logging_level: int = DEFAULT_TF_LOGGING_LEVEL, *, verbose: bool = True) -> None:
    """Send odkeras' log to standard error, and set how much TensorFlow and the Object Detection API say.

    Args:
        tf_logging_level: 10 debug, 20 info, 30 warning, 40 error, 50 fatal, as in Python's logging.
        verbose: show odkeras' informative lines, not only its warnings.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", cpp_log_level(tf_logging_level))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))
    ours = logging.getLogger("odkeras")
    ours.handlers[:] = [handler]
    ours.propagate = False
    ours.setLevel(logging.INFO if verbose else logging.WARNING)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(tf_logging_level)
    if tf_logging_level > logging.WARNING:
        warnings.filterwarnings("ignore", module=r"tf_keras|object_detection|tensorflow|tf_slim")


def cpp_log_level(level: int) -> str:
    """What TensorFlow's C++ half hides: "0" nothing, "1" its informative lines, "2" warnings, "3" errors too, of which
    it has one for every machine without a GPU."""
    return "0" if level <= logging.INFO else "1" if level <= logging.WARNING else "3"
