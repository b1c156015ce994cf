"""What a recipe returns, checked: strictly, because how tolerant Prodigy is of what it does not know is unknown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from prodigy.eras import Era
from prodigy.wire import check_plain

ALWAYS = ("dataset", "view_id", "stream", "update", "progress", "db", "on_load", "on_exit", "get_session_id")
SINCE = {
    **dict.fromkeys((*ALWAYS, "exclude", "config"), "1.0"),
    **dict.fromkeys(("before_db", "validate_answer"), "1.10"),
    **dict.fromkeys(("task_router", "session_factory"), "1.12"),
    "event_hooks": "1.14",
}
NOT_PLAYED = ("task_router", "session_factory", "event_hooks")
CALLBACKS = ("update", "progress", "on_load", "on_exit", "get_session_id", "before_db", "validate_answer")

Components = dict[str, Any]


def check_components(name: str, components: Any, era: Era) -> Components:
    """The components that the era knows, None for those that are not there.

    Keys of later eras are ignored, or refused with PRODIGY_DOUBLE_LATER_KEYS=raise; keys of none are refused.

    Raises:
        TypeError: not a dict, or a component of the wrong type.
        ValueError: components that are missing or unknown.
        NotImplementedError: components that this double does not play.
    """
    if not isinstance(components, Mapping):
        raise TypeError(f"recipe {name} must return a dict of components; got {type(components).__name__}")
    later = [key for key in components if key in SINCE and not era.since(SINCE[key])]
    unknown = [key for key in components if key not in SINCE]
    unknown += later if os.environ.get("PRODIGY_DOUBLE_LATER_KEYS") == "raise" else []
    if unknown:
        raise ValueError(f"recipe {name} returns unknown components: {', '.join(map(str, unknown))}")
    known = {**dict.fromkeys(SINCE), **{key: components[key] for key in components if key not in later}}
    _check_required(name, known)
    _check_optional(name, known)
    return known


def _check_required(name: str, known: Components) -> None:
    missing = [key for key in ("dataset", "view_id", "stream") if known[key] is None]
    if missing:
        raise ValueError(f"recipe {name} returns no {', '.join(missing)}")
    if known["dataset"] is not False and not (isinstance(known["dataset"], str) and known["dataset"]):
        raise TypeError(f"recipe {name}: dataset must be a name or False; got {known['dataset']!r}")
    if not isinstance(known["view_id"], str):
        raise TypeError(f"recipe {name}: view_id must be a string; got {known['view_id']!r}")
    if not isinstance(known["stream"], Iterable) or isinstance(known["stream"], (str, Mapping)):
        raise TypeError(f"recipe {name}: stream must be an iterable of tasks; got {type(known['stream']).__name__}")


def _check_optional(name: str, known: Components) -> None:
    for key in CALLBACKS:
        if known[key] is not None and not callable(known[key]):
            raise TypeError(f"recipe {name}: {key} must be callable or None; got {known[key]!r}")
    for key in NOT_PLAYED:
        if known[key] is not None:
            raise NotImplementedError(f"recipe {name}: this test double does not play {key}")
    exclude = known["exclude"]
    if exclude is not None and not (isinstance(exclude, list) and all(isinstance(item, str) for item in exclude)):
        raise TypeError(f"recipe {name}: exclude must be a list of dataset names or None; got {exclude!r}")
    if not isinstance(known["config"], dict | None):
        raise TypeError(f"recipe {name}: config must be a dict; got {known['config']!r}")
    check_plain(known["config"] or {}, "config")
