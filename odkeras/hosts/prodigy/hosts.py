"""What Prodigy calls while people annotate: stream, update, progress, before_db, on_load, on_exit."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from odkeras.errors import ImageError
from odkeras.hosts.prodigy.api import ProdigyApi, exit_on_error
from odkeras.hosts.prodigy.recovery import AnsweredLedger, recover_answers
from odkeras.hosts.prodigy.source import AnsweredImages, Progress
from odkeras.image_store import ImageStore
from odkeras.images import bytes_from_data_uri, encode_image, is_image_file, recall_image
from odkeras.labels import LabelMap
from odkeras.loop.children import trainer_command
from odkeras.loop.components import VERSION_TIMEOUT_S, Loop
from odkeras.loop.options import LoopOptions
from odkeras.loop.sources import Source
from odkeras.loop.stream import Suggester, TaskStream
from odkeras.loop.watch import News
from odkeras.loop.web_images import WebImages
from odkeras.serving.client import ServingClient
from odkeras.tasks import Task

PRODIGY_BATCH_SIZE = 5
"""Tasks per request of the browser: the smaller, the fresher the suggestions, and the sooner answers are trained on."""

Components = dict[str, Any]
Say = Callable[[str], None]


class _Host:
    """What both recipes share: the stream, without what is answered, and its messages."""

    recipe = ""

    def __init__(
        self,
        prodigy: ProdigyApi,
        source: Source,
        *,
        labels: Sequence[str],
        dataset: str,
        exclude: Sequence[str],
        classes: Collection[int] | None,
    ) -> None:
        self._prodigy = prodigy
        self._source = source
        self._labels = list(labels)
        self._dataset = dataset
        self._exclude = list(exclude)
        self._classes = classes
        self._answered = AnsweredImages(prodigy)
        self._stream: TaskStream | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with exit_on_error(self.recipe):
            stream = self._started()
        return next(stream)

    def on_load(self, ctrl: Any) -> None:
        """Prodigy starts: take in what is answered already, and start what is to be started."""
        with exit_on_error(self.recipe):
            self._load_answered(ctrl)
            self._started()

    def on_exit(self, ctrl: Any = None) -> None:
        """Prodigy stops."""
        self.close()

    def close(self) -> None:
        """May be called twice."""

    def log(self, text: str, details: Any = None) -> None:
        """One step of the flow, for PRODIGY_LOGGING=basic; `details` for verbose. Never raises."""
        with suppress(Exception):  # a closed terminal must not end the stream
            self._prodigy.log(f"RECIPE: {text}", details)

    def warn(self, text: str) -> None:
        """What does not work; shown without PRODIGY_LOGGING too. Never raises."""
        with suppress(Exception):
            if os.environ.get("PRODIGY_LOGGING") not in ("basic", "verbose"):  # which shows the line anyhow
                print(f"odkeras: {text}", file=sys.stderr, flush=True)
        first, _, rest = text.partition("\n")
        self.log(first, rest or None)

    def _open(self) -> TaskStream:
        raise AssertionError("a host opens its stream")

    def _started(self) -> TaskStream:
        """The stream; the first call starts everything, whoever makes it: versions of Prodigy differ in whether they
        look at the stream before they call `on_load`."""
        with self._lock:
            if self._stream is None:
                self._stream = self._open()
            return self._stream

    def _prepare(self, task: Task) -> Task | None:
        return None if self._answered.has_elsewhere(task) else self._prodigy.with_hashes(task)

    def _skipped(self, name: str, reason: str) -> None:
        self.warn(f"skipped {name}: {reason}")

    def _suggested(self, task: Task, seconds: float) -> None:
        made = task["_suggestions"]
        text = f"{len(made['spans'])} suggestions of version {made['version']} for {task['meta']['file']}"
        self.log(f"{text} (threshold {made['threshold']:g}, {1000 * seconds:.0f} ms)", made)

    def _problem(self, problem: str) -> None:
        self.log(f"no suggestions for now: {problem}" if problem else "suggestions are back")

    def _load_answered(self, ctrl: Any) -> None:
        """Prodigy leaves out what is answered by itself, but only after it has been predicted. Never raises."""
        try:
            names = list(self._exclude)
            config = getattr(ctrl, "config", None) or {}
            if config.get("auto_exclude_current", True) and not config.get("feed_overlap", False):
                names.append(self._dataset)
            unknown = [name for name in self._exclude if name not in ctrl.db]
            if unknown:
                self.warn(f"--exclude: there is no dataset {', '.join(unknown)}")
            self._answered.load(ctrl.db, names)
            if len(self._answered):
                self.log(f"{len(self._answered)} images of {', '.join(names)} are answered and left out")
        except Exception as error:  # no database, or one of another kind
            self.log(f"Prodigy leaves out what is answered: {type(error).__name__}: {error}")

    def _config(self) -> dict[str, Any]:
        return {
            "label": ", ".join(self._labels),
            "labels": self._labels,
            "batch_size": PRODIGY_BATCH_SIZE,
            "exclude_by": "input",
            "feed_overlap": False,
            "auto_count_stream": False,  # counting would predict everything at once
        }


class TrainingHost(_Host):
    """`image.trainmodel`: suggestions of a model that is trained on the answers.

    What is in the dataset and has not reached the data directory is handed to the trainer when Prodigy starts.

    Args:
        options: the loop to run.
        source: what the annotator is asked about.
        prodigy: the installed Prodigy.
        labels: those that the annotator can choose from.
        dataset: where Prodigy stores the answers.
        exclude: datasets whose images are left out.
        classes: ids of the classes to suggest; all when None.
        sync: `update` returns only when a model that was trained on the answers is served, as in 2019.
        remove_base64: Prodigy's database gets the images' paths instead of the images.
    """

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
        self._ledger = AnsweredLedger(options.project.answered_path)
        self._progress = Progress()
        self._closing = threading.Event()
        self._loop: Loop | None = None

    recipe = "image.trainmodel"

    def on_load(self, ctrl: Any) -> None:
        """Prodigy starts: start everything; answers that got lost on the way follow in the background."""
        super().on_load(ctrl)
        threading.Thread(target=self._recover, args=(ctrl,), name="odkeras-recovery", daemon=True).start()

    def components(self) -> Components:
        """What the recipe returns."""
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
        if self._remove_base64:  # a key that Prodigy knows from 1.10 on
            found["before_db"] = self.before_db
        return found

    def update(self, answers: Sequence[Task]) -> float | None:
        """Store the answers for the trainer; returns the latest loss. Never raises: Prodigy would lose the answers."""
        try:
            self._started()
            assert self._loop is not None
            self._progress.add(answers)
            path = self._store(self._loop, answers)  # also when all is stopped: the next start trains on it
            if self._sync and path is not None:
                return self._loop.wait_until_served(path, stop=self._closing.is_set)
            return self._loop.latest_loss()
        except Exception as error:
            self.warn(f"update: {type(error).__name__}: {error}")
            return None

    def progress(self, *args: Any, **kwargs: Any) -> float | None:
        """Share of the source that is answered. What Prodigy passes differs from version to version, and is ignored."""
        stream = self._stream
        return None if stream is None else self._progress.share(stream.total, stream.excluded, stream.skipped)

    def before_db(self, examples: list[Task]) -> list[Task]:
        """The examples with paths instead of base64 images. An image without a file gets one in the data directory."""
        return [self._without_base64(example) for example in examples]

    def close(self) -> None:
        """Stop the trainer and the server. May be called twice."""
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
            command = " ".join(["odkeras", *trainer_command(self._options, loop.url)[3:-2]])
            self.log(f"somebody else trains; on that machine: {command}")
        return loop.stream(
            self._source,
            classes=self._classes,
            exclude=self._answered,
            prepare=self._prepare,
            on_skip=self._skipped,
        )

    def _recover(self, ctrl: Any) -> None:
        """Never raises: whatever kind of database it is."""
        try:
            assert self._loop is not None
            stop = self._closing.is_set
            count = recover_answers(ctrl.db, self._dataset, self._ledger, self._loop.store, stop=stop)
            if count:
                self.log(f"{count} answers of {self._dataset} had not reached the trainer, and do now")
        except Exception as error:
            self.log(f"cannot compare {self._dataset} with the data directory: {type(error).__name__}: {error}")

    def _store(self, loop: Loop, answers: Sequence[Task]) -> Path | None:
        path = loop.store(answers)
        if path is not None:
            self._ledger.add(answers)
            decisions = [str(answer.get("answer")) for answer in answers if isinstance(answer, dict)]
            counts = ", ".join(f"{decisions.count(each)} {each}" for each in sorted(set(decisions)))
            self.log(f"{len(answers)} answers stored ({counts})", path.name)
        return path

    def _tell(self, item: News) -> None:
        if item.urgent:
            self.warn(item.text)
        else:
            self.log(item.text, item.details)

    def _without_base64(self, example: Task) -> Task:
        image = example.get("image")
        if not isinstance(image, str) or not image.startswith("data:"):
            return example
        path = example.get("path")
        if isinstance(path, str) and is_image_file(path, str(example.get("image_id"))):
            return {**example, "image": path}
        try:
            kept = self._keep(example, bytes_from_data_uri(image)).absolute()
        except (OSError, ImageError) as error:  # rather a large database than a lost image
            self.warn(f"{path or example.get('image_id')}: the image stays in the database: {error}")
            return example
        return {**example, "image": str(kept), "path": str(kept)}

    def _keep(self, example: Task, data: bytes) -> Path:
        source = str(example.get("path") or example.get("image_id") or "image")
        image = recall_image(data, str(example.get("image_id")), source=source) or encode_image(data, source=source)
        return self._kept_images.put(image)


class ServingHost(_Host):
    """`image.servingmodel`: suggestions of a model that somebody serves. Nothing is trained.

    Args:
        url: the server.
        model_name: its model.
        source, prodigy, labels, dataset, exclude, classes: as in `TrainingHost`.
        label_map: of the served model.
        threshold: suggestions below this score are not shown.
        predict_batch_size: images per prediction request.
    """

    def __init__(
        self,
        url: str,
        model_name: str,
        source: Source,
        prodigy: ProdigyApi,
        *,
        label_map: LabelMap,
        labels: Sequence[str],
        dataset: str,
        exclude: Sequence[str] = (),
        classes: Collection[int] | None = None,
        threshold: float = 0.5,
        predict_batch_size: int,
    ) -> None:
        super().__init__(prodigy, source, labels=labels, dataset=dataset, exclude=exclude, classes=classes)
        self._client = ServingClient(url, model_name)
        self._quick = ServingClient(url, model_name, timeout_s=VERSION_TIMEOUT_S, retries=0)
        self._label_map = label_map
        self._threshold = threshold
        self._together = predict_batch_size
        self._web = WebImages()

    recipe = "image.servingmodel"

    def components(self) -> Components:
        """What the recipe returns."""
        return {
            "dataset": self._dataset,
            "view_id": "image_manual",
            "stream": self,
            "exclude": self._exclude or None,
            "on_load": self.on_load,
            "on_exit": self.on_exit,
            "config": self._config(),
        }

    def close(self) -> None:
        """May be called twice."""
        for each in (self._client, self._quick, self._web):
            each.close()

    def _open(self) -> TaskStream:
        suggest = Suggester(
            self._client,
            self._label_map,
            threshold=self._threshold,
            use_display_name=True,
            classes=self._classes,
            available_version=self._quick.available_version,
            on_problem=self._problem,
            on_suggested=self._suggested,
            warn=self.warn,
        )
        return TaskStream(
            self._source,
            suggest,
            is_fresh=suggest.is_fresh,
            exclude=self._answered,
            prepare=self._prepare,
            on_skip=self._skipped,
            fetch=self._web.fetch,
            together=self._together,
        )
