"""How much work the suggestions saved: what people did with them, and an estimate of the seconds.

    rows = [work_row(answer, label_map), ...]          # one for each accepted answer
    for name, total in by_version(rows).items():
        print(name, total.precision, total.seconds_saved(CostModel()))

The boxes that a model suggested are compared with those that were accepted (`metrics.effort`). Without suggestions
(control images) people start from nothing; what the model would have suggested is kept all the same, and says how good
it is when nobody has been led by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odkeras import boxes as box_ops
from odkeras.boxes import Detections, Groundtruth
from odkeras.labels import LabelMap
from odkeras.metrics import Effort, effort
from odkeras.tasks import Task, points_px

_COUNTED = ("kept", "kept_70", "adjusted", "relabelled", "deleted", "added")

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
        effort: what became of the suggestions, in boxes.
    """

    images: int = 0
    effort: Effort = field(default_factory=Effort)

    def __add__(self, other: Work) -> Work:
        return Work(self.images + other.images, self.effort + other.effort)

    @property
    def precision(self) -> float | None:
        """Of the suggestions, the share that belongs to an object of that class (IoU >= 0.5); None without any."""
        did = self.effort
        return (did.kept_90 + did.moved) / did.suggested if did.suggested else None

    @property
    def recall(self) -> float | None:
        """Of the objects, the share that was suggested (IoU >= 0.5, right class); None without any."""
        did = self.effort
        return (did.kept_90 + did.moved) / did.objects if did.objects else None

    def seconds_without(self, cost: CostModel) -> float:
        """What drawing every box takes."""
        return self.effort.objects * cost.draw_s

    def seconds_with(self, cost: CostModel) -> float:
        """What correcting the suggestions takes."""
        did = self.effort
        corrected = did.moved * cost.adjust_s + did.relabelled * cost.relabel_s + did.deleted * cost.delete_s
        return did.suggested * cost.verify_s + corrected + did.drawn * cost.draw_s

    def seconds_saved(self, cost: CostModel) -> float:
        """Negative where the suggestions cost more than they saved."""
        return self.seconds_without(cost) - self.seconds_with(cost)


def work_row(answer: Task, groundtruth: Groundtruth, label_map: LabelMap) -> Row | None:
    """What is noted of an accepted answer; None if no model suggested anything for it.

    Args:
        groundtruth: the boxes that were accepted.
    """
    made = answer.get("_suggestions")
    if not isinstance(made, Mapping) or not isinstance(made.get("version"), int):
        return None
    control = bool(made.get("control"))
    size_hw = (int(answer["height"]), int(answer["width"]))
    suggested = detections_of(made.get("hidden_spans" if control else "spans") or (), size_hw, label_map)
    did = effort(groundtruth, suggested)
    session = answer.get("_session_id")
    return {
        "image_id": answer.get("image_id"),
        "session": session if isinstance(session, str) else "",
        "version": made["version"],
        **({"control": True} if control else {}),
        **counts_of(did),
        "answered_at": answer.get("_timestamp"),
    }


def detections_of(spans: Iterable[Any], size_hw: tuple[int, int], label_map: LabelMap) -> Detections:
    """Suggested spans as detections; those that say nothing of this label map are left out."""
    boxes_xyxy_px, scores, classes = [], [], []
    ids = {name: id for id in label_map.ids for name in (label_map.name_of(id), label_map.display_name_of(id))}
    for span in spans:
        if isinstance(span, dict) and span.get("label") in ids:
            corners = np.array(points_px(span), np.float64)
            boxes_xyxy_px.append([*corners.min(axis=0), *corners.max(axis=0)])
            scores.append(float(span.get("score") or 0.0))
            classes.append(ids[span["label"]])
    boxes = box_ops.from_xyxy_px(boxes_xyxy_px, size_hw)
    return Detections(boxes, np.array(scores, np.float32), np.array(classes, np.int32))


def counts_of(did: Effort) -> dict[str, int]:
    """What became of the suggestions, by the names that people see."""
    return {
        "kept": did.kept_90,
        "kept_70": did.kept_70,
        "adjusted": did.moved,
        "relabelled": did.relabelled,
        "deleted": did.deleted,
        "added": did.drawn,
    }


def work_of(row: Mapping[str, Any]) -> Work:
    """A row of `work.jsonl`, understood."""
    number = {
        name: int(row.get(name) or 0) for name in ("kept", "kept_70", "adjusted", "relabelled", "deleted", "added")
    }
    did = Effort(
        kept_90=number["kept"],
        kept_70=number["kept_70"],
        moved=number["adjusted"],
        deleted=number["deleted"],
        drawn=number["added"],
        relabelled=number["relabelled"],
    )
    return Work(1, did)


def last_rows(rows: Iterable[Row]) -> list[Row]:
    """One row for each image and session: the last one. An answer may be read twice after a crash, or corrected."""
    latest: dict[tuple[Any, Any], Row] = {}
    for row in rows:
        key = (row.get("image_id"), row.get("session"))
        latest.pop(key, None)
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
