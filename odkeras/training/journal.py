"""metrics.jsonl: what each round did, evaluated to, and deleted; one line each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odkeras.project import append_jsonl, read_jsonl
from odkeras.training.gate import Conclusion
from odkeras.training.trainer import TrainingResult


class Journal:
    """Reads and appends to one metrics.jsonl.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rounds(self) -> list[dict[str, Any]]:
        """The lines about rounds, oldest first."""
        return [row for row in read_jsonl(self._path) if row.get("kind") == "round"]

    def rounds_told(self) -> int:
        """The number of the last round that it tells of; 0 before the first."""
        return max([0, *(int(row["round"]) for row in self.rounds())])

    def last_outcome(self) -> str:
        """How that one ended; "" before the first. Lines of before there was a gate do not say "outcome"."""
        rows = self.rounds()
        if not rows:
            return ""
        return str(rows[-1].get("outcome") or ("failed" if rows[-1].get("failed") else "published"))

    def add_round(
        self,
        number: int,
        step: int,
        result: TrainingResult,
        conclusion: Conclusion,
        *,
        examples: int,
        checkpoint: str | None,
        version: int | None,
        batches: list[str],
        seconds: Mapping[str, float],
        problems: Sequence[str] = (),
        work: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The line of a round that has ended; `version` is the newest one there is then, `work` of
        `round_work.work_of_round`."""
        return self._append(
            "round",
            {
                "round": number,
                "step": step,
                "steps": result.steps,
                "examples": examples,
                "loss": result.loss,
                "checkpoint": checkpoint,
                **{name: round(value, 3) for name, value in seconds.items()},
                "version": version,
                "batches": batches,
                **conclusion.row(),
                **({"work": dict(work)} if work else {}),
                **({"problems": list(problems)} if problems else {}),
            },
        )

    def add_evaluation(self, round_number: int, step: int, result: Mapping[str, Any]) -> None:
        """`result` has "metrics", or why it "failed"."""
        self._append("evaluation", {"round": round_number, "step": step, **result})

    def add_garbage(self, versions: list[int], records: list[str]) -> None:
        """What was deleted; no line if nothing was."""
        if versions or records:
            self._append("garbage", {"versions": versions, "records": records})

    def _append(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
        row = {"kind": kind, **values, "time": time.time()}
        append_jsonl(self._path, [row])
        return row
