"""Opens the page: finds the database, checks the arguments, and starts the session and the page's threads."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial

from odkeras.config.annotate import AnnotateSettings
from odkeras.errors import ConfigError
from odkeras.locks import locked
from odkeras.pipeline import RANDOM_WEIGHTS
from odkeras.project import Project
from odkeras.session.arguments import choose_examples, resolve, split_dataset
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup, check_server, how_to_serve
from odkeras.session.sources import STDIN, Source, resolve_source
from odkeras.web.data_directory import attach_data_directory, was_delivered_to
from odkeras.web.database import AnswerDatabase
from odkeras.web.dataset_labels import keep_label_map
from odkeras.web.deliveries import Deliveries
from odkeras.web.journal import Journal
from odkeras.web.location import DatabasePlace, answers_text, count_answers, find_database, remember_database
from odkeras.web.panel import Panel
from odkeras.web.service import PageService

_LOCK_WAIT_S = 5.0


def open_page(settings: AnnotateSettings, journal: Journal | None = None) -> PageService:
    """Open the database, start the session and the background threads.

    Raises:
        OdkerasError: an argument is invalid. Nothing was started.
    """
    journal = journal or Journal()
    settings = resolve(settings)
    with ExitStack() as stack:
        place = find_page_database(settings)
        database = stack.enter_context(AnswerDatabase.open(place.path))
        source = _open_source(settings, database)
        setup = SessionSetup.of(settings, settings.label, can_pick=True)
        if settings.external_server:
            check_server(settings.server_url, settings.model_name, journal.warn, how_to_serve(settings))
        setup.project.create()
        stack.enter_context(_only_one(setup.project))
        keep_label_map(database, settings.dataset, setup.label_map_path)
        remember_database(setup.project.data_dir, settings.dataset, place.path, settings.config.parent)
        deliveries = Deliveries(database, settings.dataset)
        attach_data_directory(deliveries, settings.dataset, setup.project)
        _say_what_is_used(journal, setup, settings.dataset, place)
        panel = Panel(
            setup.project,
            counts=partial(database.counts, settings.dataset),
            edits=partial(database.version_edits, settings.dataset),
        )
        journal.show_in(panel)
        panel.count()
        if setup.starts_from_random_weights:
            journal.say(f"{RANDOM_WEIGHTS} `odkeras init --weights NAME` downloads some.")
        session = AnnotationSession.start(setup, journal)
        stack.callback(session.close)
        service = PageService(settings, journal, database, session, source, panel)
        service.start(stack)
    return service


def find_page_database(settings: AnnotateSettings) -> DatabasePlace:
    """The database that `open_page` opens for these settings.

    Raises:
        DatabaseError: as `find_database`.
    """
    also = list(settings.exclude or ())
    if (chosen := split_dataset(settings.source)) is not None:
        also.append(chosen[0])
    return find_database(
        settings.db, settings.config.parent, settings.dataset, data_dir=settings.project.data_dir, also=also
    )


def _open_source(settings: AnnotateSettings, database: AnswerDatabase) -> Source:
    """Turn the SOURCE argument into one that the stream can read.

    Raises:
        ConfigError: the source does not exist, is empty or has an unsupported type.
    """
    if settings.api:
        raise ConfigError(f"--api {settings.api}: API loaders are Prodigy's own; give a directory or a .jsonl file")
    if settings.source is None or settings.source == STDIN:
        return STDIN
    if (chosen := split_dataset(settings.source)) is not None:
        return choose_examples(chosen, database.examples(chosen[0]), known=database.datasets)
    return resolve_source(settings.source)


def _only_one(project: Project) -> AbstractContextManager[None]:
    """Lock the data directory: a second instance would lease every image again and start a second trainer."""
    taken = (
        f"another `odkeras annotate` is using {project.data_dir}; open its page (for another annotator with "
        "?session=NAME), stop it, or name another --data-dir"
    )
    return locked(project.data_dir / "annotate.lock", taken=taken, wait_s=_LOCK_WAIT_S)


def _say_what_is_used(journal: Journal, setup: SessionSetup, dataset: str, place: DatabasePlace) -> None:
    project, answers = setup.project, count_answers(place.path, [dataset])
    journal.say(f"database   {place.path.absolute()} ({answers_text(answers)} in dataset {dataset})")
    for remark in place.remarks:
        journal.say(f"           {remark}")
    journal.say(f"data       {project.data_dir.absolute()}")
    journal.say(f"model      {project.model_dir.absolute()}")
    journal.say(f"export     {project.export_dir.absolute()}")
    journal.say(f"label map  {setup.label_map_path.absolute()}")
    if not answers and was_delivered_to(project, dataset):
        journal.warn(
            f"answers of dataset {dataset} were delivered to the trainer in {project.data_dir.absolute()}, but this "
            "database has none of them. Stop, and select their database with --db"
        )
