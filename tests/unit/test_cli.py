"""The command line: help with examples, exit codes, one line per error, no TensorFlow where none is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from odkeras import __version__
from odkeras.cli import app
from odkeras.cli.annotate import _directory
from odkeras.config import declared_options
from odkeras.errors import ConfigError, ImageError, OdkerasError, SetupError


def commands_of(command: Any, name: str = "") -> Iterator[str]:
    """The full names of a command, or of all commands in it."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name
    for child, sub in (children or {}).items():
        yield from commands_of(sub, f"{name} {child}".strip())


COMMANDS = list(commands_of(typer.main.get_command(app)))


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "odkeras", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_a_plain_usage_line_and_ends_with_an_example(command: str) -> None:
    """The usage line had `{config}` for CONFIG."""
    result = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="odkeras")
    assert result.exit_code == 0
    usage = " ".join(re.split(r"\n\s*\n", result.output.partition("Usage:")[2])[0].split())
    argument = r"(?: (?:[A-Z][A-Z_]*(?:\.\.\.)?|\[[A-Z][A-Z_]*\]))*"
    assert re.fullmatch(rf"odkeras {command} \[OPTIONS\]{argument}", usage), usage
    last = " ".join(result.output.strip().rpartition("╯")[2].split())
    assert last.startswith(f"Example: odkeras {command} ") or last == f"Example: odkeras {command}"


def test_hidden_options_stay_hidden() -> None:
    for command in ("trainer", "serve"):
        assert "stop-on-stdin-eof" not in CliRunner().invoke(app, [command, "--help"]).output


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"odkeras {__version__}\n"


def test_help_imports_neither_tensorflow_nor_numpy() -> None:
    """`odkeras --help` took seconds as soon as one command module imported its library at the top."""
    code = (
        "import sys; from odkeras.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('tensorflow', 'numpy', 'urllib3', 'PIL', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    result = run("init", str(tmp_path / "project"), "--label", " car")
    assert result.returncode == ConfigError.exit_code
    assert result.stderr.startswith("error: label ' car' has surrounding spaces")
    assert len(result.stderr.splitlines()) == 1


def test_init_writes_a_project_and_refuses_to_overwrite_it(tmp_path: Path) -> None:
    first = run("init", "shapes", "--label", "circle", "--label", "square", "--template", "shapes_96", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "shapes" / "label_map.pbtxt").read_text().count("item") == 2
    assert "odkeras simulate" in first.stdout
    again = run("init", "shapes", "--label", "circle", "--template", "shapes_96", cwd=tmp_path)
    assert again.returncode == ConfigError.exit_code
    assert "--force" in again.stderr


def test_an_unknown_template_names_the_known_ones(tmp_path: Path) -> None:
    result = run("init", str(tmp_path), "--label", "car", "--template", "yolo")
    assert result.returncode == ConfigError.exit_code
    assert "shapes_96" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--replay", "maybe"], "--replay is 'maybe'; allowed: on, off"),
        (["--steps-per-epoch", "-2"], "--steps-per-epoch is -2; allowed: a number of steps, or -1 for one pass"),
    ],
)
def test_the_trainer_refuses_wrong_options_at_once(tmp_path: Path, options: list[str], message: str) -> None:
    result = run("trainer", str(tmp_path / "pipeline.config"), *options)
    assert result.returncode == ConfigError.exit_code
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_differ_by_what_a_person_can_do() -> None:
    codes = (OdkerasError.exit_code, ConfigError.exit_code, SetupError.exit_code)
    assert codes == (1, 2, 3)
    assert str(ImageError("truncated", "a.jpg")) == "a.jpg: truncated"


def test_directories_of_annotate_with_a_server_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With IP they were in the working directory, where they are used if they are there; else they are beside CONFIG,
    as without."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_dir").mkdir()
    config = Path("cars/pipeline.config")
    assert _directory("data_dir", None, config, "127.0.0.1") == str(tmp_path / "data_dir")
    assert _directory("model_dir", None, config, "127.0.0.1") == str(tmp_path / "cars" / "model")
    assert _directory("data_dir", None, config, None) == str(tmp_path / "cars" / "data")
    assert _directory("data_dir", Path("mine"), config, "127.0.0.1") == str(tmp_path / "mine")


def test_annotate_has_every_option_of_the_recipe() -> None:
    ours = {each.name for each in declared_options("annotate")}
    theirs = {each.name for each in declared_options("recipe")}
    assert theirs - ours == {"api", "remove_base64"}  # Prodigy's own loaders; the page always stores paths
