"""Which tab has which image, over all page processes of a dataset.

An image that was ever given to somebody and has no answer has a row. The tab's page process renews it; once it has
expired, because the tab or the process is gone, the image is free for any tab of any process. An answer deletes the row
in its own transaction (the trigger `end_leases`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from odkeras.annotation import Task
from odkeras.formats.prodigy import write_task
from odkeras.web.postgres.engine import PostgresEngine
from odkeras.web.queue import Tab

LEASE_S = 20.0
_END = "clock_timestamp() + make_interval(secs => ?)"
_TAKE = (
    "DO UPDATE SET session = excluded.session, tab = excluded.tab, leased_at = excluded.leased_at, "
    "expires_at = excluded.expires_at WHERE leases.expires_at <= clock_timestamp()"
)
_OR_MINE = " OR (leases.session = excluded.session AND leases.tab = excluded.tab)"
_KEEP_OPEN = (
    "INSERT INTO open_tasks VALUES (?, ?, ?) ON CONFLICT (dataset, image_id) DO UPDATE SET task = excluded.task"
)


class Leases:
    """The leases of one dataset. Thread-safe. All methods raise DatabaseError if the database cannot be used.

    An `audience` is the set of sessions that share the images: "" for all of them, or with overlap one session.

    Args:
        not_by: answers of this session are none; "" counts all.
        lease_s: seconds until a lease ends that is not renewed.
    """

    def __init__(self, engine: PostgresEngine, dataset: str, *, not_by: str = "", lease_s: float = LEASE_S) -> None:
        self._engine = engine
        self._dataset = dataset
        self._not_by = not_by
        self.lease_s = lease_s

    def acquire(self, audience: str, tab: Tab, task: Task, *, again: bool = False) -> bool:
        """Lease an image that is free, and store its task, so that another process can give it to somebody later.
        False if a tab has the image or it is answered.

        Args:
            again: also if this tab has it.
        """
        values = (self._dataset, audience, task.image_id, tab.session, tab.name, self.lease_s)
        insert = (
            f"INSERT INTO leases VALUES (?, ?, ?, ?, ?, clock_timestamp(), {_END}) "
            f"ON CONFLICT (dataset, audience, image_id) {_TAKE}{_OR_MINE if again else ''} RETURNING 1"
        )
        with self._engine.short_transaction("cannot lease an image") as connection:
            if connection.execute(insert, values).fetchone() is None:
                return False
            # After the row is ours: an answer whose transaction was open until now has deleted an earlier row of it.
            if connection.execute(*self._answers(audience, task.image_id)).fetchone() is not None:
                connection.execute(
                    "DELETE FROM leases WHERE dataset = ? AND audience = ? AND image_id = ?",
                    (self._dataset, audience, task.image_id),
                )
                return False
            connection.execute(_KEEP_OPEN, (self._dataset, task.image_id, json.dumps(write_task(task))))
            connection.notify({"kind": "leased", "dataset": self._dataset, "images": [task.image_id]})
            return True

    def claim(self, audience: str, tab: Tab, image_ids: Collection[str]) -> None:
        """Lease images again that a tab still shows, if they are free. Images that were never leased are left out."""
        claim = (
            f"INSERT INTO leases SELECT dataset, ?, image_id, ?, ?, clock_timestamp(), {_END} "
            "FROM open_tasks WHERE dataset = ? AND image_id = ? "
            f"ON CONFLICT (dataset, audience, image_id) {_TAKE}"
        )
        for image_id in image_ids:  # each in its own transaction, which holds one row at a time: no deadlocks
            with self._engine.short_transaction("cannot lease an image") as connection:
                if connection.execute(*self._answers(audience, image_id)).fetchone() is None:
                    values = (audience, tab.session, tab.name, self.lease_s, self._dataset, image_id)
                    connection.execute(claim, values)

    def take_expired(self, audience: str, tab: Tab, count: int) -> list[str]:
        """Lease up to `count` images whose leases have expired. Processes that look at the same time get different
        ones."""
        query = (
            f"UPDATE leases SET session = ?, tab = ?, leased_at = clock_timestamp(), expires_at = {_END} "
            "WHERE dataset = ? AND audience = ? AND image_id IN (SELECT image_id FROM leases WHERE dataset = ? "
            "AND audience = ? AND expires_at <= clock_timestamp() ORDER BY expires_at LIMIT ? FOR UPDATE SKIP LOCKED) "
            "RETURNING image_id"
        )
        place = (self._dataset, audience)
        with self._engine.short_transaction("cannot lease images") as connection:
            rows = connection.execute(query, (tab.session, tab.name, self.lease_s, *place, *place, count)).fetchall()
        return [str(image_id) for (image_id,) in rows]

    def held(self, audience: str, tab: Tab) -> list[str]:
        """The images that a tab has, in the order in which it got them."""
        query = (
            "SELECT image_id FROM leases WHERE dataset = ? AND audience = ? AND session = ? AND tab = ? "
            "AND expires_at > clock_timestamp() ORDER BY leased_at"
        )
        rows = self._engine.read(query, (self._dataset, audience, tab.session, tab.name))
        return [str(image_id) for (image_id,) in rows]

    def holders(self, audience: str) -> dict[str, Tab]:
        """The tabs that have images now, by image id."""
        query = (
            "SELECT image_id, session, tab FROM leases WHERE dataset = ? AND audience = ? "
            "AND expires_at > clock_timestamp()"
        )
        rows = self._engine.read(query, (self._dataset, audience))
        return {image_id: Tab(session, tab) for image_id, session, tab in rows}

    def leased(self) -> set[str]:
        """The images that were given to somebody and have no answer, with any audience."""
        rows = self._engine.read("SELECT image_id FROM leases WHERE dataset = ?", (self._dataset,))
        return {str(image_id) for (image_id,) in rows}

    def sessions(self) -> set[str]:
        """The sessions that have images now, on any page."""
        query = "SELECT DISTINCT session FROM leases WHERE dataset = ? AND expires_at > clock_timestamp()"
        return {str(session) for (session,) in self._engine.read(query, (self._dataset,))}

    def count_expired(self) -> int:
        query = "SELECT COUNT(*) FROM leases WHERE dataset = ? AND expires_at <= clock_timestamp()"
        return int(self._engine.read(query, (self._dataset,))[0][0])

    def renew(self, tabs: Sequence[Tab]) -> None:
        """Prolong the leases of tabs. Rows that another transaction changes are left for the next time."""
        if not tabs:
            return
        marks = ", ".join(["(?, ?)"] * len(tabs))
        query = (
            f"UPDATE leases SET expires_at = {_END} FROM (SELECT audience, image_id FROM leases WHERE dataset = ? "
            f"AND (session, tab) IN ({marks}) FOR UPDATE SKIP LOCKED) AS mine "
            "WHERE leases.dataset = ? AND leases.audience = mine.audience AND leases.image_id = mine.image_id"
        )
        names = [name for tab in tabs for name in (tab.session, tab.name)]
        with self._engine.short_transaction("cannot renew leases") as connection:
            connection.execute(query, (self.lease_s, self._dataset, *names, self._dataset))

    def _answers(self, audience: str, image_id: str) -> tuple[str, list[str]]:
        """A query for the answers that end the leases of an image, and its values."""
        query, values = "SELECT 1 FROM gallery WHERE dataset = ? AND image_id = ?", [self._dataset, image_id]
        if audience:
            query, values = f"{query} AND session = ?", [*values, audience]
        if self._not_by:
            query, values = f"{query} AND session <> ?", [*values, self._not_by]
        return f"{query} LIMIT 1", values
