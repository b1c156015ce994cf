"""Everything behind the page: the session, the answer database, the task queue, the outbox and the status panel.

    with open_page(settings) as service:
        service.next_tasks(tab, 3)
        service.answer(tab, [{"answer_id": ..., "image_id": ..., "answer": "accept", "spans": [...]}])

`app` calls the methods from its thread pools.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from odkeras import __version__
from odkeras.annotation import Answer, Decision, Task
from odkeras.config.annotate import AnnotateSettings
from odkeras.control import RUNNING, Control, TrainingAction, TrainingState
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage
from odkeras.inbox import images_dir
from odkeras.session.session import AnnotationSession
from odkeras.session.sources import Source
from odkeras.session.supervisor import log_tail
from odkeras.web import replies
from odkeras.web.answered_images import AnsweredImages
from odkeras.web.data_directory import note_delivery
from odkeras.web.database import AnswerDatabase
from odkeras.web.deliveries import Deliveries
from odkeras.web.downloads import Download, open_download
from odkeras.web.gallery import Gallery
from odkeras.web.gallery_service import GalleryService
from odkeras.web.housekeeping import Housekeeping, ImagesLeft
from odkeras.web.incoming import check_answer_id, read_posted_answer
from odkeras.web.journal import Journal
from odkeras.web.label_replies import label_replies
from odkeras.web.live_labels import LiveLabels
from odkeras.web.next_steps import NextStep, next_steps
from odkeras.web.outbox import DeliveryRules
from odkeras.web.pages import OnlyPage
from odkeras.web.panel import Panel
from odkeras.web.pictures import Pictures
from odkeras.web.queue import Assignment, Tab
from odkeras.web.stored import StoredAnswer
from odkeras.web.tensorboard import TensorBoard

PREFETCH = 4
LOG_LINES, LOG_BYTES = 200, 65_536


class PageService:
    """The operations of the page. Thread-safe. Create it with `opening.open_page`; use it as a context manager, or call
    `close`, which is idempotent and stops everything.

    Args:
        settings: the settings of the command.
        journal: the event log.
        database: the answer database.
        session: the session; the caller closes it.
        source: the images to annotate.
        panel: the status that the page shows; gets the events from `journal`.
        pages: makes the queue and the outbox, for one page or for one of several.

    Attributes:
        dataset, journal, database, session, panel: as given.
        labels, stream, queue, outbox, gallery: the parts that the application uses.
        instance: a random name of this run, by which a page notices a restart.
        free_count: number of times that tasks were taken back from tabs that are gone.
    """

    def __init__(
        self,
        settings: AnnotateSettings,
        journal: Journal,
        database: AnswerDatabase,
        session: AnnotationSession,
        source: Source,
        panel: Panel,
        pages: OnlyPage,
    ) -> None:
        self._settings = settings
        self.journal = journal
        self.dataset = settings.dataset
        self.database = database
        self.session = session
        self.instance = uuid.uuid4().hex
        self.free_count = 0
        self._pages = pages
        self._batch_size = settings.answers_per_round
        self._stack = ExitStack()
        project, shared = session.project, not settings.overlap
        self.panel = panel
        self.labels = LiveLabels(settings, session, database, journal)
        self._random_weights = session.setup.starts_from_random_weights
        self._pictures = Pictures(ImageStore(images_dir(project.inbox_dir)), ImageStore(project.kept_images_dir))
        self._control = Control(project.control_path)
        self._tensorboard = TensorBoard(project.model_dir, project.logs_dir / "tensorboard.log")
        self._answered = answered = AnsweredImages(settings, database)
        self.stream = session.stream(source, exclude=answered.left_out(journal))
        self.queue = pages.make_queue(
            # Not a generator, which would end at the first exception.
            map(self.labels.translate, map(answered.for_review, map(session.with_image_path, self.stream))),
            answered=answered.of,
            overlap=settings.overlap,
            refresh=self._refresh,
            is_fresh=lambda task: panel.version in (None, task.version),
            on_free=self._note_free,
        )
        self.labels.changed = self.queue.relabel
        self._left = ImagesLeft(self.stream, database, answered.of, overlap=settings.overlap)
        self.outbox = pages.make_outbox(
            Deliveries(database, self.dataset, shared=shared),
            session,
            DeliveryRules(self._batch_size, shared=shared, sync=settings.sync),
            no_more=self.queue.all_answered,
            delivered=partial(note_delivery, project, self.dataset),
            warn=journal.warn,
        )
        exclude = settings.exclude or ()
        self._images = Gallery(database.engine, self.dataset, self.stream, overlap=settings.overlap, exclude=exclude)
        self.gallery = GalleryService(
            self._images,
            database,
            self.queue,
            lambda item: session.with_image_path(self.stream.read(item)),
            find_picture=self.picture,
            reopen=self.reopen,
            keep_open=lambda task: self._kept(Assignment((task,))).tasks[0],
            allow_private_urls=session.options.allow_private_urls,
        )
        self.housekeeping = Housekeeping(
            self.queue,
            self.panel,
            self._left,
            journal,
            figures=self._figures,
            datasets={self.dataset, *exclude},
        )

    def __enter__(self) -> PageService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def start(self, stack: ExitStack) -> None:
        """Start the threads. From here on, `close` closes `stack`, too, after the parts of the service."""
        count = self.outbox.pending
        if count >= self._batch_size:
            self.journal.say(f"{count} stored answers had not reached the trainer and are delivered now")
        elif count:
            self.journal.say(f"{count} of {self._batch_size} answers for the next training round received")
        for part in (self._tensorboard, self._images, self.gallery, self.outbox, self.housekeeping):
            stack.callback(part.close)
        stack.callback(self._pages.stop)
        self.outbox.start()
        self.housekeeping.start()
        self._pages.start(self)
        self._stack = stack.pop_all()

    def about(self, session: str, *, tensorboard: bool) -> replies.Project:
        """The values that do not change while the page is open.

        Args:
            tensorboard: whether TensorBoard can be offered to this client.
        """
        return replies.Project(
            dataset=self.dataset,
            session=session,
            labels=label_replies(self.session.setup),
            renamed=self.labels.renamed,
            source=Path(str(self._settings.source)).name,
            prefetch=PREFETCH,
            batch_size=self._batch_size,
            answered=self.panel.answered_by(session),
            random_weights=self._random_weights,
            threshold=self._settings.threshold,
            tensorboard=tensorboard and self._settings.tensorboard,
            logdir=str(self._tensorboard.logdir),
            odkeras=__version__,
            instance=self.instance,
        )

    def next_tasks(self, tab: Tab, count: int, have: Collection[str]) -> Assignment:
        """Lease tasks to a tab; see `TaskQueue.next_tasks`. With `sync`, one batch until it was trained on."""
        if self._settings.sync:
            ready = self.outbox.ready
            if self.outbox.delivering or ready >= self._batch_size:
                state = self._control.state
                held = f"training is {state}: more images follow when it is resumed and has used your answers"
                return Assignment(waiting="training on your answers" if state == RUNNING else held)
            count = min(count, self._batch_size - ready - len(have))
            if count < 1:
                return Assignment(waiting="more images follow when these are answered and used for training")
        return self._kept(self.queue.next_tasks(tab, count, have))

    def suggest_again(self, tab: Tab, image_ids: Sequence[str]) -> list[Task]:
        """Newer suggestions for tasks that the tab holds; see `TaskQueue.suggest_again`."""
        return list(self._kept(Assignment(tuple(self.queue.suggest_again(tab, image_ids)))).tasks)

    def answer(self, tab: Tab, answers: Sequence[Any]) -> tuple[list[str], list[tuple[str, str]]]:
        """Store answers; they are durable when this returns.

        Returns:
            Ids of the stored answers, and (id, reason) of the rejected ones.

        Raises:
            DatabaseError: the database cannot be written, for example on a full disk; nothing was stored.
        """
        self.queue.touch(tab)
        accepted: list[StoredAnswer] = []
        refused: list[tuple[str, str]] = []
        for answer in answers:
            try:
                stored = self._read_answer(tab.session, answer)
                sent = next((each.image_id for each in accepted if each.answer_id == stored.answer_id), None)
                check_answer_id(stored, sent or self.database.image_of_answer(self.dataset, stored.answer_id))
                accepted.append(stored)
            except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
                answer_id = answer.get("answer_id") if isinstance(answer, dict) else None
                refused.append((answer_id if isinstance(answer_id, str) else "", str(error)))
        if accepted:
            self._store(accepted)
        return [stored.answer_id for stored in accepted], refused

    def note_answers(self, answers: Sequence[tuple[str, str]]) -> None:
        """Answers, as (session, image id), were stored, by this page or another one."""
        self.outbox.notify(answers)
        for session, image_id in answers:
            self.queue.note_answered(session, image_id)
            self._left.answered(session, image_id)
        self.panel.answered()

    def reopen(self, tab: Tab, image_id: str, answer: Answer | None = None) -> Answer | None:
        """The answer for an image, to be corrected: with overlap the session's own, else the latest of all sessions.
        None if the session has not answered the image, or if the image is missing and its size unknown.

        Args:
            answer: an answer of any session, to be corrected instead.
        """
        own = answer or self.database.answer(self.dataset, tab.session, image_id)
        if answer is None and own is not None and not self._settings.overlap:  # else a later correction would be lost
            answer = self.database.any_answer(self.dataset, image_id)
        answer = answer or own
        task = self._sized(answer.task) if answer is not None else None
        if answer is None or task is None:
            return None
        self.outbox.hold_back(tab.session, image_id)
        self.queue.reopen(tab, image_id, task)
        return replace(answer, task=task)

    def train_now(self) -> tuple[int, bool]:
        """Deliver all pending answers to the trainer, and resume training if it is paused or stopped.

        Returns:
            The number of answers, and whether training was resumed.

        Raises:
            SetupError: training cannot be resumed.
        """
        resumed = self._control.state != RUNNING
        if resumed:
            self.control_training("resume")
        return self.outbox.deliver_now(), resumed

    def control_training(self, action: TrainingAction) -> TrainingState:
        """`pause`, `resume` or `stop` training; returns the new state.

        Raises:
            SetupError: the model directory cannot be written.
        """
        state = self._control.set(action)
        self.panel.update(training=state)
        return state

    def log_end(self, process: replies.ProcessName) -> replies.Log | None:
        """The last lines of the trainer's or the server's log; None if it does not exist on this machine."""
        path = self.session.project.logs_dir / f"{process}.log"
        text = log_tail(path, LOG_LINES, most_bytes=LOG_BYTES)
        return replies.Log(process, str(path), text) if text else None

    def history(self, session: str) -> replies.History:
        """The session's latest answers, newest first."""
        now = time.time()
        answers = [
            replies.PastAnswer(
                image_id=entry.image_id,
                file=entry.file,
                answer=Decision(entry.decision),
                boxes=entry.boxes,
                answered_s_ago=max(0.0, now - entry.answered_at),
                state="delivered" if entry.delivered else "saved",
            )
            for entry in self.database.history(self.dataset, session)
        ]
        return replies.History(answers)

    def next_steps(self) -> list[NextStep]:
        """The commands to suggest once all images are answered."""
        return next_steps(self.session.options, self.dataset, self.database.path)

    def download(self, format: str) -> Download | None:
        """The labels as a download; see `open_download`."""
        return open_download(self.database, self.dataset, format, warn=self.journal.warn)

    def picture(self, image_id: str) -> EncodedImage | None:
        """An image that was leased or answered; None for any other image."""
        task = self.queue.task(image_id) or self.database.open_task(self.dataset, image_id)
        if task is None and (answer := self.database.any_answer(self.dataset, image_id)) is not None:
            task = answer.task
        return None if task is None else self._pictures.find(image_id, task)

    def tensorboard_url(self) -> str:
        """URL of TensorBoard, which is started if necessary. Raises: SetupError: it cannot be started."""
        return self._tensorboard.url()

    @property
    def tensorboard_command(self) -> str:
        return self._tensorboard.command

    def _read_answer(self, session: str, answer: Any) -> StoredAnswer:
        own = session if self._settings.overlap else None  # without overlap, sessions correct each other's answers
        return read_posted_answer(
            answer,
            dataset=self.dataset,
            session=session,
            labels=self.session.setup.labels,
            keypoints=self.session.setup.keypoint_names,
            earlier=self.labels.earlier,
            task_of=partial(self._find_task, session),
            last_answered_at=partial(self.database.answered_at, self.dataset, session),
            last_active_s=partial(self.database.active_s, self.dataset, session=own),
        )

    def _find_task(self, session: str, image_id: str, version: Any) -> Task | None:
        """The task of an image: from the queue, else as leased by an earlier run, else from a stored answer (the image
        may have been reassigned and answered by another session). None if it was never leased.

        Args:
            version: version of the suggestions that the page showed, as the page reports it.
        """
        task = self.queue.task(image_id, version) or self.database.open_task(self.dataset, image_id)
        if task is None:
            answer = self.database.answer(self.dataset, session, image_id)
            answer = answer or self.database.any_answer(self.dataset, image_id)
            task = None if answer is None else answer.task
        return self._sized(task)

    def _kept(self, handout: Assignment) -> Assignment:
        """Store leased tasks before the page gets them, because their answers may arrive after a restart."""
        if handout.tasks:
            self.database.keep_open(self.dataset, handout.tasks)
        return handout

    def _sized(self, task: Task | None) -> Task | None:
        """The task with its image's size, which imported examples may lack; None if the image is missing."""
        if task is None or task.image_size_hw is not None:
            return task
        image = self._pictures.find(task.image_id, task)
        return None if image is None else replace(task, image_size_hw=image.image_size_hw)

    def _store(self, accepted: Sequence[StoredAnswer]) -> None:
        shared = not self._settings.overlap
        # With overlap, the other sessions still need these images.
        closed = [answer.image_id for answer in accepted] if shared else []
        self.database.add(self.dataset, accepted, closed=closed, shared=shared)
        self.note_answers([(answer.session, answer.image_id) for answer in accepted])

    def _refresh(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that have newer suggestions, with these; the others are left out."""
        bare = [with_image for task in tasks if (with_image := self._pictures.with_image(task)) is not None]
        by_id = {task.image_id: task for task in tasks}
        again = self.stream.suggest_again(bare)
        return [
            replace(new, image=by_id[new.image_id].image)
            for old, new in zip(bare, again, strict=True)
            if new is not old and self._answered.for_review(new) is new
        ]

    def _figures(self) -> dict[str, object]:
        """The figures that the housekeeping keeps current in the panel."""
        pending, training = self.outbox.pending, self._control.state
        return {"total": self.stream.total, "pending": pending, "training": training, "labels": self.labels.look()}

    def _note_free(self) -> None:
        self.free_count += 1
