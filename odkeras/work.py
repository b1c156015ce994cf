"""How much work the suggestions saved: what people did with them, and an estimate of the seconds.

    rows = [work_row(answer), ...]          # one for each accepted answer
    for name, total in by_version(rows).items():
        print(name, total.precision, total.seconds_saved(CostModel()))

The boxes that a model suggested are compared with those that were accepted (`metrics.count_edits`). Without suggestions
(control images) people start from nothing; what the model would have suggested is kept all the same, and says how good
it is when nobody has been led by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from odkeras.annotation import EditCounts
from odkeras.boxes import Groundtruth
from odkeras.formats.prodigy import Task, detections_from_spans, readable_spans
from odkeras.labels import LabelMap
from odkeras.metrics import count_edits
from odkeras.numeric import is_whole

Row = dict[str, Any]


@dataclass(frozen=True)
class CostModel:
    """Seconds that a person needs for a box.

    To draw one from nothing: 25.5 s is the median of crowd workers who drew ImageNet's (Su, Deng, Fei-Fei,
    "Crowdsourcing annotations for visual object detection", HCOMP 2012), 7.0 s that of extreme clicking (Papadopoulos
    et al., ICCV 2017). To look at a suggested one and decide: 1.6 to 2.4 s (Papadopoulos et al., "We don't need no
    bounding-boxes", CVPR 2016). The defaults are those that flatter the suggestions least. For moving a box there is no
    figure of that kind; that it takes half as long as drawing one, two of its four sides, is an assumption.

    Args:
        draw_s: draw a box.
        verify_s: look at a suggested box; every one costs that.
        adjust_s: move a box to where it belongs.
        relabel_s: give a box another label.
        delete_s: delete a box.
    """

    draw_s: float = 7.0
    verify_s: float = 2.4
    adjust_s: float = 3.5
    relabel_s: float = 1.6
    delete_s: float = 1.6


@dataclass(frozen=True)
class Work:
    """What people did on some images.

    Args:
        images: accepted images.
        edits: what became of the suggestions, in boxes.
    """

    images: int = 0
    edits: EditCounts = field(default_factory=EditCounts)

    def __add__(self, other: Work) -> Work:
        return Work(self.images + other.images, self.edits + other.edits)

    @property
    def precision(self) -> float | None:
        """Of the suggestions, the share that belongs to an object of that class (IoU >= 0.5); None without any."""
        edits = self.edits
        return (edits.kept + edits.adjusted) / edits.suggested if edits.suggested else None

    @property
    def recall(self) -> float | None:
        """Of the objects, the share that was suggested (IoU >= 0.5, right class); None without any."""
        edits = self.edits
        return (edits.kept + edits.adjusted) / edits.objects if edits.objects else None

    def seconds_without(self, cost: CostModel) -> float:
        """What drawing every box takes."""
        return self.edits.objects * cost.draw_s

    def seconds_with(self, cost: CostModel) -> float:
        """What correcting the suggestions takes."""
        edits = self.edits
        corrected = edits.adjusted * cost.adjust_s + edits.relabelled * cost.relabel_s + edits.deleted * cost.delete_s
        return edits.suggested * cost.verify_s + corrected + edits.added * cost.draw_s

    def seconds_saved(self, cost: CostModel) -> float:
        """Negative where the suggestions cost more than they saved."""
        return self.seconds_without(cost) - self.seconds_with(cost)


def work_row(answer: Task) -> Row | None:
    """The row of `work.jsonl` about an accepted answer; None if no model suggested anything for it.

    Raises:
        AnswerError, KeyError, TypeError, ValueError: its suggestions are not what `with_suggestions` wrote.
    """
    suggestions = answer.get("_suggestions")
    if not isinstance(suggestions, Mapping) or not is_whole(suggestions.get("version"), 0):
        return None
    control = bool(suggestions.get("control"))
    session = answer.get("_session_id")
    return {
        "image_id": answer.get("image_id"),
        "session": session if isinstance(session, str) else "",
        "version": suggestions["version"],
        **({"control": True} if control else {}),
        **count_answer_edits(answer, suggestions.get("hidden_spans" if control else "spans")).to_json(),
        "answered_at": answer.get("_timestamp"),
    }


def withdrawn_row(answer: Task) -> Row:
    """The row of `work.jsonl` about a rejected or ignored answer: what was counted for it before counts no longer."""
    session = answer.get("_session_id")
    return {
        "image_id": answer.get("image_id"),
        "session": session if isinstance(session, str) else "",
        "withdrawn": True,
    }


def shown_edits(answer: Task) -> EditCounts | None:
    """What a person did with the suggestions that an accepted answer started from; None if no model made any, or they
    were hidden (control images).

    Raises:
        KeyError, TypeError, ValueError: it lacks its size.
    """
    suggestions = answer.get("_suggestions")
    if not isinstance(suggestions, Mapping) or suggestions.get("version") is None or suggestions.get("control"):
        return None
    return count_answer_edits(answer, suggestions.get("spans"))


def count_answer_edits(answer: Task, suggested: Any) -> EditCounts:
    """Compares the suggested spans of an answer with its own; both have the same labels to choose from."""
    size_hw = (int(answer["height"]), int(answer["width"]))
    before, after = readable_spans(suggested), readable_spans(answer.get("spans"))
    names = sorted({span.label for span in [*before, *after]})
    if not names:
        return EditCounts()
    label_map = LabelMap.from_names(names)
    truth = detections_from_spans(after, label_map, size_hw)
    return count_edits(Groundtruth(truth.boxes, truth.classes), detections_from_spans(before, label_map, size_hw))


def work_of(row: Mapping[str, Any]) -> Work:
    """The work of one image, from a row of `work.jsonl`."""
    return Work(1, EditCounts.from_json(row))


def last_rows(rows: Iterable[Row]) -> list[Row]:
    """One row for each image and session: the last one. An answer may be read twice after a crash, corrected, or
    withdrawn, which leaves no row."""
    latest: dict[tuple[Any, Any], Row] = {}
    for row in rows:
        key = (row.get("image_id"), row.get("session"))
        latest.pop(key, None)
        if not row.get("withdrawn"):
            latest[key] = row
    return list(latest.values())


def totals(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, Work]:
    """The work of the rows by what `key` says of them, in the order of their first appearance."""
    found: dict[Any, Work] = {}
    for row in rows:
        name = key(row)
        found[name] = found.get(name, Work()) + work_of(row)
    return found


def by_version(rows: Iterable[Row]) -> dict[int, Work]:
    """With suggestions shown, by the version that made them, the oldest first."""
    found = totals((row for row in rows if not row.get("control")), lambda row: int(row["version"]))
    return dict(sorted(found.items()))


def by_session(rows: Iterable[Row]) -> dict[str, Work]:
    """With suggestions shown, by who answered."""
    return totals((row for row in rows if not row.get("control")), lambda row: str(row.get("session") or ""))


def of_control(rows: Iterable[Row]) -> Work:
    """Of images whose suggestions were not shown: how good these are when nobody is led by them."""
    return sum((work_of(row) for row in rows if row.get("control")), Work())
