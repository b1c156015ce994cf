"""What people did with the suggestions, a round at a time: as counts for metrics.jsonl, as figures for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from odkeras.annotation import EditCounts
from odkeras.data.replay import index_record
from odkeras.project import read_jsonl
from odkeras.work import CostModel, Row, Work, last_rows, of_control, work_of

_COST = CostModel()


def work_of_round(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts of a round's answers: images, and what became of the boxes; nothing if no model was asked for them.

    Args:
        rows: of `Intake.work`, or of work.jsonl.

    Returns:
        Of images whose suggestions were shown; under "control" the same of images whose suggestions were not.
    """
    rows = last_rows(rows)
    shown = sum((work_of(row) for row in rows if not row.get("control")), Work())
    control = of_control(rows)
    return {
        **(_counts(shown) if shown.images else {}),
        **({"control": _counts(control)} if control.images else {}),
    }


def work_in(work_path: Path, records: Iterable[Path]) -> dict[str, Any]:
    """`work_of_round` of the images in these TFRecords, as work.jsonl tells it."""
    images = {example.image_id for path in records for example in index_record(path)}
    return work_of_round(row for row in read_jsonl(work_path) if row.get("image_id") in images)


def work_figures(counts: Mapping[str, Any]) -> dict[str, float]:
    """What `work_of_round` returned, as figures that can be compared between rounds: shares of the suggestions, boxes
    added per image, seconds saved by the estimate of `work.CostModel`. What cannot be known is left out."""
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
    """`_counts`, understood; keys of later versions are left out."""
    images = int(counts.get("images") or 0)
    return Work(images, EditCounts.from_json(counts) if images else EditCounts())
