"""The two recipes: they turn arguments into components. Everything is validated before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from odkeras.errors import ConfigError, RequestError, ServerUnavailableError, ServingError
from odkeras.integrations.prodigy.api import ProdigyApi, exit_on_error
from odkeras.integrations.prodigy.serving_host import ServingHost
from odkeras.integrations.prodigy.source import open_recipe_source
from odkeras.integrations.prodigy.training_host import TrainingHost
from odkeras.labels import LabelMap
from odkeras.project import config_path
from odkeras.serving.client import ServingClient
from odkeras.serving.launch import TENSORFLOW_MODEL_SERVER, find_tensorflow_serving
from odkeras.session.children import server_url
from odkeras.session.components import check_model_fits, load_label_map
from odkeras.session.options import LoopOptions, is_host
from odkeras.session.stream import PREDICT_TOGETHER

DEFAULT_PORT = 8501
_LOGGING_LEVELS = (10, 20, 30, 40, 50)

Components = dict[str, Any]
AnyHost = TypeVar("AnyHost", bound=TrainingHost)


@dataclass(frozen=True)
class TrainmodelArguments:
    """Command line of `image.trainmodel`; see `recipes/image_train.py`."""

    dataset: str
    source: Any
    config_path: str
    ip: str | None = None
    port: int = 0
    model_name: str | None = None
    label_map_path: str | None = None
    label: Sequence[str] | None = None
    model_dir: str | None = None
    export_dir: str | None = None
    data_dir: str | None = None
    steps_per_epoch: int = -1
    threshold: float | str = 0.5
    control: float = 0.0
    order: str = "sequential"
    temp_files_num: int = 5
    max_checkpoints_num: int = 5
    run_eval: bool = False
    eval_steps: int = 50
    eval_split: float = 0.0
    publish_if_better: bool = False
    publish_tolerance: float = 0.01
    use_display_name: bool = False
    tf_logging_level: int = 40
    api: str | None = None
    exclude: Sequence[str] | None = None
    replay: str = "on"
    sync: bool = False
    external_trainer: bool = False
    predict_batch_size: int = PREDICT_TOGETHER
    remove_base64: bool = False


def trainmodel(arguments: TrainmodelArguments) -> Components:
    """The components of `image.trainmodel`. Exits with a one-line error if an argument is invalid."""
    with exit_on_error("image.trainmodel"):
        return open_training_host(arguments, ProdigyApi.installed(), TrainingHost).components()


def open_training_host(arguments: TrainmodelArguments, prodigy: ProdigyApi, make: Callable[..., AnyHost]) -> AnyHost:
    """Build the host from the arguments; nothing is started yet.

    Args:
        prodigy: the Prodigy API or a substitute with the same methods.
        make: the host's class; called with the arguments of `TrainingHost`.

    Raises:
        OdkerasError: an argument is invalid.
    """
    options = options_of(arguments)
    label_map = load_label_map(options)
    labels = chosen_labels(arguments.label, label_map, use_display_name=arguments.use_display_name)
    check_dataset(arguments.dataset)
    source = open_recipe_source(arguments.source, arguments.api or None, prodigy)
    check_model_fits(options, label_map)
    options.project.create()
    host = make(
        options,
        source,
        prodigy,
        labels=labels,
        dataset=arguments.dataset,
        exclude=list(arguments.exclude or ()),
        classes=[label_map.id_of(label) for label in labels] if arguments.label else None,
        sync=arguments.sync,
        remove_base64=arguments.remove_base64,
    )
    if options.external_server:
        url = server_url(options.ip, options.port)
        check_server(url, options.model_name, host.warn, start=_how_to_serve(options))
    return host


def options_of(arguments: TrainmodelArguments) -> LoopOptions:
    """The loop's options from the arguments.

    With IP and PORT, the three directories default to the 2019 recipe's names in the working directory, where the
    external server of such a command line looks for versions. Otherwise they default to directories next to the config.

    Raises:
        ConfigError: a value is not allowed.
    """
    if arguments.tf_logging_level not in _LOGGING_LEVELS:
        allowed = ", ".join(map(str, _LOGGING_LEVELS))
        raise ConfigError(f"--tf-logging-level {arguments.tf_logging_level}: it must be one of {allowed}")
    if arguments.eval_steps < 1:
        raise ConfigError(f"--eval-steps {arguments.eval_steps}: it must be 1 or more")
    if not 0 <= arguments.eval_split < 1:
        raise ConfigError(f"--eval-split {arguments.eval_split:g}: it must be a share, 0 to below 1, for example 0.2")
    if not 0 <= arguments.publish_tolerance <= 1:
        raise ConfigError(f"--publish-tolerance {arguments.publish_tolerance:g}: it must be 0 to 1, for example 0.01")
    if arguments.steps_per_epoch < -1:
        raise ConfigError(f"--steps-per-epoch {arguments.steps_per_epoch}: it must be 1 or more, or -1")
    config = config_path(arguments.config_path)
    if not config.is_file():
        raise ConfigError(f"{config}: no such file; CONFIG is a pipeline.config, which `odkeras init` writes")
    served_elsewhere = bool(arguments.ip)
    return LoopOptions(
        config=config,
        data_dir=_directory(arguments.data_dir, "data_dir", served_elsewhere),
        model_dir=_directory(arguments.model_dir, "model_dir", served_elsewhere),
        export_dir=_directory(arguments.export_dir, "export_dir", served_elsewhere),
        label_map=Path(arguments.label_map_path) if arguments.label_map_path else None,
        model_name=arguments.model_name or LoopOptions.model_name,
        ip=arguments.ip or LoopOptions.ip,
        port=(arguments.port or DEFAULT_PORT) if served_elsewhere else 0,
        steps_per_epoch=arguments.steps_per_epoch,
        threshold=arguments.threshold,
        control=arguments.control,
        order=arguments.order,
        temp_files_num=arguments.temp_files_num,
        max_checkpoints_num=arguments.max_checkpoints_num,
        run_eval=arguments.run_eval,
        eval_steps=arguments.eval_steps,
        eval_split=arguments.eval_split,
        publish_if_better=arguments.publish_if_better,
        publish_tolerance=arguments.publish_tolerance,
        replay=arguments.replay,
        tf_logging_level=arguments.tf_logging_level,
        use_display_name=arguments.use_display_name,
        external_trainer=arguments.external_trainer,
        external_server=served_elsewhere,
        tensorflow_serving=not served_elsewhere and find_tensorflow_serving() is not None,
        predict_batch_size=arguments.predict_batch_size,
    )


def _directory(given: str | None, name_of_2019: str, served_elsewhere: bool) -> Path | None:
    if given:
        return Path(given)
    return Path(name_of_2019) if served_elsewhere else None


@dataclass(frozen=True)
class ServingmodelArguments:
    """Command line of `image.servingmodel`; see `recipes/image_serving.py`."""

    dataset: str
    ip: str
    port: int
    model_name: str
    label_map_path: str
    source: Any = None
    threshold: float = 0.5
    api: str | None = None
    exclude: Sequence[str] | None = None
    label: Sequence[str] | None = None
    predict_batch_size: int = PREDICT_TOGETHER


def servingmodel(arguments: ServingmodelArguments) -> Components:
    """The components of `image.servingmodel`. Exits with a one-line error if an argument is invalid."""
    with exit_on_error("image.servingmodel"):
        prodigy = ProdigyApi.installed()
        label_map = LabelMap.load(arguments.label_map_path)
        labels = chosen_labels(arguments.label, label_map, use_display_name=True)
        check_dataset(arguments.dataset)
        for name, value, ok in (
            ("threshold", arguments.threshold, 0 <= arguments.threshold <= 1),
            ("predict-batch-size", arguments.predict_batch_size, arguments.predict_batch_size >= 1),
        ):
            if not ok:
                raise ConfigError(f"--{name} {value}: out of range")
        if not is_host(arguments.ip) or not 0 < arguments.port < 65536:
            raise ConfigError(
                f"IP is {arguments.ip!r} and PORT is {arguments.port}; give an address or host name, without http://, "
                f"and the REST port, usually {DEFAULT_PORT}"
            )
        url = server_url(arguments.ip, arguments.port)
        host = ServingHost(
            url,
            arguments.model_name,
            open_recipe_source(arguments.source, arguments.api or None, prodigy),
            prodigy,
            label_map=label_map,
            labels=labels,
            dataset=arguments.dataset,
            exclude=list(arguments.exclude or ()),
            classes=[label_map.id_of(label) for label in labels] if arguments.label else None,
            threshold=arguments.threshold,
            predict_batch_size=arguments.predict_batch_size,
        )
        check_server(url, arguments.model_name, host.warn, start="start it, with that model")
        return host.components()


def check_dataset(dataset: Any) -> None:
    """Raises: ConfigError: not a dataset name. False is refused too, which means "do not store" in Prodigy."""
    if not isinstance(dataset, str) or not dataset.strip():
        raise ConfigError(f"DATASET is {dataset!r}; name the dataset that the answers are stored in")


def chosen_labels(wanted: Sequence[str] | None, label_map: LabelMap, *, use_display_name: bool) -> list[str]:
    """The labels that the annotator can choose from: the whole label map, or only those of `--label`.

    Raises:
        LabelMapError: one of them is not in the label map.
    """
    name_of = label_map.display_name_of if use_display_name else label_map.name_of
    ids = label_map.ids if not wanted else [label_map.id_of(name) for name in wanted]
    return [name_of(id) for id in dict.fromkeys(ids)]


def check_server(url: str, model_name: str, warn: Callable[[str], None], *, start: str) -> None:
    """Check that the port, if something listens on it, is TensorFlow Serving's REST port; warn if no model is there.

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
                    f"{url} takes connections but does not speak HTTP: is it the gRPC port? The 2019 recipe asked "
                    f"there; this one asks the REST port ({DEFAULT_PORT} unless set otherwise)"
                ) from error
            warn(f"no model server at {url} yet: tasks come without suggestions until then; {start}")
            return
        except ServingError as error:
            raise ConfigError(str(error)) from error
    if not any(state.state == "AVAILABLE" for state in versions):
        warn(
            f"{url} has no version of the model {model_name!r} yet: tasks come without suggestions until then; {start}"
        )


def _how_to_serve(options: LoopOptions) -> str:
    base_path = options.project.export_dir.absolute()
    return (
        f"start it with: {TENSORFLOW_MODEL_SERVER} --rest_api_port={options.port} --model_name={options.model_name} "
        f"--model_base_path={base_path} --file_system_poll_wait_seconds=1"
    )
