"""`odkeras doctor`: check the environment.

Packages are looked up without importing them. TensorFlow is imported in a child process, so that a broken installation
cannot crash the command.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from odkeras.errors import OdkerasError
from odkeras.odapi import ODAPI_INSTALL_COMMAND
from odkeras.pipeline import (
    get_fine_tune_checkpoint,
    get_fine_tune_type,
    load_pipeline,
    starts_from_random_weights,
)
from odkeras.pipeline.files import checkpoint_problems
from odkeras.pretrained.cache import WeightsCache
from odkeras.pretrained.catalogue import BACKBONES, ZOO

TENSORFLOW = "2.21"
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
MIN_FREE_BYTES = 2 * 2**30
"""Room for five checkpoints with optimizer state and five published versions of a large detector (30 million
weights)."""

PROBE_TIMEOUT_S = 120.0
_PROBE = """
import json
import tensorflow as tf
keras = tf.keras.Model.__module__.partition(".")[0]
details = tf.config.experimental.get_device_details
gpus = [details(gpu).get("device_name", gpu.name) for gpu in tf.config.list_physical_devices("GPU")]
print("probe:" + json.dumps({"tensorflow": tf.__version__, "keras": keras, "gpus": gpus}))
"""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        name: the package or resource that was checked.
        ok: False if odkeras will not work, or not with all models or with the full speed of this machine.
        detail: the result, for example the installed version.
        fix: what to do about a failed check; "" if nothing is needed.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Probe:
    """Properties of the TensorFlow installation, read in a child process.

    Args:
        tensorflow: its version.
        keras: the package behind tf.keras: "tf_keras" (Keras 2, which odkeras needs) or "keras" (Keras 3).
        gpus: device name of each GPU.
        error: why the import failed, for example the last line on standard error; "" if it succeeded.
    """

    tensorflow: str = ""
    keras: str = ""
    gpus: tuple[str, ...] = ()
    error: str = ""


def probe_tensorflow(timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
    """Import TensorFlow in a child process, with the environment that odkeras sets, and list the GPUs. Takes 5 to 30
    seconds."""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return Probe(error=f"no answer within {timeout_s:.0f} s")
    answer = next((line for line in done.stdout.splitlines() if line.startswith("probe:")), None)
    if answer is None:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Probe(error=lines[-1])
    versions = json.loads(answer.removeprefix("probe:"))
    return Probe(versions["tensorflow"], versions["keras"], tuple(versions["gpus"]))


def check_environment(
    directory: Path | str = ".", *, config: Path | None = None, probe: Callable[[], Probe] = probe_tensorflow
) -> list[Check]:
    """Run all checks, the most basic ones first.

    Args:
        directory: parent of the data, model and export directories; its free disk space is checked. It need not exist.
        config: the pipeline.config of a project, whose weights are checked; None to check only the machine.
        probe: replaces the TensorFlow child process in tests.
    """
    probed = probe() if _version("tensorflow") else Probe(error="not installed")
    return [
        _check_python(sys.version_info[:2]),
        _check_tensorflow(_version("tensorflow"), probed),
        _check_tf_keras(_version("tf-keras")),
        _check_keras_in_use(probed),
        _check_object_detection(),
        _check_official(),
        _check_package("pycocotools", "computes mAP"),
        _check_gpu(probed, gpu_hardware=shutil.which("nvidia-smi") is not None),
        _check_disk(Path(directory)),
        _check_model_server(shutil.which("tensorflow_model_server")),
        Check("Prodigy", True, _version("prodigy") or "not installed (optional)"),
        _check_cache(WeightsCache()),
        *([_check_weights(config, WeightsCache())] if config is not None else []),
    ]


def all_ok(checks: list[Check]) -> bool:
    return all(check.ok for check in checks)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _location(package: str) -> Path | None:
    """The directory of a top-level package, found without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    return next((Path(root) for root in (spec.submodule_search_locations or ())), None) if spec is not None else None


def _check_python(version: tuple[int, ...]) -> Check:
    shown = ".".join(map(str, version))
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST_PYTHON, NEWEST_PYTHON))
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return Check("Python", True, shown)
    return Check(
        "Python",
        False,
        shown,
        f"TensorFlow {TENSORFLOW} runs on Python {oldest} to {newest}: make a new environment with one",
    )


def _check_tensorflow(version: str | None, probe: Probe) -> Check:
    fix = f"run: pip install 'tensorflow=={TENSORFLOW}.*'"
    if version is None:
        return Check("TensorFlow", False, "not installed", fix)
    if probe.error:
        return Check("TensorFlow", False, f"{version} does not start: {probe.error}", f"{fix} --force-reinstall")
    if not version.startswith(f"{TENSORFLOW}."):
        return Check("TensorFlow", False, f"{version}; odkeras is tested with {TENSORFLOW}", fix)
    return Check("TensorFlow", True, version)


def _check_tf_keras(version: str | None) -> Check:
    fix = f"run: pip install 'tf-keras=={TENSORFLOW}.*'"
    if version is None:
        return Check("tf-keras", False, "not installed", fix)
    if not version.startswith(f"{TENSORFLOW}."):
        return Check("tf-keras", False, f"{version} does not fit TensorFlow {TENSORFLOW}", fix)
    return Check("tf-keras", True, version)


def _check_keras_in_use(probe: Probe) -> Check:
    if probe.error:
        return Check(
            "Keras 2 in TensorFlow", False, "unknown, because TensorFlow does not start", "see TensorFlow above"
        )
    if probe.keras == "tf_keras":
        return Check("Keras 2 in TensorFlow", True, f"tf.keras is {probe.keras}")
    return Check(
        "Keras 2 in TensorFlow", False, f"tf.keras is {probe.keras}", f"run: pip install 'tf-keras=={TENSORFLOW}.*'"
    )


def _check_object_detection() -> Check:
    name, folder = "Object Detection API", _location("object_detection")
    if folder is None:
        return Check(name, False, "not installed", f"run: {ODAPI_INSTALL_COMMAND}")
    if not (folder / "protos" / "pipeline_pb2.py").is_file():
        fix = f"in {folder.parent} run: protoc object_detection/protos/*.proto --python_out=."
        return Check(name, False, f"{folder}, whose protos are not compiled", fix)
    version = _version("tf-object-detection-api")
    return Check(name, True, f"{f'tf-object-detection-api {version}' if version else 'your own copy'} in {folder}")


def _check_official() -> Check:
    name, folder = "tf-models-official", _location("official")
    if folder is None:
        detail = "not installed: EfficientDet and moving averages cannot be used"
        return Check(name, False, detail, f"run: {ODAPI_INSTALL_COMMAND}")
    return Check(name, True, f"{_version('tf-models-official') or 'your own copy'} in {folder}")


def _check_package(distribution: str, purpose: str) -> Check:
    version = _version(distribution)
    if version is None:
        return Check(distribution, False, f"not installed; it {purpose}", f"run: pip install {distribution}")
    return Check(distribution, True, version)


def _check_gpu(probe: Probe, *, gpu_hardware: bool) -> Check:
    if probe.gpus:
        return Check("GPU", True, ", ".join(probe.gpus))
    if gpu_hardware and not probe.error:
        fix = f"run: pip install 'tensorflow[and-cuda]=={TENSORFLOW}.*', then see nvidia-smi for the driver"
        return Check("GPU", False, "there is an NVIDIA driver, but TensorFlow does not see a GPU", fix)
    return Check("GPU", True, "none: training runs on the CPU, which is fine for small models")


def _check_disk(directory: Path) -> Check:
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 2**30:.1f} GB free in {existing}"
    if free >= MIN_FREE_BYTES:
        return Check("Disk", True, detail)
    return Check("Disk", False, detail, "free some space, or lower --temp-files-num and --max-checkpoints-num")


def _check_cache(cache: WeightsCache) -> Check:
    names = [weights.name for weights in (*ZOO, *BACKBONES) if cache.has(weights)]
    return Check("Weights cache", True, f"{cache.folder}: {', '.join(names) or 'nothing downloaded yet'}")


def _check_weights(config_path: Path, cache: WeightsCache) -> Check:
    name = "Weights in use"
    try:
        config = load_pipeline(config_path)
        if starts_from_random_weights(config):
            fix = "for better suggestions from the start: odkeras init --weights NAME; names: odkeras weights list"
            return Check(name, True, f"random ones, in {config_path}", fix)
    except OdkerasError as error:
        return Check(name, False, str(error), f"correct {config_path}")
    checkpoint = get_fine_tune_checkpoint(config)
    if checkpoint is None:
        return Check(name, True, "those of ImageNet, which are downloaded while the model is built")
    problem = next(checkpoint_problems(checkpoint, field="fine_tune_checkpoint"), None)
    if problem is not None:
        return Check(name, False, f"{checkpoint} {problem.reason}", problem.fix)
    source = cache.name_of(checkpoint) or "a checkpoint of your own"
    return Check(name, True, f"{source} ({get_fine_tune_type(config)}): {checkpoint}")


def _check_model_server(path: str | None) -> Check:
    return Check(
        "TensorFlow Serving", True, path or "tensorflow_model_server is not on the PATH: the embedded server is used"
    )
