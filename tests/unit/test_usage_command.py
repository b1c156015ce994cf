"""Command lines as people type them first: a project folder, patterns, too few arguments. Real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pictures import draw_pixels, encode
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.cli.usage import missing_arguments
from odkeras.config import option
from odkeras.errors import ConfigError, RecordError

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "odkeras", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def refusal(folder: Path, *arguments: str, code: int = ConfigError.exit_code) -> str:
    """The one line that is said."""
    result = run(folder, *arguments)
    assert (result.returncode, result.stdout) == (code, ""), result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a project, `cars`, and a folder of images, `photos`."""
    (tmp_path / "cars").mkdir()
    (tmp_path / "cars" / "pipeline.config").touch()
    (tmp_path / "photos").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encode(draw_pixels(seed=number), "JPEG"))
    return tmp_path


class TestProjectFolder:
    def test_it_stands_for_its_config(self, folder: Path) -> None:
        (folder / "cars" / "data").mkdir()
        for config in ("cars", "cars/", "cars/pipeline.config", str(folder / "cars")):
            result = run(folder, "stats", config)
            assert (result.returncode, result.stderr) == (0, "")
            assert "no image with suggestions" in result.stdout

    @pytest.mark.parametrize("command", ["annotate", "simulate", "trainer", "train", "eval", "export", "stats"])
    def test_every_command_with_a_config_understands_one(self, folder: Path, command: str) -> None:
        more = {"annotate": ["cars", "photos"], "simulate": ["truth.csv"]}.get(command, [])
        assert refusal(folder, command, *more, "photos").startswith("photos: a folder without a pipeline.config")

    def test_the_recipe_does_too(self, folder: Path) -> None:
        from odkeras.config import AnnotateSettings
        from odkeras.session.arguments import resolve

        arguments = AnnotateSettings(dataset="cars", source="photos", config=folder / "cars")
        assert resolve(arguments).config == folder / "cars" / "pipeline.config"

    def test_a_folder_that_is_no_project(self, folder: Path) -> None:
        line = refusal(folder, "stats", "photos")
        assert line == "photos: a folder without a pipeline.config; `odkeras init` creates a project folder"
        (folder / "photos" / "ssd.config").touch()
        assert refusal(folder, "stats", "photos").endswith("; name one of its files: ssd.config")

    def test_a_model_directory_holds_a_copy(self, folder: Path) -> None:
        """Directories beside that one would be others than the project's."""
        model = folder / "cars" / "model"
        model.mkdir()
        for name in ("pipeline.config", "status.json"):
            (model / name).touch()
        line = refusal(folder, "stats", "cars/model")
        assert line == f"cars/model is a model directory; name the project folder, {folder / 'cars'}"


class TestPatterns:
    def test_the_shell_wrote_out_a_pattern(self, folder: Path) -> None:
        files = [f"photos/{number}.jpg" for number in range(4)]
        for more in ([], ["--no-open"], ["--web-port", "0"]):
            line = refusal(folder, "annotate", "cars", *files, "cars", *more)
            assert line.startswith("SOURCE must be one argument; got 4 files (photos/0.jpg, ...)")
            assert line.endswith(": odkeras annotate DATASET photos CONFIG")

    def test_in_the_working_directory(self, folder: Path) -> None:
        line = refusal(folder / "photos", "annotate", "cars", "0.jpg", "1.jpg", "../cars")
        assert line.endswith("odkeras annotate DATASET . CONFIG")

    @pytest.mark.parametrize("pattern", ["photos/*.png", "photos/?.gif", "photos/[ab].jpg"])
    def test_the_shell_left_a_pattern_as_it_is(self, folder: Path, pattern: str) -> None:
        from odkeras.session.sources import resolve_source

        with pytest.raises(ConfigError, match=r"no file has this name\. Give the folder instead of a pattern"):
            resolve_source(folder / pattern)


class TestTooFewArguments:
    @pytest.mark.parametrize(
        ("given", "line"),
        [
            ([], "odkeras annotate DATASET IMAGES_FOLDER PROJECT_FOLDER"),
            (["cars"], "odkeras annotate cars IMAGES_FOLDER cars"),
            (["photos"], "odkeras annotate DATASET photos PROJECT_FOLDER"),
            (["photos", "cars"], "odkeras annotate cars photos cars"),
            (["mine", "photos"], "odkeras annotate mine photos PROJECT_FOLDER"),
            (["cars/pipeline.config"], "odkeras annotate cars IMAGES_FOLDER cars/pipeline.config"),
            (["cars", "cars/"], "odkeras annotate cars IMAGES_FOLDER cars/"),  # the dataset's name was the images
            (["cars", "--no-open"], "odkeras annotate cars IMAGES_FOLDER cars"),
        ],
    )
    def test_the_line_to_write(self, folder: Path, given: list[str], line: str) -> None:
        said = refusal(folder, "annotate", *given)
        assert said.startswith("three arguments are needed: odkeras annotate DATASET SOURCE CONFIG (")
        assert said.endswith(f"; for example: {line}")

    def test_names_with_spaces_can_be_pasted(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "my photos").mkdir()
        monkeypatch.chdir(folder)
        assert missing_arguments(["my photos"]).endswith("odkeras annotate DATASET 'my photos' PROJECT_FOLDER")

    def test_other_mistakes_are_told_as_ever(self, folder: Path) -> None:
        result = run(folder, "annotate", "cars", "photos", "cars", "--wep-port", "0")
        assert result.returncode == 2
        assert "--web-port" in result.stderr


def test_images_that_are_elsewhere_are_told_once(folder: Path) -> None:
    """Without --images there was a line for each of 150 images."""
    rows = "\n".join(f"{number}.jpg,1,2,30,40,car" for number in range(4))
    (folder / "truth.csv").write_text(f"path,xmin,ymin,xmax,ymax,label\n{rows}\n")
    made = run(folder, "init", "project", "--label", "car", "--template", "shapes_96")
    assert made.returncode == 0, made.stderr
    line = refusal(folder, "simulate", "truth.csv", "project", code=RecordError.exit_code)
    assert line == "none of the 4 images of truth.csv is in . (the first would be 0.jpg); give --images photos"


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("annotate", {option.PAGE, option.TRAINING, option.EVALUATION, option.DIRECTORIES, option.SUGGESTIONS}),
        ("simulate", {option.TRAINING, option.EVALUATION, option.DIRECTORIES, option.SUGGESTIONS}),
        ("trainer", {option.TRAINING, option.EVALUATION, option.DIRECTORIES, option.SERVING}),
        ("train", {option.TRAINING, option.DIRECTORIES}),
        ("eval", {option.TRAINING, option.EVALUATION, option.DIRECTORIES}),
    ],
)
def test_options_are_in_groups(command: str, groups: set[str]) -> None:
    """More than thirty options stood in one table."""
    output = CliRunner().invoke(app, [command, "--help"]).output
    tables = output.split("╭─ ")[1:]
    found = {table.partition(" ─")[0]: table for table in tables}
    assert groups <= set(found)
    assert "--help" in found["Options"] and found["Options"].count("│ --") <= 3
