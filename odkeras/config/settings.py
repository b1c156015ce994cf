"""The options of the annotation session and its trainer, each declared once.

A field that carries an `Option` is an option; `config.commands` says which settings a command has. From it come the
flags of the commands, the arguments of the Prodigy recipes, the environment variable `ODKERAS_<NAME>`, the key in the
project file `odkeras.toml`, the key in the trainer's `run.json`, the tables of the documentation, and the check of its
value. A flag overrides the environment, which overrides the file, which overrides the default.

    settings = SessionSettings(config=Path("raccoons/pipeline.config"), eval_split=0.2)
    settings.eval_split                                # checked: a wrong value raises ConfigError
"""

# No `from __future__ import annotations`: evaluated later, the functions in annotations would not see this module.
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from odkeras.config.devices import FLOAT32, BatchSize, CheckpointSteps, Precision, Strategy
from odkeras.config.load import MinFree, StepsPerHour, TrainingShare
from odkeras.config.option import DIRECTORIES, EVALUATION, SERVING, SUGGESTIONS, TRAINING, Names, Option, Settings
from odkeras.config.parsing import AUTO, is_host, read_threshold, split_commas, split_list
from odkeras.errors import ConfigError
from odkeras.project import Project

ORDERS = ("sequential", "random", "uncertain")
LOGGING_LEVELS = (10, 20, 30, 40, 50)
PREDICT_BATCH_SIZE = 5
DEFAULT_MAX_PIXELS = 50_000_000
"""A training step holds some 30 bytes for each pixel of an image, so this is 1.5 GB for one image."""

DEFAULT_MODEL_NAME = "odkeras"
DEFAULT_REST_PORT = 8501
LEAST_STEPS = 100
"""Minimum steps of a round. Fewer hardly change a model; these take about as long as annotating a few images."""


Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]

_LOOP = "annotate simulate trainer recipe"
_OFFLINE = "train eval export"

ModelName = Annotated[
    str,
    Meta(pattern=r"^[^/:]+$"),
    Option(
        "Name of the model on the model server.",
        "",
        SERVING,
        "annotate recipe trainer serve servingmodel",
        "a name without / and :",
        argument_of={"annotate": 3, "recipe": 3, "servingmodel": 3},
        underscores=True,
    ),
]
MaxPixels = Annotated[
    int,
    Meta(ge=1),
    Option(
        "Largest image: width times height in pixels; larger ones are refused before they are decoded.",
        "mp",
        SUGGESTIONS,
        "annotate simulate recipe trainer train serve predict bulk-predict bulk-records bulk-import bulk-hash",
        "a number of pixels, 1 or more",
    ),
]
Label = Annotated[
    Names | None,
    Option(
        "Comma-separated labels to choose from, or a file of them; default: all.",
        "l",
        SUGGESTIONS,
        "annotate recipe servingmodel",
        parse=split_list,
    ),
]
Exclude = Annotated[
    Names | None,
    Option(
        "Comma-separated datasets whose images are left out.",
        "e",
        SUGGESTIONS,
        "annotate recipe servingmodel",
        parse=split_commas,
    ),
]
Api = Annotated[
    str | None,
    Option("API loader of Prodigy to read SOURCE with (old versions only).", "a", SUGGESTIONS, "recipe servingmodel"),
]
PredictBatchSize = Annotated[
    int,
    Meta(ge=1),
    Option("Images per prediction request.", "pbs", SUGGESTIONS, "annotate recipe servingmodel", "1 or more"),
]


class TrainingSettings(Settings, frozen=True, kw_only=True):
    """What the trainer needs. Relative paths start in the working directory.

    Raises:
        ConfigError: a value is not allowed.
    """

    config: Path
    data_dir: Annotated[
        Path | None,
        Option("Answers and records; default: data/ beside CONFIG.", "dd", DIRECTORIES, f"{_LOOP} stats labels"),
    ] = None
    model_dir: Annotated[
        Path | None,
        Option(
            "Checkpoints and TensorBoard; default: model/ beside CONFIG.",
            "md",
            DIRECTORIES,
            f"{_LOOP} {_OFFLINE} training stats",
        ),
    ] = None
    export_dir: Annotated[
        Path | None,
        Option("Model versions; default: export/ beside CONFIG.", "ed", DIRECTORIES, f"{_LOOP} eval export"),
    ] = None
    label_map_path: Annotated[
        Path | None,
        Option("The label map; default: the one that CONFIG names.", "lmp", DIRECTORIES, f"{_LOOP} {_OFFLINE} labels"),
    ] = None
    steps_per_epoch: Annotated[
        int,
        Meta(ge=-1),
        Option(
            "Training steps per round; -1: one pass over all answers, at least 100.",
            "spe",
            TRAINING,
            _LOOP,
            "a number of steps, or -1 for one pass over the answers, at least 100 steps",
            defaults={"trainer": 1000, "simulate": 100},
        ),
    ] = -1
    max_round_steps: Annotated[
        Count,
        Option(
            "Most steps of a round of one pass; 0: no limit.", "mrs", TRAINING, _LOOP, "a number of steps, 0 or more"
        ),
    ] = 500
    batch_size: BatchSize = None
    max_checkpoints_num: Annotated[
        Count,
        Option(
            "Checkpoints to keep; 0 = all.", "mcn", TRAINING, f"{_LOOP} train", "a number of checkpoints, or 0 for all"
        ),
    ] = 5
    temp_files_num: Annotated[
        Count, Option("Records and versions to keep; 0 = all.", "tfn", TRAINING, _LOOP, "a number, or 0 for all")
    ] = 5
    run_eval: Annotated[
        bool, Option("Evaluate after each round, on CONFIG's eval_input_reader.", "E", EVALUATION, _LOOP)
    ] = False
    eval_steps: Annotated[
        int | None,
        Option(
            "Evaluate on a sample of so many examples; default: all.",
            "es",
            EVALUATION,
            f"{_LOOP} eval",
            "a number of images, 1 or more",
            lambda value: value is None or value >= 1,
            defaults={"annotate": 50, "recipe": 50},
        ),
    ] = None
    eval_split: Annotated[
        Share,
        Option(
            "Share of the answers, such as 0.2, that is evaluated on after each round and never trained on.",
            "esp",
            EVALUATION,
            _LOOP,
            "a share of the answers, 0 to below 1, such as 0.2",
        ),
    ] = 0.0
    publish_if_better: Annotated[
        bool,
        Option(
            "Evaluate first, and publish only a version that is not worse than the served one.",
            "pib",
            EVALUATION,
            _LOOP,
        ),
    ] = False
    publish_tolerance: Annotated[
        float,
        Meta(ge=0, le=1),
        Option("How much worse it may be, in mAP from 0 to 1.", "pt", EVALUATION, _LOOP, "0 to 1, such as 0.01"),
    ] = 0.01
    replay: Annotated[
        str,
        Option(
            "on: train on all answers so far; off: on the newest answers only, as in 2019.",
            "rp",
            TRAINING,
            _LOOP,
            choices=("on", "off"),
        ),
    ] = "on"
    extra_steps: Annotated[
        int,
        Meta(ge=0),
        Option(
            "Further training steps after a round, while no new answers wait; 0: none.",
            "xs",
            TRAINING,
            _LOOP,
            "0 or more steps",
            defaults={"annotate": 200, "recipe": 200},
        ),
    ] = 0
    training_share: TrainingShare = 1.0
    steps_per_hour: StepsPerHour = 0
    min_free: MinFree = 0.2
    strategy: Strategy = "none"
    precision: Precision = FLOAT32
    checkpoint_steps: CheckpointSteps = 0
    tf_logging_level: Annotated[
        int,
        Option(
            "10 debug, 20 info, 30 warning, 40 error, 50 fatal.",
            "tl",
            TRAINING,
            f"{_LOOP} {_OFFLINE} serve",
            choices=LOGGING_LEVELS,
        ),
    ] = 40
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS
    model_name: ModelName = DEFAULT_MODEL_NAME

    def __post_init__(self) -> None:
        super().__post_init__()
        places = (self.project.data_dir, self.project.model_dir, self.project.export_dir)
        if len({place.resolve() for place in places}) < 3:
            raise ConfigError("data_dir, model_dir and export_dir must be three different directories")

    @property
    def project(self) -> Project:
        """The data, model and export directories, with the defaults filled in."""
        beside = self.config.parent
        return Project(
            self.data_dir or beside / "data", self.model_dir or beside / "model", self.export_dir or beside / "export"
        )

    @property
    def evaluates(self) -> bool:
        """Whether rounds are evaluated, either on request or because another option needs it."""
        return self.run_eval or self.eval_split > 0 or self.publish_if_better

    def steps_of_round(self, one_pass: int) -> int:
        """Steps of a round, given the number of steps in one pass over the training set. `steps_per_epoch` 0 means one
        pass, for commands of version 0.1.0."""
        if self.steps_per_epoch > 0:
            return self.steps_per_epoch
        steps = max(one_pass, LEAST_STEPS)
        return min(steps, self.max_round_steps) if self.max_round_steps else steps


class SessionSettings(TrainingSettings, frozen=True, kw_only=True):
    """What a session needs, whatever its front end.

    Args:
        ip, port: address of an external model server; with `ip`, the session starts none. Port 0 is 8501.
        tensorflow_serving: start `tensorflow_model_server`, which must be installed, instead of the embedded server.
    """

    ip: Annotated[
        str | None,
        Option(
            "Address of a running TensorFlow Serving; else a model server is started.",
            "",
            SERVING,
            "annotate recipe",
            "an address or host name, without http:// and without a port",
            lambda value: value is None or is_host(value),
            argument_of={"annotate": 1, "recipe": 1},
        ),
    ] = None
    port: Annotated[
        int,
        Meta(ge=0, le=65535),
        Option(
            "Its REST port; 8501 if only IP is given.",
            "",
            SERVING,
            "annotate recipe",
            "0 to 65535",
            argument_of={"annotate": 2, "recipe": 2},
        ),
    ] = 0
    threshold: Annotated[
        float | str,
        Option(
            "Lowest score of a suggestion, 0 to 1; auto: learned for each class from the answers.",
            "t",
            SUGGESTIONS,
            "annotate simulate recipe",
            "0 to 1, or auto",
            lambda value: value == AUTO or (not isinstance(value, str) and 0 <= value <= 1),
            parse=read_threshold,
            defaults={"annotate": AUTO},
        ),
    ] = 0.5
    control: Annotated[
        Share,
        Option(
            "Share of images shown without suggestions, for comparison: 0.05.",
            "ctl",
            SUGGESTIONS,
            "annotate recipe",
            "a share of the images, 0 to below 1",
        ),
    ] = 0.0
    order: Annotated[
        str,
        Option(
            "Order of the images: sequential, random, uncertain (those the model is least sure about first).",
            "o",
            SUGGESTIONS,
            "annotate simulate recipe",
            choices=ORDERS,
        ),
    ] = "sequential"
    order_seed: Annotated[int, Option("Seed of the random orders.", "", SUGGESTIONS, "simulate", "a whole number")] = 0
    allow_private_urls: Annotated[
        bool,
        Option(
            "Let URLs of images redirect to addresses that are not public.",
            "apu",
            SUGGESTIONS,
            "annotate simulate recipe",
        ),
    ] = False
    use_display_name: Annotated[
        bool, Option("Show the label map's display names.", "D", SUGGESTIONS, "annotate recipe")
    ] = False
    external_trainer: Annotated[
        bool,
        Option(
            "Start no trainer: `odkeras trainer` runs elsewhere on the same directories.",
            "xt",
            TRAINING,
            "annotate recipe",
        ),
    ] = False
    predict_batch_size: PredictBatchSize = PREDICT_BATCH_SIZE
    tensorflow_serving: bool = False

    @property
    def external_server(self) -> bool:
        """Whether the model server is started elsewhere."""
        return self.ip is not None

    @property
    def server_url(self) -> str:
        """Base URL of the external model server."""
        return f"http://{reachable(self.ip or '127.0.0.1')}:{self.port or DEFAULT_REST_PORT}"


def reachable(ip: str) -> str:
    """The host to connect to in a URL, given the address that a server listens on."""
    if ip in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{ip}]" if ":" in ip else ip
