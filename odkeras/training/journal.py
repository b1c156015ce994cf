"""metrics.jsonl: a log of rounds, evaluations and deletions, one JSON object per line."""

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
        path: the file; created by the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rounds(self) -> list[dict[str, Any]]:
        """The lines of kind "round", oldest first."""
        return [row for row in read_jsonl(self._path) if row.get("kind") == "round"]

    def rounds_told(self) -> int:
        """The highest round number in the log; 0 before the first round."""
        return max([0, *(int(row["round"]) for row in self.rounds())])

    def last_outcome(self) -> str:
        """Outcome of the last round in the log; "" before the first. Lines older than the gate have no "outcome"."""
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
        """Log a finished round and return its line.

        Args:
            number: number of the round, from 1.
            step: global step at its end.
            result: steps and loss of the training.
            conclusion: its outcome.
            examples: number of images trained on.
            checkpoint: file name of its checkpoint.
            version: the newest version at its end; None before the first.
            batches: names of the answer batches that it trained on.
            seconds: duration of each stage; keys end with `_s`.
            problems: boxes that were left out, each with the reason.
            work: the result of `round_work.work_of_round`.
        """
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
        """Log an evaluation; `result` has "metrics", or the reason under "failed" (see `Judge.result`)."""
        self._append("evaluation", {"round": round_number, "step": step, **result})

    def add_garbage(self, versions: list[int], records: list[str]) -> None:
        """Log the deleted versions and records; no line if both are empty."""
        if versions or records:
            self._append("garbage", {"versions": versions, "records": records})

    def _append(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
        row = {"kind": kind, **values, "time": time.time()}
        append_jsonl(self._path, [row])
        return row
