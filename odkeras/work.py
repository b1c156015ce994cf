"""Estimate how much work the suggestions saved: counts of edits, and seconds by a cost model.

    rows = [work_row(answer), ...]          # one for each accepted answer
    for name, total in by_version(rows).items():
        print(name, total.precision, total.seconds_saved(CostModel()))

The suggested boxes are compared with the accepted ones (`metrics.count_edits`). On control images the suggestions are
hidden and the annotator draws all boxes. The hidden suggestions are still compared with the answer: they measure the
model without anchoring bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from odkeras.annotation import Answer, Decision, EditCounts, Suggestions, detections_from_spans
from odkeras.boxes import Groundtruth
from odkeras.config.cost import CostModel
from odkeras.labels import LabelMap
from odkeras.metrics import count_edits

Row = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The annotators' work on a set of images.

    Args:
        images: number of accepted images.
        edits: sum of the edit counts.
    """

    images: int = 0
    edits: EditCounts = field(default_factory=EditCounts)

    def __add__(self, other: Work) -> Work:
        return Work(self.images + other.images, self.edits + other.edits)

    @classmethod
    def from_json(cls, counts: Mapping[str, Any]) -> Work:
        """The inverse of `to_json`. Unknown keys, of later odkeras versions, are ignored."""
        images = int(counts.get("images") or 0)
        return cls(images, EditCounts.from_json(counts) if images else EditCounts())

    def to_json(self) -> dict[str, int]:
        return {"images": self.images, **self.edits.to_json()}

    @property
    def precision(self) -> float | None:
        """Share of the suggestions that match an object of the same class (IoU >= 0.5), 0..1; None if there are no
        suggestions."""
        edits = self.edits
        return (edits.kept + edits.adjusted) / edits.suggested if edits.suggested else None

    @property
    def recall(self) -> float | None:
        """Share of the objects that were suggested with the right class (IoU >= 0.5), 0..1; None if there are no
        objects."""
        edits = self.edits
        return (edits.kept + edits.adjusted) / edits.objects if edits.objects else None

    def seconds_without(self, cost: CostModel) -> float:
        """Estimated time to draw every box from scratch."""
        return self.edits.objects * cost.draw_seconds

    def seconds_with(self, cost: CostModel) -> float:
        """Estimated time to correct the suggestions. Those with IoU >= 0.8 are left as they are; see `EditCounts`."""
        edits = self.edits
        adjusted = edits.kept + edits.adjusted - edits.kept_80
        corrected = (
            adjusted * cost.adjust_seconds
            + edits.relabelled * cost.relabel_seconds
            + edits.deleted * cost.delete_seconds
        )
        added = (edits.added - edits.picked) * cost.draw_seconds + edits.picked * cost.pick_seconds
        return edits.suggested * cost.verify_seconds + corrected + added

    def seconds_saved(self, cost: CostModel) -> float:
        """Estimated time saved; negative if correcting takes longer than drawing from scratch."""
        return self.seconds_without(cost) - self.seconds_with(cost)


def work_row(answer: Answer) -> Row | None:
    """The row of `work.jsonl` for an accepted answer; None if no model version made suggestions for it.

    Raises:
        ValueError: the size of its image is not known.
    """
    suggestions = answer.task.suggestions
    if suggestions is None or suggestions.version is None:
        return None
    return {
        "image_id": answer.task.image_id,
        "session": answer.session,
        "version": suggestions.version,
        **({"control": True} if suggestions.hidden else {}),
        **count_answer_edits(answer, suggestions).to_json(),
        "answered_at": answer.answered_at,
        **({} if answer.active_s is None else {"active_s": answer.active_s}),
    }


def withdrawn_row(answer: Answer) -> Row:
    """The row of `work.jsonl` for a rejected or ignored answer. It cancels earlier rows of this image and session."""
    return {"image_id": answer.task.image_id, "session": answer.session, "withdrawn": True}


def shown_edits(answer: Answer) -> EditCounts | None:
    """The edits to the suggestions that were shown for an accepted answer; None if no model made any, or if they were
    hidden (control images).

    Raises:
        ValueError: the size of its image is not known.
    """
    suggestions = answer.task.suggestions
    if answer.decision is not Decision.ACCEPT or suggestions is None or suggestions.version is None:
        return None
    return None if suggestions.hidden else count_answer_edits(answer, suggestions)


def count_answer_edits(answer: Answer, suggestions: Suggestions) -> EditCounts:
    """Compare the suggestions with the spans of the answer, by the names of their labels.

    Raises:
        ValueError: the size of its image is not known.
    """
    before, after = suggestions.spans, answer.task.spans
    names = sorted({span.label for span in [*before, *after]})
    if not names:
        return EditCounts()
    label_map, size_hw = LabelMap.from_names(names), answer.task.size_hw
    truth = detections_from_spans(after, label_map, size_hw)
    picked = [span.picked for span in after]
    return count_edits(
        Groundtruth(truth.boxes, truth.classes), detections_from_spans(before, label_map, size_hw), picked
    )


def work_from_row(row: Mapping[str, Any]) -> Work:
    """The work of one image, from a row of `work.jsonl`."""
    return Work(1, EditCounts.from_json(row))


def last_rows(rows: Iterable[Row]) -> list[Row]:
    """The last row of each image and session, without withdrawn ones.

    There may be several rows because an answer can be corrected or withdrawn, or be processed again after a crash.
    """
    latest: dict[tuple[Any, Any], Row] = {}
    for row in rows:
        key = (row.get("image_id"), row.get("session"))
        latest.pop(key, None)
        if not row.get("withdrawn"):
            latest[key] = row
    return list(latest.values())


def totals(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, Work]:
    """The sum of the rows' work, grouped by `key`, in order of first appearance."""
    by_name: dict[Any, Work] = {}
    for row in rows:
        name = key(row)
        by_name[name] = by_name.get(name, Work()) + work_from_row(row)
    return by_name


def by_version(rows: Iterable[Row]) -> dict[int, Work]:
    """The work grouped by the model version of the suggestions, oldest first. Control images are excluded."""
    by_version = totals((row for row in rows if not row.get("control")), lambda row: int(row["version"]))
    return dict(sorted(by_version.items()))


def by_session(rows: Iterable[Row]) -> dict[str, Work]:
    """The work grouped by session, "" for none. Control images are excluded."""
    return totals((row for row in rows if not row.get("control")), lambda row: str(row.get("session") or ""))


def of_control(rows: Iterable[Row]) -> Work:
    """The work on control images, whose suggestions were hidden: measures the model without anchoring bias."""
    return sum((work_from_row(row) for row in rows if row.get("control")), Work())


def round_counts(rows: Iterable[Row]) -> dict[str, Any]:
    """The counts of images and edits of a round's answers, for metrics.jsonl.

    Args:
        rows: rows of work.jsonl. Of several rows with the same image and session, the last counts.

    Returns:
        Counts of the images whose suggestions were shown, and under "control" the counts of control images, whose
        suggestions were hidden. {} without rows.
    """
    rows = last_rows(rows)
    shown, control = sum((work_from_row(row) for row in rows if not row.get("control")), Work()), of_control(rows)
    return {
        **(shown.to_json() if shown.images else {}),
        **({"control": control.to_json()} if control.images else {}),
    }


def round_scalars(counts: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of the counts of `round_counts` that can be compared between rounds.

    They are shares of the suggestions, boxes per image, precision and recall of the suggestions, and the seconds saved
    as `CostModel` estimates them. Scalars without data are left out.
    """
    scalars: dict[str, float] = {}
    total, control = Work.from_json(counts), Work.from_json(counts.get("control") or {})
    edits = total.edits
    if edits.suggested:
        for name in ("kept", "adjusted", "relabelled", "deleted"):
            scalars[name] = getattr(edits, name) / edits.suggested
    if total.images:
        saved_s = total.seconds_saved(CostModel())
        scalars["added_per_image"] = edits.added / total.images
        scalars["suggested_per_image"] = edits.suggested / total.images
        scalars["seconds_saved"] = saved_s
        scalars["seconds_saved_per_image"] = saved_s / total.images
    for prefix, work in (("", total), ("control_", control)):
        shares = {f"{prefix}precision": work.precision, f"{prefix}recall": work.recall}
        scalars |= {name: share for name, share in shares.items() if share is not None}
    return scalars
