"""Translate what fails while a model, an input pipeline or a training step is built."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from odkeras.errors import ConfigError, OdkerasError

_log = logging.getLogger(__name__)

_IN_USER_CODE = "in user code:"  # autograph puts it above a traceback, whose last line is the reason
_IN_GRAPH = "Graph execution error:"  # TensorFlow puts it above the traceback of the node, and the reason below that
_IN_LAYER = "Exception encountered when calling"  # Keras puts it above the reason
_FUNCTION_NODE = re.compile(r"^\{\{function_node [^}]*\}\}\s*")


@contextmanager
def building(field: str, what: str) -> Iterator[None]:
    """Raise any error within as a ConfigError of one line. The traceback goes to the log.

    Any error, because the Object Detection API checks little: a setting that does not fit another one surfaces as a
    TypeError, a KeyError or an AssertionError deep inside TensorFlow.

    Args:
        field: the part of the pipeline.config that is built, for example "train_input_reader".
        what: the name of what is built, for example "the input pipeline".

    Raises:
        ConfigError: something failed. Errors of odkeras itself stay as they are.
    """
    try:
        yield
    except OdkerasError:
        raise
    except Exception as error:
        _log.info("%s: %s cannot be built", field, what, exc_info=True)
        raise ConfigError(f"{field}: {what} cannot be built: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What an error of TensorFlow, Keras or the Object Detection API says, in one line."""
    lines = [_FUNCTION_NODE.sub("", line.strip()) for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    if not lines:
        return type(error).__name__
    if lines[0].startswith((_IN_USER_CODE, _IN_GRAPH)):
        return lines[-1]
    if lines[0].startswith(_IN_LAYER) and len(lines) > 1:
        return lines[1]
    return lines[0] if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {lines[0]}"
