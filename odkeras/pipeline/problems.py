"""Problems of a pipeline.config as values. The checks return them; the command line shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from odkeras.errors import ConfigError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One problem.

    Args:
        field: dotted path in the pipeline.config, for example "train_config.batch_size".
        value: the value in the config; "" if the field is not set.
        reason: what is wrong with it.
        fix: what to do about it.
        severity: "error" if the config cannot be used; "warning" if it can, but not as the setting suggests.
    """

    field: str
    value: str
    reason: str
    fix: str
    severity: Severity = "error"

    def __str__(self) -> str:
        shown = f" {self.value!r}" if self.value else ""
        return f"{self.field}{shown}: {self.reason}; {self.fix}"


def raise_for_problems(problems: Iterable[Problem], *, source: str = "pipeline.config") -> None:
    """Raise one ConfigError for all errors in `problems`; warnings are ignored.

    Args:
        source: file name for the message.

    Raises:
        ConfigError: there are errors. The message has one line for a single error, otherwise one line per error.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if len(errors) == 1:
        raise ConfigError(f"{source}: {errors[0]}")
    if errors:
        raise ConfigError("\n".join([f"{source} has {len(errors)} problems:", *(f"  - {error}" for error in errors)]))
