"""What TensorFlow writes to file descriptor 2 while it is imported: information is left out, reasons are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from odkeras.errors import SetupError
from odkeras.labels import LabelMap

NOISE = r"""
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795893528.535854    8218 cudart_stub.cc:31] Could not find cuda drivers, GPU will not be used.
I0000 00:00:1795893528.637834    8218 cpu_feature_guard.cc:227] This TensorFlow binary is optimized.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
W0000 00:00:1795893528.637834    8218 gpu_device.cc:2433] Cannot dlopen some GPU libraries.
"""
ERRORS = (
    "E0000 00:00:1795893532.848488    8218 cuda_platform.cc:52] failed call to cuInit",
    "F0000 00:00:1795893532.848488    8218 cpu_feature_guard.cc:38] compiled to use AVX instructions",
    "it ends without a line break",
)
MODULE = f"""
import os
os.write(2, {NOISE.lstrip()!r}.encode())
os.write(2, {chr(10).join(ERRORS)!r}.encode())
"""


def run(folder: Path, ending: str = "", *, level: int = 40) -> subprocess.CompletedProcess[str]:
    (folder / "noisy.py").write_text(MODULE + ending)
    code = (
        "import sys\nfrom odkeras.logs import configure_logging, quiet_import\n"
        f"configure_logging({level})\nquiet_import('noisy')\nquiet_import('noisy')\nprint('after', file=sys.stderr)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_information_is_left_out_and_errors_are_not(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "\n".join(ERRORS) + "after\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_the_output_of_an_import_that_aborts_is_shown(tmp_path: Path) -> None:
    result = run(tmp_path, "os.abort()\n")
    assert result.returncode < 0
    assert result.stderr == "\n".join(ERRORS)


def test_a_failed_import_is_reported(tmp_path: Path) -> None:
    result = run(tmp_path, "raise ImportError('libcudart is another one')\n")
    assert result.returncode == 1
    assert result.stderr.startswith("\n".join(ERRORS) + "Traceback")
    assert result.stderr.endswith("ImportError: libcudart is another one\n")


HIDDEN = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder
from odkeras.cli import main
sys.argv[0] = "odkeras"
main()
"""


@pytest.mark.parametrize("command", ["trainer P", "records from-csv a.csv out -lmp L"])
def test_without_tensorflow_a_command_says_how_to_install_it(tmp_path: Path, command: str) -> None:
    """It ended with a traceback and status 1, for which `annotate` starts a trainer again."""
    (tmp_path / "P").touch()
    LabelMap.from_names(["car"]).save(tmp_path / "L")
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, *command.split()],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == SetupError.exit_code
    assert done.stderr.splitlines()[-1] == (
        "error: the Python package 'tensorflow' is not installed; run: pip install 'tensorflow>=2.21,<2.22'"
    )
    assert "Traceback" not in done.stderr


def test_the_log_level_shows_everything(tmp_path: Path) -> None:
    assert run(tmp_path, level=20).stderr == NOISE.lstrip() + "\n".join(ERRORS) + "after\n"
