from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_processes
import numpy as np
import pytest
from PIL import Image
from waiting import wait_until

from odkeras.annotation import EditCounts, Task
from odkeras.config import SimulationSettings
from odkeras.control import Control
from odkeras.errors import ConfigError, LabelMapError, RecordError, TrainingError
from odkeras.formats.prodigy import read_annotation, write_answer
from odkeras.images import read_image
from odkeras.labels import LabelMap
from odkeras.project import find_round, read_jsonl
from odkeras.simulation import simulate as module
from odkeras.simulation import state as state_module
from odkeras.simulation.report import CurvePoint, draw_curve, read_curve
from odkeras.simulation.simulate import SimulationResult, simulate
from odkeras.simulation.state import AnsweredBatch, SimulationState
from odkeras.simulation.truth import answer_task, read_labeled_images, split_held_out

IMAGES = 30
LABELS = LabelMap.from_names(["thing"])


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[str] = []
        self.points: list[CurvePoint] = []
        self.on_point: Callable[[CurvePoint], None] = lambda point: None

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, text: str) -> None:
        self.shown.append(text)

    def point(self, point: CurvePoint) -> None:
        self.points.append(point)
        self.on_point(point)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_processes.use_fakes(monkeypatch.setattr)
    monkeypatch.setattr(module, "_POLL_S", 0.02)
    monkeypatch.setattr(state_module, "draw_curve", lambda points, path, title: path.write_bytes(b""))
    make_project(tmp_path)
    return tmp_path


def make_project(directory: Path) -> None:
    """Bright rectangles on pictures that are not square; every tenth picture has none, one touches the edge."""
    (directory / "pipeline.config").write_text("")
    LABELS.save(directory / "label_map.pbtxt")
    (directory / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = ["path,xmin,ymin,xmax,ymax,label"]
    for number in range(IMAGES):
        pixels = np.full((48, 64, 3), 20 + number, np.uint8)
        x, y = (0, 0) if number == 1 else (int(rng.integers(0, 30)), int(rng.integers(0, 20)))
        width, height = int(rng.integers(12, 30)), int(rng.integers(12, 26))
        if number % 10:
            pixels[y : y + height, x : x + width] = 250
            rows.append(f"{number:02d}.png,{x},{y},{x + width},{y + height},thing")
        else:
            rows.append(f"{number:02d}.png,,,,,")
        Image.fromarray(pixels).save(directory / "images" / f"{number:02d}.png")
    (directory / "truth.csv").write_text("\n".join(rows) + "\n")


def run(project: Path, display: Recorder | None = None, **changes: Any) -> SimulationResult:
    files = {name: changes.pop(name) for name in ("report_dir", "test_csv") if name in changes}
    options = {"annotations": 12, "images_per_round": 4, "steps_per_epoch": 5, **changes}
    settings = SimulationSettings(config=project / "pipeline.config", **options)
    return simulate(project / "truth.csv", settings, project / "images", display=display or Recorder(), **files)


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_paused_training_ends_the_simulation(project: Path, action: str) -> None:
    """It waited for the first round for ever."""
    (project / "model").mkdir()
    control = Control(project / "model" / "control.json")
    state = control.set(action)
    with pytest.raises(ConfigError, match=f"training is {state}, and .*: `odkeras training resume {project}`"):
        run(project)


class TestKnownImages:
    def test_one_part_to_annotate_one_to_measure(self, project: Path) -> None:
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=lambda *_: None)
        ids = [image.image_id for image in (*known.annotate, *known.held_out)]
        assert len(set(ids)) == len(ids) == IMAGES
        assert 1 <= len(known.held_out) <= 14
        assert known.annotate[0].image_size_hw == (48, 64)
        assert [image.image_id for image in known.annotate] == sorted(image.image_id for image in known.annotate)

    def test_the_split_does_not_depend_on_names_order_or_company(self, project: Path) -> None:
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=lambda *_: None)
        everything = [*known.annotate, *known.held_out]
        held_out = {image.image_id for image in known.held_out}
        assert {image.image_id for image in split_held_out(everything[::-1])} == held_out
        half = everything[::2]
        assert {image.image_id for image in split_held_out(half)} <= held_out | {min(i.image_id for i in half)}

    def test_at_least_one_is_held_out(self, project: Path) -> None:
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=lambda *_: None)
        assert split_held_out(known.annotate[-3:]) == [known.annotate[-3]]

    def test_a_test_file(self, project: Path) -> None:
        lines = (project / "truth.csv").read_text().splitlines()
        (project / "test.csv").write_text("\n".join([lines[0], *lines[2:5]]) + "\n")
        known = read_labeled_images(
            project / "truth.csv",
            project / "images",
            LABELS,
            test_csv=project / "test.csv",
            on_skip=lambda *_: None,
        )
        assert len(known.held_out) == 3
        assert len(known.annotate) == IMAGES - 3  # an image that is in both is not annotated

    def test_unreadable_images_are_skipped(self, project: Path) -> None:
        (project / "images" / "03.png").unlink()
        (project / "images" / "04.png").write_bytes(b"x")
        skipped: dict[str, str] = {}
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=skipped.__setitem__)
        assert len(known.annotate) + len(known.held_out) == IMAGES - 2
        assert sorted(Path(file).name for file in skipped) == ["03.png", "04.png"]

    def test_many_missing_images_are_told_once(self, project: Path) -> None:
        for number in range(3, 9):
            (project / "images" / f"{number:02}.png").unlink()
        told: list[str] = []
        read_labeled_images(
            project / "truth.csv", project / "images", LABELS, on_skip=lambda *what: told.append(": ".join(what))
        )
        where = project / "truth.csv"
        expected = f"6 of the {IMAGES} images of {where}: no such file: 03.png, 04.png, 05.png and 3 more"
        assert told == [expected]

    def test_an_unknown_label(self, project: Path) -> None:
        with pytest.raises(LabelMapError, match=r"truth\.csv"):
            read_labeled_images(
                project / "truth.csv", project / "images", LabelMap.from_names(["car"]), on_skip=lambda *_: None
            )

    def test_nothing_to_annotate(self, project: Path) -> None:
        lines = (project / "truth.csv").read_text().splitlines()
        (project / "one.csv").write_text("\n".join(lines[:3]) + "\n")
        with pytest.raises(ConfigError, match="left to annotate"):
            read_labeled_images(
                project / "one.csv", project / "images", LABELS, test_csv=project / "truth.csv", on_skip=lambda *_: None
            )

    def test_nothing_to_measure_on(self, project: Path) -> None:
        (project / "test.csv").write_text("path,xmin,ymin,xmax,ymax,label\n00.png,,,,,\n")
        with pytest.raises(ConfigError, match="no boxes to measure on"):
            read_labeled_images(
                project / "truth.csv",
                project / "images",
                LABELS,
                test_csv=project / "test.csv",
                on_skip=lambda *_: None,
            )


class TestAnswers:
    def test_an_answer_means_what_is_known(self, project: Path) -> None:
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=lambda *_: None)
        for image in (*known.annotate, *known.held_out):
            task = Task.of(read_image(image.path), file=image.path.name, path=str(image.path))
            answer = json.loads(json.dumps(write_answer(answer_task(task, image, LABELS))))
            annotation = read_annotation(answer, LABELS).annotation
            assert annotation is not None
            assert annotation.image_id == image.image_id
            np.testing.assert_allclose(annotation.groundtruth.boxes, image.groundtruth.boxes, atol=0.05 / 48)
            assert annotation.groundtruth.classes.tolist() == image.groundtruth.classes.tolist()

    def test_spans_look_like_the_browsers(self, project: Path) -> None:
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=lambda *_: None)
        image = next(image for image in (*known.annotate, *known.held_out) if image.path.name == "01.png")
        task = Task.of(read_image(image.path), file="01.png")
        answer = write_answer(answer_task(task, image, LABELS))
        assert answer["answer"] == "accept"
        (span,) = answer["spans"]
        assert (span["type"], span["label"], span["x"], span["y"]) == ("rect", "thing", 0.0, 0.0)
        right, bottom = span["width"], span["height"]
        assert span["points"] == [[0, 0], [0, bottom], [right, bottom], [right, 0]]
        assert span["center"] == [right / 2, bottom / 2]
        assert write_answer(answer_task(task, image, LABELS))["spans"] == [span]


class TestSimulate:
    def test_the_curve_rises(self, project: Path) -> None:
        display = Recorder()
        result = run(project, display)
        assert [point.annotations for point in result.points] == [0, 4, 8, 12]
        assert result.points[0].mAP50 == 0.0
        assert 0.9 < result.points[2].mAP50 <= 1.0  # trained on 8: the fake model finds the true boxes
        assert result.points[1].mAP50 > result.points[1].mAP
        assert list(result.points) == display.points
        versions = [point.version for point in result.points]
        assert versions == sorted(set(versions))
        assert all(point.train_s > 0 and point.publish_s > 0 for point in result.points[1:])

    def test_effort_is_that_of_the_suggestions_before_the_answers(self, project: Path) -> None:
        points = run(project).points
        first, second, third = points[1:]
        assert (first.edits.kept_80, first.edits.adjusted, first.edits.deleted) == (0, 0, 0)
        assert first.edits.added >= 3  # nothing was suggested
        assert second.edits.kept == 0
        assert second.edits.adjusted >= 3  # off by a quarter: IoU 0.6
        assert second.edits.kept_80 == second.edits.added == 0
        assert third.edits.kept >= 3
        assert third.edits.adjusted == third.edits.deleted == third.edits.added == 0

    @pytest.mark.parametrize("order", ["sequential", "random"])
    def test_an_annotator_who_takes_time_works_while_the_trainer_trains(self, project: Path, order: str) -> None:
        """Each image has its turn alone, and a round is only waited for after the next batch."""
        display = Recorder()
        run(project, display, annotations=8, images_per_round=4, seconds_per_image=0.1, order=order)
        fetched = [text for text in display.shown if text.endswith("fetching 1 tasks")]
        assert [text.split()[0] for text in fetched] == ["0"] * 4 + ["4"] * 4
        assert [point.annotations for point in display.points] == [0, 4, 8]
        first_measured = next(n for n, text in enumerate(display.shown) if text.startswith("4 annotations: measuring"))
        last_fetched = max(n for n, text in enumerate(display.shown) if text == fetched[-1])
        assert first_measured > last_fetched

    @pytest.mark.parametrize("order", ["random", "uncertain"])
    def test_another_order_of_the_images(self, project: Path, order: str) -> None:
        points = run(project, order=order, order_seed=3).points
        assert [point.annotations for point in points] == [0, 4, 8, 12]
        assert points[3].mAP50 > 0.9

    def test_a_threshold_that_is_learnt(self, project: Path) -> None:
        points = run(project, threshold="auto").points
        assert points[3].mAP50 > 0.9
        assert json.loads((project / "data" / "thresholds.json").read_text()).keys() == {"1"}

    def test_what_it_leaves(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(state_module, "draw_curve", draw_curve)
        result = run(project, report_dir=project / "out")
        rows = json.loads((project / "out" / "curve.json").read_text())
        assert [row["annotations"] for row in rows] == [0, 4, 8, 12]
        assert {"mAP", "mAP50", "kept", "kept_80", "adjusted", "deleted", "added", "train_s", "publish_s"} < set(
            rows[0]
        )
        with Image.open(result.curve_png) as picture:
            assert picture.size[0] > 800
        answered = read_jsonl(project / "out" / "answered.jsonl")
        assert [len(row["image_ids"]) for row in answered] == [4, 4, 4]
        trained = read_jsonl(project / "data" / "trained.jsonl")
        assert [row["image_id"] for row in trained] == [image_id for row in answered for image_id in row["image_ids"]]

    def test_progress_is_told(self, project: Path) -> None:
        display = Recorder()
        run(project, display, annotations=4, steps_per_epoch=60)
        assert any("training step" in text and "/60, loss 0." in text for text in display.shown)
        assert any("measuring" in text for text in display.shown)
        assert any("trainer.log" in text for text in display.said)

    def test_going_on(self, project: Path) -> None:
        run(project, annotations=8)
        display = Recorder()
        result = run(project, display, annotations=12)
        assert [point.annotations for point in result.points] == [0, 4, 8, 12]
        assert [point.annotations for point in display.points] == [12]
        trained = read_jsonl(project / "data" / "trained.jsonl")
        assert len({row["image_id"] for row in trained}) == len(trained) == 12

    def test_nothing_left_to_do(self, project: Path) -> None:
        first = run(project)
        again = run(project)
        assert [point.annotations for point in again.points] == [point.annotations for point in first.points]

    def test_a_batch_that_was_put_in_but_not_measured_is_waited_for(self, project: Path) -> None:
        display = Recorder()

        def interrupt(point: CurvePoint) -> None:
            if point.annotations == 4:
                raise KeyboardInterrupt

        display.on_point = interrupt
        with pytest.raises(KeyboardInterrupt):
            run(project, display)
        (project / "report" / "curve.json").write_text(
            json.dumps(json.loads((project / "report" / "curve.json").read_text())[:1])
        )
        display = Recorder()
        result = run(project, display)
        assert [point.annotations for point in display.points] == [4, 8, 12]
        assert [point.annotations for point in result.points] == [0, 4, 8, 12]
        assert any("continuing with the last 4 of 4" in text for text in display.said)
        assert len(read_jsonl(project / "data" / "trained.jsonl")) == 12

    def test_fewer_images_than_asked_for(self, project: Path) -> None:
        display = Recorder()
        result = run(project, display, annotations=1000, images_per_round=20)
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=lambda *_: None)
        assert result.points[-1].annotations == len(known.annotate)
        assert any(f"only {len(known.annotate)} images" in text for text in display.said)

    def test_an_image_that_breaks_on_the_way(self, project: Path) -> None:
        display = Recorder()
        known = read_labeled_images(project / "truth.csv", project / "images", LABELS, on_skip=lambda *_: None)
        broken = known.annotate[1].path

        def break_it(point: CurvePoint) -> None:
            broken.write_bytes(b"broken")

        display.on_point = break_it
        result = run(project, display, annotations=4)
        assert [point.annotations for point in result.points] == [0, 3]
        assert any(broken.name in text for text in display.said)

    @pytest.mark.parametrize("name", ["annotations", "images_per_round"])
    def test_at_least_one(self, project: Path, name: str) -> None:
        with pytest.raises(ConfigError, match=name):
            run(project, None, **{name: 0})

    def test_no_truth_file(self, project: Path) -> None:
        (project / "truth.csv").unlink()
        with pytest.raises(RecordError):
            run(project)
        assert not (project / "model").exists()


class TestTrouble:
    def test_a_crashed_trainer_is_restarted(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "crash-once")
        display = Recorder()
        result = run(project, display)
        assert [point.annotations for point in result.points] == [0, 4, 8, 12]
        assert any("trainer was killed by SIGKILL; restarting it" in text for text in display.said)
        assert len(read_jsonl(project / "data" / "trained.jsonl")) == 12

    def test_a_crashed_server_is_restarted(self, project: Path) -> None:
        display = Recorder()

        def kill_server(point: CurvePoint) -> None:
            if point.annotations == 4:
                (pid,) = [int(text.split()[2]) for text in server_log(project) if text.startswith("fake server")]
                os.kill(pid, signal.SIGKILL)

        display.on_point = kill_server
        result = run(project, display)
        assert [point.annotations for point in result.points] == [0, 4, 8, 12]
        assert result.points[2].edits.adjusted >= 3  # not: saw nothing
        assert any("server was killed by SIGKILL" in text for text in display.said)

    def test_a_trainer_that_always_crashes(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "crash-always")
        monkeypatch.setattr("odkeras.session.supervisor.RestartPolicy.delay_s", lambda *_: None)
        with pytest.raises(TrainingError, match="Segmentation fault"):
            run(project)

    def test_a_wrong_config(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        with pytest.raises(ConfigError, match="batch_size is 0"):
            run(project)

    def test_a_failed_round_is_reported(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "fail-round")
        display = Recorder()
        result = run(project, display, annotations=4)
        assert result.points[-1].mAP50 == 0
        assert any("the loss is not finite" in text for text in display.said)

    def test_a_dropped_batch_is_reported(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "lose-batch")
        monkeypatch.setattr(module, "_LOST_AFTER_S", 0.3)
        with pytest.raises(TrainingError, match="did not train on it: nothing to train on"):
            run(project)


def server_log(project: Path) -> list[str]:
    return (project / "model" / "logs" / "server.log").read_text().splitlines()


class TestLedger:
    def test_other_held_out_images(self, project: Path) -> None:
        run(project, annotations=4)
        lines = (project / "truth.csv").read_text().splitlines()
        (project / "test.csv").write_text("\n".join(lines[:8]) + "\n")
        with pytest.raises(ConfigError, match="other held-out images"):
            run(project, test_csv=project / "test.csv")

    def test_another_threshold(self, project: Path) -> None:
        run(project, annotations=4)
        with pytest.raises(ConfigError, match=r"threshold 0\.5"):
            run(project, threshold=0.3)

    def test_a_report_without_its_project(self, project: Path) -> None:
        run(project, annotations=4)
        for name in ("data", "model", "export"):
            (project / name).rename(project / f"{name}-elsewhere")
        with pytest.raises(ConfigError, match="are missing in"):
            run(project)

    def test_a_broken_curve(self, project: Path) -> None:
        (project / "report").mkdir()
        (project / "report" / "curve.json").write_text("{")
        with pytest.raises(RecordError):
            run(project)

    def test_a_torn_line_is_not_an_answer(self, tmp_path: Path, project: Path) -> None:
        """The process was killed while it wrote the line: the batch is in the inbox, its images are answered again."""
        run(project, annotations=4)
        with (project / "report" / "answered.jsonl").open("a") as file:
            file.write('{"batch": "0001", "image_')
        assert [point.annotations for point in run(project, annotations=8).points] == [0, 4, 8]

    def test_what_is_kept(self, tmp_path: Path) -> None:
        ledger = SimulationState(tmp_path)
        assert ledger.what_is_kept().startswith("stopped; saved: 0 annotations, 0 rows")
        ledger.add_answered(AnsweredBatch("1.jsonl", ("a", "b"), EditCounts()))
        assert "the round of the last 2" in ledger.what_is_kept()
        ledger.add_point(CurvePoint(2, 0.1, 0.2))
        assert "the round of the last 2" not in ledger.what_is_kept()


def test_find_round() -> None:
    rows: list[dict[str, Any]] = [
        {"kind": "evaluation", "batches": ["b"]},
        {"kind": "round", "batches": ["a"], "version": 1},
        {"kind": "round"},
        {"kind": "round", "batches": ["b", "c"], "version": 2},
    ]
    found = find_round(rows, "b")
    assert found is not None
    assert found["version"] == 2
    assert find_round(rows, "d") is None


HOST = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import fake_processes
from odkeras.config import SimulationSettings
from odkeras.simulation.simulate import simulate
fake_processes.use_fakes()
project = Path.cwd()
try:
    settings = SimulationSettings(
        config=project / "pipeline.config", annotations=20, images_per_round=4, steps_per_epoch=100_000
    )
    simulate(project / "truth.csv", settings, project / "images")
except KeyboardInterrupt:
    sys.exit(130)
"""


class TestTheHostIsStopped:
    """The host in a process of its own, in the middle of a round that would take minutes."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Any:
        make_project(tmp_path)
        root = Path(__file__).parents[2]
        code = HOST.format(tests=str(Path(__file__).parent))
        environment = {**os.environ, "PYTHONPATH": str(root)}
        host = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        wait_until(lambda: (read_status(tmp_path) or {}).get("state") == "training")
        answered = tmp_path / "report" / "answered.jsonl"  # the trainer may be quicker than this file
        wait_until(lambda: answered.is_file() and answered.read_text().endswith("\n"))
        yield host
        host.kill()
        host.wait()
        if host.stdout:
            host.stdout.close()

    def test_ctrl_c(self, host: subprocess.Popen[str], tmp_path: Path) -> None:
        pids = children(tmp_path)
        host.send_signal(signal.SIGINT)
        started = time.monotonic()
        output, _ = host.communicate(timeout=20)
        assert time.monotonic() - started < 5
        assert host.returncode == 130
        wait_until(lambda: not any(running(pid) for pid in pids))
        assert "stopped; saved: 4 annotations, 1 rows of" in output
        assert "the round of the last 4 resumes from its checkpoint next time" in output
        assert "the same command continues from here" in output
        assert "SIGINT reached the child" not in (tmp_path / "model" / "logs" / "trainer.log").read_text()
        assert len(json.loads((tmp_path / "report" / "curve.json").read_text())) == 1

    def test_kill_9_leaves_no_process(self, host: subprocess.Popen[str], tmp_path: Path) -> None:
        pids = children(tmp_path)
        assert all(running(pid) for pid in pids)
        host.kill()
        host.wait()
        wait_until(lambda: not any(running(pid) for pid in pids))

    def test_a_simulation_resumes_after_kill_9(
        self, host: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wait_until(lambda: read_jsonl(tmp_path / "report" / "answered.jsonl"))
        host.kill()
        host.wait()
        fake_processes.use_fakes(monkeypatch.setattr)
        result = run(tmp_path, annotations=8)
        assert [point.annotations for point in result.points] == [0, 4, 8]
        assert len(read_jsonl(tmp_path / "data" / "trained.jsonl")) == 8


def children(project: Path) -> list[int]:
    logs = [(project / "model" / "logs" / f"{name}.log").read_text() for name in ("trainer", "server")]
    pids = [int(line.split()[2]) for log in logs for line in log.splitlines() if line.startswith("fake ")]
    assert len(pids) == 2
    return pids


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_status(project: Path) -> dict[str, Any] | None:
    try:
        status: dict[str, Any] = json.loads((project / "model" / "status.json").read_text())
    except FileNotFoundError:
        return None
    return status


def test_ctrl_c_while_the_curve_is_drawn_counts_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a callback of a weak reference, of which matplotlib has many, a KeyboardInterrupt was lost."""
    drawn: list[Path] = []

    class Referred:
        pass

    def draw(_points: object, path: Path, *, title: str) -> None:
        referred = Referred()
        reference = weakref.ref(referred, lambda _: signal.raise_signal(signal.SIGINT))
        del referred
        assert reference() is None
        drawn.append(path)

    monkeypatch.setattr(state_module, "draw_curve", draw)
    ledger = SimulationState(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ledger.add_point(CurvePoint(2, 0.1, 0.2))
    assert drawn == [ledger.curve_png]
    assert [point.annotations for point in read_curve(ledger.curve_json)] == [2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
