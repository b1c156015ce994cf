"""The page as a person uses it: a mouse over the picture, keys, what can be read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Error, Locator, Page, Route, expect
from waiting import wait_until
from zygote import Forked, zygote

from odkeras.web.database import AnswerDatabase

ARTIFACTS = Path(__file__).parents[2] / "artifacts" / "browser"
DATASET = "things"
IMAGES = 14
SIZE_WH = (96, 64)  # not square
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
Box = tuple[float, float, float, float]


@dataclass
class Server:
    """`odkeras annotate` as a process, in a directory with `images/`, `pipeline.config` and a label map.

    Args:
        program: the command to run, with its own trainer and model server; without, one with fakes for these is forked.
    """

    directory: Path
    options: Sequence[str] = ()
    program: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0
    url: str = ""
    output: list[str] = field(default_factory=list)
    _process: subprocess.Popen[str] | Forked | None = None

    def start(self, source: str = "images") -> Server:
        arguments = ["annotate", DATASET, source, "pipeline.config", "--no-open", "--web-port", str(self.port)]
        arguments += self.options
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **self.env}
        if self.program:
            pipe, out = subprocess.PIPE, subprocess.STDOUT
            command = [*self.program, *arguments]
            self._process = subprocess.Popen(command, cwd=self.directory, env=env, stdout=pipe, stderr=out, text=True)
        else:
            self._process = zygote().start(arguments, self.directory, env)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)
            if found := re.match(r"annotate at (\S+?):(\d+)/", line):
                self.url, self.port = f"{found[1]}:{found[2]}", int(found[2])
                threading.Thread(target=self._read, daemon=True).start()
                return self
        raise AssertionError(f"the page did not start:\n{''.join(self.output)}")

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self.output.extend(self._process.stdout)

    def stop(self, number: int = signal.SIGINT) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def answers(self) -> list[dict[str, Any]]:
        """The last answer of each session about each image, as stored."""
        with AnswerDatabase.open(self.directory / "annotations.db") as database:
            return database.examples(DATASET)

    def stored(self, image_id: str) -> dict[str, Any]:
        """The answer about an image, as soon as it is in the database."""
        wait_until(lambda: any(each["image_id"] == image_id for each in self.answers()), "the answer in the database")
        return next(each for each in self.answers() if each["image_id"] == image_id)

    def trained_on(self) -> int:
        """Answers that the fake trainer has had."""
        path = self.directory / "data" / "trained.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0


def change_tasks(page: Page, change: Callable[[dict[str, Any]], None]) -> None:
    """From now on, `change` is called with each task that the page gets."""

    def handle(route: Route) -> None:
        with suppress(Error):  # the page was closed meanwhile
            reply = route.fetch()
            found = reply.json()
            for task in found["tasks"]:
                change(task)
            route.fulfill(response=reply, body=json.dumps(found))

    page.route("**/api/tasks", handle)


@dataclass
class Desk:
    """One open page."""

    page: Page
    server: Server
    problems: list[str] = field(default_factory=list)

    def open(self, session: str | None = None, *, ready: bool = True) -> Desk:
        self.page.goto(f"{self.server.url}/{f'?session={session}' if session else ''}")
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        expect(self.stage).to_have_attribute("data-ready", "true", timeout=20_000)

    def by(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    @property
    def stage(self) -> Locator:
        return self.by("stage")

    @property
    def image_id(self) -> str:
        return str(self.stage.get_attribute("data-image-id"))

    @property
    def boxes(self) -> list[str]:
        """The list of boxes, as it is read out."""
        return [" ".join(text.split()) for text in self.by("box-item").all_inner_texts()]

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the image is on the screen, once the image is there."""
        self.wait_ready()
        rect, size = self.page.evaluate(
            "() => { const e = document.querySelector('[data-testid=image]'); const r = e.getBoundingClientRect();"
            "return [[r.left, r.top, r.width, r.height], [e.naturalWidth, e.naturalHeight]] }"
        )
        return rect[0] + x / size[0] * rect[2], rect[1] + y / size[1] * rect[3]

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one pixel of the image to another."""
        mouse = self.page.mouse
        mouse.move(*self.point(*start))
        mouse.down()
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        mouse.move(*self.point(*middle), steps=3)
        mouse.move(*self.point(*end), steps=3)
        mouse.up()

    def draw(self, box: Box, *, across: bool = False) -> None:
        """across: also where an edge of another box would be taken hold of."""
        before = self.by("box-item").count()
        if across:
            self.page.keyboard.down("Shift")
        self.drag(box[:2], box[2:])
        if across:
            self.page.keyboard.up("Shift")
        expect(self.by("box-item")).to_have_count(before + 1)

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.point(x, y))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def answer(self, key: str, *, next_image: bool = True) -> str:
        """Answer, and wait until this image is gone and (with `next_image`) another one is there; returns its id."""
        self.wait_ready()
        image_id = self.image_id
        self.press(key)
        gone = (image_id, "") if next_image else (image_id,)
        wait_until(lambda: self.stage.get_attribute("data-image-id") not in gone, "the next image")
        return image_id

    def screenshot(self, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        with suppress(Exception):  # the page may be gone
            self.page.screenshot(path=str(ARTIFACTS / f"{name}.png"))


def truth(number: int) -> tuple[int, int, int, int]:
    """The bright rectangle of a picture: left, top, right, bottom."""
    return 10 + number, 8 + number, 50 + number, 36 + number


def draw_picture(number: int) -> Image.Image:
    pixels = np.full((SIZE_WH[1], SIZE_WH[0], 3), 20 + number, np.uint8)
    left, top, right, bottom = truth(number)
    pixels[top:bottom, left:right] = (220, 200, 160 + number)
    return Image.fromarray(pixels)


def box_of(span: dict[str, Any]) -> Box:
    return span["x"], span["y"], span["x"] + span["width"], span["y"] + span["height"]
