"""The test double of Prodigy does what is documented of the real one, in the oldest and the newest version."""

from __future__ import annotations

import base64
import importlib
import itertools
import json
import subprocess
import sys
import threading
import urllib.error
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fixtures_prodigy
import numpy as np
import pytest
from fixtures_prodigy import prodigy_environment, running_prodigy
from prodigy_annotator import Annotator, ui_answer

prodigy_double = fixtures_prodigy.prodigy_double

Task = dict[str, Any]
both_versions = pytest.mark.parametrize("prodigy_double", ["1.8", "1.18"], indirect=True)


def is_old(prodigy: ModuleType) -> bool:
    return prodigy.__version__ == "1.8"


def make_tasks(count: int, start: int = 0) -> list[Task]:
    return [{"image": f"data:image/png;base64,{number}", "spans": []} for number in range(start, start + count)]


def make_controller(**components: Any) -> Any:
    given = {"dataset": "cars", "view_id": "image_manual", "stream": make_tasks(25), **components}
    return importlib.import_module("prodigy.core").Controller.from_components("test", given)


def accepted(tasks: list[Task], **more: Any) -> list[Task]:
    return [{**task, "answer": "accept", **more} for task in tasks]


def connect() -> Any:
    return importlib.import_module("prodigy.components.db").connect()


@both_versions
@pytest.mark.parametrize(
    ("module", "name", "in_old", "in_new"),
    [
        ("prodigy", "recipe", True, True),
        ("prodigy.util", "set_hashes", True, True),
        ("prodigy.components.loaders", "get_stream", True, True),
        ("prodigy.components.stream", "get_stream", False, True),
    ],
)
def test_names_exist_in_their_versions_only(
    prodigy_double: ModuleType, module: str, name: str, in_old: bool, in_new: bool
) -> None:
    try:
        exists = hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        assert error.name == module
        exists = False
    assert exists is (in_old if is_old(prodigy_double) else in_new)


def test_hashes(prodigy_double: ModuleType) -> None:
    """Spans change the task hash alone, a hash that is there is kept, ignored keys do not count even when named."""
    set_hashes = prodigy_double.set_hashes
    bare, suggested = set_hashes({"image": "a"}), set_hashes({"image": "a", "spans": [{"label": "car"}]})
    assert all(-(2**31) <= bare[key] < 2**31 for key in ("_input_hash", "_task_hash"))
    assert bare["_input_hash"] == suggested["_input_hash"] != set_hashes({"image": "b"})["_input_hash"]
    assert bare["_task_hash"] != suggested["_task_hash"]
    assert set_hashes({**suggested, "_task_hash": 2})["_task_hash"] == 2
    assert set_hashes({**suggested, "_task_hash": 2}, overwrite=True) == suggested
    tasks = [{"image": "a", "path": path, "image_id": path} for path in ("1.jpg", "2.jpg")]
    assert len({set_hashes(task, input_keys=("path",))["_input_hash"] for task in tasks}) == 1
    assert len({set_hashes(task, input_keys=("image_id",))["_input_hash"] for task in tasks}) == 2


@both_versions
def test_database(prodigy_double: ModuleType, tmp_path: Path) -> None:
    database = connect()
    example = prodigy_double.set_hashes({"image": "é", "answer": "accept"})
    assert database.get_dataset("cars") is None
    database.add_examples([example, example], datasets=["cars", "more"])
    assert "cars" in database and database.datasets == ["cars", "more"]
    assert database.get_dataset("cars") == connect().get_dataset("more") == [example, example]
    assert database.get_input_hashes("cars", "none") == {example["_input_hash"]}
    assert database.get_task_hashes("more") == {example["_task_hash"]}
    assert hasattr(database, "get_dataset_examples") is not is_old(prodigy_double)
    for refused in ({"image": "a"}, {**example, "extra": float("nan")}, {**example, "extra": {1, 2}}):
        with pytest.raises((TypeError, ValueError)):
            database.add_examples([refused], datasets=["cars"])


class TestCommandLine:
    # Without postponed evaluation of hints, as recipe files have to be.
    RECIPE = '''"""Recipes."""
import prodigy


@prodigy.recipe(
    "test.print",
    dataset=("Dataset", "positional", None, str),
    port=("Port", "positional", None, int),
    threshold=("Score", "option", "t", float),
    label_names=("Labels", "option", "l", lambda text: text.split(",")),
    run_eval=("Evaluate", "flag", "e", bool),
)
def print_arguments(
    dataset: str, port: int = 8500, threshold: float = 0.5, label_names: list = None, run_eval: bool = False
):
    """Prints its arguments."""
    print(repr([dataset, port, threshold, label_names, run_eval]))
'''

    @both_versions
    @pytest.mark.parametrize(
        ("args", "printed"),
        [
            ("cars", "['cars', 8500, 0.5, None, False]"),
            ("cars 9000 -t 0.25 -l a,b -e", "['cars', 9000, 0.25, ['a', 'b'], True]"),
            ("cars --threshold 1 --label-names a --run-eval", "['cars', 8500, 1.0, ['a'], True]"),
        ],
    )
    def test_arguments_reach_the_recipe_as_they_are(
        self, prodigy_double: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: str, printed: str
    ) -> None:
        main = importlib.import_module("prodigy.__main__").main
        (tmp_path / "recipes.py").write_text(self.RECIPE)
        file = ["-F", str(tmp_path / "recipes.py")]
        for line in (["test.print", *args.split(), *file], [*file, "test.print", *args.split()]):
            assert main(line) == 0
            assert capsys.readouterr().out == printed + "\n"

    @both_versions
    def test_a_recipe_is_loaded_from_an_entry_point(
        self, prodigy_double: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        name = f"plugin_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(self.RECIPE)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[prodigy_recipes]\ntest.print = {name}:print_arguments\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        main = importlib.import_module("prodigy.__main__").main
        assert main(["test.print", "cars"]) == 0 and "['cars', 8500" in capsys.readouterr().out
        assert main(["no.such"]) == 1 and "Can't find recipe" in capsys.readouterr().err

    @both_versions
    @pytest.mark.parametrize(
        "annotation",
        [
            ("Help", "option", None, str),
            ("Help", "positional", "a", str),
            ("Help", "option", "F", str),  # -F is Prodigy's own
            ("Help", "option", "a", None),
        ],
    )
    def test_annotations_that_break_in_some_version_are_refused(
        self, prodigy_double: ModuleType, annotation: tuple[Any, ...]
    ) -> None:
        def function(argument: str = "x") -> None: ...

        with pytest.raises(TypeError):
            prodigy_double.recipe("test", argument=annotation)(function)

    def test_a_flag_with_a_postponed_hint_is_refused_by_newer_versions(self, prodigy_double: ModuleType) -> None:
        """`from __future__ import annotations` in a recipe file makes "bool" of bool; radicli reads the hints."""

        def function(verbose: bool = False) -> None: ...

        with pytest.raises(TypeError, match="type hint bool"):
            prodigy_double.recipe("test", verbose=("Help", "flag", "v", bool))(function)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strem": []}, "unknown components: strem"),
        ({"dataset": ""}, "no dataset"),
        ({"update": 3}, "update must be callable"),
        ({"config": {"labels": ("car",)}}, "labels"),
    ],
)
def test_wrong_components_are_refused(prodigy_double: ModuleType, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make_controller(**changes)


@both_versions
def test_files_and_environment_override_the_recipe_s_config(
    prodigy_double: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    (tmp_path / "prodigy.json").write_text('{"host": "global", "batch_size": 2, "port": 1}')
    (project / "prodigy.json").write_text('{"batch_size": 3, "port": 2}')
    monkeypatch.setenv("PRODIGY_PORT", "3")
    monkeypatch.setenv("PRODIGY_CONFIG_OVERRIDES", '{"history_size": 4}')
    config = make_controller(config={"batch_size": 1, "labels": ["car"], "history_size": 1}).config
    assert (config["labels"], config["host"], config["batch_size"], config["port"]) == (["car"], "global", 3, 3)
    assert config["history_size"] == (1 if is_old(prodigy_double) else 4)


class TestBatches:
    @both_versions
    def test_tasks_are_pulled_as_they_are_asked_for(self, prodigy_double: ModuleType) -> None:
        controller = make_controller(stream=iter(make_tasks(25)))
        sizes = [(len(controller.get_questions()), controller.pulled) for _ in range(4)]
        assert sizes == [(10, 10), (10, 20), (5, 25), (0, 25)]

    @pytest.mark.parametrize(
        "changes",
        [
            {"score": float("nan")},
            {"score": np.float64(0.5)},  # a float, and passes json.dumps
            {"extra": (1, 2)},
            {"extra": {1: 2}},
            {"image": "pics/a.jpg"},
            {"spans": [{"label": "car"}]},
        ],
    )
    def test_tasks_that_cannot_be_sent_or_shown_are_refused(self, prodigy_double: ModuleType, changes: Task) -> None:
        controller = make_controller(stream=[{**make_tasks(1)[0], **changes}])
        with pytest.raises((TypeError, ValueError)):
            controller.get_questions()

    def test_answered_and_repeated_tasks_are_not_asked_again(self, prodigy_double: ModuleType) -> None:
        with make_controller(stream=make_tasks(4) + make_tasks(6)) as controller:
            tasks = controller.get_questions()
            controller.receive_answers(accepted(tasks[:2]))
        assert (len(tasks), controller.pulled) == (6, 10)
        with make_controller(stream=make_tasks(6)) as controller:
            assert controller.get_questions() == tasks[2:]
            assert (controller.total_annotated, controller.session_annotated) == (2, 0)

    @pytest.mark.parametrize(
        ("prodigy_double", "exclude_by", "asked_again"),
        [("1.8", "input", 1), ("1.18", "input", 0), ("1.18", "task", 1)],
        indirect=["prodigy_double"],
    )
    def test_exclusion_by_either_hash(self, prodigy_double: ModuleType, exclude_by: str, asked_again: int) -> None:
        """A model that predicts other spans after a restart changes the task hash, not that of the input."""
        config = {"exclude_by": exclude_by}
        (task,) = make_tasks(1)
        with make_controller(stream=[task], config=config) as controller:
            controller.receive_answers(accepted(controller.get_questions()))
        predicted = {**task, "spans": [{"label": "car", "points": [[0, 0], [1.5, 1]]}]}
        assert len(make_controller(stream=[predicted], config=config).get_questions()) == asked_again

    def test_unanswered_tasks_come_again_only_when_the_order_is_forced(self, prodigy_double: ModuleType) -> None:
        lost = make_controller(stream=make_tasks(4), config={"batch_size": 4})
        kept = make_controller(stream=make_tasks(4), config={"batch_size": 2, "force_stream_order": True})
        assert len(lost.get_questions()) == 4 and lost.get_questions() == []
        first, second = kept.get_questions()
        kept.receive_answers(accepted([first]))
        assert kept.get_questions()[0] == second and kept.pulled == 3

    @pytest.mark.parametrize("overlap", [True, False])
    def test_sessions_share_or_repeat_the_tasks(self, prodigy_double: ModuleType, overlap: bool) -> None:
        components = {"stream": make_tasks(10), "config": {"feed_overlap": overlap, "batch_size": 5}}
        with make_controller(**components) as controller:
            anna, bert = controller.get_questions("cars-anna"), controller.get_questions("cars-bert")
            assert (anna == bert) is overlap
            controller.receive_answers(accepted(anna, _session_id="cars-anna"), "cars-anna")
        asked = make_controller(**components).get_questions("cars-bert")
        assert (asked == anna) is overlap


class TestAnswers:
    @pytest.mark.parametrize(
        ("prodigy_double", "order", "called", "stored"),
        [
            ("1.8", None, ["update"], 0),
            ("1.18", None, ["before_db", "update"], 3),
            ("1.18", "before_db", ["update", "before_db"], 0),
            ("1.8", "after_db", ["update"], 3),
        ],
        indirect=["prodigy_double"],
    )
    def test_update_runs_before_or_after_the_answers_are_stored(
        self,
        prodigy_double: ModuleType,
        order: str | None,
        called: list[str],
        stored: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Old versions lose answers when it fails."""
        calls: list[str] = []
        if order:
            monkeypatch.setenv("PRODIGY_DOUBLE_UPDATE", order)

        def before_db(examples: list[Task]) -> list[Task]:
            calls.append("before_db")
            return [{**example, "image": "a.jpg"} for example in examples]

        def update(answers: list[Task]) -> None:
            calls.append("update")
            assert len(connect().get_dataset("cars")) == stored
            if answers[0].get("fail"):
                raise RuntimeError("out of memory")

        controller = make_controller(before_db=before_db, update=update)
        controller.receive_answers(accepted(controller.get_questions()[:3]))
        assert calls == called
        edited = connect().get_dataset("cars")[0]["image"] == "a.jpg"
        assert edited is ("before_db" in called)

    @both_versions
    def test_a_failing_update_loses_the_answers_in_old_versions(self, prodigy_double: ModuleType) -> None:
        def update(answers: list[Task]) -> None:
            raise RuntimeError("out of memory")

        controller = make_controller(update=update)
        with pytest.raises(RuntimeError, match="out of memory"):
            controller.receive_answers(accepted(controller.get_questions()[:2]))
        assert len(connect().get_dataset("cars")) == (0 if is_old(prodigy_double) else 2)

    @both_versions
    def test_on_load_comes_first_and_on_exit_once(self, prodigy_double: ModuleType) -> None:
        called: list[Any] = []
        with make_controller(
            on_load=lambda ctrl: called.append(("load", ctrl.dataset in ctrl.db, ctrl.pulled)),
            on_exit=lambda ctrl: called.append(("exit", ctrl.session_annotated, ctrl.pulled)),
        ) as controller:
            controller.receive_answers(accepted(controller.get_questions()))
            controller.save()
        assert called == [("load", True, 0), ("exit", 10, 10)]

    @pytest.mark.parametrize(
        ("prodigy_double", "parameters", "expected"),
        [("1.8", 3, (5, 5, 0.25)), ("1.11", 2, ("ctrl", 0.25)), ("1.18", 2, ("ctrl", 0.25)), ("1.18", 4, 4)],
        indirect=["prodigy_double"],
    )
    def test_progress_gets_the_arguments_of_its_version(
        self, prodigy_double: ModuleType, parameters: int, expected: Any
    ) -> None:
        calls: list[tuple[Any, ...]] = []
        record: Callable[..., None] = lambda *args: calls.append(args)  # noqa: E731
        if parameters == 4:
            record = lambda a, b, c, d: calls.append((a, b, c, d))  # noqa: E731
        with make_controller(update=lambda answers: 0.25, progress=record) as controller:
            controller.receive_answers(accepted(controller.get_questions()[:5]))
        last = tuple("ctrl" if argument is controller else argument for argument in calls[-1])
        assert (len(last) if parameters == 4 else last) == expected

    def test_callbacks_run_on_changing_threads(self, prodigy_double: ModuleType) -> None:
        threads: list[int] = []

        def stream() -> Iterator[Task]:
            for task in make_tasks(20):
                threads.append(threading.get_ident())
                yield task

        with make_controller(
            stream=stream(), update=lambda answers: threads.append(threading.get_ident()), config={"batch_size": 1}
        ) as controller:
            for _ in range(5):
                controller.receive_answers(accepted(controller.get_questions()))
        assert len(threads) == 10
        assert all(one != other for one, other in itertools.pairwise(threads))

    def test_update_runs_beside_the_stream_and_other_updates(self, prodigy_double: ModuleType) -> None:
        together = threading.Barrier(3, timeout=10)

        def stream() -> Iterator[Task]:
            yield from make_tasks(10)
            together.wait()
            yield from make_tasks(1, start=10)

        controller = make_controller(stream=stream(), update=lambda answers: together.wait())
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


class TestBrowser:
    """What the annotator's browser makes of a task."""

    def test_spans_of_newer_versions(self, png_bytes: bytes) -> None:
        task = {"image": "data:image/png;base64," + base64.b64encode(png_bytes).decode()}
        answer = ui_answer(task, [([76.51, 112.52, 664.08, 898.6], "car")])
        (span,) = answer["spans"]
        assert list(span) == ["id", "label", "color", "x", "y", "height", "width", "center", "type", "points"]
        assert [span[key] for key in ("x", "y", "width", "height")] == [76.5, 112.5, 587.6, 786.1]
        assert span["points"] == [[76.5, 112.5], [76.5, 898.6], [664.1, 898.6], [664.1, 112.5]]
        assert (answer["width"], answer["height"], answer["answer"]) == (64, 48, "accept")

    def test_spans_of_old_versions(self) -> None:
        answer = ui_answer({"image": "data:,", "width": 64, "height": 48}, [([1, 2, 3, 4], "car")], era="1.8")
        assert answer["spans"] == [{"label": "car", "points": [[1.0, 2.0], [1.0, 4.0], [3.0, 4.0], [3.0, 2.0]]}]
        assert answer["_view_id"] == "image_manual" and "_timestamp" not in answer and "_annotator_id" not in answer

    def test_untouched_spans_stay_and_an_empty_picture_has_none(self) -> None:
        suggested = [{"label": "car", "score": 0.9, "points": [[1, 2], [1, 20], [11, 20], [11, 2]]}]
        task = {"image": "data:,", "width": 64, "height": 48, "spans": suggested}
        assert ui_answer(task, None, "reject")["spans"] == suggested
        assert ui_answer(task, [])["spans"] == []
        assert "spans" not in ui_answer({**task, "spans": []}, [])


SERVED = '''"""A recipe with a server."""
import prodigy


@prodigy.recipe("test.served", dataset=("Dataset", "positional", None, str))
def served(dataset: str):
    def update(answers):
        if any(answer.get("flagged") for answer in answers):
            raise RuntimeError("flagged")

    return {
        "dataset": dataset,
        "view_id": "image_manual",
        "stream": ({"image": f"data:image/png;base64,{number}", "width": 64, "height": 48} for number in range(12)),
        "update": update,
        "on_load": lambda ctrl: print("loaded", ctrl.dataset, flush=True),
        "on_exit": lambda ctrl: print("exit after", ctrl.session_annotated, flush=True),
        "config": {"labels": ["car"], "batch_size": 5},
    }
'''
BOX = [([1, 2, 3, 4], "car")]


@pytest.mark.parametrize("version", ["1.8", "1.18"])
def test_a_session_over_rest(version: str, tmp_path: Path) -> None:
    (tmp_path / "recipes.py").write_text(SERVED)
    args = ["test.served", "cars", "-F", str(tmp_path / "recipes.py")]
    env, log_path = prodigy_environment(tmp_path, version), tmp_path / "prodigy.log"
    with running_prodigy(args, env, log_path) as (process, url):
        annotator = Annotator(url)
        assert (annotator.config["view_id"], annotator.config["labels"]) == ("image_manual", ["car"])
        tasks = annotator.questions()
        assert len(tasks) == 5 and annotator.total == 0 and annotator.progress is None
        annotator.answer(tasks[:2], lambda task: ui_answer(task, BOX, era=version))
        anna = Annotator(url, session="anna")
        anna.answer(anna.questions()[:1], lambda task: ui_answer(task, BOX, "reject", era=version))
        with pytest.raises(urllib.error.HTTPError, match="500"):
            annotator.answer(tasks[3:4], lambda task: {**ui_answer(task, BOX, era=version), "flagged": True})
    assert process.returncode == 0
    text = log_path.read_text(encoding="utf-8")
    assert "loaded cars" in text and "exit after 3" in text and "RuntimeError: flagged" in text
    command = [sys.executable, "-m", "prodigy", "db-out", "cars"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    stored = [json.loads(line)["answer"] for line in done.stdout.splitlines()]
    assert stored == ["accept", "accept", "reject"] + ["accept"] * (version != "1.8")
