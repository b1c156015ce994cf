"""What recipes/README.md, the compose file and the Docker script say is so."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from odkeras.config import declared_options

ROOT = Path(__file__).parents[2]
README = ROOT / "recipes" / "README.md"
SCRIPT = ROOT / "scripts" / "run_tensorflow_serving.sh"


def test_the_options_tables_are_those_of_the_code() -> None:
    command = [sys.executable, "scripts/recipe_options.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_recipe_has_the_declared_options() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from recipe_options import read_recipe
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    for file, command in (("image_train", "recipe"), ("image_serving", "servingmodel")):
        function, annotations = read_recipe(file)
        parameters = inspect.signature(function).parameters
        assert list(parameters) == list(annotations)
        for declared in declared_options(command):
            not_given = False if declared.type is bool else inspect.Parameter.empty if declared.required else None
            assert parameters[declared.name].default is not_given, "its default is that of the declaration"
            assert annotations[declared.name][2] == (declared.option.short or None)


def test_every_option_of_the_readme_exists() -> None:
    text = README.read_text(encoding="utf-8")
    tables = "".join(re.findall(r"<!-- options: .*?<!-- end -->", text, re.DOTALL))
    known = set(re.findall(r"--[a-z][a-z0-9-]+", tables))
    used = {
        option
        for line in text.splitlines()
        for command in re.findall(r"(?:prodigy image\.\w+ |`-)[^`]*", line)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", command)
    }
    assert used - known <= {"--help"}


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")))
def test_links_lead_somewhere(target: str) -> None:
    assert target.startswith("https://") or (README.parent / target).exists()


def test_the_example_host_is_python() -> None:
    for block in re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        compile(block, "README.md", "exec")


def test_compose_serves_the_export_directory_and_shows_the_model_directory() -> None:
    document = yaml.safe_load((ROOT / "configs" / "serving" / "compose.yaml").read_text(encoding="utf-8"))
    serving, tensorboard = document["services"]["serving"], document["services"]["tensorboard"]
    assert serving["volumes"][0]["source"].startswith("${EXPORT_DIR:?")
    assert serving["volumes"][0]["target"] == "/models/${MODEL_NAME:-odkeras}"  # where the image looks
    assert serving["environment"] == {"MODEL_NAME": "${MODEL_NAME:-odkeras}"}
    assert serving["ports"] == ["127.0.0.1:${REST_PORT:-8501}:8501"]
    assert tensorboard["volumes"][0]["source"].startswith("${MODEL_DIR:?")
    assert all(volume["read_only"] for service in (serving, tensorboard) for volume in service["volumes"])


class TestTheDockerScript:
    def run(self, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *arguments],
            cwd=cwd,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_what_it_would_run(self, tmp_path: Path) -> None:
        done = self.run("my export", "raccoon", "9000", cwd=tmp_path, DRY_RUN="1")
        command = shlex.split(done.stdout)
        assert command[:4] == ["docker", "run", "--rm", "--init"]
        assert command[command.index("--publish") + 1] == "127.0.0.1:9000:8501"
        mount = f"type=bind,source={tmp_path / 'my export'},target=/models/raccoon,readonly"
        assert command[command.index("--mount") + 1] == mount
        assert command[-2:] == ["tensorflow/serving:latest", "--file_system_poll_wait_seconds=1"]
        assert "--gpus" not in command

    def test_a_gpu_image_gets_the_gpus(self, tmp_path: Path) -> None:
        done = self.run("export", cwd=tmp_path, DRY_RUN="1", TENSORFLOW_SERVING_IMAGE="tensorflow/serving:latest-gpu")
        command = shlex.split(done.stdout)
        assert command[command.index("--gpus") + 1] == "all"
        assert "MODEL_NAME=odkeras" in command

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "run_tensorflow_serving.sh EXPORT_DIR [MODEL_NAME] [REST_PORT]"),
            (("export", "a/b"), "MODEL_NAME is 'a/b'"),
            (("export", "a", "http"), "REST_PORT is 'http'"),
            (("export", "a", "70000"), "REST_PORT is '70000'"),
        ],
    )
    def test_wrong_arguments(self, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
        done = self.run(*arguments, cwd=tmp_path, DRY_RUN="1")
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr

    def test_without_docker_it_names_the_other_way(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        for name in ("bash", "sed"):
            (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
        done = self.run("export", "raccoon", cwd=tmp_path, PATH=str(tmp_path / "bin"))
        assert done.returncode == 3
        assert "odkeras serve --model-name raccoon --model-base-path export" in done.stderr
