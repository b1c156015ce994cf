"""Opens the page: finds the database, checks the arguments, and starts the session and the page's threads."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from odkeras.config.annotate import AnnotateSettings
from odkeras.database_url import DatabaseUrl, absolute_location
from odkeras.errors import ConfigError
from odkeras.image_files import list_image_files
from odkeras.pipeline import RANDOM_WEIGHTS
from odkeras.project import Project
from odkeras.session.arguments import choose_examples, resolve, split_dataset
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup, check_server, how_to_serve
from odkeras.session.sources import STDIN, Source, resolve_source
from odkeras.video import list_videos
from odkeras.web.data_directory import attach_data_directory, was_delivered_to
from odkeras.web.database import AnswerDatabase
from odkeras.web.dataset_labels import keep_label_map
from odkeras.web.deliveries import Deliveries
from odkeras.web.images_to_annotate import prepare_images
from odkeras.web.journal import Journal
from odkeras.web.location import DatabasePlace, answers_text, count_answers, find_database, remember_database
from odkeras.web.pages import OnlyPage
from odkeras.web.panel import Panel
from odkeras.web.service import PageService


def open_page(settings: AnnotateSettings, journal: Journal | None = None) -> PageService:
    """Open the database, start the session and the background threads.

    Raises:
        OdkerasError: an argument is invalid. Nothing was started.
    """
    journal = journal or Journal()
    settings = resolve(settings)
    with ExitStack() as stack:
        place = find_page_database(settings)
        if isinstance(place.path, DatabaseUrl):
            # Several pages in the same random order would predict the same images, and each would be given out once.
            settings = msgspec.structs.replace(settings, order_seed=secrets.randbelow(2**31))
        database = stack.enter_context(AnswerDatabase.open(place.path))
        source = _open_source(settings, database)
        setup = SessionSetup.of(settings, settings.label, can_pick=True)
        if settings.external_server:
            check_server(settings.server_url, settings.model_name, journal.warn, how_to_serve(settings))
        setup.project.create()
        pages: OnlyPage = _pages(settings, setup.project, database, journal)
        stack.enter_context(pages)
        source = prepare_images(source, settings, journal)
        keep_label_map(database, settings.dataset, setup.label_map_path)
        remember_database(setup.project.data_dir, settings.dataset, place.path, settings.config.parent)
        if pages.leads:
            attach_data_directory(Deliveries(database, settings.dataset), settings.dataset, setup.project)
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
        session = AnnotationSession.start(setup, journal, leads=pages.leads)
        stack.callback(session.close)
        service = PageService(settings, journal, database, session, source, panel, pages)
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
    is_path = isinstance(settings.source, (str, Path))  # else paths and records, from a program
    videos = list_videos(Path(settings.source)) if is_path else []
    if not videos:
        return resolve_source(settings.source)
    folder = Path(settings.source)
    return [*(list_image_files(folder) if folder.is_dir() else []), *videos]


def _pages(settings: AnnotateSettings, project: Project, database: AnswerDatabase, journal: Journal) -> OnlyPage:
    if not isinstance(database.path, DatabaseUrl):
        return OnlyPage(project)
    from odkeras.web.postgres.pages import OneOfSeveralPages

    return OneOfSeveralPages(settings, project, database, journal)


def _say_what_is_used(journal: Journal, setup: SessionSetup, dataset: str, place: DatabasePlace) -> None:
    project, answers = setup.project, count_answers(place.path, [dataset])
    journal.say(f"database   {absolute_location(place.path)} ({answers_text(answers)} in dataset {dataset})")
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
