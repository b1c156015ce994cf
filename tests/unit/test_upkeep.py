"""`odkeras doctor PROJECT` and `odkeras backup`: each file of a project cut, emptied, with a flipped bit, replaced."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from odkeras.cli.upkeep import _check_files
from odkeras.crc32c import masked_crc32c
from odkeras.errors import ConfigError, InUseError, OdkerasError
from odkeras.formats.tfrecord_reader import _example_class
from odkeras.inbox import put_batch
from odkeras.locks import locked
from odkeras.project import Project, read_jsonl, read_status
from odkeras.record_files import list_record_files
from odkeras.upkeep.backup import NOTE, back_up
from odkeras.upkeep.project import ProjectPlaces, check_project, repair_project
from odkeras.web.data_directory import attach_data_directory
from odkeras.web.database import AnswerDatabase
from odkeras.web.deliveries import Deliveries
from odkeras.web.stored import StoredAnswer

DATASET = "things"
NOT_OURS = (".lock", ".owner", "-wal", "-shm")
TRAINED, SHARDED, WAITING, PENDING = range(4)  # the answers by where they are


def image_id(number: int) -> str:
    return f"{number:032x}"


def answer(number: int) -> StoredAnswer:
    example = {"image": f"{number}.png", "image_id": image_id(number), "answer": "accept", "spans": []}
    return StoredAnswer({**example, "width": 64, "height": 48}, image_id(number), "anna", 1e9 + number, f"id-{number}")


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def example(number: int) -> bytes:
    made = _example_class()()
    entry = made.features.feature.add(key="image/source_id")
    entry.value.bytes_list.value.append(image_id(number).encode())
    made.features.feature.add(key="image/encoded").value.bytes_list.value.append(bytes(300))
    return bytes(made.SerializeToString())


@pytest.fixture
def places(tmp_path: Path) -> ProjectPlaces:
    return make_project(tmp_path / "project")


def make_project(folder: Path) -> ProjectPlaces:
    """A project without TensorFlow: four answers, in a record, in a shard, in the inbox, and in the database only."""
    project = Project(folder / "data", folder / "model", folder / "export")
    project.create()
    (folder / "pipeline.config").write_text("model {}\n")
    (folder / "label_map.pbtxt").write_text('item { id: 1 name: "thing" }\n')
    with AnswerDatabase.open(folder / "annotations.db") as database:
        deliveries = Deliveries(database, DATASET)
        attach_data_directory(deliveries, DATASET, project)
        database.add(DATASET, [answer(number) for number in (TRAINED, SHARDED, WAITING, PENDING)])
        deliveries.mark_delivered([f"id-{number}" for number in (TRAINED, SHARDED, WAITING)])
    put_batch(project.inbox_dir, [answer(WAITING).example])
    project.replay_dir.mkdir()
    (project.replay_dir / "00000001.record").write_bytes(frame(example(SHARDED)))
    (project.replay_dir / "00000002.record").write_bytes(frame(example(9)))
    (project.data_dir / "100_train.record").write_bytes(frame(example(8)) + frame(example(TRAINED)))
    with sqlite3.connect(project.replay_dir / "index.sqlite") as index:
        index.execute("CREATE TABLE files (name TEXT)")
    for path in (project.work_path, project.metrics_path, project.image_ids_path, project.withdrawn_path):
        path.write_text('{"kind": "a", "image_id": "x"}\n{"kind": "b"}\n')
    for path in (project.status_path, project.control_path, project.data_dir / "thresholds.json"):
        path.write_text('{"state": "running"}')
    (project.model_dir / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"\n')
    version = project.export_dir / "1700000000"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"graph" * 50)
    (version / "variables" / "variables.index").write_bytes(b"index" * 9)
    (version / "variables" / "variables.data-00000-of-00001").write_bytes(b"data" * 99)
    (version / "assets.extra").mkdir()
    info = {"step": 1, "graph": "g", "labels": [], "graph_sha256": hashlib.sha256(b"graph" * 50).hexdigest()}
    (version / "assets.extra" / "odkeras.json").write_text(json.dumps(info))
    return ProjectPlaces.of(folder / "pipeline.config")


def flip(data: bytes) -> bytes:
    return data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 0x55]) + data[len(data) // 3 + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "bit flipped at the start": lambda data: bytes([data[0] ^ 0x41]) + data[1:],
    "bit flipped": flip,
    "replaced": lambda data: bytes(range(256)) * 40,
    "nested": lambda data: b"[" * 50_000,
}


def files_of(places: ProjectPlaces) -> list[Path]:
    folder = places.config.parent
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != places.config]
    return [path for path in found if not path.name.startswith(".") and not path.name.endswith(NOT_OURS)]


def repaired(places: ProjectPlaces) -> list[tuple[str, str, bool]]:
    return [(finding.where.name, what, done) for finding, what, done in repair_project(places)]


def answers_of(places: ProjectPlaces) -> set[str]:
    with AnswerDatabase.open(places.database) as database:
        return {str(each["image_id"]) for each in database.examples(DATASET)}


def pending(places: ProjectPlaces) -> set[str]:
    with AnswerDatabase.open(places.database) as database:
        return {each.image_id for each in Deliveries(database, DATASET).pending(99)}


def test_a_sound_project_has_no_findings(places: ProjectPlaces) -> None:
    before = {path: path.read_bytes() for path in files_of(places) if path != places.database}
    assert check_project(places) == []
    assert repaired(places) == []
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_each_file_damaged_alone(places: ProjectPlaces, damage: str, tmp_path: Path) -> None:
    """Whatever is damaged: no exception, nothing is deleted, a second look finds nothing, and the answers of all
    other files are still there and still reach the trainer."""
    for path in files_of(places):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(places.config.parent, copy)
        its = ProjectPlaces.of(copy / "pipeline.config")
        damaged = copy / path.relative_to(places.config.parent)
        content = DAMAGE[damage](damaged.read_bytes())
        damaged.write_bytes(content)
        what = repaired(its)
        assert all(done for *_, done in what), (path.name, what)
        assert check_project(its) == [], path.name
        kept = [each.read_bytes() for each in damaged.parent.glob(f"*{damaged.name.lstrip('.')}*") if each.is_file()]
        if damaged != its.database and damaged.parent.is_dir():
            assert content in kept, f"{path.name}: the damaged file is gone"
        if damaged != its.database:
            assert answers_of(its) == {image_id(number) for number in range(4)}
            known = b"".join(each.read_bytes() for each in list_record_files(its.project))
            waiting = pending(its) | {image_id(WAITING)}
            assert all(image_id(number).encode() in known or image_id(number) in waiting for number in range(4)), path


def test_answers_of_a_damaged_record_are_delivered_again(places: ProjectPlaces) -> None:
    record = places.project.data_dir / "100_train.record"
    first = len(frame(example(8)))
    record.write_bytes(flip(record.read_bytes()[:first]) + record.read_bytes()[first:])
    record.write_bytes(record.read_bytes()[:first] + b"\xff" * 30)
    whats = repaired(places)
    assert [name for name, *_ in whats] == ["100_train.record", "annotations.db"]
    assert pending(places) == {image_id(TRAINED), image_id(PENDING)}
    assert not (places.project.replay_dir / "index.sqlite").exists()
    assert len(list(places.project.data_dir.glob(".100_train.record.damaged-*"))) == 1


@pytest.mark.parametrize("name", ["data/100_train.record", "data/replay/00000001.record"])
@pytest.mark.parametrize("at", [40, -2], ids=["data", "checksum of the data"])
def test_one_flipped_bit_costs_one_example(places: ProjectPlaces, name: str, at: int) -> None:
    """The checksum of the data was not verified: an image with a flipped bit was trained on."""
    path = places.config.parent / name
    last = frame(example(SHARDED if "replay" in name else TRAINED))
    first = frame(example(7))
    middle = bytearray(last)
    middle[at] ^= 0x10
    path.write_bytes(first + middle + frame(example(8)))
    lost = SHARDED if "replay" in name else TRAINED
    (finding, deliveries) = check_project(places)
    problem = f"has 1 examples with a wrong checksum, the first one at byte {len(first)}"
    assert (finding.where, finding.problem) == (path, problem)
    assert deliveries.problem.startswith("1 accepted answers were delivered, but")
    assert all(done for *_, done in repaired(places))
    assert path.read_bytes() == first + frame(example(8))
    assert pending(places) == {image_id(lost), image_id(PENDING)}
    (kept,) = path.parent.glob(f".{path.name}.damaged-*")
    assert kept.read_bytes() == first + middle + frame(example(8))


def test_damage_of_both_kinds_in_one_record(places: ProjectPlaces) -> None:
    record = places.project.data_dir / "100_train.record"
    flipped = bytearray(frame(example(7)))
    flipped[100] ^= 1
    content = flipped + frame(example(TRAINED)) + flipped
    record.write_bytes(content + b"\xff" * 30)
    (finding,) = check_project(places)
    ends = f"is damaged at byte {len(content)} of {len(content) + 30}, after 3 examples"
    assert finding.problem == f"has 2 examples with a wrong checksum, the first one at byte 0 and {ends}"
    assert repaired(places)[0][1].startswith("1 examples kept")
    assert record.read_bytes() == frame(example(TRAINED))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (frame(example(1))[:-9], "is damaged at byte 0 of "),
        (b"\x89PNG and no record" * 9, "is damaged at byte 0 of "),
        (frame(example(1))[:60] + b"?" + frame(example(1))[61:], "has 1 examples with a wrong checksum"),
    ],
    ids=["truncated", "foreign", "flipped"],
)
def test_records_of_others_are_checked_and_left_alone(places: ProjectPlaces, content: bytes, problem: str) -> None:
    path = places.project.data_dir / "7_eval.record"
    path.write_bytes(content)
    (places.project.data_dir / "val.record-00000-of-00001").write_bytes(frame(example(1)))
    (finding,) = check_project(places)
    assert finding.where == path
    assert finding.problem.startswith(problem)
    assert [done for *_, done in repaired(places)] == [False]
    assert path.read_bytes() == content


def test_doctor_says_what_it_has_checked(places: ProjectPlaces, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check_files(places.config, repair=False)
    output = capsys.readouterr().out
    assert "checked: 3 records: both checksums of every example" in output
    assert "checked: 1 versions: the checksum of the graph" in output
    assert "checked: annotations.db: SQLite's own check, and its answers against the records" in output
    assert f"ok    the files of {places.config.parent}" in output


def test_a_damaged_database_keeps_what_can_be_read(places: ProjectPlaces) -> None:
    with AnswerDatabase.open(places.database) as database:
        database.add(DATASET, [answer(number) for number in range(10, 400)])
    data = bytearray(places.database.read_bytes())
    middle = len(data) // 8192 * 4096
    data[middle : middle + 4096] = bytes(4096)
    places.database.write_bytes(data)
    ((name, what, done),) = [each for each in repaired(places) if each[0] == "annotations.db"][:1]
    assert (name, done) == ("annotations.db", True)
    kept = answers_of(places)
    assert 200 < len(kept) < 394, what
    assert what.startswith(f"{len(kept)} answers copied, ")
    assert len(list(places.database.parent.glob(".annotations.db.damaged-*"))) == 1


def test_no_repair_while_somebody_works(places: ProjectPlaces) -> None:
    places.project.status_path.write_text("")
    in_use = pytest.raises(InUseError, match=r"the trainer is using .*model; stop it before the repair")
    with locked(places.project.lock_path, taken="x", wait_s=0.1), in_use:
        repaired(places)
    assert places.project.status_path.exists()


def test_a_backup_is_a_project(places: ProjectPlaces, tmp_path: Path) -> None:
    out = tmp_path / "backups" / "monday"
    out.parent.mkdir()
    assert back_up(places, out) == []
    copy = ProjectPlaces.of(out / "pipeline.config")
    assert check_project(copy) == []
    assert copy.database == out / "annotations.db"
    assert answers_of(copy) == answers_of(places)
    assert [path.read_bytes() for path in list_record_files(copy.project)] == [
        path.read_bytes() for path in list_record_files(places.project)
    ]
    assert read_jsonl(copy.project.metrics_path) == read_jsonl(places.project.metrics_path)
    assert (read_status(out / NOTE) or {})["damage"] == []
    assert not list(out.rglob("*.lock"))
    with pytest.raises(ConfigError, match="exists already"):
        back_up(places, out)


def test_a_backup_of_a_damaged_project_says_so(places: ProjectPlaces, tmp_path: Path) -> None:
    (places.project.data_dir / "100_train.record").write_bytes(b"x" * 100)
    (problem,) = [each for each in back_up(places, tmp_path / "out") if "record" in each.partition(":")[0]]
    assert problem.startswith("data/100_train.record: is damaged at byte 0 of 100")


def test_a_failed_backup_leaves_nothing(places: ProjectPlaces, tmp_path: Path) -> None:
    places.database.write_bytes(b"nothing that SQLite knows" * 200)
    with pytest.raises(OdkerasError, match="cannot be copied"):
        back_up(places, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project"]


@pytest.fixture
def moving(places: ProjectPlaces, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """While the backup copies, an answer walks on: from the inbox to a record, from a record to a shard."""
    copied: list[str] = []
    copy, project = shutil.copy2, places.project

    def copy_and_move(source: Path, target: Path) -> Any:
        result = copy(source, target)
        copied.append(Path(source).name)
        if Path(source).parent == project.data_dir and not (project.data_dir / "200_train.record").exists():
            (project.data_dir / "200_train.record").write_bytes(frame(example(WAITING)))
            for batch in project.inbox_dir.glob("*.jsonl"):
                batch.unlink()
        if Path(source).name == "200_train.record":
            shard = project.replay_dir / "00000003.record"
            shard.write_bytes((project.data_dir / "100_train.record").read_bytes())
            (project.data_dir / "100_train.record").unlink(missing_ok=True)
        return result

    monkeypatch.setattr("odkeras.upkeep.backup.shutil.copy2", copy_and_move)
    yield copied


def test_no_answer_is_lost_in_a_backup_while_it_moves(places: ProjectPlaces, moving: list[str], tmp_path: Path) -> None:
    assert back_up(places, tmp_path / "out") == []
    copy = ProjectPlaces.of(tmp_path / "out" / "pipeline.config")
    known = b"".join(path.read_bytes() for path in list_record_files(copy.project))
    assert all(image_id(number).encode() in known for number in (TRAINED, SHARDED))
    assert image_id(WAITING).encode() in known or list(copy.project.inbox_dir.glob("*.jsonl"))
    assert "200_train.record" in moving
