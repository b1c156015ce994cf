"""The options of `odkeras annotate` and of the recipe `image.trainmodel`, besides those of every session."""

# No `from __future__ import annotations`: evaluated later, the functions in annotations would not see this module.
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from odkeras.config.option import DIRECTORIES, PAGE, SUGGESTIONS, TRAINING, Names, Option
from odkeras.config.settings import Api, Exclude, Label, SessionSettings
from odkeras.database_url import DatabaseUrl


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
        Path | DatabaseUrl | None,
        Option(
            "The database of answers: a file, or postgresql://USER@HOST/NAME; default: annotations.db beside CONFIG, "
            "or where its answers are.",
            "",
            DIRECTORIES,
            "annotate db bulk-import",
        ),
    ] = None
    overlap: Annotated[
        bool, Option("Ask every annotator (?session=NAME) about every image.", "", SUGGESTIONS, "annotate")
    ] = False
    frame_seconds: Annotated[
        float,
        Meta(gt=0),
        Option("Of a video, annotate a frame every so many seconds.", "", SUGGESTIONS, "annotate", "a number above 0"),
    ] = 1.0
    skip_duplicates: Annotated[
        int | None,
        Option(
            "Leave out images that are nearly the same as an earlier one: their hashes differ in at most so many of 64 "
            "bits. 6 finds bursts and still scenes.",
            "",
            SUGGESTIONS,
            "annotate",
            "0 to 32",
            lambda value: value is None or 0 <= value <= 32,
        ),
    ] = None
    review: Annotated[
        bool,
        Option(
            "Ask about images with imported labels, too, with these labels shown instead of suggestions.",
            "",
            SUGGESTIONS,
            "annotate",
        ),
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
            "Token for other machines; default: random. ODKERAS_TOKEN keeps it out of the process list.",
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
    tls_cert: Annotated[
        Path | None,
        Option("Certificate (PEM, with its chain): the page is served by https.", "", PAGE, "annotate"),
    ] = None
    tls_key: Annotated[
        Path | None, Option("The certificate's private key (PEM), if it is a file of its own.", "", PAGE, "annotate")
    ] = None
    tensorboard: bool = True
