"""Which answers of a dataset the trainer has: the delivery record, kept in the answers' own rows.

`pending` returns the answers that the trainer does not have yet, `mark_delivered` records that it has them. The name of
the batch, noted before the batch is written, makes a delivery idempotent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from odkeras.formats.prodigy import Record
from odkeras.web.database import AnswerDatabase
from odkeras.web.stored import PendingAnswer

_NO_LIMIT = 2**63 - 1
_USE_DIRECTORY = "INSERT INTO deliveries VALUES (?, ?) ON CONFLICT (dataset) DO UPDATE SET data_id = excluded.data_id"


class Deliveries:
    """The delivery record of one dataset. Thread-safe.

    Args:
        shared: the sessions share the images: only the latest answer for an image counts, from any session, and older
            ones are never delivered.
    """

    def __init__(self, database: AnswerDatabase, dataset: str, *, shared: bool = False) -> None:
        self._database = database
        self._dataset = dataset
        latest = " AND EXISTS (SELECT 1 FROM gallery WHERE answer = answers.id AND latest = 1)" if shared else ""
        self._shared = shared
        self._is_pending = f"dataset = ? AND handed_on = 0 AND replaced = 0{latest}"

    def assign_batch(self, answer_ids: Iterable[str], batch: str) -> None:
        """Record in which batch these answers are delivered, before the batch is written. If the process is killed in
        between, the next start writes the same batch again, which is idempotent.

        Raises:
            DatabaseError: the database cannot be written.
        """
        with self._database.transaction("cannot store the delivery") as connection:
            connection.executemany(
                "UPDATE answers SET batch = ? WHERE dataset = ? AND answer_id = ?",
                [(batch, self._dataset, answer_id) for answer_id in answer_ids],
            )

    def mark_delivered(self, answer_ids: Iterable[str]) -> None:
        """Record that the trainer has these answers, and does not need those that they supersede.

        Raises:
            DatabaseError: the database cannot be written.
        """
        ids = list(answer_ids)
        this = "FROM answers WHERE dataset = ? AND answer_id = ?"
        older = (
            f"UPDATE answers SET handed_on = 1 WHERE dataset = ? AND image_id = (SELECT image_id {this}) "
            f"AND (answered_at, id) < (SELECT answered_at, id {this})"
        )
        with self._database.transaction("cannot mark the answers as delivered") as connection:
            connection.executemany(
                "UPDATE answers SET handed_on = 1 WHERE dataset = ? AND answer_id = ?",
                [(self._dataset, answer_id) for answer_id in ids],
            )
            if self._shared:
                connection.executemany(older, [(self._dataset, *(self._dataset, answer_id) * 2) for answer_id in ids])
            connection.notify({"kind": "delivered", "dataset": self._dataset})

    def use_data_directory(self, data_id: str, known_hashes: Collection[int] = ()) -> None:
        """Set which data directory the deliveries refer to. If it is another one than before, the answers count as not
        delivered, except those about the images with `known_hashes`.

        Args:
            known_hashes: input hashes (`stored.hash_image_id`) of the images whose answers the directory has.

        Raises:
            DatabaseError: the database cannot be written.
        """
        with self._database.transaction("cannot store the data directory") as connection:
            execute = connection.execute
            row = execute("SELECT data_id FROM deliveries WHERE dataset = ?", (self._dataset,)).fetchone()
            if row is not None and row[0] == data_id:
                return
            noted = "dataset = ? AND (handed_on = 1 OR batch IS NOT NULL)"
            rows = execute(f"SELECT DISTINCT input_hash FROM answers WHERE {noted}", (self._dataset,)).fetchall()
            missing = {value for (value,) in rows}.difference(known_hashes)
            with connection.counted_later(self._dataset):
                connection.executemany(
                    f"UPDATE answers SET handed_on = 0, batch = NULL WHERE {noted} AND input_hash = ?",
                    [(self._dataset, value) for value in missing],
                )
            execute(_USE_DIRECTORY, (self._dataset, data_id))

    def pending(self, limit: int) -> list[PendingAnswer]:
        """Up to `limit` answers that the trainer does not have yet, oldest first, but those of an interrupted delivery
        before all others."""
        interrupted = self._select("batch IS NOT NULL", "batch, answered_at, id", limit)
        if len(interrupted) == limit:
            return interrupted
        return interrupted + self._select("batch IS NULL", "answered_at, id", limit - len(interrupted))

    def pending_in(self, batch: str) -> list[PendingAnswer]:
        """All answers of an interrupted delivery. A part of them under the batch's name would replace the whole."""
        return self._select("batch = ?", "answered_at, id", _NO_LIMIT, batch)

    def count_pending(self, *, in_no_batch: bool = False) -> int:
        """Number of answers that the trainer does not have yet; with `in_no_batch`, of those that are in no batch."""
        column = "latest" if self._shared else "answers"
        rows = self._database.read(f"SELECT {column} FROM pending_counts WHERE dataset = ?", self._dataset)
        count = int(rows[0][0]) if rows else 0
        return count - len(self._select("batch IS NOT NULL", "id", _NO_LIMIT)) if in_no_batch else count

    def _select(self, condition: str, order: str, limit: int, *values: str) -> list[PendingAnswer]:
        """Pending answers. Indexes give them in their order, so that the cost does not depend on the number of all."""
        query = (
            f"SELECT answer_id, session, image_id, batch FROM answers WHERE {self._is_pending} AND {condition} "
            f"ORDER BY {order} LIMIT ?"
        )
        return [PendingAnswer(*row) for row in self._database.read(query, self._dataset, *values, limit)]

    def read_examples(self, answer_ids: Iterable[str]) -> list[Record]:
        """The examples of these answers, in their order, each with its `image_id`."""
        query = "SELECT image_id, example FROM answers WHERE dataset = ? AND answer_id = ?"
        return [
            {**self._database.load(text), "image_id": image_id}
            for answer_id in answer_ids
            for image_id, text in self._database.read(query, self._dataset, answer_id)
        ]
