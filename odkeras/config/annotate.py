"""The options of `odkeras annotate` and of the recipe `image.trainmodel`, besides those of every session."""

# No `from __future__ import annotations`: evaluated later, the functions in annotations would not see this module.
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from odkeras.config.option import DIRECTORIES, PAGE, SUGGESTIONS, TRAINING, Names, Option
from odkeras.config.settings import Api, Exclude, Label, SessionSettings


class AnnotateSettings(SessionSettings, frozen=True, kw_only=True):
    """What `odkeras annotate` and the recipe `image.trainmodel` need.

    Args:
        dataset: the dataset in which the answers are stored.
        source: the images; see `arguments.split_dataset` and `sources.open_source`.
        tensorboard: whether the page may start TensorBoard.
    """

    dataset: Any
    source: Any
    label: Label = None
    exclude: Exclude = None
    sync: Annotated[
        bool,
        Option(
            "Wait after each batch until the model trained on it is served, as in 2019.",
            "S",
            TRAINING,
            "annotate recipe",
        ),
    ] = False
    api: Api = None
    remove_base64: Annotated[
        bool, Option("Store paths in the database, not images (Prodigy 1.10 and later).", "R", SUGGESTIONS, "recipe")
    ] = False
    db: Annotated[
        Path | None,
        Option(
            "The database of answers; default: annotations.db beside CONFIG, or where its answers are.",
            "",
            DIRECTORIES,
            "annotate db",
        ),
    ] = None
    overlap: Annotated[
        bool, Option("Ask every annotator (?session=NAME) about every image.", "", SUGGESTIONS, "annotate")
    ] = False
    answers_per_round: Annotated[
        int,
        Meta(ge=1),
        Option(
            "Answers that start a round of training; 'Train now' in the page does not wait for them.",
            "",
            TRAINING,
            "annotate",
            "1 or more",
        ),
    ] = 5
    host: Annotated[
        str, Option("Address of the page; any but this machine's own needs a token.", "", PAGE, "annotate")
    ] = "127.0.0.1"
    web_port: Annotated[
        int, Meta(ge=0, le=65535), Option("Port of the page; 0 takes a free one.", "", PAGE, "annotate", "0 to 65535")
    ] = 8080
    no_open: Annotated[bool, Option("Do not open the page in a browser.", "", PAGE, "annotate")] = False
    token: Annotated[
        str | None,
        Option(
            "Token of a page for other machines; random if not given.",
            "",
            PAGE,
            "annotate",
            "8 or more printable ASCII characters",
            lambda value: value is None or (len(value) >= 8 and value.isascii() and value.isprintable()),
            secret=True,
        ),
    ] = None
    allowed_host: Annotated[
        Names, Option("A name, besides this machine's own, that the page is opened by.", "", PAGE, "annotate")
    ] = ()
    tensorboard: bool = True
