from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from odkeras.project import Project, append_jsonl, write_atomically
from odkeras.session.events import (
    Event,
    Listener,
    SessionStatus,
    StatusWatcher,
    event_of_rejected,
    events_between,
    events_of_row,
    short_metric_name,
)
from odkeras.version_names import VersionNames


def training(round: int = 1, **changes: Any) -> dict[str, Any]:
    return {"state": "training", "reason": "training on 8 images", "round": round, "round_steps": 50, **changes}


WAITING = {"state": "waiting", "reason": "no new answers", "round": 1}
URGENT = "! "


def told(items: list[Event]) -> list[str]:
    return [(URGENT if item.urgent else "") + item.text for item in items]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (SessionStatus(), SessionStatus(), []),
        (SessionStatus(WAITING, 3), SessionStatus(WAITING, 3), []),
        # the server
        (SessionStatus(version=None), SessionStatus(version=3), ["model of version 3 is served"]),
        (SessionStatus(version=3), SessionStatus(version=4), ["model of version 4 is served"]),
        (SessionStatus(version=3), SessionStatus(version=None), ["model of version 3 is no longer served"]),
        # the trainer
        (
            SessionStatus(),
            SessionStatus({"state": "building", "reason": "building the model"}),
            ["trainer: building the model"],
        ),
        (SessionStatus(), SessionStatus({"state": "starting", "reason": ""}), ["trainer: starting"]),
        (SessionStatus(), SessionStatus({}), []),  # somebody else's status.json
        (SessionStatus(WAITING), SessionStatus(None), []),  # another trainer has not said anything yet
        (SessionStatus(WAITING), SessionStatus(training()), ["trainer: round 1, 50 steps: training on 8 images"]),
        (
            SessionStatus(training(round_step=1)),
            SessionStatus(training(round_step=9, loss=0.5)),
            [],
        ),  # progress is no news
        # The next round was not told of if it followed within a quarter of a second and with as many images.
        (SessionStatus(training(1)), SessionStatus(training(2)), ["trainer: round 2, 50 steps: training on 8 images"]),
        (SessionStatus({**WAITING, "round": 1}), SessionStatus({**WAITING, "round": 2}), []),
        (
            SessionStatus(WAITING),
            SessionStatus({**WAITING, "reason": "no answers yet"}),
            ["trainer: waiting: no answers yet"],
        ),
        (SessionStatus(WAITING), SessionStatus({"state": "failed", "reason": "no GPU"}), ["trainer: failed: no GPU"]),
        # a state that its reason names was named twice
        (
            SessionStatus(training()),
            SessionStatus({"state": "paused", "reason": "paused in round 2, at step 1 of 5"}),
            ["trainer: paused in round 2, at step 1 of 5"],
        ),
        (
            SessionStatus(training()),
            SessionStatus({"state": "stopped", "reason": "training is stopped; new answers wait until it is resumed"}),
            ["trainer: training is stopped; new answers wait until it is resumed"],
        ),
        (SessionStatus(training()), SessionStatus({"state": "stopped", "reason": ""}), ["trainer: stopped"]),
        (
            SessionStatus(),
            SessionStatus({"state": "paused", "reason": "new answers wait"}),
            ["trainer: paused: new answers wait"],
        ),
        # what was given up
        (
            SessionStatus(),
            SessionStatus(failure="the trainer ended with status 1"),
            ["! training or suggestions failed, annotation continues: the trainer ended with status 1"],
        ),
        (SessionStatus(failure="the trainer ended"), SessionStatus(failure="the trainer ended"), []),
        (SessionStatus(failure="the trainer ended"), SessionStatus(), ["training and suggestions work again"]),
        (
            SessionStatus(WAITING, 3),
            SessionStatus(training(), None, "gone"),
            [
                "! training or suggestions failed, annotation continues: gone",
                "model of version 3 is no longer served",
                "trainer: round 1, 50 steps: training on 8 images",
            ],
        ),
    ],
)
def test_events_for_each_change_of_status(before: SessionStatus, now: SessionStatus, expected: list[str]) -> None:
    assert told(list(events_between(before, now, VersionNames()))) == expected


def test_a_failure_has_one_sentence_and_its_log() -> None:
    """Fifteen lines of a log stood in the news, and over the image."""
    look = SessionStatus(
        failure="the trainer ended with status 2: out of memory",
        log="the end of trainer.log:\nTraceback",
        failed="trainer",
    )
    (item,) = events_between(SessionStatus(), look, VersionNames())
    assert item.text == (
        "training or suggestions failed, annotation continues: the trainer ended with status 2: out of memory"
    )
    assert item.details == "the end of trainer.log:\nTraceback"


def test_a_version_is_called_by_its_round_and_time() -> None:
    version = int(time.time())
    names = VersionNames([{**ROUND, "version": version}])
    (item,) = events_between(SessionStatus(), SessionStatus(version=version), names)
    assert item.text == f"model of round 2, {time.strftime('%H:%M', time.localtime(version))} is served"
    assert item.version == version


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("DetectionBoxes_Precision/mAP", "mAP"),
        ("DetectionBoxes_Precision/mAP@.50IOU", "mAP50"),
        ("PascalBoxes_Precision/mAP@0.5IOU", "mAP50"),
        ("mAP50", "mAP50"),
        ("DetectionBoxes_Precision/mAP@.75IOU", ""),
        ("DetectionBoxes_Precision/mAP (small)", ""),
        ("AP/car", ""),
    ],
)
def test_short_names_of_metrics(name: str, short: str) -> None:
    assert short_metric_name(name) == short


def test_mean_average_precision_comes_first_in_the_news() -> None:
    metrics = {f"DetectionBoxes_Precision/{name}": 0.25 for name in ("mAP (large)", "mAP@.50IOU", "mAP", "mAP@.75IOU")}
    (item,) = events_of_row({"kind": "evaluation", "round": 2, "metrics": metrics}, VersionNames())
    assert item.text.startswith("evaluation after round 2: mAP 0.250, mAP50 0.250, Det")


ROUND = {"kind": "round", "round": 2, "steps": 50, "examples": 8, "loss": 0.123456, "train_s": 4.56, "version": 17}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            ROUND,
            ["round 2: trained 50 steps on 8 images in 4.6 s, loss 0.1235", "model of round 2, version 17 published"],
        ),
        (
            {**ROUND, "checkpoint": "ckpt-3"},
            [
                "round 2: trained 50 steps on 8 images in 4.6 s, loss 0.1235",
                "checkpoint ckpt-3 saved",
                "model of round 2, version 17 published",
            ],
        ),
        # a round that an earlier process closed: nobody knows how it went
        (
            {**ROUND, "steps": 0, "loss": None, "train_s": 0.0, "version": None},
            ["round 2: trained 0 steps on 8 images"],
        ),
        (
            {**ROUND, "version": None, "problems": ["a.png: span 1: 'car' has no area inside the image"]},
            [
                "! a box is excluded from training: a.png: span 1: 'car' has no area inside the image",
                "round 2: trained 50 steps on 8 images in 4.6 s, loss 0.1235",
            ],
        ),
        (
            {**ROUND, "kind": "extra", "steps": 100, "version": None},
            ["round 2, further: trained 100 steps on 8 images in 4.6 s, loss 0.1235"],
        ),
        ({**ROUND, "failed": "the loss is not finite"}, ["! round 2 failed: the loss is not finite"]),
        (
            {
                "kind": "evaluation",
                "round": 2,
                "metrics": {"mAP": 0.51234, "mAP50": 0.75, "images": 8, "mAP large": -1.0},
            },
            ["evaluation after round 2: mAP 0.512, mAP50 0.750"],  # -1 stands for: there are none of these
        ),
        (
            {"kind": "evaluation", "round": 2, "metrics": {f"m{number}": 0.5 for number in range(6)}},
            ["evaluation after round 2: m0 0.500, m1 0.500, m2 0.500, m3 0.500"],
        ),
        (
            {"kind": "evaluation", "round": 2, "metrics": {"mAP": float("nan")}},
            ["evaluation after round 2: no figures"],
        ),
        ({"kind": "evaluation", "round": 2, "metrics": None}, ["evaluation after round 2: no figures"]),
        (
            {"kind": "evaluation", "round": 2, "failed": "no examples"},
            ["! evaluation after round 2: failed: no examples"],
        ),
        (
            {"kind": "garbage", "versions": [3, 4], "records": ["1_train.record"]},
            ["deleted old files: 2 versions, 1 records"],
        ),
        ({"kind": "garbage", "versions": [], "records": []}, []),  # nothing was deleted, nothing to tell
        ({"kind": "something new"}, []),
        ({}, []),
    ],
)
def test_events_for_each_row_of_metrics(row: dict[str, Any], expected: list[str]) -> None:
    assert told(list(events_of_row(row, VersionNames([row])))) == expected


def test_details_are_for_who_wants_to_know_more() -> None:
    assert next(events_of_row(ROUND, VersionNames())).details == ROUND
    assert next(events_between(SessionStatus(), SessionStatus(training()), VersionNames())).details == training()


@pytest.mark.parametrize(
    ("version", "text", "line"),
    [
        (1795613835, "model of round 7, 13:36 is served", "model of round 7, 13:36 is served (version 1795613835)"),
        (17, "model of version 17 is served", "model of version 17 is served"),
        (None, "trainer: waiting", "trainer: waiting"),
    ],
)
def test_the_terminal_shows_the_version_number(version: int | None, text: str, line: str) -> None:
    assert Event(text, version=version).line == line


def test_an_event_for_a_rejected_answer() -> None:
    item = event_of_rejected({"batch": "1.jsonl", "number": 1, "reason": "a.png: label 'cat' is not in the label map"})
    assert told([item]) == [
        "! an answer cannot be used for training (see rejected.jsonl): a.png: label 'cat' is not in the label map"
    ]


class Said(Listener):
    def __init__(self, said: list[str]) -> None:
        self._said = said

    def event(self, event: Event) -> None:
        self._said.extend(told([event]))


class TestStatusWatcher:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Project:
        project = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
        project.create()
        return project

    @pytest.fixture
    def said(self) -> list[str]:
        return []

    def watch(
        self, project: Project, said: list[str], look: Callable[[], SessionStatus] = SessionStatus, **options: Any
    ) -> StatusWatcher:
        return StatusWatcher(look, project, Said(said), **options)

    def test_tells_from_a_thread_of_its_own(self, project: Project, said: list[str]) -> None:
        append_jsonl(project.metrics_path, [{**ROUND, "round": 1, "version": 16}])  # of an earlier session
        append_jsonl(project.rejected_path, [{"reason": "old"}])
        with self.watch(project, said, poll_s=0.005):
            wait_until(lambda: threading.active_count() > 1)
            append_jsonl(project.metrics_path, [ROUND])
            wait_until(lambda: len(said) == 2)
            append_jsonl(project.rejected_path, [{"reason": "no label"}])
            wait_until(lambda: len(said) == 3)
        assert said == [
            "round 2: trained 50 steps on 8 images in 4.6 s, loss 0.1235",
            "model of round 2, version 17 published",
            "! an answer cannot be used for training (see rejected.jsonl): no label",
        ]
        assert "odkeras-watch" not in [thread.name for thread in threading.enumerate()]

    def test_in_the_order_of_the_flow(self, project: Project, said: list[str]) -> None:
        """What the trainer wrote before it changed its status is told before that."""
        looks = iter([SessionStatus(training(1), 3), SessionStatus(WAITING, 17)])
        watch = self.watch(project, said, lambda: next(looks))
        watch.poll_once()
        append_jsonl(project.metrics_path, [ROUND])
        watch.poll_once()
        assert said == [
            "model of version 3 is served",
            "trainer: round 1, 50 steps: training on 8 images",
            "round 2: trained 50 steps on 8 images in 4.6 s, loss 0.1235",
            "model of round 2, version 17 published",
            "model of round 2, version 17 is served",
            "trainer: waiting: no new answers",
        ]

    def test_a_torn_line_is_told_of_when_it_is_whole(self, project: Project, said: list[str]) -> None:
        line = json.dumps({"reason": "no label"}).encode() + b"\n"
        project.rejected_path.write_bytes(line[:10])
        with self.watch(project, said, poll_s=60) as watch:
            watch.poll_once()
            assert said == []
            with project.rejected_path.open("ab") as file:
                file.write(line[10:])
            watch.poll_once()
            watch.poll_once()
            assert said == ["! an answer cannot be used for training (see rejected.jsonl): no label"]

    def test_a_file_that_is_replaced_is_told_of_from_its_start(self, project: Project, said: list[str]) -> None:
        append_jsonl(project.rejected_path, [{"reason": "old"}] * 5)
        with self.watch(project, said, poll_s=60) as watch:
            write_atomically(project.rejected_path, '{"reason": "new"}\n')
            watch.poll_once()
        assert said == ["! an answer cannot be used for training (see rejected.jsonl): new"]

    def test_another_version_is_told_of_at_once(self, project: Project, said: list[str]) -> None:
        looks = iter([SessionStatus(version=version) for version in (None, 3, 3, None, 4)])
        watch = self.watch(project, said, lambda: next(looks))
        for _ in range(5):
            watch.poll_once()
        assert said == [
            "model of version 3 is served",
            "model of version 3 is no longer served",
            "model of version 4 is served",
        ]

    def test_goes_on_after_an_error_that_it_logs_once(
        self, project: Project, said: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was logged with a trace four times a second."""
        looked: list[int] = []

        def look() -> SessionStatus:
            looked.append(1)
            if len(looked) < 20:
                raise ValueError("strange")
            return SessionStatus(version=3)

        with caplog.at_level(logging.ERROR), self.watch(project, said, look, poll_s=0.001):
            wait_until(lambda: said)
        assert said == ["model of version 3 is served"]
        assert caplog.messages == ["the status of the trainer and the server cannot be read"]

    def test_close_twice_and_without_entering(self, project: Project, said: list[str]) -> None:
        self.watch(project, said).close()
        with self.watch(project, said) as watch:
            watch.close()
        watch.close()
