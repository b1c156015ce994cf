"""A damaged record stopped the training for ever. It is renamed, and the rest is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from odkeras.data.damaged_records import open_replay
from odkeras.data.records import write_records
from odkeras.errors import RecordError
from odkeras.project import Project


def example(number: int) -> bytes:
    values = {"image/source_id": f"{number:032x}".encode(), "image/encoded": b"x" * 200, "odkeras/batch": b"1-a.jsonl"}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
    made.create()
    for number in range(3):
        write_records(made.data_dir / f"{number + 1}_train.record", [example(2 * number), example(2 * number + 1)])
    return made


@pytest.mark.parametrize("kept", [2, 1, 0])
def test_the_intact_examples_are_kept(project: Project, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    record = project.data_dir / "2_train.record"
    data = record.read_bytes()
    cut = {2: data + b"\xff" * 40, 1: data[:-9], 0: b"\0\1\2\3\4\5" + data}[kept]
    record.write_bytes(cut)
    store = open_replay(project, 0.0, None)
    assert {int(each.image_id, 16) for each in store.examples()} == {0, 1, 4, 5, *range(2, 2 + kept)}
    store.close()
    (moved,) = project.data_dir.glob(".2_train.record.damaged-*")
    assert moved.read_bytes() == cut
    assert f"The {kept} intact examples are kept" in caplog.text
    again = open_replay(project, 0.0, None)
    assert len(again) == 4 + kept
    again.close()


def test_what_is_not_damaged_stays_an_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RecordError("no permission")

    monkeypatch.setattr("odkeras.data.damaged_records.ReplayStore", refuse)
    with pytest.raises(RecordError, match="no permission"):
        open_replay(project, 0.0, None)
    assert not list(project.data_dir.glob(".*damaged*"))
