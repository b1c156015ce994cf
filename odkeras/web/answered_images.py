"""Which images are not asked about, because they have an answer; and with `--review`, the imported labels to show."""

from __future__ import annotations

from dataclasses import replace

from odkeras.annotation import Task
from odkeras.config.annotate import AnnotateSettings
from odkeras.web.database import AnswerDatabase
from odkeras.web.imports import SESSION
from odkeras.web.journal import Journal


class AnsweredImages:
    """The images of a dataset that have an answer. With `--review`, imported labels are not one.

    Args:
        settings: its dataset, `exclude`, `overlap` and `review`.
        database: has the answers.
    """

    def __init__(self, settings: AnnotateSettings, database: AnswerDatabase) -> None:
        self._settings = settings
        self._database = database

    def of(self, session: str | None = None) -> set[str]:
        """Ids of the images answered by a session, or by any session when None."""
        not_by = SESSION if self._settings.review else None
        return self._database.answered(self._settings.dataset, session=session, not_by=not_by)

    def left_out(self, journal: Journal) -> set[str]:
        """Ids of the images that are not asked about: those of the excluded datasets, and without overlap those of this
        one. Says how many there are."""
        settings, answered = self._settings, set[str]()
        datasets = list(settings.exclude or ())
        if unknown := [name for name in datasets if name not in self._database]:
            journal.warn(f"--exclude: there is no dataset {', '.join(unknown)}")
        for name in datasets:
            answered |= self._database.answered(name)
        if not settings.overlap:
            datasets.append(settings.dataset)
            answered |= self.of()
        if answered:
            journal.say(f"{len(answered)} images of {', '.join(datasets)} are answered and skipped")
        if settings.review:
            left = self._database.answered(settings.dataset, session=SESSION) - answered
            journal.say(f"{len(left)} images with imported labels are shown for review")
        return answered

    def for_review(self, task: Task) -> Task:
        """With `--review`, a task whose image has imported labels gets these instead of suggestions."""
        if not self._settings.review:
            return task
        answer = self._database.answer(self._settings.dataset, SESSION, task.image_id)
        return task if answer is None else replace(task, spans=answer.task.spans, suggestions=None)
