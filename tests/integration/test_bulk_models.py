"""`odkeras bulk predict` and `odkeras bulk records`, with real models and records."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import label_sets
import pytest
from bulk_jobs import results, write_images
from fixtures_saved_models import Publisher

from odkeras.bulk.job import Job, prepare_job
from odkeras.bulk.listing import list_images, list_labelled
from odkeras.bulk.run import Plan, run_plan
from odkeras.bulk.store import open_store
from odkeras.bulk.transforms import MakeRecords, Predict
from odkeras.bulk.work import ShardReport, Transform, run_shard
from odkeras.config.bulk import BulkSettings
from odkeras.data.conversion import labels_to_records
from odkeras.data.records import annotation_from_example, read_records
from odkeras.errors import CheckpointError
from odkeras.formats.label_formats import find_label_files
from odkeras.image_files import list_image_files
from odkeras.labels import LabelMap
from odkeras.serving.local import LocalModel
from odkeras.serving.predict import predict_files
from odkeras.serving.prediction_files import write_predictions

pytestmark = pytest.mark.integration
PIXELS = 10**6
CARS = LabelMap.from_names(label_sets.CLASSES)


def in_processes(plan: Plan, workers: int) -> tuple[Job, ShardReport]:
    settings = BulkSettings(shard_images=5, workers=workers)
    job, report = run_plan(plan, settings, progress=lambda done, total: None)
    assert report is not None
    return job, report


def in_this_process(plan: Plan, transform: Transform) -> dict[str, bytes]:
    store = open_store(plan.out)
    with store.in_use():
        job = prepare_job(store, plan.identity, plan.entries(), shard_images=5, suffix=plan.suffix)
        for shard in job.shards:
            run_shard(job.place, shard, transform)
    return results(Path(plan.out))


class TestPredict:
    def test_it_is_what_odkeras_predict_writes(self, tmp_path: Path) -> None:
        photos = write_images(tmp_path / "photos")
        (photos / "05.png").write_bytes((photos / "05.png").read_bytes()[:200])  # the model refuses it
        (tmp_path / "export").mkdir()
        version = Publisher(tmp_path / "export").publish(7, 600)
        transform = Predict(str(version), 0.5, "jsonl", 1.0, PIXELS)
        sources = [str(photos)]
        plan = Plan(str(tmp_path / "out"), {}, lambda: list_images(sources), transform, "jsonl")
        job, report = in_processes(plan, 2)
        with (tmp_path / "expected.jsonl").open("w") as file:
            model = LocalModel(version)
            expected = write_predictions(
                predict_files(list_image_files(photos), model, threshold=0.5), file, "jsonl", names={}
            )
        written = results(tmp_path / "out")
        shards = b"".join(data for name, data in written.items() if name.startswith("shard"))
        assert shards == (tmp_path / "expected.jsonl").read_bytes()
        assert [(row["image"], row["reason"]) for row in job.refused()] == expected.skipped
        assert len(expected.skipped) == 2 and report.images == 12 and report.objects == expected.boxes == 20
        other = Plan(str(tmp_path / "other"), {}, plan.entries, transform, "jsonl")
        assert in_this_process(other, transform) == written

    def test_csv_has_a_header_in_each_shard(self, tmp_path: Path) -> None:
        photos = write_images(tmp_path / "photos", 7)
        (tmp_path / "export").mkdir()
        version = Publisher(tmp_path / "export").publish(7, 600)
        plan = Plan(str(tmp_path / "out"), {}, lambda: list_images([str(photos)]), None, "csv")  # type: ignore[arg-type]
        written = in_this_process(plan, Predict(str(version), 0.5, "csv", 1.0, PIXELS))
        shards = [data.decode() for name, data in written.items() if name.startswith("shard")]
        rows = [list(csv.DictReader(shard.splitlines())) for shard in shards]
        assert [len(each) for each in rows] == [8, 4] and rows[0][0]["path"] == str(photos / "00.jpeg")

    def test_a_version_that_cannot_be_loaded_ends_the_job(self, tmp_path: Path) -> None:
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / "saved_model.pb").write_bytes(b"broken")
        transform = Predict(str(tmp_path / "7"), 0.5, "jsonl", 1.0, PIXELS)
        photos = write_images(tmp_path / "photos")
        plan = Plan(str(tmp_path / "out"), {}, lambda: list_images([str(photos)]), transform, "jsonl")
        with pytest.raises(CheckpointError, match="cannot be loaded as a SavedModel"):
            in_processes(plan, 1)
        assert results(tmp_path / "out") == {}


class TestRecords:
    def test_the_examples_are_those_of_odkeras_records(self, tmp_path: Path) -> None:
        label_sets.write_images(tmp_path)
        labels = label_sets.write_coco(tmp_path)
        transform = MakeRecords(CARS.to_pbtxt(), False, PIXELS)
        plan = Plan(str(tmp_path / "out"), {}, lambda: list_labelled(find_label_files([labels])), transform, "record")
        _, report = in_processes(plan, 1)
        assert report.objects == 3
        labels_to_records(labels, tmp_path / "expected.record", label_map=CARS)
        ours, theirs = (
            [annotation_from_example(data) for data in read_records(path)]
            for path in (tmp_path / "out" / "shard-00000-of-00001.record", tmp_path / "expected.record")
        )
        assert ours == theirs and len(ours) == 2
        # In another process, the features of an example have another order unless they are sorted.
        other = Plan(str(tmp_path / "other"), {}, plan.entries, transform, "record")
        assert in_this_process(other, transform) == results(tmp_path / "out")

    def test_what_does_not_fit_is_refused_with_its_place(self, tmp_path: Path) -> None:
        label_sets.write_images(tmp_path)
        document = label_sets.coco(bbox=[500, 6, 32, 24])
        document["images"].append({"id": 9, "file_name": "gone.jpg", "width": 64, "height": 48})
        (tmp_path / "instances.json").write_text(json.dumps(document))
        transform = MakeRecords(CARS.to_pbtxt(), True, PIXELS)
        files = find_label_files([tmp_path / "instances.json"])
        plan = Plan(str(tmp_path / "out"), {}, lambda: list_labelled(files), transform, "record")
        written = in_this_process(plan, transform)
        refused = [json.loads(line) for line in written["refused-00000-of-00001.jsonl"].splitlines()]
        assert "is far outside the image" in refused[0]["reason"] and refused[0]["image"].endswith("object 1")
        assert refused[1] == {"image": str(tmp_path / "a.jpg"), "reason": "none of its 1 objects can be used"}
        assert json.loads(written["refused-inputs.jsonl"])["image"] == "gone.jpg"
        (only,) = read_records(tmp_path / "out" / "shard-00000-of-00001.record")
        assert b"image/object/mask" in only and len(annotation_from_example(only).groundtruth) == 2
