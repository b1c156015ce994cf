"""The options of a session, validated at construction."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from odkeras.errors import ConfigError
from odkeras.images import DEFAULT_MAX_PIXELS
from odkeras.numeric import is_number, is_whole
from odkeras.project import Project
from odkeras.session.order import ORDERS
from odkeras.session.stream import PREDICT_TOGETHER
from odkeras.session.thresholds import AUTO

_REPLAY = ("on", "off")
_STRATEGIES = ("none", "mirrored", "multi-worker")


@dataclass(frozen=True)
class LoopOptions:
    """The options of a session.

    Args:
        config: path of the pipeline.config.
        data_dir, model_dir, export_dir: None = `data`, `model` and `export` next to the config.
        label_map: path of the label map; None = the one that the config names.
        model_name: name of the served model, part of the URL.
        ip, port: address of the model server; port 0 takes a free one.
        steps_per_epoch: training steps per round. -1 and 0 = one pass over the training set, but at least 100 steps
            (see `training.options`).
        threshold: minimum score of a suggestion, 0 to 1; "auto" learns it per class from the answers.
        control: share of control images, 0 <= share < 1, which are shown without suggestions.
        order, order_seed: order of the images; see `session.order`.
        temp_files_num: records and versions to keep; 0 keeps all.
        max_checkpoints_num: checkpoints to keep; 0 keeps all.
        run_eval: evaluate after every round.
        eval_steps: evaluate on a sample of this many images; None = all.
        eval_split: share of the images in the hold-out split, 0 <= share < 1, which are evaluated on and never trained
            on.
        publish_if_better, publish_tolerance: publish a round only if its primary metric is lower than that of the
            served version by at most the tolerance, 0 to 1.
        replay: "on" trains on all answers so far, "off" only on the new ones.
        strategy: how the trainer distributes its steps: "none", "mirrored" or "multi-worker".
        tf_logging_level: TensorFlow's log level in the child processes, 0 to 50.
        use_display_name: show the label map's display names instead of its names.
        external_trainer, external_server: the process is started elsewhere; the session starts none.
        tensorflow_serving: start `tensorflow_model_server`, which must be installed, instead of the embedded server.
        predict_batch_size: images per predict request.
        max_pixels: maximum pixels of an image; larger ones are skipped.

    Raises:
        ConfigError: a value or combination that is not allowed.
    """

    config: Path
    data_dir: Path | None = None
    model_dir: Path | None = None
    export_dir: Path | None = None
    label_map: Path | None = None
    model_name: str = "odkeras"
    ip: str = "127.0.0.1"
    port: int = 0
    steps_per_epoch: int = 1000
    threshold: float | str = 0.5
    control: float = 0.0
    order: str = "sequential"
    order_seed: int = 0
    temp_files_num: int = 5
    max_checkpoints_num: int = 5
    run_eval: bool = False
    eval_steps: int | None = None
    eval_split: float = 0.0
    publish_if_better: bool = False
    publish_tolerance: float = 0.01
    replay: str = "on"
    strategy: str = "none"
    tf_logging_level: int = 40
    use_display_name: bool = False
    external_trainer: bool = False
    external_server: bool = False
    tensorflow_serving: bool = False
    predict_batch_size: int = PREDICT_TOGETHER
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        for name, ok, allowed in _RULES:
            value = getattr(self, name)
            if not ok(value):
                raise ConfigError(f"{name} is {value!r}; allowed: {allowed}")
        if self.external_server and self.port == 0:
            raise ConfigError("port is 0 with an external model server; give the port that the server listens on")
        project = self.project
        if len({project.data_dir.resolve(), project.model_dir.resolve(), project.export_dir.resolve()}) < 3:
            raise ConfigError("data_dir, model_dir and export_dir must be three different directories")

    @property
    def project(self) -> Project:
        """The data, model and export directories, with the defaults filled in."""
        beside = self.config.parent
        return Project(
            self.data_dir or beside / "data", self.model_dir or beside / "model", self.export_dir or beside / "export"
        )


def is_host(text: Any) -> bool:
    """Whether `text` is a host name, an IPv4 or an IPv6 address."""
    if not isinstance(text, str):
        return False
    if ":" in text:
        try:
            return ip_address(text).version == 6
        except ValueError:
            return False
    return re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", text) is not None


_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("model_name", lambda v: re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", v) is not None, "letters, digits, _ . -"),
    ("ip", lambda v: is_host(v), "an address or host name, without http:// and without a port"),
    ("port", lambda v: is_whole(v, 0, 65535), "0 to 65535"),
    ("steps_per_epoch", lambda v: is_whole(v, -1), "a number of steps, or -1 for one pass over the examples"),
    ("threshold", lambda v: v == AUTO or (is_number(v) and 0 <= v <= 1), "0 to 1, or auto"),
    ("control", lambda v: is_number(v) and 0 <= v < 1, "a share of the images, 0 to below 1"),
    ("order", lambda v: v in ORDERS, ", ".join(ORDERS)),
    ("temp_files_num", lambda v: is_whole(v, 0), "a number of files, or 0 to keep all"),
    ("max_checkpoints_num", lambda v: is_whole(v, 0), "a number of checkpoints, or 0 to keep all"),
    ("eval_steps", lambda v: v is None or is_whole(v, 1), "a number of images, or None for all"),
    ("eval_split", lambda v: is_number(v) and 0 <= v < 1, "a share of the answers, 0 to below 1"),
    ("publish_tolerance", lambda v: is_number(v) and 0 <= v <= 1, "0 to 1"),
    ("replay", lambda v: v in _REPLAY, ", ".join(_REPLAY)),
    ("strategy", lambda v: v in _STRATEGIES, ", ".join(_STRATEGIES)),
    ("tf_logging_level", lambda v: is_whole(v, 0, 50), "0 to 50"),
    ("predict_batch_size", lambda v: is_whole(v, 1), "a number of images"),
    ("max_pixels", lambda v: is_whole(v, 1), "a number of pixels"),
)
