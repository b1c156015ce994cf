"""`odkeras bulk` as pipelines of Apache Beam, with several workers. `make test-beam` installs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import label_sets
import pytest
from bulk_jobs import interrupt_at_last_image, results, run, write_images
from image_server import image_server
from pictures import draw_pixels, encode

from odkeras.labels import LabelMap

BEAM = ("--runner", "DirectRunner", "--workers", "2")
ROOT = Path(__file__).parents[2]
PUBLISH = """
import sys; sys.path[:0] = ["tests"]
from pathlib import Path
from fixtures_saved_models import Publisher
Publisher(Path(sys.argv[1])).publish(7, 600)
"""


@pytest.fixture(autouse=True, scope="module")
def beam() -> None:
    """Skips without Apache Beam, unless ODKERAS_REQUIRE_BEAM is set."""
    if not os.environ.get("ODKERAS_REQUIRE_BEAM"):
        pytest.importorskip("apache_beam")


def test_predictions_are_those_of_the_local_executor(tmp_path: Path) -> None:
    write_images(tmp_path / "photos")
    (tmp_path / "export").mkdir()
    subprocess.run([sys.executable, "-c", PUBLISH, str(tmp_path / "export")], cwd=ROOT, check=True)
    arguments = ["predict", "photos", "--export-dir", "export", "--shard-images", "4", "--out"]
    said = run(tmp_path, *arguments, "beam", *BEAM, status=1)
    assert "this run: 12 images, 22 boxes," in said and "refused" in said
    run(tmp_path, *arguments, "local", "--workers", "1", status=1)
    assert results(tmp_path / "beam") == results(tmp_path / "local")
    assert len(results(tmp_path / "beam")) == 4  # three shards, and what was refused


def test_records_are_those_of_the_local_executor(tmp_path: Path) -> None:
    label_sets.write_images(tmp_path)
    label_sets.write_coco(tmp_path)
    LabelMap.from_names(label_sets.CLASSES).save(tmp_path / "map.pbtxt")
    arguments = ["records", "instances.json", "--label-map", "map.pbtxt", "--shard-images", "1", "--out"]
    run(tmp_path, *arguments, "beam", *BEAM)
    run(tmp_path, *arguments, "local", "--workers", "1")
    assert results(tmp_path / "beam") == results(tmp_path / "local") and len(results(tmp_path / "local")) == 2


def test_a_killed_pipeline_continues_on_either_executor(tmp_path: Path) -> None:
    """The shards that a killed pipeline of several workers has left are not written again."""
    write_images(tmp_path / "photos")
    with image_server() as web:
        arrives = web.put_late("/last.jpg", encode(draw_pixels(seed=77), "JPEG"))
        arguments = ["hash", "photos", web.url("/last.jpg"), "--shard-images", "4", "--out"]
        out = tmp_path / "out"
        interrupt_at_last_image(tmp_path, [*arguments, "out", *BEAM], out, web, "/last.jpg", signal.SIGKILL)
        arrives.set()
        left = {path.name: path.stat().st_ino for path in out.glob("shard-*")}
        assert 2 <= len(left) <= 3
        run(tmp_path, *arguments, "out", *BEAM, status=1)
        assert {name: (out / name).stat().st_ino for name in left} == left
        run(tmp_path, *arguments, "whole", "--workers", "1", status=1)
    assert results(out) == results(tmp_path / "whole") and len(results(out)) == 5


def test_a_wrong_runner_and_a_failing_worker_are_one_line(tmp_path: Path) -> None:
    write_images(tmp_path / "photos")
    arguments = ["hash", "photos", "--out", "out", "--runner"]
    said = run(tmp_path, *arguments, "SparkyRunner", status=2)
    assert "error: --runner SparkyRunner: Apache Beam refuses it" in said and "Traceback" not in said
    (tmp_path / "out" / "shard-00000-of-00001.jsonl").mkdir()
    (tmp_path / "out" / "job.json").rename(tmp_path / "job.json")
    said = run(tmp_path, "hash", "photos", "--out", "out", "--runner", "DirectRunner", status=2)
    assert "has other files" in said
