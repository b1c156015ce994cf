"""The host of `image.trainmodel`: the callbacks stream, update, progress and before_db, with a model in training."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from odkeras.errors import ImageError
from odkeras.formats.prodigy import Task
from odkeras.image_store import ImageStore
from odkeras.images import bytes_from_data_uri, encode_image, is_image_file, recall_image
from odkeras.integrations.prodigy.api import ProdigyApi
from odkeras.integrations.prodigy.host import Components, Host
from odkeras.integrations.prodigy.recovery import AnsweredLedger, find_missing, hand_on, hashes_of
from odkeras.integrations.prodigy.source import Progress
from odkeras.session.children import external_trainer_command
from odkeras.session.components import Loop
from odkeras.session.options import LoopOptions
from odkeras.session.sources import Source
from odkeras.session.stream import TaskStream
from odkeras.session.watch import Look, News


class TrainingHost(Host):
    """`image.trainmodel`: suggestions from a model that is trained on the answers.

    When Prodigy starts, answers in the dataset that never reached the data directory are resubmitted to the trainer.

    Args:
        options: options of the loop.
        source: the images to annotate.
        prodigy: the installed Prodigy.
        labels: labels that the annotator can choose from.
        dataset: dataset in which Prodigy stores the answers.
        exclude: datasets whose images are skipped.
        classes: ids of the classes to suggest; all when None.
        sync: `update` blocks until a model trained on the answers is served, as in 2019.
        remove_base64: Prodigy's database gets the images' paths instead of base64 data.
    """

    recipe = "image.trainmodel"

    def __init__(
        self,
        options: LoopOptions,
        source: Source,
        prodigy: ProdigyApi,
        *,
        labels: Sequence[str],
        dataset: str,
        exclude: Sequence[str] = (),
        classes: Collection[int] | None = None,
        sync: bool = False,
        remove_base64: bool = False,
    ) -> None:
        super().__init__(prodigy, source, labels=labels, dataset=dataset, exclude=exclude, classes=classes)
        self._options = options
        self._sync = sync
        self._remove_base64 = remove_base64
        self._kept_images = ImageStore(options.project.kept_images_dir)
        self._ledger = AnsweredLedger(options.project.answered_path, dataset)
        self._handing_on = threading.Lock()
        self._progress = Progress()
        self._closing = threading.Event()
        self._loop: Loop | None = None

    def on_load(self, ctrl: Any) -> None:
        """Start everything, then resubmit answers that never reached the trainer. They are looked up here, while
        nothing else uses the database, and submitted in a background thread."""
        super().on_load(ctrl)
        try:
            self._recover(ctrl.db)
        except Exception as error:  # no database, or one with a different interface
            self.log(f"cannot compare {self._dataset} with the data directory: {type(error).__name__}: {error}")

    def _recover(self, db: Any) -> None:
        if lost := find_missing(db, self._dataset, self._ledger):
            self.log(f"{len(lost)} answers of {self._dataset} had not reached the trainer, and do now")
            threading.Thread(target=self._hand_on, args=(lost,), name="odkeras-recovery", daemon=True).start()

    def components(self) -> Components:
        """The components that the recipe returns to Prodigy."""
        found: Components = {
            "dataset": self._dataset,
            "view_id": "image_manual",
            "stream": self,
            "update": self.update,
            "progress": self.progress,
            "exclude": self._exclude or None,
            "on_load": self.on_load,
            "on_exit": self.on_exit,
            "config": self._config(),
        }
        if self._remove_base64:  # Prodigy supports this key since 1.10
            found["before_db"] = self.before_db
        return found

    def update(self, answers: Sequence[Task]) -> float | None:
        """Store the answers for the trainer; returns the latest loss. Never raises: Prodigy would lose the answers."""
        try:
            self._started()
            assert self._loop is not None
            self._progress.add(answers)
            path = self._store(self._loop, answers)  # also after shutdown: the next start trains on them
            if self._sync and path is not None:
                return self._loop.wait_until_served(path, stop=self._closing.is_set)
            return self._loop.latest_loss()
        except Exception as error:
            self.warn(f"update: {type(error).__name__}: {error}")
            return None

    def progress(self, *args: Any, **kwargs: Any) -> float | None:
        """Share of the source that is answered. The arguments differ between Prodigy versions and are ignored."""
        stream = self._stream
        return None if stream is None else self._progress.share(stream.total, stream.excluded, stream.skipped)

    def before_db(self, examples: list[Task]) -> list[Task]:
        """The examples with paths instead of base64 images. Images without a file are saved in the data directory."""
        return [self._without_base64(example) for example in examples]

    def close(self) -> None:
        """Stop the trainer and the server. Idempotent."""
        with self._lock:
            if self._loop is None or self._closing.is_set():
                return
            self._closing.set()
        self._loop.close()
        atexit.unregister(self.close)
        self.log("stopped; the same command goes on from here")

    def _open(self) -> TaskStream:
        loop = Loop(
            self._options,
            say=self.log,
            warn=self.warn,
            watch=self._tell,
            on_look=self._looked,
            on_suggested=self._suggested,
        )
        loop.__enter__()
        try:
            stream = self._stream_of(loop)
        except BaseException:
            loop.close()
            raise
        atexit.register(self.close)
        self._loop = loop
        return stream

    def _stream_of(self, loop: Loop) -> TaskStream:
        self.log(f"model server at {loop.url}, training in {loop.project.model_dir}")
        self.log(f"watch the training with: tensorboard --logdir {loop.project.model_dir}")
        if self._options.external_trainer:
            command = external_trainer_command(self._options, loop.url)
            self.log(f"start the trainer on its machine with: {command}")
        return loop.stream(
            self._source,
            classes=self._classes,
            exclude=self._answered,
            prepare=self._prepare,
            on_skip=self._skipped,
        )

    def _hand_on(self, lost: Sequence[Task]) -> None:
        try:
            assert self._loop is not None
            hand_on(lost, self._ledger, self._loop.submit, alone=self._handing_on, stop=self._closing.is_set)
        except Exception as error:
            self.warn(f"earlier answers of {self._dataset} cannot be stored, the next start tries again: {error}")

    def _store(self, loop: Loop, answers: Sequence[Task]) -> Path | None:
        with self._handing_on:
            path = loop.store(answers)
            if path is not None:
                self._ledger.add(hashes_of(answers))
        if path is not None:
            decisions = [str(answer.get("answer")) for answer in answers if isinstance(answer, dict)]
            counts = ", ".join(f"{decisions.count(each)} {each}" for each in sorted(set(decisions)))
            self.log(f"{len(answers)} {'answer' if len(answers) == 1 else 'answers'} stored ({counts})", path.name)
        return path

    def _tell(self, item: News) -> None:
        if item.urgent:
            self.warn(f"{item.line}\n{item.details}" if isinstance(item.details, str) else item.line)
        else:
            self.log(item.line, item.details)

    def _looked(self, look: Look) -> None:
        """Callback for status snapshots; for subclasses that show them."""

    def _without_base64(self, example: Task) -> Task:
        image = example.get("image")
        if not isinstance(image, str) or not image.startswith("data:"):
            return example
        path = example.get("path")
        if isinstance(path, str) and is_image_file(path, str(example.get("image_id"))):
            return {**example, "image": path}
        try:
            kept = self._keep(example, bytes_from_data_uri(image)).absolute()
        except (OSError, ImageError) as error:  # a large database is better than a lost image
            self.warn(f"{path or example.get('image_id')}: the image stays in the database: {error}")
            return example
        origin = path if isinstance(path, str) and "://" in path else str(kept)
        return {**example, "image": str(kept), "path": origin}

    def _keep(self, example: Task, data: bytes) -> Path:
        source = str(example.get("path") or example.get("image_id") or "image")
        image = recall_image(data, str(example.get("image_id")), source=source) or encode_image(data, source=source)
        return self._kept_images.put(image)
