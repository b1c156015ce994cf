"""How annotators edited the suggestions, per round: counts for metrics.jsonl and scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from odkeras.annotation import EditCounts
from odkeras.data.replay import index_record
from odkeras.project import read_jsonl
from odkeras.work import CostModel, Row, Work, last_rows, of_control, work_from_row

_COST = CostModel()


def work_of_round(rows: Iterable[Row]) -> dict[str, Any]:
    """Count the images and box edits of a round's answers.

    Args:
        rows: rows of `Intake.work` or of work.jsonl. Of several rows with the same image and session, the last counts.

    Returns:
        Counts of the images whose suggestions were shown, and under "control" the counts of control images, whose
        suggestions were hidden. {} without rows.
    """
    rows = last_rows(rows)
    shown = sum((work_from_row(row) for row in rows if not row.get("control")), Work())
    control = of_control(rows)
    return {
        **(_counts(shown) if shown.images else {}),
        **({"control": _counts(control)} if control.images else {}),
    }


def work_in(work_path: Path, records: Iterable[Path]) -> dict[str, Any]:
    """`work_of_round` of the images in these TFRecords, from their rows in work.jsonl."""
    images = {example.image_id for path in records for example in index_record(path)}
    return work_of_round(row for row in read_jsonl(work_path) if row.get("image_id") in images)


def work_figures(counts: Mapping[str, Any]) -> dict[str, float]:
    """Convert the counts of `work_of_round` to scalars that can be compared between rounds.

    They are shares of the suggestions, boxes per image, precision and recall of the suggestions, and the seconds saved
    as `work.CostModel` estimates them. Scalars without data are left out.
    """
    found: dict[str, float] = {}
    total = _work_from(counts)
    edits = total.edits
    if edits.suggested:
        counted = edits.to_json()
        found |= {name: counted[name] / edits.suggested for name in ("kept", "adjusted", "relabelled", "deleted")}
    if total.images:
        saved = total.seconds_saved(_COST)
        found |= {
            "added_per_image": edits.added / total.images,
            "suggested_per_image": edits.suggested / total.images,
            "seconds_saved": saved,
            "seconds_saved_per_image": saved / total.images,
        }
    control = _work_from(counts.get("control") or {})
    for prefix, each in (("", total), ("control_", control)):
        shares = {f"{prefix}precision": each.precision, f"{prefix}recall": each.recall}
        found |= {name: share for name, share in shares.items() if share is not None}
    return found


def _counts(total: Work) -> dict[str, int]:
    return {"images": total.images, **total.edits.to_json()}


def _work_from(counts: Mapping[str, Any]) -> Work:
    """The inverse of `_counts`. Unknown keys, of later odkeras versions, are ignored."""
    images = int(counts.get("images") or 0)
    return Work(images, EditCounts.from_json(counts) if images else EditCounts())
