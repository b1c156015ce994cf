"""When classes were added, and which classes an answer is about."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from odkeras.errors import SetupError
from odkeras.inbox import batch_written_s, new_batch_name, put_batch
from odkeras.labels import LabelMap
from odkeras.pipeline.class_history import ClassHistory, history_path, note_classes, read_class_history
from odkeras.project import Project

TWO, THREE = LabelMap.from_names(["car", "person"]), LabelMap.from_names(["car", "person", "dog"])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")


def answered(project: Project) -> None:
    put_batch(project.inbox_dir, [{"answer": "accept"}])


def trained(project: Project, label_map: LabelMap) -> None:
    project.model_dir.mkdir()
    (project.model_dir / "ckpt-3.index").touch()
    label_map.save(project.model_dir / "label_map.pbtxt")


class TestHistory:
    def test_an_answer_is_about_the_classes_that_it_could_name(self) -> None:
        history = ClassHistory({"car": 0.0, "dog": 50.0, "cat": 70.0})
        assert history.unjudged(49) == {"dog", "cat"}
        assert history.unjudged(50) == history.unjudged(60) == {"cat"}
        assert history.unjudged(70) == frozenset()
        assert history.unjudged(0, names={"cat", "car"}) == {"dog"}

    def test_a_project_begins_with_all_its_classes(self, project: Project) -> None:
        assert note_classes(project, TWO, lambda: 9.0) == ClassHistory({"car": 0.0, "person": 0.0})
        assert read_class_history(project) == ClassHistory({"car": 0.0, "person": 0.0})

    def test_classes_that_come_later(self, project: Project) -> None:
        note_classes(project, TWO, lambda: 9.0)
        answered(project)
        assert note_classes(project, THREE, lambda: 20.0).added_s == {"car": 0.0, "person": 0.0, "dog": 20.0}
        again = note_classes(project, THREE, lambda: 30.0)
        assert again.added_s["dog"] == 20.0 and again == read_class_history(project)

    def test_times_of_today_are_read_again(self, project: Project) -> None:
        """They were taken for no numbers, and each start noted the class as added then."""
        note_classes(project, TWO)
        answered(project)
        first = note_classes(project, THREE)
        assert abs(first.added_s["dog"] - time.time()) < 60
        assert note_classes(project, THREE) == first == read_class_history(project)

    def test_a_project_of_an_older_odkeras_begins_with_the_classes_of_its_model(self, project: Project) -> None:
        trained(project, TWO)
        answered(project)
        assert note_classes(project, THREE, lambda: 20.0).added_s == {"car": 0.0, "person": 0.0, "dog": 20.0}

    @pytest.mark.parametrize("has_model", [True, False])
    def test_without_answers_or_without_a_model_it_begins_with_all(self, project: Project, has_model: bool) -> None:
        trained(project, TWO) if has_model else answered(project)
        assert not any(note_classes(project, THREE, lambda: 20.0).added_s.values())

    @pytest.mark.parametrize("damage", ["", "[]", '{"added_s": 3}', '{"added_s": {"car": "x"}}', "\x00"])
    def test_a_damaged_file_is_written_again(self, project: Project, damage: str) -> None:
        project.data_dir.mkdir()
        history_path(project).write_text(damage)
        assert set(note_classes(project, TWO).added_s) == {"car", "person"}
        assert set(json.loads(history_path(project).read_text())["added_s"]) == {"car", "person"}

    def test_a_directory_that_cannot_be_written(self, project: Project) -> None:
        history_path(project).mkdir(parents=True)
        with pytest.raises(SetupError, match=r"cannot write .*classes\.json"):
            note_classes(project, TWO)


def test_the_name_of_a_batch_says_when_it_was_written(tmp_path: Path) -> None:
    assert abs(batch_written_s(new_batch_name(tmp_path)) - time.time()) < 60
    assert [batch_written_s(name) for name in ("", "import", "12-3", "x" * 20 + "-1")] == [0.0] * 4
