"""A round whose version is held back, and answers that are kept for evaluation, as hosts see them; and the table of an
evaluation."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from odkeras.cli.eval_table import metric_lines
from odkeras.config import SessionSettings
from odkeras.errors import ConfigError
from odkeras.project import append_jsonl
from odkeras.session.events import events_of_row
from odkeras.simulation import simulate
from odkeras.simulation.truth import LabeledImages
from odkeras.splits import is_held_out
from odkeras.version_names import VersionNames
from tests.unit import test_simulate
from tests.unit.test_waiting import ROUND, FakeLoop

GATE = {"metric": "DetectionBoxes_Precision/mAP", "value": 0.31, "served_value": 0.52, "tolerance": 0.01}
HELD_BACK = {**ROUND, "round": 2, "steps": 5, "examples": 7, "outcome": "held back", "gate": GATE, "version": 3}
TEXT = "DetectionBoxes_Precision/mAP is 0.310, and 0.520 in the version that is served (tolerance 0.010)"


class TestWaiting:
    def test_not_for_a_version_that_was_held_back(self, tmp_path: Path) -> None:
        loop = FakeLoop(tmp_path)
        append_jsonl(loop.project.metrics_path, [HELD_BACK])
        loop.version = None  # not even for a server
        assert loop.wait() == HELD_BACK
        assert loop.now == 1000 and loop.warned == []


class TestNews:
    def test_a_round_that_was_held_back(self) -> None:
        texts = [item.text for item in events_of_row(HELD_BACK, VersionNames())]
        assert texts == ["round 2: trained 5 steps on 7 images, loss 0.5", f"round 2 held back: {TEXT}"]

    def test_a_class_without_groundtruth(self) -> None:
        (item,) = events_of_row(
            {"kind": "evaluation", "round": 1, "metrics": {"mAP": 0.5, "AP/car": None}}, VersionNames()
        )
        assert item.text == "evaluation after round 1: mAP 0.500"


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "value"),
        [("eval_split", 1.0), ("eval_split", -0.1), ("eval_split", True), ("publish_tolerance", 1.5)],
    )
    def test_wrong_values(self, name: str, value: object) -> None:
        with pytest.raises(ConfigError, match=f"{name} is .*allowed: "):
            SessionSettings(config=Path("c"), **{name: value})  # type: ignore[arg-type]


class TestHeldOut:
    IDS = tuple(hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(2000))

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
    def test_the_share_of_many(self, share: float) -> None:
        assert sum(is_held_out(name, share) for name in self.IDS) / len(self.IDS) == pytest.approx(share, abs=0.03)

    @pytest.mark.parametrize(
        ("image_id", "expected"),
        [("00000000ff", True), ("333333320", True), ("33333333f", True), ("33333334", False), ("FFFFFFFF", False)],
    )
    def test_the_leading_digits_decide(self, image_id: str, expected: bool) -> None:
        assert is_held_out(image_id, 0.2) is expected  # 0.2 of 16**8 is 0x33333333.3


class TestSimulation:
    """With the fake trainer and server of `fake_processes`."""

    @pytest.fixture
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        from tests.unit.fake_processes import use_fakes

        use_fakes(monkeypatch.setattr)
        test_simulate.make_project(tmp_path)
        return tmp_path

    def test_answers_and_held_out_images_are_on_both_sides(self, project: Path) -> None:
        """Images were answered in the order of their ids, the lowest of which are kept for evaluation: the trainer had
        nothing to train on. And without a test file none of these were answered at all."""
        seen: list[LabeledImages] = []

        class Done(Exception):
            pass

        def run(options: SessionSettings, known: LabeledImages, *_: Any) -> None:
            seen.append(known)
            raise Done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(simulate, "_run", run)
            with pytest.raises(Done):
                test_simulate.run(project, eval_split=0.3)
        (known,) = seen
        sides = [is_held_out(image.image_id, 0.3) for image in known.annotate]
        assert not all(sides[:5]) and any(sides)
        assert not any(is_held_out(image.image_id, 0.3) for image in known.held_out)
        assert len({image.image_id for image in (*known.annotate, *known.held_out)}) == test_simulate.IMAGES

    def test_a_batch_of_which_all_is_kept_for_evaluation(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(simulate, "_LOST_AFTER_S", 0.2)
        monkeypatch.setenv("FAKE_TRAINER", "lose-batch")
        result = test_simulate.run(project, annotations=1, batch_size=1, eval_split=0.999)
        assert result.points[-1].annotations == 1

    def test_a_version_that_was_held_back_is_not_waited_for(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = simulate.find_round

        def held_back(*args: Any) -> dict[str, Any] | None:
            row = real(*args)
            return None if row is None else {**row, "outcome": "held back", "gate": GATE, "version": 10**12}

        monkeypatch.setattr(simulate, "find_round", held_back)
        display = test_simulate.Recorder()
        result = test_simulate.run(project, display, annotations=4, eval_split=0.2, publish_if_better=True)
        assert result.points[-1].annotations == 4
        assert any(f"was held back: {TEXT}" in line for line in display.said)


class TestTable:
    def test_overall_then_per_class(self) -> None:
        metrics = {
            "DetectionBoxes_Precision/mAP": 0.5,
            "DetectionBoxes_Precision/mAP (large)": -1.0,
            "DetectionBoxes_PerformanceByCategory/mAP/car": 0.25,
            "DetectionBoxes_PerformanceByCategory/mAP/big/bus": 0.125,
            "DetectionBoxes_PerformanceByCategory/mAP@.50IOU/car": 1.0,
            "PascalBoxes_PerformanceByCategory/AP@0.5IOU/car": None,
            "DetectionBoxes_PerformanceBySuperCategory/vehicle": 0.3,
        }
        assert list(metric_lines(metrics)) == [
            "  0.5000  DetectionBoxes_Precision/mAP",
            "       -  DetectionBoxes_Precision/mAP (large)",
            "",
            "DetectionBoxes_PerformanceByCategory",
            "              mAP  mAP@.50IOU",
            "car        0.2500      1.0000",
            "big/bus    0.1250           -",
            "",
            "PascalBoxes_PerformanceByCategory",
            "     AP@0.5IOU",
            "car          -",
            "",
            "DetectionBoxes_PerformanceBySuperCategory",
            "              mAP",
            "vehicle    0.3000",
        ]
