"""A project that odkeras 0.1 left, killed with one answer undelivered, is opened by this version and continues.

`data/project_0_1.tar.xz` was made by commit 6dfb5e1: `odkeras annotate` on eight pictures of shapes, five answers, one
round, a sixth answer, then `kill -9`. The weights in it are zeros, so that it is small.
"""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from odkeras.config import AnnotateSettings
from odkeras.project import Project, read_jsonl
from odkeras.version_dirs import list_versions
from odkeras.web.opening import open_page
from odkeras.web.queue import Tab

ARCHIVE = Path(__file__).parent / "data" / "project_0_1.tar.xz"
OLD_VERSION = 1795929563


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path)  # our own archive; `filter` is missing in Python 3.10 and 3.11 before 3.11.4
    monkeypatch.chdir(tmp_path)  # the paths in its database are relative
    with closing(sqlite3.connect("annotations.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    yield Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")


def rounds(project: Project) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(project.metrics_path) if row["kind"] == "round"]


@pytest.mark.timeout(900)
def test_an_old_project_continues(project: Project) -> None:
    arguments = AnnotateSettings(
        dataset="shapes", source="shapes/images", config=Path("pipeline.config"), steps_per_epoch=2
    )
    anna = Tab("anna", "tab")
    with open_page(arguments) as service:
        wait_until(lambda: service.panel.version == OLD_VERSION, "the old version is served", timeout_s=400)
        assert {entry.state for entry in service.history("anna").answers} == {"delivered", "saved"}
        assert service.outbox.pending == 1, "the answers that the trainer has are not delivered again"
        open_before = [task.image_id for task in service.next_tasks(anna, 9, []).tasks]
        assert len(open_before) == 3, "nine images, six of them answered"
        assert service.train_now() == (1, False)
        wait_until(lambda: len(rounds(project)) == 2, "a second round", timeout_s=400)
        version = rounds(project)[1]["version"]
        wait_until(lambda: service.panel.version == version, "its version is served", timeout_s=200)
    assert [(row["round"], row["examples"]) for row in rounds(project)] == [(1, 4), (2, 5)], "with the old examples"
    assert OLD_VERSION in list_versions(project.export_dir)
    with open_page(arguments) as service:
        assert service.outbox.pending == 0
