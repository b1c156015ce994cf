"""`odkeras annotate` as a process, with fakes in place of TensorFlow: how it starts, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures_web import DATASET, SPAN, Page, answers_in, save_project
from waiting import wait_until

from odkeras.config import AnnotateSettings
from odkeras.errors import ConfigError
from odkeras.images import read_image
from odkeras.pipeline import parse_pipeline, read_template, save_pipeline
from odkeras.project import Project
from odkeras.web.data_directory import was_delivered_to
from odkeras.web.database import AnswerDatabase
from odkeras.web.next_steps import export_command
from odkeras.web.server import _url
from odkeras.web.stored import StoredAnswer

ROOT = Path(__file__).parents[2]
COMMAND = """
import sys
sys.path.insert(0, {tests!r})
import fake_processes
from odkeras.web import server
from odkeras.web.files import PageFile
fake_processes.use_fakes()
server.page_files = lambda: {{"/": PageFile(b"<!doctype html>", "text/html; charset=utf-8")}}
{more}
from odkeras.cli import main
sys.argv[0] = "odkeras"
main()
"""


class Command:
    """The process, and what it has said so far."""

    def __init__(self, folder: Path, *options: str, more: str = "", stdin: int | None = subprocess.DEVNULL) -> None:
        self.folder = folder
        code = COMMAND.format(tests=str(Path(__file__).parent), more=more)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "annotate", *options],
            cwd=folder,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def link(self) -> str:
        """Where the page is."""
        return str(wait_until(lambda: re.search(r"annotate at (\S+) \(Ctrl-C", self.output)).group(1))

    def page(self, session: str = "default") -> Page:
        return Page(self.link().partition("?")[0], session, "tab")

    def children(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"(?:trainer|server): process (\d+)", self.output)]

    def end(self, number: int = signal.SIGINT) -> float:
        """Seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=20)
        self._reader.join(5)
        return time.monotonic() - started

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stdout, self.process.stdin):
            if pipe is not None:
                pipe.close()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """The command with usual arguments, on a free port."""
    save_project(tmp_path)
    started: list[Command] = []

    def run(*options: str, source: str = "images", **more: Any) -> Command:
        usual = [DATASET, source, "pipeline.config", "--no-open", "-spe", "5"]
        port = () if "--web-port" in options else ("--web-port", "0")
        started.append(Command(tmp_path, *usual, *port, *options, **more))
        return started[-1]

    yield run
    for each in started:
        each.close()


def stored(folder: Path) -> list[dict[str, Any]]:
    with AnswerDatabase.open(folder / "annotations.db") as database:
        return database.examples(DATASET)


def test_the_terminal_says_that_weights_are_random_as_long_as_they_are(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    """At every start, not only by `odkeras init`."""
    words = "The model starts from random weights: good suggestions take hundreds of images."
    config = tmp_path / "pipeline.config"
    save_pipeline(parse_pipeline(read_template("shapes_96"), source="template"), config)
    command = start()
    command.link()
    assert words in command.output and "odkeras init --weights" in command.output
    command.end()
    text = config.read_text().replace("train_config {", 'train_config {\n  fine_tune_checkpoint: "/zoo/ckpt-0"', 1)
    config.write_text(text)
    command = start()
    command.link()
    assert words not in command.output


def test_coco_has_the_ids_that_the_answers_were_given_with(start: Callable[..., Command], tmp_path: Path) -> None:
    """Also for a label map that is named on the command line and changed afterwards."""
    (tmp_path / "other.pbtxt").write_text("item { id: 4 name: 'apple' } item { id: 7 name: 'thing' }")
    command = start("--label-map-path", "other.pbtxt")
    page = command.page()
    page.answer(page.tasks(1)["tasks"][0], spans=[SPAN])
    command.end()
    (tmp_path / "other.pbtxt").write_text("item { id: 1 name: 'thing' }")
    out = [sys.executable, "-m", "odkeras", "db", "out", DATASET, "--db", "annotations.db", "--format", "coco"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(out, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True)
    document = json.loads(done.stdout)
    assert {each["name"]: each["id"] for each in document["categories"]} == {"apple": 4, "thing": 7}
    assert [each["category_id"] for each in document["annotations"]] == [7]
    (image,) = document["images"]
    assert (tmp_path / "images" / image["file_name"]).is_file() and "/" not in image["file_name"]
    assert f"category ids: {tmp_path}/other.pbtxt, which `annotate` used last" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_from_the_first_page_to_ctrl_c(
    start: Callable[..., Command], tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = start()
    page = command.page()
    assert page.http.get("/").text == "<!doctype html>"
    for task in page.tasks(3)["tasks"]:
        page.answer(task)
    with page.events() as events:
        next(events)
        assert command.end(number) < 5
    assert command.process.returncode == 0
    assert not any(map(running, command.children()))
    assert len(command.children()) == 2
    assert len(stored(tmp_path)) == 3
    assert answers_in(tmp_path / "data") == [], "fewer than begin a round: they wait in the database"
    database = tmp_path / "annotations.db"
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # the command's own: it says how its shell finds it
    said = f"stopped; all answers are in {database}. `{export_command('things', database)}` writes them\n"
    assert command.lines[-1] == said
    assert "Traceback" not in command.output
    assert "SIGINT reached the child" not in (tmp_path / "model" / "logs" / "trainer.log").read_text()


class TestTheSameWorkFromAnywhere:
    """The same command in another folder, with other relative paths, seemed to have lost the work."""

    def command(self, folder: Path, source: str, config: str, *more: str) -> Command:
        return Command(folder, DATASET, source, config, "--no-open", "--web-port", "0", *more)

    def answered(self, command: Command, count: int = 1) -> list[str]:
        """Answers some images, and stops; the files that they were."""
        try:
            page = command.page()
            tasks = page.tasks(count)["tasks"]
            for task in tasks:
                page.answer(task)
            command.end()
        finally:
            command.close()
        assert command.process.returncode == 0, command.output
        return [task["file"] for task in tasks]

    def test_other_relative_paths(self, tmp_path: Path) -> None:
        project, elsewhere = tmp_path / "my project", tmp_path / "elsewhere"
        save_project(project)
        elsewhere.mkdir()
        first = self.command(tmp_path, "my project/images", "my project")
        assert self.answered(first, 2) == ["00.png", "01.png"]
        assert first.lines[:5] == [
            f"database   {project}/annotations.db (0 answers in dataset things)\n",
            f"data       {project}/data\n",
            f"model      {project}/model\n",
            f"export     {project}/export\n",
            f"label map  {project}/label_map.pbtxt\n",
        ]
        second = self.command(elsewhere, "../my project/images", "../my project/pipeline.config")
        assert self.answered(second) == ["02.png"]
        assert second.lines[0] == f"database   {project}/annotations.db (2 answers in dataset things)\n"
        third = self.command(project / "images", ".", "..")
        assert self.answered(third) == ["03.png"]
        assert list(elsewhere.iterdir()) == []
        assert not list(tmp_path.glob("*.db")) and not list((project / "images").glob("*.db"))
        images = [Path(example["image"]) for example in stored(project)]
        assert images == [project / "images" / f"{number:02}.png" for number in range(4)]
        pasted = third.lines[-1].partition("`")[2].partition("`")[0].removeprefix("odkeras")
        shell = f"{sys.executable} -m odkeras {pasted}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(shell, shell=True, cwd="/", env=environment, capture_output=True, text=True, timeout=60)
        assert len(done.stdout.splitlines()) == 4, done.stderr

    def test_an_old_database_in_the_working_directory(self, tmp_path: Path) -> None:
        """Its relative paths start there, also when it is used from elsewhere."""
        project, old = tmp_path / "project", tmp_path / "annotations.db"
        save_project(project)
        image_id = read_image(project / "images" / "00.png").image_id
        place = "project/images/00.png"
        example = {"image": place, "path": place, "answer": "accept", "spans": [], "meta": {"file": "00.png"}}
        with AnswerDatabase.open(old) as database:
            database.add(DATASET, [StoredAnswer(example, image_id, "default")])
        first = self.command(tmp_path, "project/images", "project")
        assert self.answered(first) == ["01.png"]
        assert first.lines[0] == f"database   {old} (1 answer in dataset things)\n"
        assert "these answers are in the working directory, where odkeras stored them before" in first.lines[1]
        second = self.command(project, "images", "pipeline.config")
        try:
            page = second.page()
            assert page.http.get(f"/images/{image_id}").status_code == 200
            assert self.answered(second) == ["02.png"]
        finally:
            second.close()
        assert second.lines[0] == f"database   {old} (2 answers in dataset things)\n"
        assert not (project / "annotations.db").exists()

    def test_answers_that_are_in_a_database_that_nobody_names(self, tmp_path: Path) -> None:
        project = tmp_path / "project"
        save_project(project)
        first = self.command(tmp_path, "project/images", "project", "--db", "mine.db", "--answers-per-round", "1")
        try:
            page = first.page()
            page.answer(page.tasks(1)["tasks"][0])
            wait_until(
                lambda: was_delivered_to(Project(project / "data", project / "model", project / "export"), "things")
            )
            first.end()
        finally:
            first.close()
        (tmp_path / "mine.db").rename(tmp_path / "gone.db")
        second = self.command(tmp_path, "project/images", "project")
        assert self.answered(second) == ["00.png"]
        warning = f"answers of dataset things were delivered to the trainer in {project}/data, but this database"
        assert any(line.startswith(warning) for line in second.lines[:7])


def test_kill_9_leaves_no_process_and_the_next_start_goes_on(start: Callable[..., Command], tmp_path: Path) -> None:
    command = start()
    page = command.page()
    tasks = page.tasks(3)["tasks"]
    page.answer(tasks[0])
    pids = command.children()
    assert all(map(running, pids))
    command.end(signal.SIGKILL)
    wait_until(lambda: not any(map(running, pids)))
    assert [example["meta"]["file"] for example in stored(tmp_path)] == ["00.png"]
    assert answers_in(tmp_path / "data") == []
    command = start("--answers-per-round", "2")
    page = command.page()
    assert "1 of 2 answers for the next training round received" in command.output
    assert [task["file"] for task in page.tasks(2)["tasks"]] == ["01.png", "02.png"]
    page.answer(tasks[2])  # the page that was open all the time
    wait_until(lambda: any(answer["answer"] == "accept" for answer in answers_in(tmp_path / "data")))
    assert command.end() < 5
    assert {answer["image_id"] for answer in answers_in(tmp_path / "data")} == {
        tasks[number]["image_id"] for number in (0, 2)
    }


def test_ctrl_c_twice(start: Callable[..., Command]) -> None:
    command = start()
    command.link()
    command.process.send_signal(signal.SIGINT)
    assert command.end() < 5
    assert command.process.returncode == 0
    assert "Traceback" not in command.output


def test_ctrl_c_while_a_source_says_nothing(start: Callable[..., Command]) -> None:
    """Standard input from a pipe that stays open: somebody waits for a task that does not come."""
    command = start(source="-", stdin=subprocess.PIPE)
    page = command.page()
    asking = threading.Thread(target=lambda: _quietly(page.tasks), daemon=True)
    asking.start()
    time.sleep(0.5)
    assert command.end() < 5
    assert command.process.returncode == 0
    assert "Fatal Python error" not in command.output
    assert "Traceback" not in command.output
    assert not any(map(running, command.children()))


def test_ctrl_c_while_a_prediction_takes_long(start: Callable[..., Command]) -> None:
    slow = """
import time
from odkeras.session.suggester import Suggester
Suggester.__call__ = lambda self, tasks: time.sleep(60)
"""
    command = start(more=slow)
    page = command.page()
    asking = threading.Thread(target=lambda: _quietly(page.tasks), daemon=True)
    asking.start()
    time.sleep(0.5)
    assert command.end() < 5
    assert command.process.returncode == 0
    assert "Traceback" not in command.output
    assert not any(map(running, command.children()))


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception:
        return


class TestErrorsBeforeAnythingIsStarted:
    def fails(self, command: Command, status: int) -> str:
        command.process.wait(timeout=20)
        command._reader.join(5)
        assert command.process.returncode == status
        assert command.children() == []
        assert "Traceback" not in command.output
        (line,) = command.lines
        return line

    def test_a_port_that_is_taken(self, start: Callable[..., Command], tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            line = self.fails(start("--web-port", str(port)), 3)
        assert line == (
            f"error: port {port} of 127.0.0.1 is already in use; stop the program that uses it, or choose another with "
            "--web-port (0 selects a free one)\n"
        )
        assert not (tmp_path / "annotations.db").exists()

    def test_a_page_that_is_not_built(self, start: Callable[..., Command], tmp_path: Path) -> None:
        unbuilt = "server.page_files = lambda: page_files(Path('no such folder'))"
        more = f"from pathlib import Path\nfrom odkeras.web.files import page_files\n{unbuilt}"
        line = self.fails(start(more=more), 3)
        assert line.startswith("error: the page has not been built; in a source checkout run `make install`")

    def test_an_address_of_another_machine(self, start: Callable[..., Command]) -> None:
        assert self.fails(start("--host", "192.0.2.1"), 3).startswith("error: cannot listen on port 0 of 192.0.2.1")

    def test_a_database_of_something_else(self, start: Callable[..., Command], tmp_path: Path) -> None:
        (tmp_path / "other.db").write_text("something else " * 100)
        assert "other.db" in self.fails(start("--db", "other.db"), 1)

    def test_a_class_that_the_label_map_lost(self, start: Callable[..., Command], tmp_path: Path) -> None:
        """Its outputs would stay in the model, and its answers would be trained on as background."""
        extra = tmp_path / "export" / "17" / "assets.extra"
        extra.mkdir(parents=True)
        (extra / "odkeras.json").write_text(
            json.dumps({"step": 30, "graph": "", "labels": [[1, "thing"], [3, "gone"]]})
        )
        line = self.fails(start(), 2)
        assert f"error: the model in {tmp_path}/export was trained with another label map: id 3, 'gone' there, " in line
        assert "Restore the label map" in line
        assert not (tmp_path / "model").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--token", "short"), "--token has a wrong value; allowed: 8 or more printable ASCII characters"),
            (("--threshold", "2"), "threshold is 2"),
            (("--label", "cat"), "cat"),
        ],
    )
    def test_options(self, start: Callable[..., Command], options: tuple[str, ...], message: str) -> None:
        assert message in self.fails(start(*options), 2)


@pytest.mark.parametrize(
    "options",
    [
        {"web_port": -1},
        {"web_port": 65536},
        {"token": "short"},
        {"token": "tökén tökén"},
        {"token": "line\nbreak"},
        {"token": ""},
    ],
)
def test_page_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AnnotateSettings(dataset="d", source="s", config=Path("c"), **options)


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:80/"),
        ("0.0.0.0", "a b&c", "http://127.0.0.1:80/?token=a+b%26c"),
        ("::1", None, "http://[::1]:80/"),
        ("::", "abc", "http://[::1]:80/?token=abc"),  # said 127.0.0.1, where nobody listens
        ("box.lan", "abc", "http://box.lan:80/?token=abc"),
    ],
)
def test_the_link(host: str, token: str | None, expected: str) -> None:
    assert _url(host, 80, token) == expected


def test_for_other_machines_there_is_a_token(start: Callable[..., Command]) -> None:
    command = start("--host", "0.0.0.0", "--allowed-host", "box.lan")
    link = command.link()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", link)
    address = link.partition("?")[0]
    assert httpx.get(address).status_code == 401
    assert httpx.get(f"{address}api/project?session=a").status_code == 401
    with httpx.Client(follow_redirects=True) as browser:
        assert browser.get(link).text == "<!doctype html>"
        assert browser.get(f"{address}api/project", params={"session": "anna"}).status_code == 200
        token = link.partition("=")[2]
        bearer = {"authorization": f"Bearer {token}", "host": "box.lan"}
        assert httpx.get(f"{address}api/project?session=a", headers=bearer).status_code == 200
        assert httpx.get(address, headers={**bearer, "host": "evil.example"}).status_code == 403
    assert command.end() < 5


def test_labels_are_imported_trained_on_and_not_asked_again(start: Callable[..., Command], tmp_path: Path) -> None:
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    rows = [f"{name},2,3,20,30,thing" for name in names[:6]]
    (tmp_path / "labels.csv").write_text("\n".join(["path,xmin,ymin,xmax,ymax,label", *rows]) + "\n")
    command = start("--labels", "labels.csv")
    page = command.page()
    asked = [task["file"] for task in page.tasks(len(names))["tasks"]]
    assert asked and not set(asked) & set(names[:6]), asked
    assert "labels      6 imported, 0 known already" in command.output
    delivered = wait_until(lambda: answers_in(tmp_path / "data"))
    assert sorted(answer["meta"]["file"] for answer in delivered) == names[:6]
    assert {span["label"] for answer in delivered for span in answer["spans"]} == {"thing"}
