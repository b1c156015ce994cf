"""What a session is made of, validated before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from odkeras.config.settings import DEFAULT_REST_PORT, SessionSettings
from odkeras.errors import ConfigError, OdkerasError, RequestError, ServerUnavailableError, ServingError
from odkeras.labels import LabelMap
from odkeras.pipeline import (
    Overrides,
    apply_overrides,
    check_pipeline,
    check_trained_classes,
    check_training_continues,
    get_label_map_path,
    has_checkpoints,
    is_placeholder,
    load_pipeline,
    raise_for_problems,
    starts_from_random_weights,
)
from odkeras.pipeline.class_history import read_class_history
from odkeras.project import Project
from odkeras.serving.client import ServingClient
from odkeras.serving.launch import TENSORFLOW_MODEL_SERVER


@dataclass(frozen=True)
class SessionSetup:
    """Validated options of a session. Create it with `of`.

    Args:
        options: the options.
        label_map_path, label_map: the label map that defines the answers' labels.
        labels: the labels that the annotator can choose from.
        classes: ids of the classes to suggest; None = all of the label map.
        can_pick: the front end lets the annotator pick the model's candidates.
    """

    options: SessionSettings
    label_map_path: Path
    label_map: LabelMap
    labels: tuple[str, ...]
    classes: tuple[int, ...] | None
    can_pick: bool = False

    @classmethod
    def of(
        cls, options: SessionSettings, labels: Sequence[str] | None = None, *, can_pick: bool = False
    ) -> SessionSetup:
        """Check the options against the label map and the model trained so far.

        Args:
            labels: names of the labels to choose from; all of the label map when None or empty.
            can_pick: the front end lets the annotator pick the model's candidates, and add labels: there may be none.

        Raises:
            ConfigError, LabelMapError, CheckpointError: the options do not fit; the message says what to do.
        """
        path = label_map_path(options)
        label_map = LabelMap.load(path, may_be_empty=can_pick)
        chosen = chosen_labels(labels, label_map, use_display_name=options.use_display_name)
        check_config(options, label_map)
        check_model_fits(options, label_map)
        classes = tuple(label_map.id_of(label) for label in chosen) if labels else None
        return cls(options, path, label_map, tuple(chosen), classes, can_pick)

    @cached_property
    def keypoint_names(self) -> dict[str, tuple[str, ...]]:
        """The names of the keypoints that the objects of each label have, by their ids; without labels that have
        none."""
        named = {label: sorted(self.label_map.keypoints_of(self.label_map.id_of(label))) for label in self.labels}
        return {label: tuple(name for _, name in points) for label, points in named.items() if points}

    @property
    def project(self) -> Project:
        """The data, model and export directories."""
        return self.options.project

    @property
    def starts_from_random_weights(self) -> bool:
        """Whether the config names no weights to start from and no checkpoint exists yet. False if the config cannot be
        read, which the trainer reports."""
        try:
            from_random = starts_from_random_weights(load_pipeline(self.options.config))
        except OdkerasError:
            return False
        return from_random and not has_checkpoints(self.project.model_dir)


def load_label_map(options: SessionSettings) -> LabelMap:
    """Load the label map that the options name, else the one that the config names.

    Raises:
        ConfigError, LabelMapError: there is none, or it cannot be read.
    """
    return LabelMap.load(label_map_path(options))


def label_map_path(options: SessionSettings) -> Path:
    """Path of the label map that `load_label_map` loads.

    Raises:
        ConfigError: neither the options nor the config name one. The message lists the config's other problems, too.
    """
    if options.label_map_path is not None:
        return options.label_map_path
    config = load_pipeline(options.config)
    path = get_label_map_path(config) or ""
    if not path or is_placeholder(path):
        raise_for_problems(check_pipeline(config, label_map=None, purpose="loop"), source=str(options.config))
    return Path(path)


def check_config(options: SessionSettings, label_map: LabelMap) -> None:
    """Check that the trainer can use the config, which it otherwise reports after the page has been opened. An external
    trainer checks it itself, since its files may not be visible on this machine.

    Raises:
        ConfigError: it cannot; the message lists all problems.
    """
    if options.external_trainer:
        return
    config = apply_overrides(load_pipeline(options.config), Overrides.of(options))
    resumes = has_checkpoints(options.project.model_dir)
    problems = check_pipeline(config, label_map=label_map, purpose="loop", step=int(resumes))
    raise_for_problems(problems, source=str(options.config))


def check_model_fits(options: SessionSettings, label_map: LabelMap) -> None:
    """Check that the model trained so far has the classes of the label map, or the first of them. Runs before any
    process is started.

    Raises:
        ConfigError, CheckpointError: it has other classes, or its checkpoints are missing; the message says what to do.
    """
    directories, config = options.project, load_pipeline(options.config)
    history = read_class_history(directories)
    check_trained_classes(
        config,
        label_map,
        model_dir=directories.model_dir,
        export_dir=directories.export_dir,
        extends=True,
        renamed=history.renamed if history is not None else None,
    )
    if not options.external_trainer:  # an external trainer's checkpoints may not be visible on this machine
        has_model = has_checkpoints(directories.model_dir)
        check_training_continues(directories.model_dir, directories.export_dir, has_checkpoint=has_model)


def chosen_labels(wanted: Sequence[str] | None, label_map: LabelMap, *, use_display_name: bool) -> list[str]:
    """The labels that the annotator can choose from: the whole label map, or only those of `--label`.

    Raises:
        LabelMapError: one of them is not in the label map.
    """
    name_of = label_map.display_name_of if use_display_name else label_map.name_of
    ids = label_map.ids if not wanted else [label_map.id_of(name) for name in wanted]
    return [name_of(id) for id in dict.fromkeys(ids)]


def check_server(url: str, model_name: str, warn: Callable[[str], None], how_to_start: str) -> None:
    """Check that the port, if something listens on it, is TensorFlow Serving's REST port; warn if no model is there.

    Args:
        how_to_start: how to start the server, for the end of the warning.

    Raises:
        ConfigError: another kind of server listens on it.
    """
    with ServingClient(url, model_name, timeout_s=2.0, connect_timeout_s=1.0, retries=0) as client:
        try:
            versions = client.versions()
        except RequestError as error:
            raise ConfigError(str(error)) from error
        except ServerUnavailableError as error:
            if "disconnected" in str(error):
                raise ConfigError(
                    f"{url} accepts connections but does not speak HTTP: is it the gRPC port? The 2019 recipe used "
                    f"that port; this one needs the REST port ({DEFAULT_REST_PORT} unless set otherwise)"
                ) from error
            warn(f"no model server at {url} yet, so tasks have no suggestions; {how_to_start}")
            return
        except ServingError as error:
            raise ConfigError(str(error)) from error
    if not any(state.state == "AVAILABLE" for state in versions):
        warn(f"{url} has no version of the model {model_name!r} yet, so tasks have no suggestions; {how_to_start}")


def how_to_serve(options: SessionSettings) -> str:
    """How to start the external model server that the options name, for the end of a message."""
    base_path = options.project.export_dir.absolute()
    return (
        f"start it with: {TENSORFLOW_MODEL_SERVER} --rest_api_port={options.port or DEFAULT_REST_PORT} "
        f"--model_name={options.model_name} "
        f"--model_base_path={base_path} --file_system_poll_wait_seconds=1"
    )
