"""Classes of a project that are renamed, merged, retired or recoloured."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import ConfigError, LabelMapError
from odkeras.init_project import init_project
from odkeras.labels import Label, LabelMap
from odkeras.pipeline import check_trained_classes, check_version_classes, load_pipeline, save_pipeline
from odkeras.pipeline.class_history import ClassHistory, read_class_history
from odkeras.pipeline.label_edits import (
    LabelFiles,
    add_label,
    merge_label,
    recolour_label,
    rename_label,
    retire_label,
)
from odkeras.project import Project
from odkeras.web.database import AnswerDatabase
from odkeras.web.relabel import count_images, relabel
from odkeras.web.stored import StoredAnswer


@pytest.fixture
def files(tmp_path: Path) -> LabelFiles:
    result = init_project(tmp_path, ["car", "person"], template="shapes_96")
    directories = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
    return LabelFiles(result.config_path, result.label_map_path, directories)


def ignore(old: str, new: str) -> None:
    """There are no answers."""


def history_of(files: LabelFiles) -> ClassHistory:
    history = read_class_history(files.project)
    assert history is not None
    return history


def current(files: LabelFiles, name: str) -> str | None:
    return history_of(files).current(name, files.load().texts)


def train(files: LabelFiles) -> None:
    """A checkpoint and a version with the classes of now, as far as they are looked at."""
    model_dir = files.project.model_dir
    model_dir.mkdir()
    (model_dir / "ckpt-30.index").touch()
    save_pipeline(load_pipeline(files.config), model_dir / "pipeline.config")
    files.load().save(model_dir / "label_map.pbtxt")
    extra = files.project.export_dir / "7" / "assets.extra"
    extra.mkdir(parents=True)
    labels = [(label.id, label.name) for label in files.load().labels]
    (extra / "odkeras.json").write_text(json.dumps({"step": 30, "graph": "", "labels": labels}))


def check_model(files: LabelFiles, *, with_history: bool = True) -> None:
    renamed = history_of(files).renamed if with_history else None
    model_dir, export_dir = files.project.model_dir, files.project.export_dir
    config, label_map = load_pipeline(files.config), files.load()
    check_version_classes(label_map, export_dir, 7, renamed)
    check_trained_classes(config, label_map, model_dir=model_dir, export_dir=export_dir, extends=True, renamed=renamed)


class TestRename:
    def test_it_keeps_its_id_and_the_answers_get_the_name(self, files: LabelFiles) -> None:
        calls: list[tuple[str, str]] = []
        add_label(files, "dog")
        before = time.time()
        rename_label(files, "dog", " hound ", lambda old, new: calls.append((old, new)))
        assert calls == [("dog", "hound")]
        assert files.load().labels[2] == Label(3, "hound")
        assert current(files, "dog") == current(files, "hound") == "hound"
        assert "dog" not in history_of(files).added_s
        assert history_of(files).added_s["hound"] >= before

    def test_there_and_back_again(self, files: LabelFiles) -> None:
        for old, new in (("car", "auto"), ("auto", "vehicle"), ("vehicle", "car")):
            rename_label(files, old, new, ignore)
        assert [current(files, name) for name in ("car", "auto", "vehicle")] == ["car"] * 3

    def test_case_alone(self, files: LabelFiles) -> None:
        rename_label(files, "car", "Car", ignore)
        assert files.load().names == ("Car", "person")

    @pytest.mark.parametrize("new", ["", "person", "Person", "x" * 101])
    def test_names_that_are_refused(self, files: LabelFiles, new: str) -> None:
        with pytest.raises(LabelMapError):
            rename_label(files, "car", new, ignore)
        assert files.load().names == ("car", "person") and not history_of(files).renamed

    def test_an_earlier_name_is_not_for_another_class(self, files: LabelFiles) -> None:
        rename_label(files, "car", "auto", ignore)
        with pytest.raises(LabelMapError, match="'car' is an earlier name of 'auto'"):
            add_label(files, "car")

    def test_a_killed_call_is_completed_by_the_same_call(self, files: LabelFiles) -> None:
        """See also tests/unit/test_killed_edits.py."""
        calls: list[tuple[str, str]] = []

        def killed(old: str, new: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rename_label(files, "car", "auto", killed)
        assert files.load().names == ("auto", "person") and current(files, "car") == "auto"
        rename_label(files, "car", "auto", lambda old, new: calls.append((old, new)))
        assert calls == [("car", "auto")]
        assert history_of(files).added_s["auto"] == 0, "the project began with the class"

    def test_the_trained_model_fits(self, files: LabelFiles) -> None:
        train(files)
        rename_label(files, "car", "auto", ignore)
        check_model(files)
        with pytest.raises(ConfigError, match="id 1 is 'car' there and 'auto' here"):
            check_model(files, with_history=False)

    def test_answers_that_arrive_with_an_earlier_name(self, files: LabelFiles) -> None:
        """They had waited in the inbox, or come from Prodigy."""
        rename_label(files, "car", "auto", ignore)
        label_map = history_of(files).with_earlier_names(files.load())
        assert label_map.id_of("car") == label_map.id_of("auto") == 1 and label_map.name_of(1) == "auto"
        assert label_map == files.load() and "car" not in label_map.to_pbtxt()
        retire_label(files, "auto")
        assert history_of(files).with_earlier_names(files.load()).find_id("car") is None


class TestRemove:
    def test_merge(self, files: LabelFiles) -> None:
        """The id is not used again: the model has learned another class with it."""
        calls: list[tuple[str, str]] = []
        add_label(files, "dog")
        train(files)
        merge_label(files, "dog", "person", lambda old, new: calls.append((old, new)))
        assert calls == [("dog", "person")] and files.load().names == ("car", "person")
        assert current(files, "dog") == "person"
        assert add_label(files, "cat").id == 4
        merge_label(files, "person", "car", ignore)
        assert current(files, "dog") == "car", "through another merge"
        check_model(files)

    def test_retire_and_bring_back(self, files: LabelFiles) -> None:
        train(files)
        retire_label(files, "car")
        assert files.load().labels == (Label(2, "person"),) and current(files, "car") is None
        check_model(files)
        assert add_label(files, "car").id == 3
        assert current(files, "car") == "car"

    def test_what_is_refused(self, files: LabelFiles) -> None:
        with pytest.raises(LabelMapError, match="merged with itself"):
            merge_label(files, "car", "car", ignore)
        with pytest.raises(LabelMapError, match="not in the label map"):
            merge_label(files, "car", "dog", ignore)
        retire_label(files, "car")
        with pytest.raises(LabelMapError, match="the only label"):
            retire_label(files, "person")

    def test_other_keypoints(self, files: LabelFiles) -> None:
        LabelMap((Label(1, "car"), Label(2, "person", keypoints=((0, "nose"),)))).save(files.label_map)
        with pytest.raises(LabelMapError, match="different keypoints"):
            merge_label(files, "person", "car", ignore)


@pytest.mark.parametrize("colour", ["red", "#12345", "#1234567", ""])
def test_colours(files: LabelFiles, colour: str) -> None:
    with pytest.raises(LabelMapError, match="is not a colour"):
        recolour_label(files, "car", colour)
    recolour_label(files, "car", "#D55E00")
    rename_label(files, "car", "auto", ignore)
    assert history_of(files).colours == {"auto": "#d55e00"}


def test_the_commands_change_the_answers(files: LabelFiles) -> None:
    folder = files.config.parent

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["labels", arguments[0], str(folder), *arguments[1:]])
        if result.exception is not None:
            raise result.exception
        return result.output

    span = {"label": "car", "points": [[1, 1], [9, 9]]}
    example = {"spans": [span], "_suggestions": {"spans": [span], "candidates": [span]}, "width": 20, "height": 20}
    with AnswerDatabase.open(folder / "annotations.db") as database:
        database.add("cars", [StoredAnswer({**example, "answer": "accept"}, "a" * 32, "anna")])
        database.add("cars", [StoredAnswer({"spans": [], "answer": "reject", "note": "car"}, "b" * 32, "anna")])
    assert run("rename", "car", "auto").startswith("1 answers of cars in ")
    run("add", "van")
    run("merge", "auto", "van")
    assert run("recolour", "van", "#d55e00") == run("retire", "person") == ""
    assert files.load().labels == (Label(3, "van"),)
    with AnswerDatabase.open(folder / "annotations.db") as database:
        answers = {each["answer"]: each for each in database.examples("cars")}
    changed, suggestions = answers["accept"], answers["accept"]["_suggestions"]
    assert [each["label"] for part in (changed, suggestions) for each in part["spans"]] == ["van", "van"]
    assert suggestions["candidates"][0]["label"] == "van" and answers["reject"]["note"] == "car"


@pytest.mark.parametrize("name", ["Käse", 'a "b" \\ c', "\U0001f9c0"])
def test_answers_with_any_name_are_found(tmp_path: Path, name: str) -> None:
    """A name that is not ASCII is stored in one of two forms."""
    span = {"label": name, "points": [[1, 1], [9, 9]]}
    with AnswerDatabase.open(tmp_path / "annotations.db") as database:
        for image_id in ("a" * 32, "b" * 32):
            database.add("d", [StoredAnswer({"spans": [span], "answer": "accept"}, image_id, "anna")])
        ascii_form = json.dumps({"spans": [span], "answer": "accept"})
        with database.transaction("") as connection:
            connection.execute("UPDATE answers SET example = ? WHERE image_id = ?", (ascii_form, "b" * 32))
        assert relabel(database, "d", name, "new") == 2
        assert {each["spans"][0]["label"] for each in database.examples("d")} == {"new"}
        assert count_images(database) == {"new": 2}
