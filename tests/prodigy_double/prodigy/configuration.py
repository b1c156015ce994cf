"""The configuration: recipe < global prodigy.json < local prodigy.json < environment, the last one wins."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prodigy.eras import Era

Config = dict[str, Any]


def resolve_config(recipe_config: Config, era: Era) -> Config:
    return {
        **default_config(era),
        **recipe_config,
        **_read(prodigy_home() / "prodigy.json"),
        **_read(Path.cwd() / "prodigy.json"),
        **_from_environment(era),
    }


def prodigy_home() -> Path:
    return Path(os.environ.get("PRODIGY_HOME") or Path.home() / ".prodigy")


def default_config(era: Era) -> Config:
    """`feed_overlap` was on in old versions; that it is off in newer ones is recalled."""
    config: Config = {"host": "localhost", "port": 8080, "batch_size": 10}
    config |= {"feed_overlap": not era.since("1.10"), "force_stream_order": False}
    return config | ({"exclude_by": "task"} if era.since("1.10") else {})


def _read(path: Path) -> Config:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _from_environment(era: Era) -> Config:
    config: Config = {}
    if host := os.environ.get("PRODIGY_HOST"):
        config["host"] = host
    if port := os.environ.get("PRODIGY_PORT"):
        config["port"] = int(port)
    if era.has_config_overrides:
        config |= json.loads(os.environ.get("PRODIGY_CONFIG_OVERRIDES") or "{}")
    return config
