"""What a version says of itself. No TensorFlow is needed to read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPORT_INFO_PATH = Path("assets.extra", "odkeras.json")


@dataclass(frozen=True)
class ExportInfo:
    """What a version says of itself, in `assets.extra/odkeras.json`.

    Args:
        step: training steps behind its weights.
        graph: fingerprint of everything but the weights; versions with the same one share their `saved_model.pb`.
        labels: label-map ids and names, as pairs.
        copy_of: the earlier version that a rollback made this one from; None for one that was published.
        learned: whether something stands behind its detections: training steps, a checkpoint that somebody named, or a
            detector whose every weight was restored. What freshly built weights detect is chance.
        replaced_step: of a rollback: the most training steps behind any version that it put out of service. So many
            have been published once; the trainer must not take them for unpublished.
    """

    step: int
    graph: str
    labels: tuple[tuple[int, str], ...] = ()
    copy_of: int | None = None
    replaced_step: int = 0
    learned: bool = True


def read_export_info(version_dir: Path) -> ExportInfo | None:
    """What `version_dir` says of itself; None for a model that odkeras did not write."""
    try:
        data = json.loads((version_dir / EXPORT_INFO_PATH).read_text())
        labels = tuple((int(i), str(n)) for i, n in data["labels"])
        copy_of = data.get("copy_of")
        return ExportInfo(
            int(data["step"]),
            str(data["graph"]),
            labels,
            None if copy_of is None else int(copy_of),
            int(data.get("replaced_step") or 0),
            bool(data.get("learned", True)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_export_info(version_dir: Path, info: ExportInfo) -> None:
    """The opposite of `read_export_info`; the folder `assets.extra` must be there."""
    data: dict[str, Any] = {"step": info.step, "graph": info.graph, "labels": info.labels}
    if not info.learned:
        data["learned"] = False
    if info.copy_of is not None:
        data |= {"copy_of": info.copy_of, "replaced_step": info.replaced_step}
    (version_dir / EXPORT_INFO_PATH).write_text(json.dumps(data))
