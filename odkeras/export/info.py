"""The metadata of a published version. Reading it does not need TensorFlow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras.keypoints import Skeleton

EXPORT_INFO_PATH = Path("assets.extra", "odkeras.json")


@dataclass(frozen=True)
class ExportInfo:
    """The metadata of a version, stored in its `assets.extra/odkeras.json`.

    Args:
        step: global step of its weights.
        graph: fingerprint of everything except the weights; versions with the same one share `saved_model.pb`.
        labels: pairs of label-map id and name.
        copy_of: for a rollback, the version that this is a copy of; None for other versions.
        learned: whether the weights are trained: by training steps, from an explicitly given checkpoint, or from a
            detector of which every weight was restored. Detections of untrained weights are random.
        replaced_step: for a rollback, the largest global step of the versions that it supersedes. The trainer must
            not treat checkpoints up to that step as unpublished.
        skeleton: the keypoints that the model predicts; None if it predicts none.
        graph_sha256: hash of `saved_model.pb`, in hexadecimal digits; "" in versions of an older odkeras.
    """

    step: int
    graph: str
    labels: tuple[tuple[int, str], ...] = ()
    copy_of: int | None = None
    replaced_step: int = 0
    learned: bool = True
    skeleton: Skeleton | None = None
    graph_sha256: str = ""


def read_export_info(version_dir: Path) -> ExportInfo | None:
    """Read the metadata of a version; None if it is missing or invalid, as for a model not written by odkeras."""
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
            _read_skeleton(data.get("skeleton")),
            str(data.get("graph_sha256") or ""),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _read_skeleton(data: Any) -> Skeleton | None:
    if data is None:
        return None
    names = tuple(str(name) for name in data["names"])
    return Skeleton(names, tuple((int(start), int(end)) for start, end in data["edges"]))


def write_export_info(version_dir: Path, info: ExportInfo) -> None:
    """Write the metadata of a version. The directory `assets.extra` must exist."""
    data: dict[str, Any] = {"step": info.step, "graph": info.graph, "labels": info.labels}
    if info.graph_sha256:
        data["graph_sha256"] = info.graph_sha256
    if not info.learned:
        data["learned"] = False
    if info.skeleton is not None:
        data["skeleton"] = {"names": info.skeleton.names, "edges": info.skeleton.edges}
    if info.copy_of is not None:
        data |= {"copy_of": info.copy_of, "replaced_step": info.replaced_step}
    (version_dir / EXPORT_INFO_PATH).write_text(json.dumps(data))
