"""Short sessions of each part of the product that writes, with what must be true after a fault and a restart.

A session acknowledges what its user may rely on from then on: an answer that the page has confirmed, a batch that
`put_batch` has returned, an import or a version that was reported.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from odkeras.data.ingest import ingest
from odkeras.data.replay import ReplayStore
from odkeras.data.stored_example import index_record
from odkeras.export.info import EXPORT_INFO_PATH, ExportInfo, write_export_info
from odkeras.export.rollback import plan_rollback, roll_back
from odkeras.formats.label_formats import find_label_files
from odkeras.inbox import list_batches, put_batch, read_batch
from odkeras.label_choice import LabelChoice
from odkeras.labels import LabelMap
from odkeras.project import TEMPORARY_PREFIX, Project, remove_stale_temporaries
from odkeras.version_dirs import list_versions
from odkeras.web.database import AnswerDatabase
from odkeras.web.label_export import ExportOptions, export_labels
from odkeras.web.label_import import import_labels
from tests import fixtures_web

Ack = Callable[[str], None]


class Session:
    """One session in a folder.

    Args:
        seed: varies its answers.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def prepare(self, folder: Path) -> None:
        """Without faults."""

    def work(self, folder: Path, ack: Ack) -> None:
        """With a fault. An `OdkerasError` is its right to end."""
        raise NotImplementedError

    def check_at_once(self, folder: Path, acknowledged: list[str]) -> list[str]:
        """What is wrong before a restart."""
        return []

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        """Without faults: go on to the end; what is wrong then."""
        raise NotImplementedError


def temporaries(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(f"{TEMPORARY_PREFIX}*")]


class Page(Session):
    """`odkeras annotate` over HTTP, without a model: six images are answered and delivered to the inbox."""

    images = 6

    def prepare(self, folder: Path) -> None:
        fixtures_web.save_project(folder, self.images)

    def work(self, folder: Path, ack: Ack) -> None:
        os.chdir(folder)
        with pytest.MonkeyPatch.context() as patch, fixtures_web.annotating() as start:
            fixtures_web.fake_processes.use_fakes(patch.setattr)  # the configuration of the project is empty
            annotating = start(answers_per_round=2)
            page = annotating.page("anna")
            page.http.timeout = httpx.Timeout(5)
            for _ in range(self.images + 3):
                if not self._answer_next(page, ack):
                    break
            self._wait(annotating, 3)

    def _answer_next(self, page: fixtures_web.Page, ack: Ack) -> bool:
        """As the browser does: what was not confirmed is sent again."""
        tasks: list[Any] = []
        with suppress(httpx.HTTPError, AssertionError, ValueError):
            tasks = page.tasks(2)["tasks"]
        for task in tasks:
            decision = self.chance.choice(["accept", "accept", "reject"])
            answer = fixtures_web.answer_to(task, decision, answer_id=f"of-{task['image_id']}")
            for _ in range(3):
                with suppress(httpx.HTTPError, AssertionError, ValueError):
                    for saved in page.send(answer)["saved"]:
                        ack(saved)
                    break
        return bool(tasks)

    def _wait(self, annotating: fixtures_web.Annotating, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        annotating.service.outbox.deliver_now()
        while annotating.service.outbox.pending and time.monotonic() < until:
            time.sleep(0.02)

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        os.chdir(folder)
        missing = {*acknowledged} - {*self._stored()}
        problems = [f"{answer} was acknowledged and is not in the database" for answer in missing]
        self.work(folder, lambda text: None)
        stored = self._stored()
        waiting = [answer for path in list_batches("data/inbox") for answer, _ in read_batch(path)]
        given = Counter(str(answer["image_id"]) for answer in waiting if answer)
        for what, counts in {"stored": stored, "delivered": given}.items():
            if len(counts) != self.images or set(counts.values()) != {1}:
                problems.append(f"{what}: {dict(counts)}, and not each of {self.images} answers once")
        return problems

    def _stored(self) -> Counter[str]:
        with AnswerDatabase.open("annotations.db") as database:
            return Counter(answer_id for (answer_id,) in database.read("SELECT answer_id FROM answers"))


def pictures(count: int, seed: int) -> list[bytes]:
    import io

    found = []
    for number in range(count):
        pixels = np.full((48, 64, 3), (number * 9, seed, 99), np.uint8)
        Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
        found.append(buffer.getvalue())
    return found


class Ingest(Session):
    """Answers into the inbox, from there into records and shards, with a correction and a withdrawn image."""

    labels = LabelMap.from_names(["thing"])

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        import base64

        self.uris = [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in pictures(5, seed)]
        corrected, withdrawn = self.chance.sample(range(3), 2)
        self.batches = [
            [self.answer(number) for number in range(3)],
            [self.answer(corrected, boxes=2), self.answer(withdrawn, "reject")],
            [self.answer(number) for number in (3, 4)],
        ]

    def answer(self, number: int, decision: str = "accept", boxes: int = 1) -> dict[str, Any]:
        span = {"label": "thing", "type": "rect", "x": 5, "y": 6, "width": 20, "height": 10}
        spans = [span] * boxes if decision == "accept" else []
        name = f"{number}.png"
        return {"image": self.uris[number], "answer": decision, "spans": spans, "path": name, "meta": {"file": name}}

    def prepare(self, folder: Path) -> None:
        self.project(folder).create()

    def project(self, folder: Path) -> Project:
        return Project(folder / "data", folder / "model", folder / "export")

    @contextmanager
    def store(self, folder: Path) -> Iterator[ReplayStore]:
        store = ReplayStore(self.project(folder))
        try:
            yield store
        finally:
            store.close()

    def work(self, folder: Path, ack: Ack) -> None:
        directories = self.project(folder)
        with self.store(folder) as store:
            for number, batch in enumerate(self.batches):
                put_batch(directories.inbox_dir, batch, name=f"{number:020}-0-0.jsonl")
                ack(str(number))
                ingest(directories, store, self.labels)
                store.compact(1)

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        directories = self.project(folder)
        for directory in (directories.data_dir, directories.inbox_dir):  # as the trainer does
            remove_stale_temporaries(directory)
        with self.store(folder) as store:
            while list_batches(directories.inbox_dir):
                ingest(directories, store, self.labels)
                store.compact(1)
            first = {(example.image_id, example.batch) for example in store.examples()}
        with self.store(folder) as again:  # as it is read from the index
            second = {(example.image_id, example.batch) for example in again.examples()}
        (directories.replay_dir / "index.sqlite").unlink()
        with self.store(folder) as fresh:  # as it is read from the records
            third = {(example.image_id, example.batch) for example in fresh.examples()}
            batches = fresh.batches
        problems = [] if first == second == third else [f"the index has {second}, the records have {third}"]
        accepted = [number for number in acknowledged if number != "1"]
        problems += [f"batch {n} is in no record" for n in accepted if f"{int(n):020}-0-0.jsonl" not in batches]
        if (directories.rejected_path).exists():
            problems.append("answers were rejected")
        if "1" in acknowledged:
            by_batch = Counter(batch[:20].lstrip("0") or "0" for _, batch in first)
            expected = {"0": 1, "1": 1, **({"2": 2} if "2" in acknowledged else {})}
            if {**by_batch, **({} if "2" in acknowledged else {"2": by_batch["2"]})} != {
                **expected,
                **({} if "2" in acknowledged else {"2": by_batch["2"]}),
            }:
                problems.append(f"images by their batch: {dict(by_batch)}, not {expected}")
        for path in directories.train_records():
            index_record(path)
        return problems + temporaries(directories.data_dir)


class Labels(Session):
    """Labels of another tool into the database."""

    images = 5

    def prepare(self, folder: Path) -> None:
        fixtures_web.save_project(folder, self.images)
        rows = [f"images/{number:02}.png,20,10,50,30,thing" for number in range(self.images)]
        (folder / "boxes.csv").write_text("\n".join(["path,xmin,ymin,xmax,ymax,label", *rows]))

    def work(self, folder: Path, ack: Ack) -> None:
        files = find_label_files([folder / "boxes.csv"], "csv")
        choice = LabelChoice(LabelMap.from_names(["thing"]))
        report = import_labels(files, choice, database=folder / "annotations.db", dataset="d")
        ack(str(report.added + report.known))  # an image that cannot be read is named and left out

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        if acknowledged:
            with AnswerDatabase.open(folder / "annotations.db") as database:
                if len(database.examples("d")) != int(acknowledged[0]):
                    return [f"{acknowledged[0]} images were reported, and are not in the database"]
        self.work(folder, lambda text: None)
        with AnswerDatabase.open(folder / "annotations.db") as database:
            count = len(database.examples("d", replaced=True))
        return [] if count == self.images else [f"{count} answers, not {self.images}"]


class Export(Labels):
    """The answers as a folder of another tool, twice: new, and in place of an earlier one."""

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        super().work(folder, lambda text: None)

    def work(self, folder: Path, ack: Ack) -> None:
        for _ in range(2):
            with AnswerDatabase.open(folder / "annotations.db") as database:
                export_labels(database, "d", folder / "out", ExportOptions("yolo", overwrite=True))
            ack("exported")

    def check_at_once(self, folder: Path, acknowledged: list[str]) -> list[str]:
        out = folder / "out"
        if not out.exists():  # between the two renames the earlier one has another name
            kept = [path for path in folder.glob(".out.odkeras-old-*") if self.is_whole(path)]
            return [] if kept or not acknowledged else ["the exported folder is gone"]
        return [] if self.is_whole(out) else ["the exported folder is half"]

    def is_whole(self, out: Path) -> bool:
        return len(list(out.rglob("*.txt"))) >= self.images and (out / "data.yaml").is_file()

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        self.work(folder, lambda text: None)
        left = [str(path) for path in folder.glob(".out.odkeras-*")]
        return left if self.is_whole(folder / "out") else ["the exported folder is half", *left]


class Rollback(Session):
    """An earlier version becomes the newest again."""

    files = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")

    def prepare(self, folder: Path) -> None:
        for version in (1, 2):
            directory = folder / "export" / str(version)
            for name in self.files:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                (directory / name).write_bytes(f"{version} {name}".encode() * 999)
            (directory / EXPORT_INFO_PATH).parent.mkdir()
            write_export_info(directory, ExportInfo(version, "graph"))

    def work(self, folder: Path, ack: Ack) -> None:
        ack(str(roll_back(folder / "export", plan_rollback(folder / "export", 1))))

    def check_at_once(self, folder: Path, acknowledged: list[str]) -> list[str]:
        problems = []
        for version in list_versions(folder / "export"):
            original = folder / "export" / ("2" if version == 2 else "1")
            for name in (*self.files, str(EXPORT_INFO_PATH)):
                copy = folder / "export" / str(version) / name
                if not copy.is_file() or (name in self.files and copy.read_bytes() != (original / name).read_bytes()):
                    problems.append(f"version {version} is half: {name}")
        lost = [version for version in acknowledged if int(version) not in list_versions(folder / "export")]
        return problems + [f"version {version} was reported, and is gone" for version in lost]

    def restart(self, folder: Path, acknowledged: list[str]) -> list[str]:
        before = list_versions(folder / "export")
        self.work(folder, lambda text: None)
        after = list_versions(folder / "export")
        problems = [] if len(after) == len(before) + 1 else [f"versions {before}, then {after}"]
        return problems + self.check_at_once(folder, acknowledged) + temporaries(folder)


SESSIONS: dict[str, type[Session]] = {
    "page": Page,
    "ingest": Ingest,
    "import": Labels,
    "export": Export,
    "rollback": Rollback,
}
