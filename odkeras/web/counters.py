"""Figures that the page shows after every answer. The database keeps them, so that they need not be counted: triggers
change them in the transaction that changes an answer, whoever writes it."""

from __future__ import annotations

import sqlite3

TABLES = """
CREATE TABLE IF NOT EXISTS decision_counts (
    dataset TEXT NOT NULL,
    session TEXT NOT NULL,
    decision TEXT NOT NULL,
    images INTEGER NOT NULL,
    PRIMARY KEY (dataset, session, decision)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version_counts (
    dataset TEXT NOT NULL,
    version INTEGER NOT NULL,
    images INTEGER NOT NULL,
    kept INTEGER NOT NULL, kept_80 INTEGER NOT NULL, moved INTEGER NOT NULL, relabelled INTEGER NOT NULL,
    deleted INTEGER NOT NULL, added INTEGER NOT NULL, picked INTEGER NOT NULL,
    PRIMARY KEY (dataset, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending_counts (
    dataset TEXT PRIMARY KEY,
    answers INTEGER NOT NULL, -- neither delivered nor replaced
    latest INTEGER NOT NULL -- of these, the latest for their image over all sessions
) WITHOUT ROWID;
"""
"""`decision_counts` and `version_counts` are about the answers that were not replaced."""

_EDITS = ("images", "kept", "kept_80", "moved", "relabelled", "deleted", "added", "picked")


def _edits(row: str) -> list[str]:
    """What an answer adds to the columns `_EDITS`. Args: row: prefix of its columns."""
    kept = f"{row}kept"
    plain = [f"{row}{name}" for name in ("moved", "relabelled", "deleted", "added")]
    return ["1", kept, f"COALESCE({row}kept_80, {kept})", *plain, f"COALESCE({row}picked, 0)"]


def _add(row: str, sign: str) -> str:
    """Statements that add the answer `row` (NEW or OLD) to the counts, or with the sign "-" take it out of them."""
    values = ", ".join(f"{sign}{value}" for value in _edits(f"{row}."))
    sums = ", ".join(f"{name} = {name} + excluded.{name}" for name in _EDITS)
    return f"""
        INSERT INTO decision_counts VALUES ({row}.dataset, {row}.session, {row}.decision, {sign}1)
            ON CONFLICT (dataset, session, decision) DO UPDATE SET images = images + excluded.images;
        INSERT INTO version_counts SELECT {row}.dataset, {row}.version, {values}
            WHERE {row}.version IS NOT NULL AND {row}.kept IS NOT NULL
            ON CONFLICT (dataset, version) DO UPDATE SET {sums};
    """


def _add_pending(row: str, sign: str, latest: str = "") -> str:
    """Statements that add the answer `row` to the counts of pending answers, or take it out of them.

    Args:
        latest: whether it is the latest for its image; "" looks it up.
    """
    latest = latest or f"EXISTS (SELECT 1 FROM gallery WHERE answer = {row}.id AND latest = 1)"
    return f"""
        INSERT INTO pending_counts SELECT {row}.dataset, {sign}1, {sign}({latest})
            WHERE {row}.handed_on = 0 AND {row}.replaced = 0
            ON CONFLICT (dataset) DO UPDATE
            SET answers = answers + excluded.answers, latest = latest + excluded.latest;
    """


def _add_latest(row: str, sign: str) -> str:
    """A statement for a row of the gallery that is the latest for its image, or no longer is."""
    return f"""
        UPDATE pending_counts SET latest = latest {sign} 1 WHERE dataset = {row}.dataset AND EXISTS
            (SELECT 1 FROM answers WHERE id = {row}.answer AND handed_on = 0 AND replaced = 0);
    """


_TRIGGERS = {
    "count_new_answer": ("INSERT ON answers WHEN NEW.replaced = 0", _add("NEW", "")),
    "count_replaced_answer": (
        "UPDATE OF replaced ON answers WHEN OLD.replaced = 0 AND NEW.replaced = 1",
        _add("OLD", "-"),
    ),
    "count_new_pending": ("INSERT ON answers", _add_pending("NEW", "", latest="0")),  # it has no row in the gallery yet
    "count_changed_pending": (
        "UPDATE OF handed_on, replaced ON answers",
        _add_pending("OLD", "-") + _add_pending("NEW", ""),
    ),
    "count_new_latest": ("INSERT ON gallery WHEN NEW.latest = 1", _add_latest("NEW", "+")),
    "count_latest": (
        "UPDATE OF latest ON gallery WHEN NEW.latest = 1 AND OLD.latest = 0",
        _add_latest("NEW", "+"),
    ),
    "count_no_longer_latest": (
        "UPDATE OF latest ON gallery WHEN NEW.latest = 0 AND OLD.latest = 1",
        _add_latest("NEW", "-"),
    ),
    "count_deleted_latest": ("DELETE ON gallery WHEN OLD.latest = 1", _add_latest("OLD", "-")),
}


def fill(connection: sqlite3.Connection) -> None:
    """Create the triggers, and count the answers of a database that was made before there were any."""
    execute = connection.execute
    for name, (event, statements) in _TRIGGERS.items():
        execute(f"DROP TRIGGER IF EXISTS {name}")
        execute(f"CREATE TRIGGER {name} AFTER {event} BEGIN {statements} END")
    for table in ("decision_counts", "version_counts", "pending_counts"):
        execute(f"DELETE FROM {table}")
    execute(
        "INSERT INTO decision_counts SELECT dataset, session, decision, COUNT(*) FROM answers WHERE replaced = 0 "
        "GROUP BY dataset, session, decision"
    )
    sums = ", ".join(f"SUM({value})" for value in _edits(""))
    execute(
        f"INSERT INTO version_counts SELECT dataset, version, {sums} FROM answers "
        "WHERE replaced = 0 AND version IS NOT NULL AND kept IS NOT NULL GROUP BY dataset, version"
    )
    execute(
        "INSERT INTO pending_counts SELECT answers.dataset, COUNT(*), COALESCE(SUM(gallery.latest), 0) FROM answers "
        "LEFT JOIN gallery ON gallery.answer = answers.id WHERE handed_on = 0 AND replaced = 0 "
        "GROUP BY answers.dataset"
    )
