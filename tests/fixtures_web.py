"""`odkeras annotate` in this process: the real host and application on a free port, fakes in place of TensorFlow.

    import fixtures_web

    web_project, annotate = fixtures_web.web_project, fixtures_web.annotate

    def test_something(annotate):
        page = annotate().page("anna")
        (task,) = page.tasks()["tasks"]
        page.answer(task)

Without `model=True` nobody trains or serves, and no process is started.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "unit"))

import fake_processes

from odkeras.config import AnnotateSettings
from odkeras.inbox import list_batches, read_batch
from odkeras.labels import Label, LabelMap
from odkeras.process import open_listener
from odkeras.project import read_jsonl
from odkeras.serving.listening import HttpServer
from odkeras.session.events import Event
from odkeras.web import app as web_app
from odkeras.web.app import create_app
from odkeras.web.files import PageFile
from odkeras.web.journal import Journal
from odkeras.web.opening import open_page
from odkeras.web.outbox import DeliveryRules
from odkeras.web.security import Policy
from odkeras.web.service import PageService

Task = dict[str, Any]
IMAGES = 12
DATASET = "things"
SPAN = {"id": "1", "label": "thing", "type": "rect", "x": 20, "y": 10, "width": 30, "height": 20}
FILES = {
    "/": PageFile(b"<!doctype html>", "text/html; charset=utf-8"),
    "/page.js": PageFile(b"", "text/javascript; charset=utf-8"),
}


def save_images(folder: Path, count: int = IMAGES) -> None:
    """Not square, each different, with one bright rectangle (SPAN)."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[10:30, 20:50] = 255
    for number in range(count):
        pixels[0, 0], pixels[0, 1] = number % 256, number // 256
        Image.fromarray(pixels).save(folder / f"{number:02}.png")


def save_project(folder: Path, count: int = IMAGES) -> None:
    """A config, a label map and images."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.config").write_text("")
    LabelMap((Label(1, "thing", "Thing"), Label(2, "other"))).save(folder / "label_map.pbtxt")
    save_images(folder / "images", count)


@pytest.fixture
def web_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with twelve images, whose trainer and server are fakes; the working directory."""
    fake_processes.use_fakes(monkeypatch.setattr)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # no tensorflow_model_server
    folder = tmp_path / "project"
    save_project(folder)
    monkeypatch.chdir(folder)
    return folder


class ListedJournal(Journal):
    """Keeps the events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)
        super().event(event)

    def has(self, text: str) -> bool:
        return any(text in event.text for event in self.events)


class Page:
    """A tab of a session, as the browser talks."""

    def __init__(self, url: str, session: str, tab: str) -> None:
        self.session, self.tab = session, tab
        self.http = httpx.Client(base_url=url, timeout=20)

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.http.get(path, params={"session": self.session, "tab": self.tab, **query})

    def post(self, path: str, **body: Any) -> httpx.Response:
        text = json.dumps({"session": self.session, "tab": self.tab, **body})  # in ASCII, unlike httpx
        return self.http.post(path, content=text, headers={"content-type": "application/json"})

    def tasks(self, count: int = 1, have: Sequence[Task] = ()) -> dict[str, Any]:
        return read(self.post("/api/tasks", count=count, have=[each["image_id"] for each in have]))

    def send(self, *answers: dict[str, Any]) -> dict[str, Any]:
        return read(self.post("/api/answers", answers=list(answers)))

    def answer(self, task: Task, decision: str = "accept", **changes: Any) -> dict[str, Any]:
        """Sends an answer, which must be saved; returns it."""
        answer = answer_to(task, decision, **changes)
        assert self.send(answer) == {"saved": [answer["answer_id"]], "refused": []}
        return answer

    def save(self) -> int:
        return int(read(self.post("/api/save"))["delivered"])

    def history(self) -> list[dict[str, Any]]:
        return list(read(self.get("/api/history"))["answers"])

    @contextmanager
    def events(self, **headers: str) -> Iterator[Iterator[tuple[str, Any, str]]]:
        """(event, data, id), one after the other; a comment is ("", text, "")."""
        query = {"session": self.session, "tab": self.tab}
        with self.http.stream("GET", "/api/events", params=query, headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            yield read_events(response.iter_lines())

    def panel(self) -> dict[str, Any]:
        """The state of affairs now."""
        with self.events() as events:
            return next(data for event, data, _ in events if event == "state")


def read_events(lines: Iterator[str]) -> Iterator[tuple[str, Any, str]]:
    found: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield "", line[1:].strip(), ""
        elif line:
            name, _, value = line.partition(": ")
            found[name] = value
        elif "event" in found:
            yield found["event"], json.loads(found["data"]), found.get("id", "")
            found = {}
        else:
            found = {}


def read(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(response.json())


def answer_to(task: Task, decision: str = "accept", **changes: Any) -> dict[str, Any]:
    spans = [SPAN] if decision == "accept" else []
    made = {"answer_id": uuid.uuid4().hex, "image_id": task["image_id"], "answer": decision, "spans": spans}
    return {**made, "age_ms": 0, **changes}


class Annotating:
    """The running application."""

    def __init__(self, service: PageService, url: str, stack: ExitStack) -> None:
        self.service, self.url = service, url
        self._stack = stack
        self._pages: list[Page] = []

    @property
    def journal(self) -> ListedJournal:
        assert isinstance(self.service.journal, ListedJournal)
        return self.service.journal

    def page(self, session: str = "default", tab: str = "tab") -> Page:
        self._pages.append(Page(self.url, session, tab))
        return self._pages[-1]

    def close(self) -> None:
        """As Ctrl-C does."""
        self._stack.close()

    def hang_up(self) -> None:
        """Close all tabs: a server that stops waits for them."""
        for page in self._pages:
            page.http.close()
        self._pages = []

    def crash(self) -> None:
        """As far as that is possible in one process: nothing more is delivered."""
        self.service.outbox._deliver_due = lambda: False  # type: ignore[method-assign]
        self.close()


def arguments_of(changes: dict[str, Any], *, model: bool = False) -> AnnotateSettings:
    """With no model, somebody else would serve it at a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nobody = {"ip": "127.0.0.1", "port": port, "external_trainer": True}
    places = {"model_dir": "model", "data_dir": "data", "export_dir": "export"}
    plain: dict[str, Any] = {"dataset": DATASET, "source": "images", "config": Path("pipeline.config")}
    return AnnotateSettings(**{**plain, "steps_per_epoch": 5, **places, **({} if model else nobody), **changes})


@pytest.fixture
def annotate(web_project: Path) -> Iterator[Callable[..., Annotating]]:
    """Starts `odkeras annotate` without its command line; what still runs is stopped at the end.

    Arguments are those of `AnnotateSettings` and `policy`; `model` starts the fake trainer and server.
    """
    with annotating() as start:
        yield start


@contextmanager
def annotating() -> Iterator[Callable[..., Annotating]]:
    """`annotate`, for fixtures of a larger scope."""
    started: list[Annotating] = []

    def start(*, model: bool = False, policy: Policy | None = None, **changes: Any) -> Annotating:
        settings = arguments_of(changes, model=model)
        started.append(_start(open_page(settings, ListedJournal()), policy or Policy()))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("odkeras.web.service.DeliveryRules", partial(DeliveryRules, poll_s=0.05))
        patch.setattr(web_app, "SHOWN_EVERY_S", 0.04)
        patch.setattr("odkeras.web.state_events.SHOWN_EVERY_S", 0.04)
        patch.setattr("odkeras.web.housekeeping.HOUSEKEEPING_S", 0.04)
        yield start
        for each in started:
            each.hang_up()
            each.close()


class QuickServer(HttpServer):
    """Looks ten times as often as uvicorn whether it is to stop."""

    async def main_loop(self) -> None:
        while not await self.on_tick(1):
            await asyncio.sleep(0.01)


def _start(service: PageService, policy: Policy) -> Annotating:
    closing, ready = threading.Event(), threading.Event()
    with ExitStack() as stack:
        stack.enter_context(service)
        listener = stack.enter_context(open_listener("127.0.0.1", 0))
        server = QuickServer(create_app(service, FILES, policy, closing=closing.is_set), ready.set, grace_s=1)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        stack.callback(thread.join, 10)
        stack.callback(server.stop)
        stack.callback(closing.set)
        thread.start()
        assert ready.wait(10)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return Annotating(service, url, stack.pop_all())


def answers_in(data_dir: Path) -> list[Task]:
    """What the fake trainer has trained on, and what waits in the inbox."""
    waiting = [answer for path in list_batches(data_dir / "inbox") for answer, _ in read_batch(path)]
    return [*read_jsonl(data_dir / "trained.jsonl"), *(answer for answer in waiting if answer)]
