"""Which database is used: work that is stored somewhere must never look lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from odkeras.errors import DatabaseError
from odkeras.pipeline import load_pipeline, save_pipeline
from odkeras.pipeline.templates import read_template
from odkeras.web.database import AnswerDatabase
from odkeras.web.location import DatabasePlace, find_database, remember_database
from odkeras.web.stored import StoredAnswer

ROOT = Path(__file__).parents[2]


def fill(path: Path, dataset: str, answers: int = 1, image: str = "images/0.png") -> Path:
    with AnswerDatabase.open(path) as database:
        examples = [{"image": image, "path": image, "answer": "accept", "spans": []} for _ in range(answers)]
        database.add(dataset, [StoredAnswer(each, f"{n:032x}", "anna") for n, each in enumerate(examples)])
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder below the working directory."""
    folder = tmp_path / "cars"
    (folder / "data").mkdir(parents=True)
    (folder / "pipeline.config").touch()
    monkeypatch.chdir(tmp_path)
    return folder


def find(project: Path, dataset: str | None = "cars", also: tuple[str, ...] = ()) -> DatabasePlace:
    return find_database(None, Path(project.name), dataset, data_dir=project / "data", also=also)


class TestFinding:
    def test_the_default_is_beside_the_config(self, project: Path) -> None:
        assert find(project) == DatabasePlace(
            project / "annotations.db", (project / "annotations.db", project.parent / "annotations.db")
        )
        assert not list(project.parent.glob("**/*.db")), "looking makes no file"

    def test_a_named_database_wins(self, project: Path) -> None:
        fill(project / "annotations.db", "cars")
        found = find_database(Path("other.db"), project, "cars", data_dir=project / "data")
        assert (found.path, found.remarks) == (Path("other.db"), ())

    def test_an_old_database_in_the_working_directory_is_used(self, project: Path) -> None:
        old = fill(project.parent / "annotations.db", "cars")
        found = find(project)
        assert found.path == old
        assert "these answers are in the working directory, where odkeras stored them before" in found.remarks[0]

    def test_an_old_database_wins_over_a_new_one_without_answers_of_the_dataset(self, project: Path) -> None:
        """As it is when the page was once started from elsewhere."""
        old = fill(project.parent / "annotations.db", "cars")
        fill(project / "annotations.db", "boats")
        assert find(project).path == old

    def test_an_old_database_of_another_project_is_ignored(self, project: Path) -> None:
        fill(project.parent / "annotations.db", "boats")
        assert find(project) == DatabasePlace(
            project / "annotations.db", (project / "annotations.db", project.parent / "annotations.db")
        )

    def test_a_remark_names_the_other_database_with_answers(self, project: Path) -> None:
        fill(project / "annotations.db", "cars", 2)
        old = fill(project.parent / "annotations.db", "cars", 3)
        found = find(project)
        assert found.path == project / "annotations.db"
        assert found.remarks == (f"{old} has 3 answers of dataset cars, too; --db uses that one",)

    def test_a_dataset_to_exclude_decides_too(self, project: Path) -> None:
        """`--exclude boats`, or SOURCE `dataset:boats`, in a dataset that is new."""
        old = fill(project.parent / "annotations.db", "boats")
        assert find(project, also=("boats",)).path == old
        assert find(project, also=("planes",)).path == project / "annotations.db"

    def test_in_the_project_s_folder_both_places_are_the_same(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(project)
        fill(project / "annotations.db", "cars")
        found = find_database(None, Path(), "cars", data_dir=Path("data"))
        assert (found.path, found.remarks) == (project / "annotations.db", ())

    def test_a_database_used_before_is_found_from_anywhere(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        old = fill(project.parent / "annotations.db", "cars")
        remember_database(project / "data", "cars", Path("annotations.db"), project)
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        found = find_database(None, project, "cars", data_dir=project / "data")
        assert found.path == old
        assert "were stored in" in found.remarks[0]
        assert find_database(None, project, None, data_dir=project / "data").path == old

    def test_the_default_place_is_not_recorded(self, project: Path) -> None:
        note = project / "data" / "databases.json"
        remember_database(project / "data", "cars", project / "annotations.db", project)
        assert not note.exists()
        remember_database(project / "data", "cars", Path("a.db"), project)
        remember_database(project / "data", "boats", Path("b.db"), project)
        assert json.loads(note.read_text()) == {
            "cars": str(project.parent / "a.db"),
            "boats": str(project.parent / "b.db"),
        }
        remember_database(project / "data", "cars", project / "annotations.db", project)
        assert list(json.loads(note.read_text())) == ["boats"]
        note.write_text("no JSON")
        assert find(project).path == project / "annotations.db"

    def test_an_unreadable_database_is_an_error(self, project: Path) -> None:
        """It counted as one without answers, and another database was used without a word."""
        path = fill(project / "annotations.db", "cars")
        fill(project.parent / "annotations.db", "cars")
        data = path.read_bytes()
        path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
        with pytest.raises(DatabaseError, match=r"annotations\.db: cannot be read.*malformed.*--db"):
            find(project)


class TestOldRelativePaths:
    """They started in the working directory, which is where the database was."""

    def test_old_relative_paths_resolve_from_another_folder(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (project.parent / "images").mkdir()
        (project.parent / "images" / "0.png").touch()
        old = fill(project.parent / "annotations.db", "cars")
        with AnswerDatabase.open(old) as database:
            assert database.examples("cars")[0]["image"] == "images/0.png"
        monkeypatch.chdir(project)
        with AnswerDatabase.open(old) as database:
            (example,) = database.examples("cars")
        assert example["image"] == example["path"] == str(project.parent / "images" / "0.png")

    @pytest.mark.parametrize("image", ["gone.png", "https://a.org/images/0.png", "data:image/png;base64,AA", "/a.png"])
    def test_other_paths_are_unchanged(self, project: Path, monkeypatch: pytest.MonkeyPatch, image: str) -> None:
        old = fill(project.parent / "annotations.db", "cars", image=image)
        monkeypatch.chdir(project)
        with AnswerDatabase.open(old) as database:
            assert database.examples("cars")[0]["image"] == image


class TestPathsOfTheConfig:
    def test_relative_paths_that_exist_beside_the_config_become_absolute(self, project: Path) -> None:
        config = load_pipeline_of_template(project)
        config.train_input_reader.label_map_path = "label_map.pbtxt"
        config.train_input_reader.tf_record_input_reader.input_path[:] = ["data/*_train.record", "elsewhere/*.record"]
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = ["gs://bucket/a.record"]
        config.train_config.fine_tune_checkpoint = "zoo/ckpt-0"
        save_pipeline(config, project / "pipeline.config")
        for name in ("label_map.pbtxt", "data/1_train.record", "zoo/ckpt-0.index"):
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).touch()
        (project.parent / "label_map.pbtxt").touch()  # of another project, in the working directory
        loaded = load_pipeline("cars/pipeline.config")
        assert loaded.train_input_reader.label_map_path == str(project / "label_map.pbtxt")
        assert list(loaded.train_input_reader.tf_record_input_reader.input_path) == [
            str(project / "data/*_train.record"),
            "elsewhere/*.record",
        ]
        assert list(loaded.eval_input_reader[0].tf_record_input_reader.input_path) == ["gs://bucket/a.record"]
        assert loaded.train_config.fine_tune_checkpoint == str(project / "zoo/ckpt-0")


def load_pipeline_of_template(project: Path) -> object:
    (project / "template.config").write_text(read_template("shapes_96"))
    return load_pipeline(project / "template.config")


class TestDbCommands:
    """Which database they read, as real processes."""

    def run(self, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "odkeras", "db", *arguments]
        paths = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)}
        return subprocess.run(
            command, cwd=folder, env={**paths, **environment}, capture_output=True, text=True, timeout=60, check=False
        )

    def images(self, folder: Path, *arguments: str, **environment: str) -> list[str]:
        result = self.run(folder, "out", "cars", *arguments, **environment)
        assert result.returncode == 0, result.stderr
        return [json.loads(line)["image"] for line in result.stdout.splitlines()]

    @pytest.mark.parametrize("arguments", [("out", "cars"), ("stats",)])
    def test_commands_name_the_places_where_no_database_was_found(
        self, project: Path, arguments: tuple[str, ...]
    ) -> None:
        folder = project.parent
        result = self.run(folder, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            f"error: there is no annotations.db in {folder}; name the project with --project FOLDER, or the database "
            "with --db FILE\n"
        )
        result = self.run(folder, *arguments, "--project", "cars")
        assert f"there is no {project}/annotations.db or {folder}/annotations.db" in result.stderr
        assert not list(folder.glob("**/*.db")), "reading makes no file"
        fill(project / "annotations.db", "cars")
        assert self.run(folder, *arguments).stderr.endswith("(there is cars/annotations.db)\n")

    def test_in_writes_to_the_project_s_database(self, project: Path) -> None:
        (project / "a.jsonl").write_text('{"image": "https://a.org/b.png", "answer": "accept"}\n')
        result = self.run(project.parent, "in", "cars", "cars/a.jsonl", "--project", "cars")
        assert result.stdout.startswith(f"{project}/annotations.db, cars: 1 added")
        result = self.run(project.parent, "in", "cars", "cars/a.jsonl")
        assert result.stdout.startswith("annotations.db, cars: 1 added")
        assert "annotations.db is new, in" in result.stderr
        (project.parent / "annotations.db").unlink()
        assert "0 added, 1 known" in self.run(project, "in", "cars", "a.jsonl").stdout
