"""The progress bar, with the three signatures that a recipe's `progress` has had."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sized
from typing import TYPE_CHECKING, Any

from prodigy.feed import Session

if TYPE_CHECKING:
    from prodigy.controller import Controller

Task = dict[str, Any]


class Progress:
    """The latest value. Without a callback: how much of a stream that has a length was answered, else None."""

    def __init__(self, callback: Callable[..., Any] | None, stream: Iterable[Task], generation: int) -> None:
        self.value: float | None = None
        self._callback = callback
        self._length = len(stream) if isinstance(stream, Sized) else 0
        self._generation = generation

    def compute(self, controller: Controller, session: Session, answers: list[Task], returned: Any) -> None:
        if self._callback:
            self.value = check_progress(self._call(self._callback, controller, session, answers, returned))
        elif self._length:
            self.value = min(1.0, controller.session_annotated / self._length)

    def _call(
        self, progress: Callable[..., Any], ctrl: Controller, session: Session, answers: list[Task], returned: Any
    ) -> Any:
        parameters = inspect.signature(progress).parameters.values()
        if self._generation == 1:
            counts = (ctrl.session_annotated, ctrl.total_annotated)
            takes_loss = len(parameters) > 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
            return progress(*counts, returned) if takes_loss else progress(*counts)
        if self._generation == 3 and len(parameters) == 4:
            return progress(ctrl, session, answers, returned)
        return progress(ctrl, returned)


def check_progress(value: Any) -> float | None:
    """Raises when it is neither None nor a plain number between 0 and 1."""
    if value is None:
        return None
    if type(value) not in (int, float):
        raise TypeError(f"progress must return a float or None; got {value!r}")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"progress must be between 0 and 1; got {value!r}")
    return float(value)
