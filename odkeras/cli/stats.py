"""`odkeras stats`: what the suggestions were worth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from odkeras.cli import options
from odkeras.cli.options import Given, with_options
from odkeras.cli.tables import print_table
from odkeras.config.cost import CostModel
from odkeras.config.settings import TrainingSettings
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.active_time import GroupTime, Mean, MeasuredTime
    from odkeras.version_names import VersionNames
    from odkeras.work import Work

_HEADER = (
    *("", "images", "suggested", "kept ≥.9", "kept ≥.8", "adjusted", "relabelled", "deleted", "added", "picked"),
    *("precision", "recall"),
)
_MEASURED_HEADER = ("", "images", "boxes", "median per image", "mean per image (95 %)", "mean per box (95 %)")


def add_commands(app: typer.Typer) -> None:
    app.command("stats", epilog="Example: odkeras stats raccoons/ --draw-seconds 25.5")(stats)


@with_options("stats")
def stats(
    config: options.Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    given: Given,
) -> None:
    """Show how annotators edited the suggestions, by model version and by annotator, and the time that this saved:
    measured, and estimated from the edits.

    Kept: as it was suggested, or nearly (IoU of at least 0.9 or 0.8 with the accepted box). Adjusted: moved (IoU 0.5 to
    0.9). Relabelled: same place, another label. Deleted: matches no object. Added: an object without a suggestion.
    Picked: one of these, taken from the model's candidates. Precision and recall are those at IoU 0.5.

    Measured: the seconds in which the page was visible and in use, per image, with suggestions and without (annotate
    --control), and 95 % bootstrap intervals. An answer that was corrected has the seconds of its corrections, too.

    Estimated: each option sets the cost of one action. The defaults are conservative:
    7 s to draw a box is extreme clicking (the usual way took crowd workers 25.5 s), 2.4 s to verify one is the slowest
    that is reported; that moving a box takes half as long as drawing it, and picking one 3 s, are assumptions. A box
    with an IoU of 0.8 is not worth moving.
    """
    import json

    from odkeras.active_time import MeasuredTime
    from odkeras.errors import ConfigError
    from odkeras.project import read_jsonl
    from odkeras.version_names import VersionNames
    from odkeras.work import by_session, by_version, last_rows, of_control

    cost, project = given.build(CostModel), given.build(TrainingSettings).project
    if not project.data_dir.is_dir():
        raise ConfigError(
            f"{project.data_dir}: no such data directory; annotate first, or name another one with --data-dir"
        )
    rows = last_rows(read_jsonl(project.work_path))
    control = of_control(rows)
    totals: dict[str, dict[Any, Work]] = {
        "versions": dict(by_version(rows)),
        "annotators": dict(by_session(rows)),
        "control": {"control images": control} if control.images else {},
    }
    measured = MeasuredTime.of(rows)
    if as_json:
        documents = {name: _documents(works, cost) for name, works in totals.items()}
        say(json.dumps({**documents, "measured": _measured_document(measured)}))
        return
    if not rows:
        say(f"{project.data_dir}: no image with suggestions has been accepted and trained on yet")
        return
    names = VersionNames(read_jsonl(project.metrics_path))
    versions = [(_version(int(name), names), work) for name, work in totals["versions"].items()]
    _print("by model version", versions, cost)
    _print("by annotator", [(str(name) or "-", work) for name, work in totals["annotators"].items()], cost)
    if control.images:
        title = "control images, shown without suggestions: edits that suggestions would have needed"
        _print(title, [("control", control)], cost, saved=False)
    total = sum(totals["versions"].values(), type(control)())
    say(
        f"\nestimated: {_duration(total.seconds_saved(cost))} saved of {_duration(total.seconds_without(cost))} that "
        f"drawing all {total.edits.objects} boxes takes ({cost.draw_seconds:g} s to draw, "
        f"{cost.verify_seconds:g} s to verify)"
    )
    _print_measured(measured, total, cost)


def _print_measured(measured: MeasuredTime, estimated: Work, cost: CostModel) -> None:
    groups = (("with suggestions", measured.suggested), ("control images", measured.control))
    rows = []
    for name, group in groups:
        if group is not None:
            counts = (str(group.images), str(group.boxes), f"{group.median_s:.1f}")
            rows.append((name, *counts, _mean(group.per_image), _mean(group.per_box)))
    saved = measured.saved_per_image
    if saved is not None:
        rows.append(("saved", "", "", "", _mean(saved), _mean(measured.saved_per_box)))
    if rows:
        say()
        print_table("measured: seconds of work", _MEASURED_HEADER, rows)
    if saved is None:
        say(f"\nmeasured: {measured.missing}")
        return
    per_image_s = estimated.seconds_saved(cost) / estimated.images
    say(f"\nsaved per image: measured {_mean(saved)} s, estimated {per_image_s:.1f} s")


def _mean(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    interval = "-" if mean.interval is None else "{:.1f} to {:.1f}".format(*mean.interval)
    return f"{mean.value:.1f} ({interval})"


def _measured_document(measured: MeasuredTime) -> dict[str, Any]:
    saved = measured.saved_per_image
    return {
        "with_suggestions": _group_document(measured.suggested),
        "control": _group_document(measured.control),
        "saved": None if saved is None else _mean_documents(saved, measured.saved_per_box),
        "missing": measured.missing,
    }


def _group_document(group: GroupTime | None) -> dict[str, Any] | None:
    if group is None:
        return None
    counts = {"images": group.images, "boxes": group.boxes, "median_seconds_per_image": round(group.median_s, 2)}
    return {**counts, **_mean_documents(group.per_image, group.per_box)}


def _mean_documents(per_image: Mean, per_box: Mean | None) -> dict[str, Any]:
    """Each mean in seconds with its 95 % interval, [low, high]; null for what there is not."""
    return {
        name: None
        if mean is None
        else {"mean": round(mean.value, 2), "interval": [round(end, 2) for end in mean.interval or ()] or None}
        for name, mean in (("seconds_per_image", per_image), ("seconds_per_box", per_box))
    }


def _documents(works: dict[Any, Work], cost: CostModel) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "images": work.images,
            "suggested": work.edits.suggested,
            "objects": work.edits.objects,
            **work.edits.to_json(),
            "precision": work.precision,
            "recall": work.recall,
            "seconds_without": round(work.seconds_without(cost), 1),
            "seconds_saved": round(work.seconds_saved(cost), 1),
        }
        for name, work in works.items()
    ]


def _print(title: str, works: Iterable[tuple[str, Work]], cost: CostModel, *, saved: bool = True) -> None:
    rows = []
    for name, work in works:
        edits = work.edits
        counted = (edits.suggested, *edits.to_json().values())
        ending = (_duration(work.seconds_saved(cost)),) if saved else ()
        rows.append((name, *map(str, (work.images, *counted)), _share(work.precision), _share(work.recall), *ending))
    print_table(title, (*_HEADER, *(("saved",) if saved else ())), rows)


def _version(version: int, names: VersionNames) -> str:
    """Its name, and the number by which commands know it."""
    name = names.of(version)
    return name if name.endswith(f"version {version}") else f"{name} ({version})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _duration(seconds: float) -> str:
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    if seconds < 120:
        return f"{sign}{seconds:.0f} s"
    return f"{sign}{seconds / 60:.1f} min" if seconds < 7200 else f"{sign}{seconds / 3600:.1f} h"
