"""What is wrong with a pipeline.config, as values: found by the checks, shown by the edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from odkeras.errors import ConfigError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One finding.

    Args:
        field: dotted path in the pipeline.config, for example "train_config.batch_size".
        value: as written there; "" where the field is not set.
        reason: what is wrong with it.
        fix: what to do about it.
        severity: "error" where it cannot work; "warning" where it can, though not as the config suggests.
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
    """Raise one ConfigError for all errors among `problems`; warnings pass.

    Raises:
        ConfigError: one line for one error, else one line each.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if len(errors) == 1:
        raise ConfigError(f"{source}: {errors[0]}")
    if errors:
        raise ConfigError("\n".join([f"{source} has {len(errors)} problems:", *(f"  - {error}" for error in errors)]))
