"""The test double of Prodigy does what is documented of the real one, in the versions where it differs."""

from __future__ import annotations

import base64
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import fixtures_prodigy
import numpy as np
import pytest
from fixtures_prodigy import prodigy_environment, running_prodigy
from prodigy_annotator import Annotator, delete_span, move_span, relabel_span, resize_span, ui_answer

prodigy_double = fixtures_prodigy.prodigy_double

Task = dict[str, Any]
SPAN_KEYS = ["id", "label", "color", "x", "y", "height", "width", "center", "type", "points"]


def versions(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("prodigy_double", names, indirect=True)


all_eras = versions("1.8", "1.18")  # the oldest and the newest


def make_tasks(count: int, start: int = 0) -> list[Task]:
    return [{"image": f"data:image/png;base64,{number}", "spans": []} for number in range(start, start + count)]


def make_components(**components: Any) -> dict[str, Any]:
    return {"dataset": "cars", "view_id": "image_manual", "stream": make_tasks(25), **components}


def make_controller(components: dict[str, Any], version: str | None = None) -> Any:
    return importlib.import_module("prodigy.core").Controller.from_components("test", components, version)


def accepted(tasks: list[Task], **more: Any) -> list[Task]:
    return [{**task, "answer": "accept", **more} for task in tasks]


def connect() -> Any:
    return importlib.import_module("prodigy.components.db").connect()


def write_recipe(path: Path, body: str) -> str:
    path.write_text(body, encoding="utf-8")
    return str(path)


class TestNames:
    @all_eras
    def test_version_is_the_chosen_one(self, prodigy_double: ModuleType, request: pytest.FixtureRequest) -> None:
        assert prodigy_double.__version__ == request.node.callspec.params["prodigy_double"]

    @pytest.mark.parametrize(
        ("prodigy_double", "module", "name", "exists"),
        [
            ("1.8", "prodigy.components.stream", "Stream", False),
            ("1.11", "prodigy.components.stream", "Stream", False),
            ("1.12", "prodigy.components.stream", "Stream", True),
            ("1.18", "prodigy.components.stream", "get_stream", True),
            ("1.8", "prodigy.components.loaders", "get_stream", True),
            ("1.18", "prodigy.components.loaders", "get_stream", True),
            ("1.18", "prodigy", "get_stream", True),
            ("1.8", "prodigy.components.preprocess", "fetch_images", True),
            ("1.8", "prodigy.components.preprocess", "fetch_media", False),
            ("1.18", "prodigy.components.preprocess", "fetch_images", False),
            ("1.18", "prodigy.components.preprocess", "fetch_media", True),
            ("1.8", "prodigy.util", "msg", False),
            ("1.10", "prodigy.util", "msg", True),
            ("1.8", "prodigy.util", "get_labels", False),
            ("1.11", "prodigy.core", "Arg", False),
            ("1.13", "prodigy.core", "Arg", False),
            ("1.14", "prodigy.core", "Arg", True),
            ("1.8", "prodigy.util", "set_hashes", True),
            ("1.18", "prodigy.util", "TASK_HASH_ATTR", True),
            ("1.8", "prodigy", "get_config", True),
        ],
        indirect=["prodigy_double"],
    )
    def test_names_exist_in_their_versions_only(
        self, prodigy_double: ModuleType, module: str, name: str, exists: bool
    ) -> None:
        try:
            found = hasattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            assert error.name == module
            found = False
        assert found is exists


class TestHashes:
    def test_are_signed_32_bit_numbers_that_stay(self, prodigy_double: ModuleType) -> None:
        first = prodigy_double.set_hashes({"image": "a"})
        assert first == prodigy_double.set_hashes({"image": "a"})
        assert all(-(2**31) <= first[key] < 2**31 for key in ("_input_hash", "_task_hash"))
        assert first["_input_hash"] != prodigy_double.set_hashes({"image": "b"})["_input_hash"]

    def test_spans_change_the_task_hash_alone(self, prodigy_double: ModuleType) -> None:
        bare = prodigy_double.set_hashes({"image": "a"})
        predicted = prodigy_double.set_hashes({"image": "a", "spans": [{"label": "car"}]})
        assert bare["_input_hash"] == predicted["_input_hash"]
        assert bare["_task_hash"] != predicted["_task_hash"]

    def test_existing_ones_are_kept(self, prodigy_double: ModuleType) -> None:
        task = {"image": "a", "_input_hash": 1, "_task_hash": 2}
        assert prodigy_double.set_hashes(task) == task
        assert prodigy_double.set_hashes(task, overwrite=True)["_input_hash"] != 1

    def test_ignored_keys_tell_nothing_apart_even_when_named(self, prodigy_double: ModuleType) -> None:
        one, other = ({"image": "a", "path": path, "image_id": path} for path in ("1.jpg", "2.jpg"))
        by_path = [prodigy_double.set_hashes(task, input_keys=("path",)) for task in (one, other)]
        by_id = [prodigy_double.set_hashes(task, input_keys=("image_id",)) for task in (one, other)]
        assert by_path[0]["_input_hash"] == by_path[1]["_input_hash"]
        assert by_id[0]["_input_hash"] != by_id[1]["_input_hash"]


class TestDatabase:
    @all_eras
    def test_round_trip(self, prodigy_double: ModuleType, tmp_path: Path) -> None:
        database = connect()
        example = prodigy_double.set_hashes({"image": "é", "answer": "accept"})
        assert database.get_dataset("cars") is None
        database.add_examples([example, example], datasets=["cars", "more"])
        assert "cars" in database and database.datasets == ["cars", "more"]
        assert database.get_dataset("cars") == connect().get_dataset("more") == [example, example]
        assert database.get_input_hashes("cars", "none") == {example["_input_hash"]}
        assert database.get_task_hashes("more") == {example["_task_hash"]}
        assert hasattr(database, "get_dataset_examples") is (prodigy_double.__version__ == "1.18")
        assert (tmp_path / "prodigy.db").is_file()

    @pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes"])
    def test_refuses_what_json_does_not_have(self, prodigy_double: ModuleType, value: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            connect().add_examples([{"_input_hash": 1, "_task_hash": 2, "extra": value}], datasets=["cars"])

    def test_refuses_examples_without_hashes(self, prodigy_double: ModuleType) -> None:
        with pytest.raises(ValueError, match="use set_hashes"):
            connect().add_examples([{"image": "a"}], datasets=["cars"])


class TestRecipe:
    @all_eras
    def test_function_stays_as_it_is(self, prodigy_double: ModuleType) -> None:
        def function(dataset: str, threshold: float = 0.5) -> dict[str, Any]:
            return {"dataset": dataset, "threshold": threshold}

        hints = dict(function.__annotations__)
        decorate = prodigy_double.recipe("a-b.c_d", dataset=("Name", "positional", None, str))
        assert decorate(function) is function
        assert function.__annotations__ == hints
        assert function("cars") == {"dataset": "cars", "threshold": 0.5}

    def test_later_registration_replaces_and_dashes_are_underscores(self, prodigy_double: ModuleType) -> None:
        for view_id in ("image", "image_manual"):

            @prodigy_double.recipe("my-recipe.go")
            def function(view_id: str = view_id) -> dict[str, Any]:
                return make_components(view_id=view_id)

        assert prodigy_double.get_recipe("my_recipe.go")().view_id == "image_manual"
        with pytest.raises(ValueError, match=r"no\.such"):
            prodigy_double.get_recipe("no.such")

    @pytest.mark.parametrize(
        ("prodigy_double", "annotation", "message"),
        [
            ("1.8", ("Help", "option", None, str), "needs an abbreviation"),
            ("1.18", ("Help", "option", None, str), "needs an abbreviation"),
            ("1.8", ("Help", "option", "-a", str), "without dash"),
            ("1.8", ("Help", "positional", "a", str), "cannot have an abbreviation"),
            ("1.18", ("Help", "optional", "a", str), "kind"),
            ("1.8", ("Help", "option", "F", str), "Prodigy's own"),
            ("1.8", ("Help", "option"), "elements"),
            ("1.18", ("Help", "option", "a", str, ["x"]), "elements"),
            ("1.18", ("Help", "option", "a", str, None, "METAVAR"), "elements"),
            ("1.8", ("Help", "option", "a", "str"), "callable"),
            ("1.18", ("Help", "flag", "a", bool), "type hint bool"),
            ("1.8", ["Help", "option", "a", str], "tuple"),
        ],
        indirect=["prodigy_double"],
    )
    def test_annotations_that_break_are_refused(
        self, prodigy_double: ModuleType, annotation: Any, message: str
    ) -> None:
        def function(argument: str = "x") -> None: ...

        with pytest.raises(TypeError, match=message):
            prodigy_double.recipe("test", argument=annotation)(function)

    @all_eras
    def test_annotation_of_no_argument_is_refused(self, prodigy_double: ModuleType) -> None:
        with pytest.raises(TypeError, match="other"):
            prodigy_double.recipe("test", other=("Help", "positional", None, str))(lambda dataset: None)

    @versions("1.8")
    def test_option_without_type_is_refused_where_plac_versions_differ(self, prodigy_double: ModuleType) -> None:
        with pytest.raises(TypeError, match="needs a type"):
            prodigy_double.recipe("test", number=("Help", "option", "n", None))(lambda number=3: None)

    @versions("1.18")
    def test_catch_all_is_refused_by_newer_versions(self, prodigy_double: ModuleType) -> None:
        with pytest.raises(TypeError, match="_extra"):
            prodigy_double.recipe("test")(lambda dataset, *rest: None)

    @versions("1.18")
    def test_flag_with_postponed_hints_is_refused(self, prodigy_double: ModuleType) -> None:
        """`from __future__ import annotations` in a recipe file makes "bool" of bool; radicli reads the hints."""

        def function(verbose: bool = False) -> None: ...

        assert function.__annotations__["verbose"] == "bool"
        with pytest.raises(TypeError, match="type hint bool"):
            prodigy_double.recipe("test", verbose=("Help", "flag", "v", bool))(function)


# Without postponed evaluation of hints, as recipe files have to be.
RECIPE = '''"""Recipes."""
import prodigy
from prodigy.util import split_string


@prodigy.recipe(
    "test.print",
    dataset=("Dataset", "positional", None, str),
    source=("Images", "positional", None, str),
    port=("Port", "positional", None, int),
    threshold=("Score", "option", "t", float),
    label_names=("Labels", "option", "l", split_string),
    run_eval=("Evaluate", "flag", "e", bool),
)
def print_arguments(
    dataset: str,
    source: str,
    port: int = 8500,
    threshold: float = 0.5,
    label_names: list = None,
    run_eval: bool = False,
):
    """Prints its arguments."""
    print(repr([dataset, source, port, threshold, label_names, run_eval]))


@prodigy.recipe("test.other", dataset=("Dataset", "positional", None, str))
def other(dataset: str):
    print(f"other {dataset}")
'''


def run_main(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and output of `python -m prodigy`, in this process."""
    try:
        code = importlib.import_module("prodigy.__main__").main(argv)
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
    captured = capsys.readouterr()
    return code, captured.out + captured.err


class TestCommandLine:
    @all_eras
    @pytest.mark.parametrize(
        ("args", "printed"),
        [
            ("cars pics", "['cars', 'pics', 8500, 0.5, None, False]"),
            ("cars pics 9000 -t 0.25 -l a,b -e", "['cars', 'pics', 9000, 0.25, ['a', 'b'], True]"),
            (
                "cars pics --threshold 1 --label-names a --run-eval",
                "['cars', 'pics', 8500, 1.0, ['a'], True]",
            ),
        ],
    )
    def test_arguments(
        self,
        prodigy_double: ModuleType,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        args: str,
        printed: str,
    ) -> None:
        path = write_recipe(tmp_path / "recipes.py", RECIPE)
        assert run_main(["test.print", *args.split(), "-F", path], capsys) == (0, printed + "\n")
        assert run_main(["-F", path, "test.print", *args.split()], capsys) == (0, printed + "\n")

    @all_eras
    def test_second_recipe_help_and_mistakes(
        self, prodigy_double: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_recipe(tmp_path / "recipes.py", RECIPE)
        assert run_main(["test.other", "cars", "-F", path], capsys) == (0, "other cars\n")
        code, text = run_main(["test.print", "--help", "-F", path], capsys)
        assert code == 0 and "Prints its arguments." in text and "--label-names" in text and "Score" in text
        assert run_main(["test.print", "cars", "-F", path], capsys)[0] != 0
        assert run_main(["test.print", "cars", "pics", "--nonsense", "-F", path], capsys)[0] != 0
        code, text = run_main(["no.such"], capsys)
        assert code == 1 and "Can't find recipe" in text

    @versions("1.8")
    def test_flag_needs_default_false(self, prodigy_double: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
        """plac says so when the command line is built, not when the recipe is registered."""
        prodigy_double.recipe("test", verbose=("Help", "flag", "v", bool))(lambda verbose=True: None)
        with pytest.raises(TypeError, match="wants default False"):
            run_main(["test"], capsys)

    def test_recipe_file_is_no_module(
        self, prodigy_double: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_recipe(tmp_path / "lonely.py", "from . import sibling\n")
        with pytest.raises(ImportError):
            run_main(["test", "-F", path], capsys)
        assert "lonely" not in sys.modules

    @all_eras
    def test_entry_point(
        self,
        prodigy_double: ModuleType,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        name = f"plugin_{uuid.uuid4().hex}"
        write_recipe(tmp_path / f"{name}.py", RECIPE)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[prodigy_recipes]\ntest.other = {name}:other\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        assert run_main(["test.other", "cars"], capsys) == (0, "other cars\n")


class TestComponents:
    @all_eras
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"strem": []}, ValueError, "unknown components: strem"),
            ({"parse_as": dict}, ValueError, "parse_as"),
            ({"dataset": ""}, TypeError, "dataset"),
            ({"dataset": None}, ValueError, "dataset"),
            ({"stream": 3}, TypeError, "stream"),
            ({"view_id": None}, ValueError, "view_id"),
            ({"update": 3}, TypeError, "update"),
            ({"exclude": "cars"}, TypeError, "exclude"),
            ({"config": []}, TypeError, "config"),
            ({"config": {"labels": ("car",)}}, TypeError, "labels"),
        ],
    )
    def test_mistakes_are_refused(
        self, prodigy_double: ModuleType, changes: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            make_controller(make_components(**changes))

    @all_eras
    def test_callbacks_may_be_none(self, prodigy_double: ModuleType) -> None:
        names = ("update", "progress", "on_load", "on_exit", "before_db", "validate_answer", "exclude", "config")
        with make_controller(make_components(**dict.fromkeys(names))) as controller:
            controller.receive_answers(accepted(controller.get_questions()))
            assert controller.session_annotated == 10


class TestConfig:
    @all_eras
    def test_precedence(self, prodigy_double: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        project = tmp_path / "project"
        project.mkdir()
        monkeypatch.chdir(project)
        (tmp_path / "prodigy.json").write_text('{"host": "global", "batch_size": 2, "port": 1}')
        (project / "prodigy.json").write_text('{"batch_size": 3, "port": 2}')
        monkeypatch.setenv("PRODIGY_PORT", "3")
        monkeypatch.setenv("PRODIGY_CONFIG_OVERRIDES", '{"history_size": 4}')
        recipe_config = {"batch_size": 1, "labels": ["car"], "history_size": 1}
        config = make_controller(make_components(config=recipe_config)).config
        assert (config["labels"], config["host"], config["batch_size"], config["port"]) == (["car"], "global", 3, 3)
        assert config["history_size"] == (1 if prodigy_double.__version__ == "1.8" else 4)
        assert prodigy_double.get_config()["batch_size"] == 3


class TestBatches:
    @all_eras
    def test_are_pulled_lazily(self, prodigy_double: ModuleType) -> None:
        controller = make_controller(make_components(stream=iter(make_tasks(25))))
        sizes = []
        assert controller.pulled == 0
        for _ in range(4):
            sizes.append((len(controller.get_questions()), controller.pulled))
        assert sizes == [(10, 10), (10, 20), (5, 25), (0, 25)]

    @all_eras
    def test_size_comes_from_the_config(self, prodigy_double: ModuleType) -> None:
        controller = make_controller(make_components(config={"batch_size": 3}))
        assert len(controller.get_questions()) == controller.batch_size == controller.pulled == 3

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"score": float("nan")}, ValueError),
            ({"extra": (1, 2)}, TypeError),
            ({"extra": {1: 2}}, TypeError),
            ({"extra": Path("a")}, TypeError),
            ({"extra": OrderedDict(a=1)}, TypeError),
            ({"image": "pics/a.jpg"}, ValueError),
            ({"spans": [{"label": "car"}]}, ValueError),
            ({"spans": [{"label": "car", "points": [[0, "1"]]}]}, ValueError),
        ],
    )
    def test_tasks_that_cannot_be_sent_or_shown_are_refused(
        self, prodigy_double: ModuleType, changes: Task, error: type[Exception]
    ) -> None:
        controller = make_controller(make_components(stream=[{**make_tasks(1)[0], **changes}]))
        with pytest.raises(error):
            controller.get_questions()

    def test_numpy_numbers_are_refused(self, prodigy_double: ModuleType) -> None:
        """numpy.float64 is a float, and passes json.dumps."""
        controller = make_controller(make_components(stream=[{**make_tasks(1)[0], "score": np.float64(0.5)}]))
        with pytest.raises(TypeError, match="float64"):
            controller.get_questions()

    def test_are_copies_with_hashes_and_those_set_are_kept(self, prodigy_double: ModuleType) -> None:
        tasks = make_tasks(2)
        tasks[0] |= {"_input_hash": 1, "_task_hash": 2}
        first, second = make_controller(make_components(stream=tasks)).get_questions()
        assert (first["_input_hash"], first["_task_hash"]) == (1, 2)
        assert second == prodigy_double.set_hashes(tasks[1]) and "_task_hash" not in tasks[1]


class TestExclusion:
    def test_restart_asks_what_is_left(self, prodigy_double: ModuleType) -> None:
        for _ in range(2):
            with make_controller(make_components()) as controller:
                controller.receive_answers(accepted(controller.get_questions()))
        with make_controller(make_components()) as controller:
            assert len(controller.get_questions()) == 5
            assert (controller.pulled, controller.total_annotated, controller.session_annotated) == (25, 20, 0)

    @pytest.mark.parametrize(
        ("prodigy_double", "exclude_by", "asked_again"),
        [("1.8", "input", 1), ("1.11", "input", 0), ("1.18", "input", 0), ("1.11", "task", 1), ("1.18", "task", 1)],
        indirect=["prodigy_double"],
    )
    def test_by_either_hash(self, prodigy_double: ModuleType, exclude_by: str, asked_again: int) -> None:
        """A model that predicts other spans after a restart changes the task hash, not that of the input."""
        config = {"exclude_by": exclude_by}
        (task,) = make_tasks(1)
        with make_controller(make_components(stream=[task], config=config)) as controller:
            controller.receive_answers(accepted(controller.get_questions()))
        predicted = {**task, "spans": [{"label": "car", "points": [[0, 0], [1.5, 1]]}]}
        controller = make_controller(make_components(stream=[predicted], config=config))
        assert len(controller.get_questions()) == asked_again

    def test_repeated_tasks_are_asked_once(self, prodigy_double: ModuleType) -> None:
        controller = make_controller(make_components(stream=make_tasks(4) + make_tasks(6)))
        assert len(controller.get_questions()) == 6
        assert controller.pulled == 10

    def test_unanswered_tasks_are_lost_unless_order_is_forced(self, prodigy_double: ModuleType) -> None:
        config = {"batch_size": 2, "force_stream_order": True}
        lost = make_controller(make_components(stream=make_tasks(4), config={"batch_size": 2}))
        kept = make_controller(make_components(stream=make_tasks(4), config=config))
        assert lost.get_questions() != lost.get_questions() and lost.get_questions() == []
        first, second = kept.get_questions()
        assert kept.get_questions() == [first, second]
        kept.receive_answers(accepted([first]))
        assert kept.get_questions()[0] == second and kept.pulled == 3


class TestSessions:
    @pytest.mark.parametrize("overlap", [True, False])
    def test_share_or_repeat_the_tasks(self, prodigy_double: ModuleType, overlap: bool) -> None:
        config = {"feed_overlap": overlap, "batch_size": 5}
        controller = make_controller(make_components(stream=make_tasks(10), config=config))
        anna, bert = controller.get_questions("cars-anna"), controller.get_questions("cars-bert")
        assert (anna == bert) is overlap
        assert controller.pulled == (5 if overlap else 10)

    @pytest.mark.parametrize("overlap", [True, False])
    def test_exclude_their_own_or_all_answers(self, prodigy_double: ModuleType, overlap: bool) -> None:
        components = make_components(stream=make_tasks(4), config={"feed_overlap": overlap})
        with make_controller(components) as controller:
            tasks = controller.get_questions("cars-anna")
            controller.receive_answers(accepted(tasks, _session_id="cars-anna"), "cars-anna")
        again = make_controller(components)
        assert again.get_questions("cars-anna") == []
        assert len(make_controller(components).get_questions("cars-bert")) == (4 if overlap else 0)
        assert make_controller(components).get_questions() == []

    @all_eras
    def test_ids(self, prodigy_double: ModuleType) -> None:
        controller = make_controller(make_components(get_session_id=lambda: "monday"))
        controller.get_questions("anna")
        assert controller.session_id == "monday"
        newer = prodigy_double.__version__ == "1.18"
        assert hasattr(controller, "exclude_by") is (prodigy_double.__version__ != "1.8")
        assert getattr(controller, "all_session_ids", None) == (["monday", "cars-anna"] if newer else None)


class Events:
    """What the controller called, in order, and what the database held at that time."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.stored: list[int] = []
        self.updated: list[Task] = []

    def components(self, **more: Any) -> dict[str, Any]:
        return make_components(before_db=self.before_db, update=self.update, **more)

    def before_db(self, examples: list[Task]) -> list[Task]:
        self.names.append("before_db")
        return [{**example, "image": "a.jpg"} for example in examples]

    def update(self, answers: list[Task]) -> float:
        self.names.append("update")
        self.stored.append(len(connect().get_dataset("cars")))
        self.updated = answers
        return 0.5


class TestAnswers:
    @pytest.mark.parametrize(
        ("prodigy_double", "order", "names", "stored", "update_sees", "database_has"),
        [
            ("1.8", None, ["update"], 0, "data", "data"),
            ("1.11", None, ["before_db", "update"], 3, "a.jpg", "a.jpg"),
            ("1.18", None, ["before_db", "update"], 3, "a.jpg", "a.jpg"),
            ("1.18", "before_db", ["update", "before_db"], 0, "data", "a.jpg"),
            ("1.8", "after_db", ["update"], 3, "data", "data"),
        ],
        indirect=["prodigy_double"],
    )
    def test_order_of_update_and_database(
        self,
        prodigy_double: ModuleType,
        order: str | None,
        names: list[str],
        stored: int,
        update_sees: str,
        database_has: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if order:
            monkeypatch.setenv("PRODIGY_DOUBLE_UPDATE", order)
        events = Events()
        with make_controller(events.components()) as controller:
            controller.receive_answers(accepted(controller.get_questions()[:3]))
        assert (events.names, events.stored) == (names, [stored])
        assert events.updated[0]["image"].startswith(update_sees)
        assert connect().get_dataset("cars")[0]["image"].startswith(database_has)

    @pytest.mark.parametrize(
        ("prodigy_double", "stored"), [("1.8", 0), ("1.11", 2), ("1.18", 2)], indirect=["prodigy_double"]
    )
    def test_failing_update_loses_answers_in_old_versions(self, prodigy_double: ModuleType, stored: int) -> None:
        def update(answers: list[Task]) -> None:
            raise RuntimeError("out of memory")

        controller = make_controller(make_components(update=update))
        with pytest.raises(RuntimeError, match="out of memory"):
            controller.receive_answers(accepted(controller.get_questions()[:2]))
        assert len(connect().get_dataset("cars")) == stored

    def test_all_decisions_arrive_in_batches_of_any_size(self, prodigy_double: ModuleType) -> None:
        sizes: list[int] = []
        controller = make_controller(make_components(update=lambda answers: sizes.append(len(answers))))
        tasks = controller.get_questions()
        decisions = ["accept", "reject", "ignore"] * 3 + ["accept"]
        decided = [{**task, "answer": decision} for task, decision in zip(tasks, decisions, strict=True)]
        controller.receive_answers(decided[:7])
        controller.receive_answers(decided[7:8])
        assert sizes == [7, 1]
        assert [example["answer"] for example in connect().get_dataset("cars")].count("ignore") == 2
        with pytest.raises(ValueError, match="accept, reject, ignore"):
            controller.receive_answers([{**tasks[9], "answer": "maybe"}])

    def test_before_db_must_return_a_list(self, prodigy_double: ModuleType) -> None:
        controller = make_controller(make_components(before_db=lambda examples: None))
        with pytest.raises(TypeError, match="must return the list"):
            controller.receive_answers(accepted(controller.get_questions()))

    @all_eras
    def test_validation(self, prodigy_double: ModuleType) -> None:
        def validate(answer: Task) -> None:
            if not answer["spans"]:
                raise ValueError("draw something")

        controller = make_controller(make_components(validate_answer=validate))
        (answer, *_) = accepted(controller.get_questions())
        if prodigy_double.__version__ == "1.8":
            controller.validate_answer(answer)
        else:
            with pytest.raises(ValueError, match="draw something"):
                controller.validate_answer(answer)

    @all_eras
    def test_life(self, prodigy_double: ModuleType) -> None:
        called: list[Any] = []
        components = make_components(
            on_load=lambda ctrl: called.append(("load", ctrl.dataset in ctrl.db, ctrl.pulled)),
            on_exit=lambda ctrl: called.append(("exit", ctrl.session_annotated, ctrl.pulled)),
        )
        with make_controller(components) as controller:
            controller.receive_answers(accepted(controller.get_questions()))
            controller.save()
        assert called == [("load", True, 0), ("exit", 10, 10)]


class TestThreads:
    def test_change_from_call_to_call(self, prodigy_double: ModuleType) -> None:
        threads: list[int] = []

        def stream() -> Iterator[Task]:
            for task in make_tasks(20):
                threads.append(threading.get_ident())
                yield task

        components = make_components(
            stream=stream(),
            update=lambda answers: threads.append(threading.get_ident()),
            config={"batch_size": 1},
        )
        with make_controller(components) as controller:
            for _ in range(5):
                controller.receive_answers(accepted(controller.get_questions()))
        assert len(threads) == 10
        assert all(one != other for one, other in itertools.pairwise(threads))
        assert threading.get_ident() not in threads

    def test_update_runs_beside_the_stream_and_other_updates(self, prodigy_double: ModuleType) -> None:
        together = threading.Barrier(3, timeout=10)

        def stream() -> Iterator[Task]:
            yield from make_tasks(10)
            together.wait()
            yield from make_tasks(1, start=10)

        components = make_components(stream=stream(), update=lambda answers: together.wait())
        controller = make_controller(components)
        tasks = controller.get_questions()
        calls: list[Callable[[], Any]] = [
            controller.get_questions,
            lambda: controller.receive_answers(accepted(tasks[:5])),
            lambda: controller.receive_answers(accepted(tasks[5:])),
        ]
        threads = [threading.Thread(target=call) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not together.broken and controller.session_annotated == 10


class TestProgress:
    @pytest.mark.parametrize(
        ("prodigy_double", "last"),
        [("1.8", (5, 8, 0.25)), ("1.9", (5, 8, 0.25)), ("1.10", ("ctrl", 0.25)), ("1.11", ("ctrl", 0.25))],
        indirect=["prodigy_double"],
    )
    def test_arguments_of_old_generations(self, prodigy_double: ModuleType, last: tuple[Any, ...]) -> None:
        assert self._last_call(lambda calls: lambda *args: calls.append(args)) == last

    @versions("1.12", "1.18")
    def test_arguments_of_the_newest_generation(self, prodigy_double: ModuleType) -> None:
        def two(calls: list[Any]) -> Callable[..., Any]:
            return lambda ctrl, returned: calls.append((ctrl, returned))

        def four(calls: list[Any]) -> Callable[..., Any]:
            return lambda ctrl, session, answers, returned: calls.append(
                (ctrl, session.total_annotated, len(answers), returned)
            )

        assert self._last_call(two) == ("ctrl", 0.25)
        assert self._last_call(four) == ("ctrl", 5, 5, 0.25)
        assert self._last_call(lambda calls: lambda *args, **options: calls.append(args)) == ("ctrl", 0.25)

    @versions("1.8")
    def test_oldest_generation_may_leave_out_the_loss(self, prodigy_double: ModuleType) -> None:
        assert self._last_call(lambda calls: lambda session, total: calls.append((session, total))) == (5, 8)

    def _last_call(self, make_progress: Callable[[list[Any]], Callable[..., Any]]) -> Any:
        """Three answers in the dataset from before, five now."""
        database = connect()
        database.drop_dataset("cars")
        set_hashes = importlib.import_module("prodigy").set_hashes
        database.add_examples(accepted([set_hashes(task) for task in make_tasks(3, start=100)]), datasets=["cars"])
        calls: list[Any] = []
        components = make_components(update=lambda answers: 0.25, progress=make_progress(calls))
        with make_controller(components) as controller:
            controller.receive_answers(accepted(controller.get_questions()[:5]))
            assert controller.progress is None
        return tuple("ctrl" if argument is controller else argument for argument in calls[-1])

    def test_without_a_callback(self, prodigy_double: ModuleType) -> None:
        for stream, progress in ((make_tasks(20), 0.5), (iter(make_tasks(20)), None)):
            controller = make_controller(make_components(stream=stream, dataset=False))
            controller.receive_answers(accepted(controller.get_questions()))
            assert controller.progress == progress

    @pytest.mark.parametrize("value", ["half", float("nan"), 1.5])
    def test_value_is_checked(self, prodigy_double: ModuleType, value: Any) -> None:
        controller = make_controller(make_components(progress=lambda ctrl, returned: value))
        with pytest.raises((TypeError, ValueError), match="progress must"):
            controller.get_questions()


class TestBrowser:
    """What the annotator's browser makes of spans."""

    SUGGESTED: ClassVar[list[Task]] = [
        {"type": "rect", "label": "car", "score": 0.9, "points": [[1, 2], [1, 20], [11, 20], [11, 2]]},
        {"type": "rect", "label": "car", "score": 0.8, "points": [[30, 4], [30, 9], [40, 9], [40, 4]]},
    ]

    def test_drawn_spans_of_newer_versions(self) -> None:
        answer = ui_answer({"image": "data:,", "width": 64, "height": 48}, [([76.51, 112.52, 664.08, 898.6], "car")])
        (span,) = answer["spans"]
        assert list(span) == SPAN_KEYS
        assert uuid.UUID(span["id"]).version == 4 and span["color"] == "yellow" and span["type"] == "rect"
        assert [span[key] for key in ("x", "y", "width", "height")] == [76.5, 112.5, 587.6, 786.1]
        assert span["center"] == [370.3, 505.55]
        assert span["points"] == [[76.5, 112.5], [76.5, 898.6], [664.1, 898.6], [664.1, 112.5]]
        assert answer["_is_binary"] is False and answer["_timestamp"] > 0 and answer["answer"] == "accept"

    def test_drawn_spans_of_old_versions(self) -> None:
        answer = ui_answer({"image": "data:,", "width": 64, "height": 48}, [([1, 2, 3, 4], "car")], era="1.8")
        assert answer["spans"] == [{"label": "car", "points": [[1.0, 2.0], [1.0, 4.0], [3.0, 4.0], [3.0, 2.0]]}]
        assert answer["_view_id"] == "image_manual" and "_timestamp" not in answer and "_annotator_id" not in answer

    def test_edited_spans_lose_their_score_and_others_stay(self) -> None:
        task = {"spans": self.SUGGESTED}
        moved = move_span(task, 0, 2.26, -1)
        assert moved["spans"][0]["points"] == [[3.3, 1.0], [3.3, 19.0], [13.3, 19.0], [13.3, 1.0]]
        assert "score" not in moved["spans"][0] and moved["spans"][1] == self.SUGGESTED[1]
        assert resize_span(task, 1, [0, 0, 5, 6])["spans"][1]["height"] == 6.0
        assert relabel_span(task, 0, "person")["spans"][0]["label"] == "person"
        assert delete_span(task, 0)["spans"] == [self.SUGGESTED[1]]
        assert task["spans"][0]["score"] == 0.9
        with pytest.raises(ValueError, match="draw another"):
            move_span(task, 0, 1, 1, era="1.8")

    def test_untouched_spans_and_empty_pictures(self) -> None:
        task = {"image": "data:,", "width": 64, "height": 48, "spans": self.SUGGESTED}
        assert ui_answer(task, None, "reject")["spans"] == self.SUGGESTED
        assert ui_answer(task, [])["spans"] == []
        assert "spans" not in ui_answer({**task, "spans": []}, [])

    def test_adds_the_size_of_the_image(self, png_bytes: bytes) -> None:
        task = {"image": "data:image/png;base64," + base64.b64encode(png_bytes).decode()}
        answer = ui_answer(task, [])
        assert (answer["width"], answer["height"]) == (64, 48)


SERVED = '''"""A recipe with a server."""
import prodigy


@prodigy.recipe("test.served", dataset=("Dataset", "positional", None, str))
def served(dataset: str):
    def update(answers):
        if any(answer.get("flagged") for answer in answers):
            raise RuntimeError("flagged")

    def validate_answer(answer):
        assert answer.get("spans"), "draw something"

    return {
        "dataset": dataset,
        "view_id": "image_manual",
        "stream": ({"image": f"data:image/png;base64,{number}", "width": 64, "height": 48} for number in range(12)),
        "update": update,
        "validate_answer": validate_answer,
        "on_load": lambda ctrl: print("loaded", ctrl.dataset, flush=True),
        "on_exit": lambda ctrl: print("exit after", ctrl.session_annotated, flush=True),
        "config": {"labels": ["car"], "batch_size": 5},
    }
'''
BOX = [([1, 2, 3, 4], "car")]


class TestServer:
    @pytest.mark.parametrize("version", ["1.8", "1.11", "1.18"])
    def test_session_over_rest(self, version: str, tmp_path: Path) -> None:
        args = ["test.served", "cars", "-F", write_recipe(tmp_path / "recipes.py", SERVED)]
        log_path = tmp_path / "prodigy.log"
        with running_prodigy(args, prodigy_environment(tmp_path, version), log_path) as (process, url):
            annotator = Annotator(url)
            assert (annotator.config["view_id"], annotator.config["labels"]) == ("image_manual", ["car"])
            tasks = annotator.questions()
            assert len(tasks) == 5 and annotator.total == 0 and annotator.progress is None
            annotator.answer(tasks[:2], lambda task: ui_answer(task, BOX, era=version))
            if version != "1.8":
                with pytest.raises(ValueError, match="draw something"):
                    annotator.answer(tasks[2:3], lambda task: ui_answer(task, [], era=version))
            anna = Annotator(url, session="anna")
            anna.answer(anna.questions()[:1], lambda task: ui_answer(task, BOX, "reject", era=version))
            with pytest.raises(urllib.error.HTTPError, match="500"):
                annotator.answer(tasks[3:4], lambda task: {**ui_answer(task, BOX, era=version), "flagged": True})
        assert process.returncode == 0
        text = log_path.read_text(encoding="utf-8")
        assert "loaded cars" in text and "exit after 3" in text and "RuntimeError: flagged" in text
        lost = version == "1.8"
        assert _stored(tmp_path, version) == ["accept", "accept", "reject"] + ["accept"] * (not lost)

    def test_page_unknown_route_and_sigterm(self, tmp_path: Path) -> None:
        args = ["-F", write_recipe(tmp_path / "recipes.py", SERVED), "test.served", "cars"]
        log_path = tmp_path / "prodigy.log"
        with running_prodigy(args, prodigy_environment(tmp_path), log_path) as (process, url):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                Annotator(url).call("/get_questions")
            with pytest.raises(json.JSONDecodeError):
                Annotator(url).call("/")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        assert "exit after 0" in log_path.read_text(encoding="utf-8")

    @pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
    def test_launcher(self, tmp_path: Path) -> None:
        env = prodigy_environment(tmp_path, "1.11")
        done = subprocess.run(["prodigy", "stats"], env=env, capture_output=True, text=True, check=True)
        assert "Version 1.11 (test double)" in done.stdout


def _stored(home: Path, version: str) -> list[str]:
    command = [sys.executable, "-m", "prodigy", "db-out", "cars"]
    done = subprocess.run(command, env=prodigy_environment(home, version), capture_output=True, text=True, check=True)
    return [json.loads(line)["answer"] for line in done.stdout.splitlines()]
