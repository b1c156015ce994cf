from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from zoo_archives import save_archive

from odkeras import doctor
from odkeras.doctor import Check, Probe, all_ok, check_environment, probe_tensorflow
from odkeras.init_project import init_project
from odkeras.pretrained.cache import WeightsCache

GOOD = Probe("2.21.0", "tf_keras", ())


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, as far as doctor can see."""
    installed = {"tensorflow": "2.21.0", "tf-keras": "2.21.0", "pycocotools": "2.0.11"}
    monkeypatch.setattr(doctor, "_version", installed.get)
    return installed


def test_this_environment_is_fine() -> None:
    checks = check_environment(probe=lambda: GOOD)
    assert [check for check in checks if not check.ok and check.name not in ("GPU", "Disk")] == []
    assert [check.name for check in checks] == [
        "Python",
        "TensorFlow",
        "tf-keras",
        "Keras 2 in TensorFlow",
        "Object Detection API",
        "tf-models-official",
        "pycocotools",
        "GPU",
        "Disk",
        "TensorFlow Serving",
        "Prodigy",
        "Weights cache",
    ]


def test_every_failure_comes_with_a_fix(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    versions.clear()
    monkeypatch.setattr(doctor, "_location", lambda package: None)
    checks = check_environment(probe=lambda: pytest.fail("TensorFlow is not installed: it must not be tried"))
    failed = [check for check in checks if not check.ok]
    assert {check.name for check in failed} >= {"TensorFlow", "tf-keras", "Object Detection API", "pycocotools"}
    assert all(check.fix for check in failed)
    assert not all_ok(checks)


@pytest.mark.parametrize(("version", "ok"), [((3, 9), False), ((3, 10), True), ((3, 13), True), ((3, 14), False)])
def test_python_versions(version: tuple[int, int], ok: bool) -> None:
    check = doctor._check_python(version)
    assert check.ok is ok
    assert ok or "Python 3.10 to 3.13" in check.fix


@pytest.mark.parametrize(
    ("version", "probe", "detail"),
    [
        (None, GOOD, "not installed"),
        ("2.22.0", GOOD, "2.22.0; odkeras is tested with 2.21"),
        ("2.21.0", Probe(error="ImportError: libcudart"), "2.21.0 does not start: ImportError: libcudart"),
    ],
)
def test_tensorflow_that_cannot_be_used(version: str | None, probe: Probe, detail: str) -> None:
    check = doctor._check_tensorflow(version, probe)
    assert (check.ok, check.detail) == (False, detail)
    assert "tensorflow==2.21.*" in check.fix


def test_keras_3_in_use_is_found() -> None:
    assert doctor._check_keras_in_use(GOOD).ok
    assert doctor._check_keras_in_use(Probe("2.21.0", "keras")).detail == "tf.keras is keras"
    assert not doctor._check_keras_in_use(Probe(error="boom")).ok


def test_the_object_detection_api_of_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, versions: dict[str, str]
) -> None:
    monkeypatch.setattr(doctor, "_location", lambda package: tmp_path)
    check = doctor._check_object_detection()
    assert (
        not check.ok and "protos are not compiled" in check.detail and f"in {tmp_path.parent} run: protoc" in check.fix
    )
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "pipeline_pb2.py").touch()
    assert doctor._check_object_detection() == Check("Object Detection API", True, f"your own copy in {tmp_path}")
    versions["tf-object-detection-api"] = "0.1"
    assert doctor._check_object_detection().detail == f"tf-object-detection-api 0.1 in {tmp_path}"


@pytest.mark.parametrize(
    ("probe", "hardware", "ok", "detail"),
    [
        (Probe("2.21.0", "tf_keras", ("NVIDIA H200", "NVIDIA H200")), True, True, "NVIDIA H200, NVIDIA H200"),
        (GOOD, False, True, "none: training runs on the CPU"),
        (GOOD, True, False, "there is an NVIDIA driver, but TensorFlow does not see a GPU"),
    ],
)
def test_gpus(probe: Probe, hardware: bool, ok: bool, detail: str) -> None:
    check = doctor._check_gpu(probe, gpu_hardware=hardware)
    assert check.ok is ok and check.detail.startswith(detail)
    assert ok or "and-cuda" in check.fix


def test_a_full_disk_and_a_directory_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10, 9, 2**30))
    check = doctor._check_disk(tmp_path / "new" / "project")
    assert (check.ok, check.detail) == (False, f"1.0 GB free in {tmp_path}")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10, 9, 2**40))
    assert doctor._check_disk(tmp_path).ok


@pytest.fixture
def fake_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of that name, found before the real one."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "tensorflow.py"


def test_the_probe_reports_what_tensorflow_says(fake_tensorflow: Path) -> None:
    fake_tensorflow.write_text(
        "import os, types\n"
        "print('a greeting')\n"
        "__version__ = '9.9'\n"
        "Model = type('Model', (), {'__module__': 'tf_keras.' + os.environ['TF_USE_LEGACY_KERAS']})\n"
        "keras = types.SimpleNamespace(Model=Model)\n"
        "gpus = [types.SimpleNamespace(name='/gpu:0'), types.SimpleNamespace(name='/gpu:1')]\n"
        "details = {'/gpu:0': {'device_name': 'Fast One'}, '/gpu:1': {}}\n"
        "config = types.SimpleNamespace(\n"
        "    list_physical_devices=lambda kind: gpus,\n"
        "    experimental=types.SimpleNamespace(get_device_details=lambda gpu: details[gpu.name]))\n"
    )
    assert probe_tensorflow() == Probe("9.9", "tf_keras", ("Fast One", "/gpu:1"))


def test_the_probe_reports_a_tensorflow_that_crashes(fake_tensorflow: Path) -> None:
    fake_tensorflow.write_text("raise ImportError('no AVX here')")
    assert probe_tensorflow().error == "ImportError: no AVX here"
    fake_tensorflow.write_text("import os; os._exit(7)")
    assert probe_tensorflow().error == "exit code 7"


def test_the_probe_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], *, timeout: float, **kwargs: Any) -> Any:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert probe_tensorflow(3.0).error == "no answer within 3 s"


def test_doctor_itself_does_not_import_tensorflow() -> None:
    code = (
        "import sys; from odkeras.doctor import *; check_environment(probe=lambda: Probe('2.21.0', 'tf_keras')); "
        "assert 'tensorflow' not in sys.modules and 'official' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def weights_in_use(config: Path) -> Check:
    return by_name(check_environment(config=config, probe=lambda: GOOD))["Weights in use"]


def test_the_weights_in_use_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODKERAS_CACHE", str(tmp_path / "cache"))
    random = weights_in_use(init_project(tmp_path / "random", ["a"]).config_path)
    assert random.ok and random.detail.startswith("random ones") and "--weights NAME" in random.fix

    folder = tmp_path / "cache" / "zoo" / "efficientdet_d0_coco17_tpu-32"
    WeightsCache().unpacked(save_archive(tmp_path / "m.tar.gz")).rename(folder)
    checkpoint = str(folder / "checkpoint" / "ckpt-0")
    config = init_project(tmp_path / "zoo", ["a"], fine_tune_checkpoint=checkpoint).config_path
    named = weights_in_use(config)
    assert (named.ok, named.detail) == (True, f"efficientdet_d0_coco17_tpu-32 (detection): {checkpoint}")
    cached = by_name(check_environment(probe=lambda: GOOD))["Weights cache"]
    assert cached.detail == f"{tmp_path / 'cache'}: efficientdet_d0"

    Path(f"{checkpoint}.index").unlink()
    gone = weights_in_use(config)
    assert not gone.ok and f"no such checkpoint: {checkpoint}.index" in gone.detail
    config.write_text("model {")
    assert not weights_in_use(config).ok
