"""The commands of the end page work as pasted: from any directory, with directories and names that are not usual."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
import typer.main
from fixtures_web import Annotating, Page, save_images

from odkeras.cli import app
from odkeras.init_project import init_project
from odkeras.web import next_steps as module

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Start = Callable[..., Annotating]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(web_project: Path) -> Path:
    """A project of `odkeras init`, at a path that needs quoting in a shell."""
    folder = web_project / "anna's $HOME; rm"
    init_project(folder, ["thing", "other"], template="shapes_96")
    (folder / "model").mkdir()
    (folder / "model" / "ckpt-1.index").touch()
    save_images(folder / "images")
    return folder


def steps_of(page: Page) -> dict[str, dict[str, Any]]:
    found = page.get("/api/next-steps").json()["steps"]
    return {step["title"]: step for step in found}


def run(command: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def parsed(command: str) -> dict[str, Any]:
    """What the command line makes of it, with paths as text."""
    program, name, *arguments = shlex.split(command)
    assert program == "odkeras"
    group: Any = typer.main.get_command(app)
    context = group.commands[name].make_context(name, arguments)
    return {name: str(value) if isinstance(value, Path) else value for name, value in context.params.items()}


def test_the_labels_are_written_from_any_directory(annotate: Start, folder: Path, tmp_path: Path) -> None:
    places = {"config": f"{folder}/pipeline.config", "model_dir": f"{folder}/model"}
    page = annotate(source=f"{folder}/images", db=folder / "a b.db", **places).page()
    page.answer(page.tasks()["tasks"][0])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    steps = steps_of(page)
    run(steps["Get the labels, as JSON lines"]["command"], elsewhere)
    run(steps["Get the labels, as COCO"]["command"], elsewhere)
    (answer,) = map(json.loads, (folder / "answers.jsonl").read_text().splitlines())
    assert answer["spans"][0]["label"] == "thing"
    assert len(json.loads((folder / "answers_coco.json").read_text())["annotations"]) == 1
    run(steps["Get the labels and the images for another tool, here YOLO"]["command"], elsewhere)
    assert len([*(folder / "answers_yolo").glob("labels/*/*.txt")]) == 1
    assert "no image with suggestions" in run(steps["See how good the suggestions were"]["command"], elsewhere)
    assert list(elsewhere.iterdir()) == []


def test_relative_paths_are_those_of_where_annotate_runs(annotate: Start, folder: Path, tmp_path: Path) -> None:
    config = os.path.relpath(folder / "pipeline.config")
    page = annotate(config=config, db=Path("other.db")).page()
    page.answer(page.tasks()["tasks"][0])
    run(steps_of(page)["Get the labels, as JSON lines"]["command"], tmp_path)
    assert (folder / "answers.jsonl").is_file()


def test_a_dataset_that_looks_like_an_option(annotate: Start, tmp_path: Path, web_project: Path) -> None:
    page = annotate(dataset="--all things").page()
    page.answer(page.tasks()["tasks"][0])
    run(steps_of(page)["Get the labels, as COCO"]["command"], tmp_path)
    assert (web_project / "answers_coco.json").is_file()
    run(steps_of(page)["Get the labels and the images for another tool, here YOLO"]["command"], tmp_path)
    assert (web_project / "answers_yolo" / "data.yaml").is_file()
    shown = module.export_command("--all things", web_project / "annotations.db")  # when annotate stops
    assert json.loads(run(shown, tmp_path))["answer"] == "accept"


class TestTheModel:
    def usual(self, annotate: Start, folder: Path, **places: str) -> Page:
        usual = {name: f"{folder}/{name.removesuffix('_dir')}" for name in ("data_dir", "model_dir", "export_dir")}
        return annotate(config=f"{folder}/pipeline.config", **{**usual, **places}).page()

    def test_export(self, annotate: Start, folder: Path) -> None:
        command = steps_of(self.usual(annotate, folder))["Export the model for TensorFlow Serving"]["command"]
        assert "--model-dir" not in command and "--label-map-path" not in command
        assert parsed(command)["config"] == str(folder / "pipeline.config")
        assert parsed(command)["export_dir"] == str(folder / "final")

    def test_other_directories_and_another_label_map(self, annotate: Start, folder: Path, web_project: Path) -> None:
        (web_project / "trained").mkdir()
        (web_project / "trained" / "ckpt-20.index").touch()
        page = self.usual(
            annotate, folder, model_dir="trained", data_dir="elsewhere/data", label_map_path="label_map.pbtxt"
        )
        steps = steps_of(page)
        export = parsed(steps["Export the model for TensorFlow Serving"]["command"])
        assert export["model_dir"] == str(web_project / "trained")
        assert export["label_map_path"] == str(web_project / "label_map.pbtxt")
        stats = parsed(steps["See how good the suggestions were"]["command"])
        assert stats["config"] == str(folder / "pipeline.config")
        assert stats["data_dir"] == str(web_project / "elsewhere" / "data")

    def test_without_a_checkpoint_there_is_nothing_to_judge_or_export(self, annotate: Start, folder: Path) -> None:
        """`odkeras eval` would refuse, and `odkeras export` would write random weights."""
        (folder / "model" / "ckpt-1.index").unlink()
        assert set(steps_of(self.usual(annotate, folder))) == {
            "Get the labels, as JSON lines",
            "Get the labels, as COCO",
            "Get the labels and the images for another tool, here YOLO",
        }

    def test_evaluation_is_offered_where_there_is_something_to_evaluate_on(self, annotate: Start, folder: Path) -> None:
        page = self.usual(annotate, folder)
        assert "Evaluate the model" not in steps_of(page)
        assert "--eval-split 0.2" in steps_of(page)["See how good the suggestions were"]["remark"]
        (folder / "data" / "test_eval.record").write_bytes(b"a record")
        step = steps_of(page)["Evaluate the model"]
        assert parsed(step["command"])["config"] == str(folder / "pipeline.config")
        assert steps_of(page)["See how good the suggestions were"]["remark"] == ""


class TestTheProgram:
    def test_the_program_s_name_where_it_is_on_the_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
        assert module._program() == ["odkeras"]

    @pytest.mark.parametrize("installed_elsewhere", [False, True])
    def test_the_program_s_path_where_it_is_not_on_the_path(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed_elsewhere: bool
    ) -> None:
        if installed_elsewhere:
            (tmp_path / "odkeras").write_text("#!/bin/sh\n")
            (tmp_path / "odkeras").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        (program,) = module._program()
        assert Path(program) == Path(sys.executable).with_name("odkeras")
        assert run(f"{shlex.quote(program)} --version", tmp_path).startswith("odkeras ")

    def test_as_a_module_where_there_is_no_program(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        python = tmp_path / "bin" / "python"
        monkeypatch.setattr(sys, "executable", str(python))
        monkeypatch.setenv("PATH", "")
        assert module._program() == [str(python), "-m", "odkeras"]


def test_the_token_is_needed(annotate: Start) -> None:
    from odkeras.web.security import Policy

    assert annotate(policy=Policy(token="correct horse")).page().get("/api/next-steps").status_code == 401
