"""The data directory's own note of what was delivered to it.

`data_id.json` has an id, to which the answer database refers, and the names of the datasets that were delivered. Data
directories of odkeras 0.1 have `answered.jsonl` instead, a list of the answers.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from typing import Any

from odkeras.errors import SetupError
from odkeras.project import Project, read_jsonl, write_atomically
from odkeras.web.deliveries import Deliveries


def attach_data_directory(deliveries: Deliveries, dataset: str, project: Project) -> None:
    """Make answers of `dataset` count as delivered only if they were delivered to this data directory.

    Raises:
        DatabaseError: the database cannot be written.
        SetupError: the data directory cannot be written.
    """
    note = _read_note(project)
    if not note["id"]:
        note["id"] = uuid.uuid4().hex
        try:
            write_atomically(project.data_id_path, json.dumps(note))
        except OSError as error:
            raise SetupError(f"cannot write {project.data_id_path}: {error.strerror or error}") from error
    deliveries.use_data_directory(note["id"], _answered_in_0_1(project, dataset))


def note_delivery(project: Project, dataset: str) -> None:
    """Note that answers of the dataset were delivered to the data directory. Idempotent; never raises."""
    note = _read_note(project)
    if dataset not in note["datasets"]:
        note["datasets"] = sorted({*note["datasets"], dataset})
        with suppress(OSError):
            write_atomically(project.data_id_path, json.dumps(note))


def was_delivered_to(project: Project, dataset: str) -> bool:
    """Whether answers of the dataset were delivered to the data directory, from any database."""
    return dataset in _read_note(project)["datasets"] or bool(_answered_in_0_1(project, dataset))


def _answered_in_0_1(project: Project, dataset: str) -> set[int]:
    """Input hashes of the images whose answers odkeras 0.1 delivered to the directory."""
    with suppress(OSError):
        rows = [row for row in read_jsonl(project.answered_path) if row.get("dataset") == dataset]
        return {row["input_hash"] for row in rows if isinstance(row.get("input_hash"), int)}
    return set()


def _read_note(project: Project) -> dict[str, Any]:
    try:
        note = json.loads(project.data_id_path.read_text(encoding="utf-8"))
        return {"id": str(note["id"]), "datasets": [str(name) for name in note["datasets"]]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {"id": "", "datasets": []}
