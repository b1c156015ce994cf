"""`image.trainmodel`: the callbacks update, progress and before_db, with a model in training."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odkeras.formats.prodigy import Record, read_task
from odkeras.integrations.prodigy.api import ProdigyApi
from odkeras.integrations.prodigy.ledger import DeliveryLedger, find_missing, input_hashes, redeliver
from odkeras.integrations.prodigy.recipe import Components, Recipe
from odkeras.integrations.prodigy.source import Progress
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup
from odkeras.session.sources import Source
from odkeras.session.stream import TaskStream

_DECIDED = ("answer", "spans", "width", "height", "_timestamp")


class TrainingRecipe(Recipe):
    """`image.trainmodel`: suggestions from a model that is trained on the answers.

    Prodigy stores answers in its dataset before it calls `update`, so the dataset is the outbox: answers in it that the
    ledger of the data directory does not list are delivered when Prodigy starts.

    Args:
        setup: the validated session.
        source: the images to annotate.
        prodigy: the installed Prodigy.
        dataset, exclude: see `Recipe`.
        sync: `update` blocks until a model trained on the answers is served, as in 2019.
        remove_base64: Prodigy's database gets the images' paths instead of base64 data.
    """

    name = "image.trainmodel"

    def __init__(
        self,
        setup: SessionSetup,
        source: Source,
        prodigy: ProdigyApi,
        *,
        dataset: str,
        exclude: Sequence[str] = (),
        sync: bool = False,
        remove_base64: bool = False,
    ) -> None:
        super().__init__(prodigy, labels=setup.labels, dataset=dataset, exclude=exclude)
        self._setup = setup
        self._source = source
        self._sync = sync
        self._remove_base64 = remove_base64
        self._ledger = DeliveryLedger(setup.project.answered_path, dataset)
        self._delivering = threading.Lock()
        self._failed: list[Record] = []
        self._sent: dict[str, list[Any]] = {}
        self._progress = Progress()
        self._closing = threading.Event()
        self._session: AnnotationSession | None = None

    def components(self) -> Components:
        components = {**super().components(), "update": self.update, "progress": self.progress}
        if self._remove_base64:  # Prodigy supports this key since 1.10
            components["before_db"] = self.before_db
        return components

    def on_load(self, ctrl: Any) -> None:
        """Start everything, then deliver the answers that never reached the trainer. They are looked up here, while
        nothing else uses the database, and delivered in a background thread."""
        super().on_load(ctrl)
        try:
            if missing := find_missing(ctrl.db, self._dataset, self._ledger):
                self.log(f"{len(missing)} answers of {self._dataset} had not reached the trainer and are delivered now")
                threading.Thread(target=self._redeliver, args=(missing,), name="odkeras-recovery", daemon=True).start()
        except Exception as error:  # no database, or one with a different interface
            self.log(f"cannot compare {self._dataset} with the data directory: {type(error).__name__}: {error}")

    def update(self, answers: Sequence[Record]) -> float | None:
        """Store the answers for the trainer; returns the latest loss. Never raises: Prodigy would lose the answers.

        Answers that cannot be stored are kept in memory, and stored with the next ones.
        """
        try:
            self._opened()
            session = self._session
            assert session is not None
            self._progress.add(answers)
            with self._delivering:  # also after shutdown: the next start trains on them
                batch = self._deliver(session, answers)
            if self._sync and batch is not None:
                return session.wait_until_served(batch, stop=self._closing.is_set)
            return session.latest_loss()
        except Exception as error:
            self.warn(f"update: {type(error).__name__}: {error}")
            return None

    def progress(self, *args: Any, **kwargs: Any) -> float | None:
        """Share of the source that is answered. The arguments differ between Prodigy versions and are ignored."""
        stream = self._stream
        return None if stream is None else self._progress.share(stream.total, stream.excluded, stream.skipped)

    def before_db(self, examples: list[Record]) -> list[Record]:
        """The examples with paths instead of base64 images. Images without a file are saved in the data directory."""
        self._opened()
        session = self._session
        assert session is not None

        def with_path(example: Record) -> Record:
            task = session.with_image_path(read_task(example))
            return {**example, "image": task.image, "path": task.path} if task.image and task.path else example

        return [with_path(example) for example in examples]

    def close(self) -> None:
        """Store the answers of failed calls if possible, and stop the trainer and the server. Idempotent."""
        with self._lock:
            if self._session is None or self._closing.is_set():
                return
            self._closing.set()
        with self._delivering:
            self._deliver(self._session, [])
            if self._failed:
                self.warn(f"{len(self._failed)} answers could not be stored for training; the next start retries")
        self._session.close()
        atexit.unregister(self.close)
        self.log("stopped; the same command continues from here")

    def _open(self) -> TaskStream:
        session = AnnotationSession.start(self._setup, self)
        try:
            stream = session.stream(self._source, exclude=self._answered, prepare=self._prepare)
        except BaseException:
            session.close()
            raise
        atexit.register(self.close)
        self._session = session
        return stream

    def _deliver(self, session: AnnotationSession, answers: Sequence[Record]) -> Path | None:
        """Submit new answers and those of earlier calls that failed; returns the batch's file."""
        batch = [*self._failed, *(answer for answer in answers if self._is_new(answer))]
        self._failed = []
        try:
            path = session.submit(batch)
        except Exception as error:
            self._failed = batch
            self.warn(f"{len(batch)} answers are not stored for training yet; retrying: {error}")
            return None
        if path is not None:
            self._ledger.add(input_hashes(batch))
            decisions = [str(answer.get("answer")) for answer in batch if isinstance(answer, dict)]
            counts = ", ".join(f"{decisions.count(decision)} {decision}" for decision in sorted(set(decisions)))
            self.log(f"{len(batch)} {'answer' if len(batch) == 1 else 'answers'} stored ({counts})", path.name)
        return path

    def _is_new(self, answer: Any) -> bool:
        """Whether the answer differs from the last one of the same session about the same image. A repeated request of
        the browser has the same `_timestamp`; a new answer has another one."""
        if not isinstance(answer, dict):
            return True  # it is reported by `submit`
        image = answer.get("image_id") or answer.get("_input_hash") or answer.get("path")
        key, decided = f"{image}|{answer.get('_session_id')}", [answer.get(name) for name in _DECIDED]
        if image is not None and self._sent.get(key) == decided:
            return False
        self._sent[key] = decided
        return True

    def _redeliver(self, missing: Sequence[Record]) -> None:
        try:
            assert self._session is not None
            redeliver(missing, self._ledger, self._session.submit, lock=self._delivering, stop=self._closing.is_set)
        except Exception as error:
            self.warn(f"earlier answers of {self._dataset} cannot be stored; the next start retries: {error}")
