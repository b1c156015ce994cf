"""scripts/simulate_scale.py and scripts/estimate_scale.py: queues whose results are known, and the page in docs/."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import estimate_scale
    from simulate_scale import Project, Simulation, Station
finally:
    sys.path.remove(str(ROOT / "scripts"))

ALONE = Project(annotators=1, leave=0.0, pages=1, predict_s=0.0, duration_s=10_000.0, answers_per_round=10**9)


def test_a_station_serves_in_turn() -> None:
    two = Station(2)
    assert [two.serve(now, 1.0) for now in (0.0, 0.0, 0.5, 3.0)] == [1.0, 1.0, 2.0, 4.0]
    assert two.load(4.0) == 0.5


def test_one_annotator_never_waits() -> None:
    found = Simulation(replace(ALONE, think_s=10.0)).run()
    per_image = 10.0 + ALONE.image_s + ALONE.answer_s + ALONE.tasks_s / 5
    assert found["answers_per_s"] == pytest.approx(1 / per_image, rel=0.1)
    assert found["answer_p99_ms"] == pytest.approx(1000 * ALONE.answer_s)
    assert found["page_load"] == pytest.approx(found["answers_per_s"] * (per_image - 10.0), rel=0.02)


def test_a_page_that_is_too_slow_is_busy_all_the_time() -> None:
    """Its rate is then that of its CPU, whatever the number of annotators."""
    slow = replace(ALONE, annotators=100, think_s=1.0, answer_s=0.1, tasks_s=0.0, image_s=0.0, duration_s=500.0)
    found = Simulation(slow).run()
    assert found["page_load"] > 0.99 and found["answers_per_s"] == pytest.approx(10.0, rel=0.02)
    assert Simulation(replace(slow, pages=20)).run()["answers_per_s"] == pytest.approx(100 / 1.1, rel=0.05)


def test_no_image_is_answered_twice_and_leases_of_the_gone_come_back() -> None:
    few = replace(ALONE, annotators=20, images=300, think_s=5.0, leave=0.1, away_s=60.0)
    found = Simulation(few).run()
    assert found["answers"] == 300 and found["twice"] == 0 and found["leases_expired"] > 20


def test_rounds_take_what_waits() -> None:
    """A round of 10 s from answers that come all the time: an answer waits for the running round and for its own."""
    busy = replace(
        ALONE, annotators=50, think_s=1.0, answers_per_round=1, round_s=1.0, step_s=0.09, round_steps=100, swap_s=0.5
    )
    found = Simulation(replace(busy, duration_s=1000.0)).run()
    assert found["rounds"] == pytest.approx(100, abs=2)
    assert found["answer_to_version_p50_s"] == pytest.approx(15.5, rel=0.05)
    assert found["answer_to_version_p95_s"] == pytest.approx(20.0, rel=0.05)
    assert found["longest_inbox"] == pytest.approx(500, rel=0.2)


def test_predictions_wait_for_the_servers() -> None:
    slow = replace(ALONE, annotators=10, think_s=0.1, predict_s=1.0, replicas=1, duration_s=200.0)
    found = Simulation(slow).run()
    assert found["serving_load"] > 0.99 and found["answers_per_s"] == pytest.approx(1.0, rel=0.05)


def test_the_same_seed_gives_the_same() -> None:
    project = replace(ALONE, annotators=5, leave=0.05, duration_s=500.0, answers_per_round=5)
    assert Simulation(project, 3).run() == Simulation(project, 3).run() != Simulation(project, 4).run()


def test_the_page_has_the_tables_of_the_script() -> None:
    page = estimate_scale.PAGE.read_text(encoding="utf-8")
    assert estimate_scale.with_tables(page) == page, "run python scripts/estimate_scale.py --write"


def test_the_constants_are_about_those_that_were_measured() -> None:
    """`make bench` on another machine must not fail this, a constant from another age must."""
    measured = json.loads((ROOT / "benchmarks.json").read_text(encoding="utf-8"))
    for name, each in estimate_scale.CONSTANTS.items():
        if each.key:
            benchmark, _, key = each.key.partition(".")
            value = next(row["value"] for row in measured[benchmark]["rows"] if row["key"] == key)
            assert 1 / 3 < each.value / (value * each.scale) < 3, name
