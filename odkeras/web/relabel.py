"""The labels of the stored answers: how many images have each, and renaming one."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from odkeras.formats.prodigy import Record, read_task
from odkeras.json_text import encode_json
from odkeras.web.database import AnswerDatabase
from odkeras.web.gallery_rows import joined_labels, split_labels


def count_images(database: AnswerDatabase) -> dict[str, int]:
    """The number of images whose latest answer has boxes of each label, in all datasets together.

    Raises:
        DatabaseError: the database cannot be read.
    """
    count = Counter[str]()
    for labels, images in database.read("SELECT labels, COUNT(*) FROM gallery WHERE latest = 1 GROUP BY labels"):
        count.update(dict.fromkeys(split_labels(labels), images))
    return dict(count)


def relabel(database: AnswerDatabase, dataset: str, old: str, new: str) -> int:
    """Rename a label in all answers and open tasks of a dataset, in one transaction. Idempotent.

    Returns:
        The number of answers that have changed.

    Raises:
        DatabaseError: the database cannot be written; nothing has changed.
    """
    count, forms = 0, (json.dumps(old), json.dumps(old, ensure_ascii=False))  # either may be stored
    with database.transaction(f"cannot rename the label {old!r}") as connection:
        query = "SELECT id FROM answers WHERE dataset = ? AND (instr(example, ?) > 0 OR instr(example, ?) > 0)"
        for (row_id,) in connection.execute(query, (dataset, *forms)).fetchall():
            # One at a time, because examples may contain images.
            (text,) = connection.execute("SELECT example FROM answers WHERE id = ?", (row_id,)).fetchone()
            record: Record = json.loads(text)
            if _replace(record, old, new):
                connection.execute("UPDATE answers SET example = ? WHERE id = ?", (encode_json(record), row_id))
                labels = joined_labels(read_task(record).spans)
                connection.execute("UPDATE gallery SET labels = ? WHERE answer = ?", (labels, row_id))
                count += 1
        query = "SELECT image_id, task FROM open_tasks WHERE dataset = ? AND (instr(task, ?) > 0 OR instr(task, ?) > 0)"
        for image_id, text in connection.execute(query, (dataset, *forms)).fetchall():
            record = json.loads(text)
            if _replace(record, old, new):
                row = (encode_json(record), dataset, image_id)
                connection.execute("UPDATE open_tasks SET task = ? WHERE dataset = ? AND image_id = ?", row)
    return count


def _replace(record: Any, old: str, new: str) -> bool:
    """Rename a label in the spans of a record, and of its suggestions, in place. Whether there was one."""
    if not isinstance(record, dict):
        return False
    suggestions = record.get("_suggestions")
    parts = [record.get("spans")]
    if isinstance(suggestions, dict):
        parts += [suggestions.get(key) for key in ("spans", "hidden_spans", "candidates")]
    changed = False
    for span in (span for part in parts if isinstance(part, list) for span in part):
        if isinstance(span, dict) and span.get("label") == old:
            span["label"] = new
            changed = True
    return changed
