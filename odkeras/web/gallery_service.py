"""The operations of the page's gallery: list images, make thumbnails, open an image, copy an image's boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from odkeras.annotation import Answer, Decision, Task
from odkeras.errors import ImageError, OdkerasError
from odkeras.images import EncodedImage
from odkeras.session.sources import Item
from odkeras.session.web_images import WebImages
from odkeras.web.database import AnswerDatabase
from odkeras.web.gallery import MAX_BOXES, Gallery, GalleryEntry
from odkeras.web.queue import Tab, TaskQueue
from odkeras.web.replies import GalleryBox, GalleryImage, GalleryPage
from odkeras.web.requests import GalleryFilter
from odkeras.web.thumbnails import FETCH_TIMEOUT_S, RemoteImages, Thumbnails


class NotAvailableError(OdkerasError):
    """The image cannot be opened now; the message says why."""


@dataclass(frozen=True)
class OpenedImage:
    """An image opened from the gallery, as a task.

    Args:
        task: the task, with the boxes of the answer if there is one.
        decision: the decision of the answer; None if there is none.
    """

    task: Task
    decision: Decision | None = None


class GalleryService:
    """Serves the page's gallery. Thread-safe. Call `close` at the end.

    Args:
        gallery: the list of all images.
        queue: the tasks.
        read: reads one image of the source out of order, as a task without image data; raises `ImageError`.
        find_picture: returns the image with a given id, if it was ever leased or answered.
        reopen: returns an answer for correction; None if its image is missing and its size unknown.
        keep_open: stores a leased task, so that its answer is accepted after a restart.
        allow_private_urls: see `WebImages`.
    """

    def __init__(
        self,
        gallery: Gallery,
        database: AnswerDatabase,
        queue: TaskQueue,
        read: Callable[[Item], Task],
        *,
        find_picture: Callable[[str], EncodedImage | None],
        reopen: Callable[[Tab, str, Answer | None], Answer | None],
        keep_open: Callable[[Task], Task],
        allow_private_urls: bool = False,
    ) -> None:
        self._gallery = gallery
        self._database = database
        self._dataset = gallery.dataset
        self._queue = queue
        self._read_item = read
        self._find_picture = find_picture
        self._reopen = reopen
        self._keep_open = keep_open
        self._thumbnails = Thumbnails()
        self._web = WebImages(timeout_s=FETCH_TIMEOUT_S, allow_private_urls=allow_private_urls)
        self._remote = RemoteImages(self._web.fetch)

    def close(self) -> None:
        self._web.close()

    def page(self, tab: Tab, wanted: GalleryFilter, offset: int, limit: int) -> GalleryPage:
        """The images from `offset` on."""
        open_tasks = {task.image_id: task for task in self._queue.open_tasks(tab.session)}
        total, entries = self._gallery.page(wanted, tab.session, list(open_tasks.values()), offset, limit)
        examples = self._gallery.examples(entries)
        images = [
            self._image(tab, entry, examples.get(entry.answer or -1) or open_tasks.get(entry.image_id or ""))
            for entry in entries
        ]
        return GalleryPage(total, offset, images, self._gallery.missing)

    def must_be_fetched(self, key: str) -> bool:
        """Whether `thumbnail` would have to download the image."""
        item = self._gallery.item(key)
        return item is not None and item.url is not None and key not in self._thumbnails

    def thumbnail(self, key: str) -> bytes | None:
        """The JPEG thumbnail for an entry's key; None if there is no such image or it cannot be read."""
        try:
            return self._thumbnails.get(key, lambda: self._read_bytes(key))
        except ImageError:
            return None

    def open(self, tab: Tab, key: str) -> OpenedImage:
        """Open the image of an entry in this tab, for its first answer or for a correction.

        Raises:
            NotAvailableError: another tab holds the image, an excluded dataset contains it, or it cannot be read.
        """
        item = self._gallery.item(key)
        read = self._read(item) if item is not None else None
        image_id = read.image_id if read is not None else key
        answer = self._answer_about(tab, image_id)
        if answer is not None:
            return OpenedImage(answer.task, answer.decision)
        if (excluded := self._gallery.excluded_by(image_id)) is not None:
            raise NotAvailableError(f"this image is excluded: it is in dataset {excluded}")
        task = self._queue.take(tab, image_id, lambda: self._suggested(image_id, read))
        if task is not None:
            return OpenedImage(self._keep_open(task))
        holder = self._queue.holder(tab.session, image_id)
        if holder is None:
            raise NotAvailableError("this image has just been answered; reload the list")
        who = "another tab of yours" if holder.session == tab.session else f"annotator {holder.session}"
        raise NotAvailableError(f"{who} has this image open; wait until it is answered or released")

    def answer(self, session: str, image_id: str) -> Answer | None:
        """An answer whose boxes are copied to another image; None if the image has no answer."""
        return self._answer(session, image_id) or self._database.any_answer(self._dataset, image_id)

    def _answer_about(self, tab: Tab, image_id: str) -> Answer | None:
        answer = self._answer(tab.session, image_id)
        if answer is None:
            return None
        reopened = self._reopen(tab, image_id, answer)
        if reopened is None:
            raise NotAvailableError("the image of this answer is missing, and its size is unknown")
        return reopened

    def _answer(self, session: str, image_id: str) -> Answer | None:
        """The effective answer, which the gallery lists: the session's own with `overlap`, else the latest of all
        sessions."""
        if self._gallery.overlap:
            return self._database.answer(self._dataset, session, image_id)
        return self._database.any_answer(self._dataset, image_id)

    def _read(self, item: Item) -> Task:
        try:
            return self._read_item(item)
        except ImageError as error:
            raise NotAvailableError(f"this image cannot be used: {error.reason}") from error

    def _suggested(self, image_id: str, read: Task | None) -> Task:
        task = read or self._database.open_task(self._dataset, image_id)
        if task is None:
            raise NotAvailableError("this image is no longer in the list; reload the list")
        return task  # the queue adds suggestions

    def _read_bytes(self, key: str) -> bytes:
        item = self._gallery.item(key)
        if item is not None:
            return self._remote.get(item.url) if item.url is not None else self._gallery.stream.reader.read_bytes(item)
        image = self._find_picture(key)
        if image is None:
            raise ImageError("no such image", key)
        return image.data

    def _image(self, tab: Tab, entry: GalleryEntry, task: Task | None) -> GalleryImage:
        holder = self._queue.holder(tab.session, entry.image_id) if entry.image_id and entry.answer is None else None
        return GalleryImage(
            key=entry.key,
            image_id=entry.image_id,
            file=entry.file,
            thumbnail=f"/thumbnails/{entry.key}",
            decision=None if entry.decision is None else Decision(entry.decision),
            annotator=entry.session,
            score=entry.lowest_score,
            held="" if holder is None else ("here" if holder == tab else "elsewhere"),
            holder=None if holder is None else holder.session,
            boxes=_boxes(task) if task is not None else [],
        )


def _boxes(task: Task) -> list[GalleryBox]:
    """The first `MAX_BOXES` boxes; empty if the size of the image is unknown."""
    if task.image_size_hw is None:
        return []
    height, width = task.image_size_hw
    boxes: list[GalleryBox] = []
    for span in task.spans[:MAX_BOXES]:
        left, top, right, bottom = span.xyxy_px
        x, y, w, h = left / width, top / height, (right - left) / width, (bottom - top) / height
        boxes.append(GalleryBox(span.label, (round(x, 4), round(y, 4), round(w, 4), round(h, 4))))
    return boxes
