"""`odkeras bulk` without TensorFlow: jobs, shards, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import label_sets
import pytest
import test_object_storage
from bulk_jobs import IMAGES, interrupt_at_last_image, results, run, write_images
from image_server import ImageServer, image_server
from pictures import draw_pixels, encode

from odkeras.bulk import run as bulk_run
from odkeras.bulk.job import Entry, find_job, prepare_job, read_entries
from odkeras.bulk.listing import distinct, list_images, list_labelled
from odkeras.bulk.run import Plan, run_plan
from odkeras.bulk.store import open_store
from odkeras.bulk.transforms import Hash
from odkeras.bulk.work import Process, Refuse, Stopped, run_shard
from odkeras.config.bulk import BulkSettings
from odkeras.errors import ConfigError, InUseError, LabelMapError, RecordError
from odkeras.formats.label_formats import find_label_files
from odkeras.images import read_image
from odkeras.labels import LabelMap
from odkeras.session.image_ids import ImageIds
from odkeras.session.sources import Item, load_task, open_source
from odkeras.web.database import AnswerDatabase

server, bucket = test_object_storage.server, test_object_storage.bucket
IDENTITY = {"command": "hash", "list of images": ["photos"]}
PIXELS = 10**6


@pytest.fixture
def web() -> Iterator[ImageServer]:
    with image_server() as running:
        yield running


def refused(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for path in sorted(folder.glob("refused-*")) for line in path.open()]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("shard-*")) for line in path.open()]


class TestHash:
    def test_each_image_has_its_id_and_size_and_the_others_a_reason(self, tmp_path: Path) -> None:
        photos = write_images(tmp_path / "photos")
        lines = [{"image": "photos/00.jpeg"}, {"path": "gone.png"}, {"text": "no image"}]
        (tmp_path / "more.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n")
        said = run(tmp_path, "hash", "photos", "more.jsonl", "--out", "out", "--shard-images", "5", status=1)
        assert sorted(results(tmp_path / "out")) == [
            "refused-00000-of-00003.jsonl",
            "refused-00002-of-00003.jsonl",
            "refused-inputs.jsonl",
            *(f"shard-0000{number}-of-00003.jsonl" for number in range(3)),
        ]
        found = rows(tmp_path / "out")
        names = [f"{seed:02}.{('jpeg', 'png')[seed % 2]}" for seed in range(IMAGES) if seed != 3]
        assert [Path(row["image"]).name for row in found] == [*names, "00.jpeg"]
        for row in found:
            image = read_image(row["image"])
            assert (row["image_id"], row["height"], row["width"]) == (image.image_id, 48, 64)
        reasons = {Path(row["image"]).name: row["reason"] for row in refused(tmp_path / "out")}
        assert set(reasons) == {"03.png", "gone.png", "more.jsonl:3", "more.jsonl:4"}
        assert reasons["03.png"] == "no image data: an HTML page (a failed download?)"
        assert f"refused {photos / '03.png'}: no image data" in said and "in 3 shards, 4 refused" in said

    def test_the_results_are_a_source_and_the_project_knows_the_ids(self, tmp_path: Path) -> None:
        photos = write_images(tmp_path / "photos")
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / "pipeline.config").write_text("")
        run(tmp_path, "hash", "photos", "--out", "out", "--project", "project", "--workers", "1", status=1)
        ids = ImageIds(tmp_path / "project" / "data" / "image_ids.jsonl")
        path = photos / "00.jpeg"
        assert ids.id_of(Item("", path).fingerprint) == read_image(path).image_id
        items, number = open_source(tmp_path / "out" / "shard-00000-of-00001.jsonl", on_skip=lambda place, reason: None)
        first = load_task(next(items))
        assert number == IMAGES - 1
        assert (first.image_id, first.file, first.other) == (read_image(path).image_id, "00.jpeg", {})

    def test_repeating_what_was_refused(self, tmp_path: Path) -> None:
        photos = write_images(tmp_path / "photos")
        arguments = ["hash", "photos", "--out", "out", "--shard-images", "4", "--workers", "1"]
        run(tmp_path, *arguments, status=1)
        before = results(tmp_path / "out")
        (photos / "03.png").write_bytes(encode(draw_pixels(seed=3), "PNG"))
        assert "3 of 3 shards are finished already" in run(tmp_path, *arguments, status=1)
        assert results(tmp_path / "out") == before
        assert "2 of 3 shards are finished already" in run(tmp_path, *arguments, "--retry-refused")
        assert refused(tmp_path / "out") == [] and len(rows(tmp_path / "out")) == IMAGES


def uninterrupted(folder: Path, *sources: str) -> dict[str, bytes]:
    """What a job of shards of 4 images writes, in this process."""
    store = open_store(str(folder / "whole"))
    with store.in_use():
        entries = list_images([source if "://" in source else str(folder / source) for source in sources])
        job = prepare_job(store, IDENTITY, entries, shard_images=4, suffix="jsonl")
        for shard in job.shards:
            run_shard(job.place, shard, Hash(PIXELS))
    return results(folder / "whole")


def test_an_interrupted_job_continues_and_writes_the_same(tmp_path: Path, web: ImageServer) -> None:
    """One job is interrupted and killed before it is left to end."""
    write_images(tmp_path / "photos")
    arrives = web.put_late("/last.jpg", encode(draw_pixels(seed=77), "JPEG"))
    arguments = ["hash", "photos", web.url("/last.jpg"), "--shard-images", "4", "--workers", "2", "--out"]
    for number in (signal.SIGINT, signal.SIGKILL):
        process = interrupt_at_last_image(tmp_path, [*arguments, "out"], tmp_path / "out", web, "/last.jpg", number)
        said = process.communicate()[1]
        assert "shard-00003-of-00004.jsonl" not in results(tmp_path / "out")
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 130
            assert "of 4 shards are finished; the same command continues" in said and "Traceback" not in said
            assert not list((tmp_path / "out").glob(".odkeras*"))
    arrives.set()
    inodes = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("shard-*")}
    said = run(tmp_path, *arguments, "out", status=1)
    assert "of 4 shards are finished already" in said
    assert {path: (tmp_path / "out" / path).stat().st_ino for path in inodes} == inodes  # not written again
    assert results(tmp_path / "out") == uninterrupted(tmp_path, "photos", web.url("/last.jpg"))
    assert len(rows(tmp_path / "out")) == IMAGES  # one of the folder is refused, and there is one at the URL


def test_sigterm_is_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), bulk_run._sigterm_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@dataclass(frozen=True)
class Dies:
    """A transform whose worker is killed, as for lack of memory."""

    def load(self) -> Process:
        def process(entries: Iterable[Entry], path: Path, refuse: Refuse) -> int:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        return process


def test_a_worker_that_dies_is_named(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos")
    plan = Plan(str(tmp_path / "out"), IDENTITY, lambda: list_images([str(photos)]), Dies(), "jsonl")
    with pytest.raises(RecordError, match=r"a worker process died.*the same command continues"):
        run_plan(plan, BulkSettings(shard_images=5, workers=1), progress=lambda done, total: None)
    assert results(tmp_path / "out") == {}


class TestJob:
    def prepare(self, tmp_path: Path, **identity: Any) -> Any:
        store = open_store(str(tmp_path / "out"))
        with store.in_use():
            entries = list_images([str(write_images(tmp_path / "photos"))])
            return prepare_job(store, {**IDENTITY, **identity}, entries, shard_images=5, suffix="jsonl")

    def test_it_is_read_as_it_was_prepared(self, tmp_path: Path) -> None:
        job, store = self.prepare(tmp_path), open_store(str(tmp_path / "out"))
        (tmp_path / "photos" / "00.jpeg").unlink()  # the list stays
        assert find_job(store, IDENTITY) == job
        assert [shard.images for shard in job.shards] == [5, 5, 2]
        entries = [entry for shard in job.shards for entry in read_entries(store, shard)]
        assert [Path(entry["image"]).name[:2] for entry in entries] == [f"{number:02}" for number in range(IMAGES)]

    def test_a_folder_has_one_job(self, tmp_path: Path) -> None:
        self.prepare(tmp_path, threshold=0.5)
        store = open_store(str(tmp_path / "out"))
        with pytest.raises(ConfigError, match=r"has a job with another threshold: 0\.5 there, 0\.3 now"):
            find_job(store, {**IDENTITY, "threshold": 0.3})
        with pytest.raises(ConfigError, match='another command: "hash" there, "predict" now'):
            find_job(store, {"command": "predict"})

    def test_other_files_are_left_as_they_are(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"has other files \(00\.jpeg\)"):
            find_job(open_store(str(write_images(tmp_path / "photos"))), IDENTITY)

    def test_two_commands_at_once_are_refused(self, tmp_path: Path) -> None:
        store = open_store(str(tmp_path / "out"))
        busy = pytest.raises(InUseError, match="another command is working in this folder")
        with store.in_use(), busy, open_store(str(tmp_path / "out")).in_use():
            pass

    def test_without_images_nothing_is_prepared(self, tmp_path: Path) -> None:
        store = open_store(str(tmp_path))
        with pytest.raises(ConfigError, match=r"there are no images in what was given; a\.png: gone"):
            prepare_job(store, IDENTITY, [{"image": "a.png", "reason": "gone"}], shard_images=1, suffix="jsonl")
        assert find_job(store, IDENTITY) is None and not list(tmp_path.iterdir())

    def test_a_shard_that_is_stopped_leaves_nothing(self, tmp_path: Path) -> None:
        job, asked = self.prepare(tmp_path), iter([False, False, True])
        with pytest.raises(Stopped):
            run_shard(job.place, job.shards[0], Hash(PIXELS), should_stop=lambda: next(asked))
        assert results(tmp_path / "out") == {} and not list((tmp_path / "out").glob(".odkeras*"))

    def test_a_full_disk_is_named(self, tmp_path: Path) -> None:
        job = self.prepare(tmp_path)
        (tmp_path / "out" / job.shards[0].name).mkdir()  # a rename to it fails
        with pytest.raises(RecordError, match="cannot write"):
            run_shard(job.place, job.shards[0], Hash(PIXELS))

    def test_an_unknown_place(self) -> None:
        with pytest.raises(ConfigError, match="must be a folder, or a prefix that starts with s3://"):
            open_store("ftp://there/out")


def test_images_and_results_in_object_storage(tmp_path: Path, bucket: Any) -> None:
    """A second listing of the same job, and a shard that is written again, change nothing."""
    bucket.create_bucket(Bucket="scores")  # that of the images is shared with other tests
    store = open_store("s3://scores/results/")
    assert store.names() == set() and find_job(store, IDENTITY) is None
    entries = list(list_images(["s3://photos/more/", "s3://photos/10.jpg"]))
    job = prepare_job(store, IDENTITY, [*entries, {"image": "s3://photos/gone.jpg"}], shard_images=2, suffix="jsonl")
    for _ in range(2):
        reports = [run_shard(job.place, shard, Hash(PIXELS)) for shard in job.shards]
        assert [(report.images, report.refused) for report in reports] == [(2, 0), (2, 1)]
        assert store.names() == {
            "inputs.jsonl",
            "job.json",
            "shard-00000-of-00002.jsonl",
            "shard-00001-of-00002.jsonl",
            "refused-00001-of-00002.jsonl",
        }
    assert find_job(store, IDENTITY) == job and job.unfinished() == []
    first = json.loads(store.read(job.shards[1].name).splitlines()[0])
    (tmp_path / "10.jpg").write_bytes(test_object_storage.picture(0))
    assert first["image"] == "s3://photos/10.jpg" and first["image_id"] == read_image(tmp_path / "10.jpg").image_id
    assert [entry["reason"] for entry in job.refused()] == ["not found: there is no such bucket or object"]
    store.delete(job.shards[0].name)
    assert job.unfinished() == [job.shards[0]]
    assert job.unfinished(retry_refused=True) == list(job.shards)


class TestLabels:
    def test_the_last_answer_about_an_image_counts(self, tmp_path: Path) -> None:
        label_sets.write_images(tmp_path)
        spans = [{"label": "car", "points": [[1, 2], [10, 20]]}], [{"label": "person", "points": [[3, 4], [30, 40]]}]
        answers = [("a.jpg", spans[0], "accept"), ("b.jpg", [], "accept"), ("a.jpg", spans[1], "accept")]
        lines = [{"path": name, "spans": each, "answer": answer} for name, each, answer in answers]
        (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        entries = list(list_labelled(find_label_files([tmp_path / "answers.jsonl"])))
        assert [Path(entry["image"]).name for entry in entries] == ["b.jpg", "a.jpg"]
        assert [span["label"] for span in entries[1]["labels"]["spans"]] == ["person"]
        assert list(distinct([*entries, *entries])) == [{"image": entry["image"]} for entry in entries]

    def test_a_label_that_the_map_lacks_is_named(self, tmp_path: Path) -> None:
        label_sets.write_images(tmp_path)
        files, label_map = find_label_files([label_sets.write_coco(tmp_path)]), LabelMap.from_names(["car"])
        with pytest.raises(LabelMapError, match=r"instances\.json.*'person' is not in the label map"):
            list(list_labelled(files, check_label=label_map.id_of))

    def test_images_at_urls_and_missing_ones(self, tmp_path: Path) -> None:
        document = label_sets.coco()
        document["images"][0]["file_name"] = "https://example.org/a.jpg"
        (tmp_path / "instances.json").write_text(json.dumps(document))
        first, second = list_labelled(find_label_files([tmp_path / "instances.json"]))
        assert first["image"] == "https://example.org/a.jpg" and len(first["labels"]["spans"]) == 1
        assert second == {"image": "b.jpg", "reason": f"no such image below {tmp_path}"}


def test_an_import_is_that_of_odkeras_import(tmp_path: Path) -> None:
    """The images are read by the workers; what is stored is the same."""
    label_sets.write_images(tmp_path / "images")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"")
    document = label_sets.coco()
    document["images"].append({"id": 9, "file_name": "broken.jpg", "width": 64, "height": 48})
    (tmp_path / "instances.json").write_text(json.dumps(document))
    stored = []
    for name, more in (
        ("one", ["import"]),
        ("other", ["bulk", "import", "--workers", "1", "--out", str(tmp_path / "h")]),
    ):
        database, labels = tmp_path / f"{name}.db", str(tmp_path / "instances.json")
        arguments = [*more, "cars", labels, "--images", str(tmp_path / "images"), "--db", str(database)]
        result = label_sets.CliRunner().invoke(label_sets.app, arguments)
        assert result.exit_code == 0, result.output
        assert "2 added, 0 known already" in result.output and "empty file" in result.output
        with AnswerDatabase.open(database) as opened:
            examples = opened.examples("cars")
            stored.append([{key: row[key] for key in row if key != "_timestamp"} for row in examples])
    assert len(stored[0]) == 2 and stored[0] == stored[1]
