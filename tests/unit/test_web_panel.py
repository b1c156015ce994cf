from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from odkeras.annotation import EditCounts
from odkeras.errors import DatabaseError
from odkeras.project import Project, append_jsonl
from odkeras.session.events import Event, SessionStatus
from odkeras.web.panel import MAX_LINES, MAX_METRICS, MAX_ROUNDS, MAX_SKIPPED, Panel, one_line
from odkeras.web.stored import VersionEdits


class Figures:
    """What the database would say."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.edits: list[VersionEdits] = []
        self.counted = 0
        self.fails = False

    def count(self) -> dict[str, dict[str, int]]:
        self.counted += 1
        if self.fails:
            raise DatabaseError("busy")
        return self.counts


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
    made.create()
    return made


@pytest.fixture
def panel(project: Project, figures: Figures) -> Panel:
    return Panel(project, counts=figures.count, edits=lambda: figures.edits)


def document(panel: Panel, session: str = "anna") -> dict[str, Any]:
    """As a browser reads it: JSON without NaN."""
    return dict(json.loads(json.dumps(msgspec.to_builtins(panel.state(session)), allow_nan=False)))


def test_the_document_before_the_first_event(panel: Panel) -> None:
    nothing = {"accept": 0, "reject": 0, "ignore": 0}
    assert document(panel) == {
        "trainer": None,
        "failure": "",
        "failed": "",
        "version": None,
        "names": {},
        "published_s_ago": None,
        "answers": nothing,
        "mine": nothing,
        "total": None,
        "left": None,
        "pending": 0,
        "training": "running",
        "labels": 0,
        "skipped": [],
        "skipped_count": 0,
        "sessions": [],
        "versions": [],
        "first_loss": None,
        "rounds": [],
        "evaluations": [],
    }


class TestLooked:
    def test_trainer_and_version(self, panel: Panel) -> None:
        version = int(time.time()) - 12
        status = {"state": "training", "reason": "new answers", "round": 3, "round_step": 40, "round_steps": 120}
        panel.set_status(SessionStatus({**status, "loss": 0.31, "pid": 5, "updated": 1.0}, version, "the server ended"))
        found = document(panel)
        assert found["trainer"] == {
            "state": "training",
            "reason": "new answers",
            "round": 3,
            "step": 40,
            "steps": 120,
            "loss": 0.31,
        }
        assert (found["version"], found["failure"]) == (version, "the server ended")
        assert found["published_s_ago"] == pytest.approx(12, abs=2)
        assert panel.version == version

    def test_a_version_that_is_no_time(self, panel: Panel) -> None:
        panel.set_status(SessionStatus(version=7))
        assert document(panel)["published_s_ago"] is None

    @pytest.mark.parametrize("loss", [math.nan, math.inf, None, "0.3", True, 10**400])
    def test_a_loss_that_is_no_figure(self, panel: Panel, loss: Any) -> None:
        panel.set_status(SessionStatus({"state": "training", "loss": loss}))
        assert document(panel)["trainer"]["loss"] is None

    def test_the_revision_grows_only_if_something_changed(self, panel: Panel, project: Project) -> None:
        look = SessionStatus({"state": "waiting"}, 3)
        panel.set_status(look)
        before = panel.revision
        panel.set_status(SessionStatus({"state": "waiting"}, 3))
        assert panel.revision == before
        append_jsonl(project.metrics_path, [{"kind": "round", "round": 1}])
        panel.set_status(look)
        assert panel.revision == before + 1


class TestMetrics:
    def test_rounds_of_earlier_runs_and_new_ones(self, panel: Panel, project: Project) -> None:
        first = {"kind": "round", "round": 1, "loss": 1.2, "steps": 100, "examples": 10, "train_s": 12.1, "version": 17}
        append_jsonl(project.metrics_path, [{**first, "batches": ["a"], "checkpoint": "ckpt-1"}])
        panel.set_status(SessionStatus())
        append_jsonl(project.metrics_path, [{"kind": "round", "round": 2, "loss": math.nan, "failed": "not finite"}])
        append_jsonl(project.metrics_path, [{"kind": "garbage", "versions": [1]}, {"kind": "?"}, {}])
        panel.set_status(SessionStatus())
        nothing = dict.fromkeys(("loss", "steps", "examples", "train_s", "version"))
        assert document(panel)["rounds"] == [
            {**{name: first[name] for name in first if name != "kind"}, "failed": ""},
            {"round": 2, **nothing, "failed": "not finite"},
        ]

    def test_evaluations(self, panel: Panel, project: Project) -> None:
        metrics = {"mAP": 0.3, "bad": math.nan, "text": "x", **{f"class {number}": 0.1 for number in range(100)}}
        append_jsonl(
            project.metrics_path,
            [
                {"kind": "evaluation", "round": 1, "metrics": metrics},
                {"kind": "evaluation", "round": 2, "failed": "out of memory"},
                {"kind": "evaluation", "round": 3, "metrics": [1]},  # somebody else's line
                {"kind": "round", "round": 3},
            ],
        )
        panel.set_status(SessionStatus())
        first, second = document(panel)["evaluations"][:2]
        assert first["metrics"]["mAP"] == 0.3
        assert len(first["metrics"]) == MAX_METRICS
        assert not {"bad", "text"} & set(first["metrics"])
        assert second == {"round": 2, "metrics": {}, "failed": "out of memory"}
        assert document(panel)["rounds"], "a line that makes no sense does not hide those after it"

    def test_the_last_ones_are_kept(self, panel: Panel, project: Project) -> None:
        append_jsonl(project.metrics_path, [{"kind": "round", "round": number} for number in range(MAX_ROUNDS + 10)])
        panel.set_status(SessionStatus())
        assert [row["round"] for row in document(panel)["rounds"]] == list(range(10, MAX_ROUNDS + 10))


class TestNames:
    def test_served_judged_and_of_rounds(self, panel: Panel, project: Project, figures: Figures) -> None:
        now = int(time.time())
        clock = time.strftime("%H:%M", time.localtime(now))
        append_jsonl(project.metrics_path, [{"kind": "round", "round": 4, "version": now, "outcome": "published"}])
        figures.edits = [VersionEdits(17, 10, EditCounts())]
        panel.count()
        panel.set_status(SessionStatus(version=12))
        panel.set_status(SessionStatus(version=now))
        assert document(panel)["names"] == {"12": "version 12", "17": "version 17", str(now): f"round 4, {clock}"}

    def test_of_a_round_that_was_held_back_or_failed(self, panel: Panel, project: Project) -> None:
        """Its line has the version before it."""
        rows = [{"round": 1, "version": 17}, {"round": 2, "version": 17, "outcome": "held back"}]
        rows += [{"round": 3, "version": 17, "failed": "not finite"}]
        append_jsonl(project.metrics_path, [{"kind": "round", **row} for row in rows])
        panel.set_status(SessionStatus())
        assert document(panel)["names"] == {"17": "round 1, version 17"}


class TestFailures:
    """What a log says is shown when it is asked for."""

    LONG = "the trainer failed: no memory\nTraceback (most recent call last):\n  File x\n" + "y" * 1000

    def test_a_sentence(self, panel: Panel, project: Project) -> None:
        append_jsonl(project.metrics_path, [{"kind": "round", "round": 1, "failed": self.LONG}])
        append_jsonl(project.metrics_path, [{"kind": "evaluation", "round": 1, "failed": self.LONG}])
        panel.set_status(
            SessionStatus(
                {"state": "failed", "reason": self.LONG}, failure=self.LONG, log="Traceback", failed="trainer"
            )
        )
        panel.log(Event(self.LONG, urgent=True))
        found = document(panel)
        sentence = "the trainer failed: no memory"
        assert [row["failed"] for row in (*found["rounds"], *found["evaluations"])] == [sentence, sentence]
        assert (found["failure"], found["failed"], found["trainer"]["reason"]) == (sentence, "trainer", sentence)
        assert panel.lines_after(0)[0].text == sentence
        assert "Traceback" not in json.dumps(found)

    def test_not_too_long(self) -> None:
        assert one_line("\n" + "x" * 1000) == "x" * 300 + "…"
        assert one_line("") == ""


def test_the_first_loss_is_kept(panel: Panel, project: Project) -> None:
    """What the newest is to be compared with."""
    rows = [{"kind": "round", "round": number, "loss": 2.5 - number / 100} for number in range(MAX_ROUNDS + 5)]
    append_jsonl(project.metrics_path, [{"kind": "round", "round": 0, "failed": "not finite"}, *rows])
    panel.set_status(SessionStatus())
    assert document(panel)["first_loss"] == 2.5


class TestNews:
    def test_numbers_grow_and_old_lines_go(self, panel: Panel) -> None:
        for number in range(MAX_LINES + 5):
            panel.log(Event(f"line {number}", urgent=number % 2 == 1, details={"not": "shown"}))
        lines = panel.lines_after(0)
        assert [line.number for line in lines] == list(range(6, MAX_LINES + 6))
        assert panel.last_line == MAX_LINES + 5
        assert [line.text for line in panel.lines_after(MAX_LINES + 3)] == ["line 53", "line 54"]
        shown = lines[0].message()
        assert (shown.text, shown.urgent, shown.version) == ("line 5", True, None)
        assert shown.at == pytest.approx(time.time(), abs=5)


def test_skipped(panel: Panel) -> None:
    for number in range(MAX_SKIPPED + 3):
        panel.skipped(f"{number}.png", "truncated")
    found = document(panel)
    assert found["skipped_count"] == MAX_SKIPPED + 3
    assert found["skipped"][0] == {"file": "3.png", "reason": "truncated"}
    assert len(found["skipped"]) == MAX_SKIPPED
    assert panel.revision == MAX_SKIPPED + 3


class TestCounts:
    def test_all_mine_and_sessions(self, panel: Panel, figures: Figures) -> None:
        figures.counts = {
            "ben": {"accept": 3, "reject": 1, "ignore": 0},
            "anna": {"accept": 1, "reject": 0, "ignore": 2},
        }
        panel.count()
        panel.update(here=["cleo", "anna"], total=20, left={None: 13}, pending=2)
        found = document(panel)
        assert found["answers"] == {"accept": 4, "reject": 1, "ignore": 2}
        assert found["mine"] == {"accept": 1, "reject": 0, "ignore": 2}
        assert document(panel, "cleo")["mine"] == {"accept": 0, "reject": 0, "ignore": 0}
        assert found["sessions"] == [
            {"name": "anna", "answers": 3, "here": True},
            {"name": "ben", "answers": 4, "here": False},
            {"name": "cleo", "answers": 0, "here": True},
        ]
        assert (found["total"], found["left"], found["pending"]) == (20, 13, 2)

    def test_left_of_each_session_where_each_is_asked_about_all(self, panel: Panel) -> None:
        panel.update(total=20, left={"anna": 13, "ben": None})
        assert [document(panel, name)["left"] for name in ("anna", "ben", "cleo")] == [13, None, None]

    def test_versions(self, panel: Panel, figures: Figures) -> None:
        did = EditCounts(kept=15, kept_80=17, adjusted=6, deleted=3, added=4)
        figures.edits = [VersionEdits(number, 10, did) for number in range(MAX_ROUNDS + 2)]
        panel.count()
        versions = document(panel)["versions"]
        assert len(versions) == MAX_ROUNDS
        assert versions[-1] == {
            "version": MAX_ROUNDS + 1,
            "images": 10,
            "suggested": 24,
            "kept": 15,
            "adjusted": 6,
            "relabelled": 0,
            "deleted": 3,
            "added": 4,
            "kept_80": 17,
            "picked": 0,
        }

    def test_counted_only_when_somebody_answered(self, panel: Panel, figures: Figures) -> None:
        for _ in range(3):
            panel.count()
        assert figures.counted == 1
        panel.answered()
        panel.count()
        assert figures.counted == 2

    def test_counted_again_after_a_failure(self, panel: Panel, figures: Figures) -> None:
        """The figures stayed as they were until the next answer."""
        figures.fails = True
        with pytest.raises(DatabaseError):
            panel.count()
        figures.fails, figures.counts = False, {"anna": {"accept": 1, "reject": 0, "ignore": 0}}
        panel.count()
        assert document(panel)["mine"]["accept"] == 1

    def test_the_revision_grows_only_if_a_fact_changed(self, panel: Panel) -> None:
        panel.update(total=5)
        before = panel.revision
        panel.update(total=5)
        assert panel.revision == before
        panel.update(total=5, left={None: 4})
        assert panel.revision == before + 1


def test_many_threads(panel: Panel, project: Project, figures: Figures) -> None:
    figures.counts = {"anna": {"accept": 1, "reject": 0, "ignore": 0}}
    problems: list[BaseException] = []

    def busy(number: int) -> None:
        try:
            for turn in range(100):
                panel.set_status(SessionStatus({"state": "training", "round": turn}, turn))
                panel.log(Event(f"{number} {turn}"))
                panel.skipped("a", "b")
                panel.update(here=[str(turn)])
                panel.answered()
                panel.count()
                document(panel)
                panel.lines_after(turn)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=busy, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not problems
    assert panel.last_line == 400
    assert document(panel)["skipped_count"] == 400
