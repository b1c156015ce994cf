"""Edits of the classes of a project: the files, crashes, the command."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import ConfigError, LabelMapError
from odkeras.init_project import init_project
from odkeras.labels import Label, LabelMap
from odkeras.pipeline import check_pipeline, label_edits, load_pipeline, num_classes, save_pipeline
from odkeras.pipeline.label_edits import LabelFiles, add_label, raise_num_classes
from odkeras.project import Project


@pytest.fixture(params=["ssd_mobilenet_v2_fpnlite_320", "faster_rcnn_resnet50_640", "centernet_resnet50_512"])
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def project(folder: Path, template: str = "shapes_96") -> LabelFiles:
    result = init_project(folder, ["car", "person"], template=template)
    return LabelFiles(
        result.config_path, result.label_map_path, Project(folder / "data", folder / "model", folder / "export")
    )


def test_a_class_is_added(tmp_path: Path, template: str) -> None:
    files = project(tmp_path, template)
    before = load_pipeline(files.config)
    comments = [line for line in files.config.read_text().splitlines() if line.startswith("#")]
    assert add_label(files, "  dog ") == Label(3, "dog")
    assert files.load().names == ("car", "person", "dog")
    after = load_pipeline(files.config)
    assert num_classes(after) == 3
    assert not [
        problem for problem in check_pipeline(after, label_map=None, purpose="loop") if "class" in problem.field
    ]
    label_edits.set_num_classes(after, 2)
    assert after == before, "nothing else has changed"
    assert [line for line in files.config.read_text().splitlines() if line.startswith("#")] == comments


def test_comments_and_fields_of_the_label_map_stay(tmp_path: Path) -> None:
    files = project(tmp_path)
    text = "# mine\nitem { id: 7 name: 'car' display_name: 'Car' frequency: RARE }  # with more"
    files.label_map.write_text(text)
    raise_num_classes(files.config, 7)
    assert add_label(files, "dog").id == 8
    assert files.label_map.read_text().startswith(text)
    assert [label.id for label in files.load().labels] == [7, 8] and num_classes(load_pipeline(files.config)) == 8


def test_room_in_the_model_is_used(tmp_path: Path) -> None:
    files = project(tmp_path)
    raise_num_classes(files.config, 5)
    text = files.config.read_text()
    add_label(files, "dog")
    assert files.config.read_text() == text


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    files = project(tmp_path)
    add_label(files, "dog")
    before = files.config.read_bytes(), files.label_map.read_bytes()
    assert add_label(files, "dog").id == 3
    assert (files.config.read_bytes(), files.label_map.read_bytes()) == before


@pytest.mark.parametrize("after_writes", [0, 1])
def test_a_killed_edit_is_completed_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_writes: int
) -> None:
    """Every state between is valid: the model has an output that no class uses yet."""
    files, writes = project(tmp_path), 0
    write = label_edits.write_atomically

    def killed(path: Path, data: str) -> None:
        nonlocal writes
        if writes == after_writes:
            raise KeyboardInterrupt
        writes += 1
        write(path, data)

    monkeypatch.setattr(label_edits, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        add_label(files, "dog")
    problems = check_pipeline(load_pipeline(files.config), label_map=files.load(), purpose="loop")
    assert not [problem for problem in problems if problem.severity == "error"]
    assert files.load().names == ("car", "person")
    monkeypatch.setattr(label_edits, "write_atomically", write)
    add_label(files, "dog")
    assert files.load().names == ("car", "person", "dog") and num_classes(load_pipeline(files.config)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "1 to 100 printable characters"),
        ("  ", "1 to 100 printable characters"),
        ("a\nb", "in one line, without a comma; got 'a"),
        ("cat,dog", "without a comma"),
        ("\x00", "printable"),
        ("x" * 101, "1 to 100"),
        ("Car", "there is a label 'car' already, which is like 'Car'"),
        ("per-son", "'person' already"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, name: str, message: str) -> None:
    files = project(tmp_path)
    before = files.config.read_bytes(), files.label_map.read_bytes()
    with pytest.raises(LabelMapError, match=message):
        add_label(files, name)
    assert (files.config.read_bytes(), files.label_map.read_bytes()) == before


@pytest.mark.parametrize("name", ['say "hi"', "back\\slash", "Straße", "狸", "{ }", "# no comment", "a'b"])
def test_names_with_odd_characters(tmp_path: Path, name: str) -> None:
    files = project(tmp_path)
    add_label(files, name)
    assert files.load().names == ("car", "person", name)


def test_edits_at_the_same_time_do_not_lose_each_other(tmp_path: Path) -> None:
    files = project(tmp_path)
    threads = [threading.Thread(target=add_label, args=(files, f"part {number}")) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(files.load().names) == {"car", "person", *(f"part {number}" for number in range(6))}
    assert files.load().ids == tuple(range(1, 9)) and num_classes(load_pipeline(files.config)) == 8


def test_a_config_without_the_number(tmp_path: Path) -> None:
    files = project(tmp_path)
    config = load_pipeline(files.config)
    config.model.center_net.ClearField("num_classes")
    save_pipeline(config, files.config)
    with pytest.raises(ConfigError, match="no num_classes to replace; set num_classes: 3"):
        add_label(files, "dog")
    assert files.load().names == ("car", "person")


class TestCommand:
    def run(self, *arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["labels", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def test_add_and_list(self, tmp_path: Path) -> None:
        project(tmp_path)
        assert self.run("add", tmp_path, "dog") == (
            0,
            "dog has id 3; the model is extended when the trainer starts\n",
        )
        status, text = self.run("list", tmp_path / "pipeline.config")
        assert status == 0
        assert [line.split() for line in text.splitlines()[2:]] == [["car", "1"], ["person", "2"], ["dog", "3"]]

    def test_another_label_map(self, tmp_path: Path) -> None:
        project(tmp_path)
        LabelMap.from_names(["car", "person", "cat"]).save(tmp_path / "mine.pbtxt")
        self.run("add", tmp_path, "dog", "--label-map-path", tmp_path / "mine.pbtxt")
        assert LabelMap.load(tmp_path / "mine.pbtxt").names == ("car", "person", "cat", "dog")

    def test_no_project(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"without a pipeline\.config"):
            self.run("add", tmp_path, "dog")
