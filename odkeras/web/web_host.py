"""Everything behind the page: the recipe's components, the answer database, the task queue and the status panel.

    with WebHost(arguments, WebOptions()) as host:
        host.next_tasks(tab, 3)
        host.answer(tab, [{"answer_id": ..., "image_id": ..., "answer": "accept", "spans": [...]}])

`app` calls the methods from its thread pools.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from odkeras.colours import colour_of
from odkeras.control import RUNNING, Control
from odkeras.errors import ConfigError, DatabaseError
from odkeras.formats.prodigy import Task
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage
from odkeras.inbox import images_dir
from odkeras.integrations.prodigy.api import INPUT_HASH
from odkeras.integrations.prodigy.recipes import TrainmodelArguments, open_training_host, options_of
from odkeras.integrations.prodigy.source import DATASET_SOURCE
from odkeras.locks import locked
from odkeras.numeric import is_whole
from odkeras.pipeline import RANDOM_WEIGHTS, has_checkpoints
from odkeras.project import Project
from odkeras.session.supervisor import log_tail
from odkeras.web.board import Handout, Tab, TaskBoard
from odkeras.web.database import AnswerDatabase
from odkeras.web.dataset_labels import keep_label_map
from odkeras.web.downloads import Download, open_download
from odkeras.web.gallery import Gallery
from odkeras.web.gallery_desk import GalleryDesk
from odkeras.web.handover import Entry, Handover
from odkeras.web.incoming import read_answer
from odkeras.web.location import DatabasePlace, answers_text, count_answers, find_database, remember_database
from odkeras.web.next_steps import NextStep
from odkeras.web.page_host import Journal, PageApi, PageHost
from odkeras.web.panel import Document, Panel
from odkeras.web.pictures import Pictures
from odkeras.web.stored import StoredAnswer, input_hash_of
from odkeras.web.tensorboard import TensorBoard

PREFETCH = 4
ANSWERS_PER_ROUND = 5
"""Smaller batches give fresher suggestions; with larger ones, the overhead of a round weighs less."""
_HOUSEKEEPING_S = 0.25
_LOCK_WAIT_S = 5.0
LOG_LINES, LOG_BYTES = 200, 65_536


@dataclass(frozen=True)
class WebOptions:
    """Options of `odkeras annotate` beyond those of the recipe.

    Args:
        db: the answer database, created if missing; found by `find_database` when None.
        overlap: every session annotates every image.
        tensorboard: whether the page may start TensorBoard.
        answers_per_round: number of answers that start a training round.

    Raises:
        ConfigError: `answers_per_round` is less than 1.
    """

    db: Path | None = None
    overlap: bool = False
    tensorboard: bool = True
    answers_per_round: int = ANSWERS_PER_ROUND

    def __post_init__(self) -> None:
        if self.answers_per_round < 1:
            raise ConfigError(f"--answers-per-round {self.answers_per_round}: it must be 1 or more")


class WebHost:
    """Context manager: entering opens the database and starts the loop; `close` stops everything and is idempotent.

    Args:
        arguments: the recipe's arguments.
        options: the page's own options.
        journal: the event log.

    Raises:
        OdkerasError: on entering, if an argument is invalid.
    """

    def __init__(self, arguments: TrainmodelArguments, options: WebOptions, journal: Journal | None = None) -> None:
        self._arguments = replace(arguments, remove_base64=True)
        self._options = options
        self.journal = journal or Journal()
        self.dataset = str(arguments.dataset)
        self.instance = uuid.uuid4().hex
        self._stack = ExitStack()
        self._closing = threading.Event()
        self._storing = threading.Lock()

    def __enter__(self) -> WebHost:
        with ExitStack() as stack:
            place = self._find_database()
            self.database = stack.enter_context(AnswerDatabase.open(place.path))
            self._open(stack, place)
            self._stack = stack.pop_all()
        return self

    def _find_database(self) -> DatabasePlace:
        loop = options_of(self._arguments)
        source = self._arguments.source
        also = list(self._arguments.exclude or ())
        if isinstance(source, str) and source.startswith(DATASET_SOURCE):
            also.append(source.removeprefix(DATASET_SOURCE).partition(":")[0])
        return find_database(
            self._options.db, loop.config.parent, self.dataset, data_dir=loop.project.data_dir, also=also
        )

    def _open(self, stack: ExitStack, place: DatabasePlace) -> None:
        host = open_training_host(self._arguments, PageApi.of(self.database), PageHost)
        host.journal = self.journal
        self._host = host
        stack.enter_context(self._only_one(host.project))
        keep_label_map(self.database, self.dataset, host.label_map_path)
        remember_database(host.project.data_dir, self.dataset, place.path, host.config.parent)
        self._say_what_is_used(place)
        components = host.components()
        self._labels: list[str] = components["config"]["labels"]
        self._batch_size = self._options.answers_per_round
        self._random_weights = host.starts_from_random_weights() and not has_checkpoints(host.project.model_dir)
        if self._random_weights:
            self.journal.say(f"{RANDOM_WEIGHTS} `odkeras init --help` says how to give one: --fine-tune-checkpoint")
        project = host.project
        self._open_panel(project)
        self._pictures = Pictures(ImageStore(images_dir(project.inbox_dir)), ImageStore(project.kept_images_dir))
        self._control = Control(project.control_path)
        self._tensorboard = TensorBoard(project.model_dir, project.logs_dir / "tensorboard.log")
        stack.callback(self._tensorboard.close)
        self.handover = Handover(
            components["update"],
            self._handed_on,
            batch_size=self._batch_size,
            shared=not self._options.overlap,
            no_more=self._all_answered,
        )
        stack.callback(self.handover.close)  # runs after the loop has ended; pending answers wait for the next start
        stack.callback(host.close)
        if not self._arguments.sync:  # with sync, closing first would wait for a training round
            stack.callback(self.handover.close)
        config = {**components["config"], "feed_overlap": self._options.overlap}
        components["on_load"](SimpleNamespace(db=self.database, config=config))
        self.board = TaskBoard(
            host.light_tasks(),
            answered=lambda session: self.database.answered(self.dataset, session=session),
            overlap=self._options.overlap,
            refresh=self._refresh,
            is_fresh=self._is_fresh,
            on_free=self._came_back,
        )
        self._open_gallery(stack)
        self.free_count = 0
        if not self._options.overlap:
            self._follow(None)
        self.handover.__enter__()
        self.handover.add(self._left_over())
        self._start_threads(stack)

    def _open_panel(self, project: Project) -> None:
        self.panel = Panel(
            project,
            counts=partial(self.database.counts, self.dataset),
            edits=partial(self.database.version_edits, self.dataset),
        )
        self.journal.panel = self.panel
        self.panel.count()

    def _open_gallery(self, stack: ExitStack) -> None:
        host = self._host
        gallery = Gallery(
            self.database.path,
            self.dataset,
            lambda: host.stream,
            overlap=self._options.overlap,
            exclude=self._arguments.exclude or (),
        )
        stack.callback(gallery.close)
        self.gallery = GalleryDesk(
            gallery,
            self.database,
            self.dataset,
            self.board,
            host,
            find_picture=self.picture,
            reopen=self.reopen,
            keep_open=lambda task: self._kept(Handout((task,))).tasks[0],
            overlap=self._options.overlap,
        )
        stack.callback(self.gallery.close)

    def _start_threads(self, stack: ExitStack) -> None:
        threads = [
            threading.Thread(target=target, name=f"odkeras-{name}", daemon=True)
            for name, target in (("housekeeping", self._keep_house), ("look-up", self._look_up))
        ]
        for thread in threads:
            stack.callback(thread.join)
        stack.callback(self._closing.set)
        for thread in threads:
            thread.start()

    def _say_what_is_used(self, place: DatabasePlace) -> None:
        host, project = self._host, self._host.project
        answers = count_answers(place.path, [self.dataset])
        counted = f"{answers_text(answers)} in dataset {self.dataset}"
        self.journal.say(f"database   {place.path.absolute()} ({counted})")
        for remark in place.remarks:
            self.journal.say(f"           {remark}")
        self.journal.say(f"data       {project.data_dir.absolute()}")
        self.journal.say(f"model      {project.model_dir.absolute()}")
        self.journal.say(f"export     {project.export_dir.absolute()}")
        self.journal.say(f"label map  {host.label_map_path.absolute()}")
        if not answers and (elsewhere := host.handed_on_before):
            self.journal.warn(
                f"answers about {elsewhere} images of dataset {self.dataset} were handed to the trainer in "
                f"{project.data_dir.absolute()}, and this database has none of them: they are in another one. Stop, "
                "and name it with --db"
            )

    def _only_one(self, project: Project) -> AbstractContextManager[None]:
        """Lock the data directory: a second instance would lease every image again and start a second trainer."""
        taken = (
            f"another `odkeras annotate` is using {project.data_dir}; open its page (for another annotator with "
            "?session=NAME), stop it, or name another --data-dir"
        )
        return locked(project.data_dir / "annotate.lock", taken=taken, wait_s=_LOCK_WAIT_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def about(self, session: str, *, tensorboard: bool) -> Document:
        """The values that do not change while the page is open.

        Args:
            tensorboard: whether TensorBoard can be offered to this client.
        """
        from odkeras import __version__

        colors = [colour_of(number) for number in range(len(self._labels))]
        return {
            "dataset": self.dataset,
            "session": session,
            "labels": [{"name": name, "color": color} for name, color in zip(self._labels, colors, strict=True)],
            "source": str(self._arguments.source),
            "prefetch": PREFETCH,
            "batch_size": self._batch_size,
            "answered": self.panel.answered_by(session),
            "random_weights": self._random_weights,
            "threshold": self._arguments.threshold,
            "tensorboard": tensorboard and self._options.tensorboard,
            "logdir": str(self._tensorboard.logdir),
            "odkeras": __version__,
            "instance": self.instance,
        }

    def next_tasks(self, tab: Tab, count: int, have: Collection[str]) -> Handout:
        """Lease tasks to a tab; see `TaskBoard.next_tasks`. With `sync`, one batch until it was trained on."""
        if self._arguments.sync:
            ready = self.handover.ready
            if self.handover.updating or ready >= self._batch_size:
                state = self._control.state
                held = f"training is {state}: the next images come when it is resumed and has trained on your answers"
                return Handout(waiting="training on your answers" if state == RUNNING else held)
            count = min(count, self._batch_size - ready - len(have))
            if count < 1:
                return Handout(waiting="the next images come when these are answered and trained on")
        return self._kept(self.board.next_tasks(tab, count, have))

    def suggest_again(self, tab: Tab, image_ids: Sequence[str]) -> list[Task]:
        """Newer suggestions for tasks that the tab holds; see `TaskBoard.suggest_again`."""
        return list(self._kept(Handout(tuple(self.board.suggest_again(tab, image_ids)))).tasks)

    def answer(self, tab: Tab, answers: Sequence[Any]) -> tuple[list[str], list[tuple[str, str]]]:
        """Store answers; they are durable when this returns.

        Returns:
            Ids of the stored answers, and (id, reason) of the rejected ones.

        Raises:
            DatabaseError: the database cannot be written, for example on a full disk; nothing was stored.
        """
        self.board.touch(tab)
        accepted: list[StoredAnswer] = []
        refused: list[tuple[str, str]] = []
        for answer in answers:
            try:
                accepted.append(self._read_answer(tab.session, answer))
            except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
                answer_id = answer.get("answer_id") if isinstance(answer, dict) else None
                refused.append((answer_id if isinstance(answer_id, str) else "", str(error)))
        if accepted:
            self._store(accepted)
        return [each.answer_id for each in accepted], refused

    def reopen(self, tab: Tab, image_id: str, example: Task | None = None) -> Task | None:
        """The answer for an image, to be corrected: with overlap the session's own, else the latest of all sessions.
        None if the session has not answered the image, or if the image is missing and its size unknown.

        Args:
            example: an answer of any session, to be corrected instead.
        """
        own = example or self.database.example(self.dataset, tab.session, image_id)
        if example is None and own is not None and not self._options.overlap:  # else a later correction would be lost
            example = self.database.any_example(self.dataset, image_id)
        example = self._sized(example or own)
        if example is not None:
            self.handover.hold_back(tab.session, image_id)
            self.board.reopen(tab, image_id, example)
        return example

    def train_now(self) -> tuple[int, bool]:
        """Forward all pending answers to the trainer, and resume training if it is paused or stopped.

        Returns:
            The number of answers, and whether training was resumed.

        Raises:
            SetupError: training cannot be resumed.
        """
        resumed = self._control.state != RUNNING
        if resumed:
            self.control_training("resume")
        return self.handover.hand_on(), resumed

    def control_training(self, action: str) -> str:
        """`pause`, `resume` or `stop` training; returns the new state.

        Raises:
            SetupError: the model directory cannot be written.
        """
        state = self._control.set(action)
        self.panel.update(training=state)
        return state

    def log_end(self, process: str) -> Document | None:
        """The last lines of the trainer's or the server's log; None if it does not exist on this machine."""
        path = self._host.project.logs_dir / f"{process}.log"
        text = log_tail(path, LOG_LINES, most_bytes=LOG_BYTES)
        return {"process": process, "path": str(path), "text": text} if text else None

    def history(self, session: str) -> list[Document]:
        """The session's latest answers, newest first, as JSON for the page."""
        now = time.time()
        return [
            {
                "image_id": entry.image_id,
                "file": entry.file,
                "answer": entry.decision,
                "boxes": entry.boxes,
                "answered_s_ago": max(0.0, now - entry.answered_at),
                "state": "handed on" if entry.handed_on else "saved",
            }
            for entry in self.database.history(self.dataset, session)
        ]

    def next_steps(self) -> list[NextStep]:
        """The commands to suggest once all images are answered."""
        return self._host.next_steps(self.database.path)

    def download(self, format: str) -> Download | None:
        """The labels as a download; see `open_download`."""
        return open_download(self.database, self.dataset, format, warn=self.journal.warn)

    def picture(self, image_id: str) -> EncodedImage | None:
        """An image that was leased or answered; None for any other image."""
        task = (
            self.board.task(image_id)
            or self.database.open_task(self.dataset, image_id)
            or self.database.any_example(self.dataset, image_id)
        )
        return None if task is None else self._pictures.find(image_id, task)

    def tensorboard_url(self) -> str:
        """URL of TensorBoard, which is started if necessary.

        Raises:
            SetupError: it cannot be started.
        """
        return self._tensorboard.url()

    @property
    def tensorboard_command(self) -> str:
        return self._tensorboard.command

    def _read_answer(self, session: str, answer: Any) -> StoredAnswer:
        return read_answer(
            answer,
            dataset=self.dataset,
            session=session,
            labels=self._labels,
            task_of=partial(self._task_of, session),
            last_answered_at=partial(self.database.answered_at, self.dataset, session),
        )

    def _task_of(self, session: str, image_id: str, version: Any) -> Task | None:
        """The task of an image: from the queue, else as leased by an earlier run, else from a stored answer (the image
        may have been reassigned and answered by another session). None if it was never leased.

        Args:
            version: version of the suggestions that the page showed, as the page reports it.
        """
        task = self.board.task(image_id, version) or self.database.open_task(self.dataset, image_id)
        task = task or self.database.example(self.dataset, session, image_id)
        return self._sized(task or self.database.any_example(self.dataset, image_id))

    def _kept(self, handout: Handout) -> Handout:
        """Store leased tasks before the page gets them, because their answers may arrive after a restart."""
        if handout.tasks:
            self.database.keep_open(self.dataset, handout.tasks)
        return handout

    def _sized(self, task: Task | None) -> Task | None:
        """The task with its image's size, which imported examples may lack; None if the image is missing."""
        if task is None or (is_whole(task.get("height"), 1) and is_whole(task.get("width"), 1)):
            return task
        image = self._pictures.find(str(task["image_id"]), task)
        if image is None:
            return None
        height, width = image.image_size_hw
        return {**task, "height": height, "width": width}

    def _store(self, accepted: Sequence[StoredAnswer]) -> None:
        shared = not self._options.overlap
        closed = [each.image_id for each in accepted] if shared else []  # with overlap, other sessions still need them
        with self._storing:  # answers for one image must reach the handover in the same order as the database
            last_words = self.database.add(self.dataset, accepted, closed=closed, shared=shared)
            self.handover.add([_entry(each) for each in last_words])
        for each in accepted:
            self.board.note_answered(each.session, each.image_id)
            self._host.remaining.answered(self._audience(each.session), each.image_id)
        self.panel.answered()

    def _left_over(self) -> list[Entry]:
        """Answers that an earlier run stored but did not forward, and those imported by `odkeras db in`."""
        left = self.database.not_handed_on(self.dataset, latest=not self._options.overlap)
        if len(left) >= self._batch_size:
            self.journal.say(f"{len(left)} stored answers had not reached the trainer, and do now")
        elif left:
            self.journal.say(f"{len(left)} of {self._batch_size} answers for the next round of training are there")
        return [_entry(each) for each in left]

    def _handed_on(self, answer_ids: Sequence[str]) -> None:
        if self._host.failure_to_store:
            return  # they are pending in memory; if they are lost there, the next start forwards them
        try:
            self.database.mark_handed_on(self.dataset, answer_ids, shared=not self._options.overlap)
        except DatabaseError as error:  # the next start forwards them again, which is idempotent
            self.journal.warn(str(error))

    def _is_fresh(self, task: Task) -> bool:
        version = self.panel.version
        return version is None or (task.get("_suggestions") or {}).get("version") == version

    def _refresh(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that have newer suggestions, with these; the others are left out."""
        bare = [found for task in tasks if (found := self._pictures.with_image(task)) is not None]
        by_id = {task["image_id"]: task for task in tasks}
        again = self._host.suggest_again(bare)
        return [
            {**new, "image": by_id[new["image_id"]]["image"]}
            for old, new in zip(bare, again, strict=True)
            if new is not old
        ]

    def _keep_house(self) -> None:
        problem = ""
        while not self._closing.wait(_HOUSEKEEPING_S):
            try:
                self.look_after()
            except Exception as error:  # the page shows older figures; annotation continues
                if repr(error) != problem:
                    self.journal.warn(f"the page's figures are not up to date: {error}")
                problem = repr(error)

    def look_after(self) -> None:
        """One housekeeping pass: free the tasks of tabs that are gone and update the panel."""
        self.board.release_gone()
        self.panel.count()
        here = sorted(self.board.sessions_here())
        self.panel.update(
            total=self._host.total,
            left=self._left(here),
            not_handed_on=self.handover.waiting,
            training=self._control.state,
            here=here,
        )

    def _left(self, sessions: Sequence[str]) -> dict[str | None, int | None]:
        """Number of images left: under None for all sessions, or with overlap for each session. The number is None if
        the length of the source is unknown."""
        audiences = sessions if self._options.overlap else [None]
        for audience in audiences:
            if not self._host.remaining.follows(audience):
                self._follow(audience)
        return {audience: self._host.remaining.left(audience) for audience in audiences}

    def _audience(self, session: str) -> str | None:
        """The key of the sessions that share images with this one: None for all sessions, with overlap the session."""
        return session if self._options.overlap else None

    def _follow(self, audience: str | None) -> None:
        self._host.remaining.follow(audience)  # first: an answer that arrives meanwhile must be counted
        for image_id in self.database.answered(self.dataset, session=audience):
            self._host.remaining.answered(audience, image_id)

    def _look_up(self) -> None:
        """Find already answered images of the source, so that `left` is right before the stream reaches them."""
        try:
            datasets = {self.dataset, *(self._arguments.exclude or ())}
            files = {name for dataset in datasets for name in self.database.files(dataset)}
            self._host.look_up(files, stop=self._closing.is_set)
        except Exception as error:  # the count becomes right as the stream reaches the images
            self.journal.warn(f"how many images are left is not known yet: {error}")

    def _all_answered(self) -> bool:
        return self.board.all_answered()

    def _came_back(self) -> None:
        self.free_count += 1


def _entry(answer: StoredAnswer) -> Entry:
    """The handover's entry for an answer, with the hash by which the data directory identifies answers."""
    example = {**answer.example, INPUT_HASH: input_hash_of(answer.image_id), "image_id": answer.image_id}
    return Entry(answer.answer_id, answer.session, answer.image_id, example)
