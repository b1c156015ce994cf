"""Newer versions have `get_stream` here, with a class `Stream`; older ones do not have this module."""

from __future__ import annotations

from prodigy.components.loaders import get_stream as get_stream
from prodigy.eras import current_era

if not current_era().has_stream_class:
    raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
