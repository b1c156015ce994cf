"""The database of answers: durable, all or nothing, the last answer counts, nothing is ever lost."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from odkeras.annotation import Decision, EditCounts
from odkeras.errors import DatabaseError
from odkeras.formats.prodigy import read_answer
from odkeras.web.database import AnswerDatabase
from odkeras.web.deliveries import Deliveries
from odkeras.web.gallery_rows import TaskFacts
from odkeras.web.sqlite_engine import SqliteEngine
from odkeras.web.stored import StoredAnswer, hash_image_id

A, B, C = (f"{letter * 32}" for letter in "abc")


def answer_of(image_id: str = A, session: str = "anna", at: float = 1.0, decision: str = "accept", **more: Any) -> Any:
    example = {"image_id": image_id, "answer": decision, "spans": more.pop("spans", []), **more.pop("extra", {})}
    return StoredAnswer(example, image_id, session, answered_at=at, **more)


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[AnswerDatabase]:
    with AnswerDatabase.open(tmp_path / "annotations.db") as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnswerDatabase]:
    is_file = request.param == "sqlite"
    with AnswerDatabase.open(
        tmp_path / "annotations.db" if is_file else request.getfixturevalue("postgres_url")
    ) as opened:
        yield opened


def connection_of(database: AnswerDatabase) -> sqlite3.Connection:
    assert isinstance(database.engine, SqliteEngine)
    return database.engine.connection


def pragma(database: AnswerDatabase, name: str) -> Any:
    return connection_of(database).execute(f"PRAGMA {name}").fetchone()[0]


def drop_counters(connection: sqlite3.Connection) -> None:
    """Make the database one of before schema 7."""
    connection.execute("DROP INDEX answers_in_batch")
    for kind in ("trigger", "table"):
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = ? AND (name LIKE 'count%' OR name LIKE '%_counts')", (kind,)
        )
        for (name,) in names.fetchall():
            connection.execute(f"DROP {kind} {name}")
    connection.execute("PRAGMA user_version = 6")


def decisions(database: AnswerDatabase, dataset: str = "d", **options: Any) -> list[str]:
    return [example["answer"] for example in database.examples(dataset, **options)]


# --- what was stored stays


def test_what_add_has_returned_from_is_on_the_disk(sqlite_database: AnswerDatabase) -> None:
    assert pragma(sqlite_database, "synchronous") == 2  # FULL: the log is synchronised at every commit
    assert pragma(sqlite_database, "journal_mode") == "wal"


def test_examples_come_back_as_they_were(tmp_path: Path) -> None:
    spans = [{"label": "Löwe 🦁", "points": [[0.1, 1e-7], [3, 4]], "x": 0.1}]
    extra = {"meta": {"file": "a\u0000.jpg", "n": 2**70}, "nothing": None}
    path = tmp_path / "new" / "annotations.db"
    with AnswerDatabase.open(path) as database:
        stored = answer_of(spans=spans, extra=extra)
        assert database.add("d", [stored]) == [stored]
    with AnswerDatabase.open(path, create=False) as database:
        assert database.examples("d") == [stored.example]
        assert list(database.examples("d")[0]) == list(stored.example)
        assert database.datasets == ["d"]


def test_closing_twice_is_fine_and_afterwards_it_says_so(database: AnswerDatabase) -> None:
    database.close()
    database.close()
    with pytest.raises(DatabaseError, match="closed"):
        database.add("d", [answer_of()])
    with pytest.raises(DatabaseError, match="closed"):
        database.examples("d")


def test_a_file_name_that_is_not_utf8_is_stored(database: AnswerDatabase) -> None:
    """Such a name (surrogates in Python) ended `add` with a UnicodeEncodeError, and `history` with an sqlite3 error."""
    name = os.fsdecode(b"\xff.jpg")
    database.add("d", [answer_of(extra={"meta": {"file": name}})])
    assert database.examples("d")[0]["meta"]["file"] == name
    assert database.history("d", "anna")[0].file.endswith(".jpg")


@pytest.mark.parametrize("example", [{"answer": "accept", "x": float("nan")}, {"answer": "accept", "x": object()}, {}])
def test_an_invalid_answer_rolls_back_its_batch(database: AnswerDatabase, example: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        database.add("d", [answer_of(), StoredAnswer(example, B, "anna")])
    assert "d" not in database


# --- the last answer counts


def test_the_last_answer_counts_and_the_others_are_kept(database: AnswerDatabase) -> None:
    for at, decision in enumerate(("accept", "reject", "ignore")):
        database.add("d", [answer_of(at=at, decision=decision)])
    assert decisions(database) == ["ignore"]
    assert decisions(database, replaced=True) == ["accept", "reject", "ignore"]
    assert decisions(database, decision="accept") == []
    assert decisions(database, decision="accept", replaced=True) == ["accept"]


def test_an_older_answer_that_arrives_late_does_not_win(database: AnswerDatabase) -> None:
    newer, older = answer_of(at=20, decision="reject"), answer_of(at=10)
    assert database.add("d", [newer]) == [newer]
    assert database.add("d", [older]) == []
    assert decisions(database) == ["reject"]
    assert decisions(database, replaced=True) == ["accept", "reject"]
    assert database.answer("d", "anna", A) == read_answer(newer.example)
    assert [each.answer_id for each in Deliveries(database, "d").pending(99)] == [newer.answer_id]


def test_of_two_at_the_same_instant_the_one_stored_last_counts(database: AnswerDatabase) -> None:
    database.add("d", [answer_of(at=5), answer_of(at=5, decision="ignore")])
    assert decisions(database) == ["ignore"]


def test_the_same_act_of_answering_is_stored_once(database: AnswerDatabase) -> None:
    first = answer_of(answer_id="x")
    again = answer_of(answer_id="x", decision="reject", at=9)
    assert database.add("d", [first]) == [first]
    assert database.add("d", [again]) == []
    assert decisions(database, replaced=True) == ["accept"]
    assert database.add("other", [again]) == [again]  # another dataset knows nothing of it


def test_every_session_has_its_own_last_answer(database: AnswerDatabase) -> None:
    database.add("d", [answer_of(session="anna", at=1), answer_of(session="ben", at=2, decision="reject")])
    database.add("d", [answer_of(B, session="ben", at=3)])
    assert decisions(database) == ["accept", "reject", "accept"]
    annas = database.answer("d", "anna", A)
    assert annas is not None
    assert annas.decision is Decision.ACCEPT
    assert database.answer("d", "anna", B) is None
    assert database.answered("d") == {A, B}
    assert database.answered("d", session="anna") == {A}
    assert [(image_id, example["answer"]) for image_id, example in database.iter_latest("d")] == [
        (A, "reject"),
        (B, "accept"),
    ]
    assert [image_id for image_id, _ in database.iter_latest("d", decision="accept")] == [B]


def test_numbers(database: AnswerDatabase) -> None:
    assert database.period("d") is None
    database.add("d", [answer_of(at=1), answer_of(at=2, decision="reject"), answer_of(B, at=3)])
    database.add("d", [answer_of(A, "ben", at=4, decision="ignore")])
    assert database.counts("d") == {
        "anna": {"accept": 1, "reject": 1, "ignore": 0},
        "ben": {"accept": 0, "reject": 0, "ignore": 1},
    }
    assert database.period("d") == (1.0, 4.0)
    assert Deliveries(database, "d").count_pending() == len(Deliveries(database, "d").pending(99)) == 3
    assert database.counts("unknown") == {}
    assert "unknown" not in database


def test_delivered_answers_are_not_pending(database: AnswerDatabase) -> None:
    database.add("d", [answer_of(A, answer_id="a"), answer_of(B, at=2, answer_id="b", delivered=True)])
    assert [each.answer_id for each in Deliveries(database, "d").pending(99)] == ["a"]
    Deliveries(database, "d").mark_delivered(["a", "unknown"])
    assert Deliveries(database, "d").count_pending() == 0
    assert all(entry.delivered for entry in database.history("d", "anna"))


def test_history_is_newest_first(database: AnswerDatabase) -> None:
    spans = [{"label": "car"}] * 2
    named = answer_of(A, at=1, spans=spans, extra={"meta": {"file": "a.jpg"}})
    database.add("d", [named, answer_of(B, at=3, decision="reject"), answer_of(C, at=2), answer_of(A, "ben", at=9)])
    found = database.history("d", "anna")
    assert [(entry.image_id, entry.file, entry.decision, entry.boxes) for entry in found] == [
        (B, B, "reject", 0),
        (C, C, "accept", 0),
        (A, "a.jpg", "accept", 2),
    ]
    assert [entry.image_id for entry in database.history("d", "anna", limit=1)] == [B]


def test_efforts_by_version(database: AnswerDatabase) -> None:
    did = EditCounts(kept=3, kept_80=3, adjusted=2, deleted=1, added=4)
    database.add("d", [answer_of(A, version=8, edits=did), answer_of(B, version=8, edits=did)])
    database.add("d", [answer_of(C, version=7, edits=EditCounts(kept=1)), answer_of("d" * 32, version=7)])
    database.add("d", [answer_of(C, at=2, version=9, edits=EditCounts(adjusted=1))])  # replaces version 7's
    found = [(each.version, each.images, each.edits) for each in database.version_edits("d")]
    assert found == [
        (8, 2, EditCounts(kept=6, kept_80=6, adjusted=4, deleted=2, added=8)),
        (9, 1, EditCounts(adjusted=1)),
    ]


def test_an_interrupted_delivery_comes_first_and_keeps_its_batch(database: AnswerDatabase) -> None:
    database.add("d", [answer_of(A, answer_id="a", at=1), answer_of(B, answer_id="b", at=2)])
    Deliveries(database, "d").assign_batch(["b"], "17.jsonl")
    assert [(each.answer_id, each.batch) for each in Deliveries(database, "d").pending(9)] == [
        ("b", "17.jsonl"),
        ("a", None),
    ]
    assert [each.answer_id for each in Deliveries(database, "d").pending(1)] == ["b"]
    assert [example["image_id"] for example in Deliveries(database, "d").read_examples(["b", "a", "x"])] == [B, A]
    Deliveries(database, "d").mark_delivered(["b"])
    assert [each.answer_id for each in Deliveries(database, "d").pending(9)] == ["a"]


def test_answers_delivered_to_another_data_directory_are_pending_again(database: AnswerDatabase) -> None:
    Deliveries(database, "d").use_data_directory("one")
    database.add("d", [answer_of(A, answer_id="a", at=1), answer_of(B, answer_id="b", at=2)])
    database.add("other", [answer_of(A, answer_id="c", delivered=True)])
    Deliveries(database, "d").mark_delivered(["a", "b"])
    Deliveries(database, "d").use_data_directory("one")
    assert Deliveries(database, "d").count_pending() == 0
    Deliveries(database, "d").use_data_directory("two", known_hashes={hash_image_id(B)})
    assert [each.answer_id for each in Deliveries(database, "d").pending(9)] == ["a"]
    assert Deliveries(database, "other").count_pending() == 0


def test_input_hashes_are_whole_numbers_that_sqlite_can_hold() -> None:
    hashes = {hash_image_id(image_id) for image_id in (A, B, "f" * 32, "", "ü", "zz")}
    assert len(hashes) == 6
    assert all(0 <= value < 2**63 for value in hashes)


# --- several at once


def test_several_threads_write_at_once(database: AnswerDatabase) -> None:
    def write(session: str) -> None:
        for number in range(25):
            database.add("d", [answer_of(f"{number:032x}", session, at=number)])

    run_together(*[lambda session=name: write(session) for name in ("a", "b", "c", "d")])
    assert {session: sum(of.values()) for session, of in database.counts("d").items()} == dict.fromkeys("abcd", 25)


def test_two_connections_at_once(tmp_path: Path) -> None:
    path = tmp_path / "annotations.db"
    with AnswerDatabase.open(path) as one, AnswerDatabase.open(path) as two:

        def write(database: AnswerDatabase, session: str) -> None:
            for number in range(25):
                database.add("d", [answer_of(f"{number:032x}", session, at=number)])

        run_together(lambda: write(one, "one"), lambda: write(two, "two"))
        assert len(one.examples("d")) == len(two.examples("d")) == 50


def test_a_file_is_made_by_several_at_once(tmp_path: Path) -> None:
    """Some of them found "a database of something else", or one that was locked."""
    for turn in range(10):
        path = tmp_path / f"{turn}.db"

        def open_and_write(number: int, path: Path = path) -> None:
            with AnswerDatabase.open(path) as database:
                database.add("d", [answer_of(f"{number:032x}")])

        run_together(*[lambda number=number: open_and_write(number) for number in range(6)])
        with AnswerDatabase.open(path) as database:
            assert len(database.examples("d")) == 6


def run_together(*works: Any) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(works))

    def run(work: Any) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# --- what can be wrong with the file


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no such database"):
        AnswerDatabase.open(tmp_path / "annotations.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_no_database_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("annotations, annotations and more annotations")
    with pytest.raises(DatabaseError, match="not a database"):
        AnswerDatabase.open(tmp_path / "a.db")
    with pytest.raises(DatabaseError, match="cannot be opened"):
        AnswerDatabase.open(tmp_path)
    with pytest.raises(DatabaseError, match="cannot be opened"):
        AnswerDatabase.open(tmp_path / "a.db" / "b.db")


@pytest.mark.parametrize(("table", "version"), [("example", 0), ("example", 1), ("example", 7), ("answers", 0)])
def test_another_program_s_database_is_refused_and_unchanged(tmp_path: Path, table: str, version: int) -> None:
    """It was switched to another journal mode before it was looked at; one with our schema's number was taken."""
    path = tmp_path / "prodigy.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"CREATE TABLE {table} (id); PRAGMA user_version = {version};")
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="something else"):
        AnswerDatabase.open(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("version", "lacks"),
    [(5, ["active_s"]), (4, ["active_s", "picked", "kept_80"]), (3, ["active_s", "picked", "batch"])],
)
def test_an_older_schema_gets_the_missing_columns(tmp_path: Path, version: int, lacks: list[str]) -> None:
    path = tmp_path / "annotations.db"
    with AnswerDatabase.open(path) as database:
        database.add("d", [answer_of(A, at=1)])
    with closing(sqlite3.connect(path)) as connection:
        drop_counters(connection)
        for column in lacks:
            connection.execute(f"ALTER TABLE answers DROP COLUMN {column}")
        connection.execute(f"PRAGMA user_version = {version}")
    with AnswerDatabase.open(path) as database:
        assert database.active_s("d", A) is None
        database.add("d", [answer_of(A, at=2, active_s=12.5)])
        assert database.active_s("d", A) == 12.5
        assert pragma(database, "user_version") == 8


def counted(database: AnswerDatabase, dataset: str) -> dict[str, Any]:
    """What the counters must say, from all answers."""
    rows = database.read(
        "SELECT answers.session, answers.decision, version, kept, COALESCE(kept_80, kept), moved, relabelled, deleted, "
        "added, picked, handed_on, latest FROM answers JOIN gallery ON answer = answers.id "
        "WHERE answers.dataset = ? AND replaced = 0",
        dataset,
    )
    decisions: dict[str, dict[str, int]] = {}
    edits: dict[int, list[EditCounts]] = {}
    for session, decision, version, *counts, _, _ in rows:
        of_session = decisions.setdefault(session, {"accept": 0, "reject": 0, "ignore": 0})
        of_session[decision] += 1
        if version is not None:
            edits.setdefault(version, []).append(EditCounts(*counts))
    return {
        "decisions": decisions,
        "edits": {version: (len(each), sum(each, EditCounts())) for version, each in sorted(edits.items())},
        "pending": sum(not handed_on for *_, handed_on, _ in rows),
        "latest": sum(not handed_on and latest for *_, handed_on, latest in rows),
    }


def kept(database: AnswerDatabase, dataset: str) -> dict[str, Any]:
    return {
        "decisions": database.counts(dataset),
        "edits": {row.version: (row.images, row.edits) for row in database.version_edits(dataset)},
        "pending": Deliveries(database, dataset).count_pending(),
        "latest": Deliveries(database, dataset, shared=True).count_pending(),
    }


def change_randomly(database: AnswerDatabase, chance: random.Random, times: int) -> None:
    """Checks the counters after each of any answers, corrections, deliveries and changes of the data directory."""
    for number in range(times):
        dataset, shared = chance.choice("de"), chance.random() < 0.5
        deliveries = Deliveries(database, dataset, shared=shared)
        kind = chance.random()
        if kind < 0.7:
            edits = EditCounts(*(chance.randrange(5) for _ in range(7)))
            answer = answer_of(
                chance.choice([A, B, C]),
                chance.choice(["anna", "ben"]),
                at=chance.randrange(100),
                decision=chance.choice(["accept", "accept", "reject", "ignore"]),
                delivered=chance.random() < 0.2,
                **({"version": chance.randrange(3), "edits": edits} if chance.random() < 0.6 else {}),
            )
            database.add(dataset, [answer, answer], shared=shared)
        elif kind < 0.9:
            ids = [row.answer_id for row in deliveries.pending(2)]
            deliveries.assign_batch(ids, f"b{number}")
            if chance.random() < 0.8:
                deliveries.mark_delivered(ids)
        else:
            deliveries.use_data_directory(f"data {number}", [hash_image_id(A)])
        for name in "de":
            assert kept(database, name) == counted(database, name)
            for each in (True, False):
                deliveries = Deliveries(database, name, shared=each)
                assert deliveries.count_pending() == len(deliveries.pending(1000))
                free = [row for row in deliveries.pending(1000) if row.batch is None]
                assert deliveries.count_pending(in_no_batch=True) == len(free)


@pytest.mark.parametrize("seed", range(5))
def test_the_counters_are_what_counting_would_give(tmp_path: Path, seed: int) -> None:
    """Also after a migration."""
    path = tmp_path / "annotations.db"
    with AnswerDatabase.open(path) as database:
        change_randomly(database, random.Random(seed), 120)
        expected = kept(database, "d")
    with closing(sqlite3.connect(path)) as connection:
        drop_counters(connection)
        connection.commit()
    with AnswerDatabase.open(path) as database:
        assert kept(database, "d") == expected == counted(database, "d")


def test_the_counters_of_postgres_are_what_counting_would_give(postgres_url: str) -> None:
    with AnswerDatabase.open(postgres_url) as database:
        change_randomly(database, random.Random(0), 30)
        many = [answer_of(f"{number:032x}", at=number % 7, version=2, edits=EditCounts(1)) for number in range(40)]
        rows = [(answer, json.dumps(answer.example), TaskFacts.of_answer(answer)) for answer in [*many, *many[:5]]]
        assert database.add_all("d", rows) == 40  # counted at the end of the transaction
        assert kept(database, "d") == counted(database, "d")
        change_randomly(database, random.Random(1), 5)


@pytest.mark.parametrize(
    "query",
    [
        lambda database: database.counts("d"),
        lambda database: database.version_edits("d"),
        lambda database: database.history("d", "anna", 20),
        lambda database: Deliveries(database, "d", shared=True).count_pending(),
        lambda database: Deliveries(database, "d", shared=True).pending(50),
    ],
    ids=["counts", "version_edits", "history", "count_pending", "pending"],
)
def test_what_the_page_asks_after_an_answer_costs_the_same_with_many(
    sqlite_database: AnswerDatabase, query: Callable[[AnswerDatabase], Any]
) -> None:
    """Whole tables were counted and sorted after every answer. In steps of SQLite's virtual machine."""
    steps = []
    for count in (400, 4000):
        with sqlite_database.transaction("cannot store") as connection:
            for number in range(len(sqlite_database.answered("d")), count):
                answer = answer_of(f"{number:032x}", at=number, version=1, edits=EditCounts(1))
                sqlite_database._insert(connection, "d", answer, "{}", TaskFacts.of_answer(answer))
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        connection.set_progress_handler(tick, 10)
        query(sqlite_database)
        connection.set_progress_handler(None, 0)
        steps.append(ticks)
    assert steps[1] <= 1.3 * steps[0] + 10


def test_active_seconds_of_one_session_and_of_any(database: AnswerDatabase) -> None:
    database.add("d", [answer_of(A, at=1, active_s=8.0), answer_of(A, "ben", at=2, active_s=12.5)])
    assert database.active_s("d", A) == 12.5
    assert database.active_s("d", A, "anna") == 8.0
    assert (database.active_s("d", A, "carl"), database.active_s("d", B)) == (0.0, 0.0)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.db"
    AnswerDatabase.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseError, match="newer odkeras"):
        AnswerDatabase.open(path)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DatabaseError, match="cannot be"):
            AnswerDatabase.open(tmp_path / "annotations.db")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_rolls_back_and_recovers(sqlite_database: AnswerDatabase) -> None:
    sqlite_database.add("d", [answer_of(A, answer_id="first")])
    large = [answer_of(f"{number:032x}", extra={"x": "x" * 10_000}) for number in range(20)]
    connection_of(sqlite_database).execute(f"PRAGMA max_page_count = {pragma(sqlite_database, 'page_count') + 5}")
    with pytest.raises(DatabaseError, match="cannot store 20 answers: database or disk is full"):
        sqlite_database.add("d", large)
    assert [example["image_id"] for example in sqlite_database.examples("d")] == [A]
    assert sqlite_database.add("d", [answer_of(B, at=2)])  # a small one still fits

    connection_of(sqlite_database).execute("PRAGMA max_page_count = 1000000")
    assert len(sqlite_database.add("d", large)) == 20
    assert len(sqlite_database.examples("d")) == 22
    assert pragma(sqlite_database, "integrity_check") == "ok"


def test_a_reader_sees_all_of_a_batch_or_nothing(database: AnswerDatabase) -> None:
    with AnswerDatabase.open(database.path) as other:
        with database.transaction("never mind") as connection:
            for image_id in (A, B):
                answer = answer_of(image_id)
                database._insert(connection, "d", answer, json.dumps(answer.example), TaskFacts.of_answer(answer))
            assert other.examples("d") == []
        assert len(other.examples("d")) == 2


class TestFiles:
    def test_names_and_the_names_at_the_end_of_paths(self, database: AnswerDatabase) -> None:
        places = [
            {"path": "/a/1.png", "meta": {"file": "1.png"}},
            {"path": "C:\\b\\2.png", "meta": {"file": "two"}},
            {"path": "http://h/3.png", "meta": {"file": "three"}},
            {"meta": {"file": "4.png"}},
        ]
        for number, place in enumerate(places):
            database.add("d", [StoredAnswer({"answer": "accept", **place}, f"{number:032}", "anna")])
        expected = {"1.png", "two", "2.png", "three", "3.png", "4.png"}
        assert {name for name in database.files("d") if not set(name) & set("/\\")} == expected

    def test_answers_are_not_parsed_for_it(self, sqlite_database: AnswerDatabase) -> None:
        """10,000 answers with their images took nine seconds at every start, in which nobody's answer was stored."""
        example = {"answer": "accept", "path": "/a/1.png", "meta": {"file": "1.png"}, "image": "data:" + "x" * 1000}
        sqlite_database.add("d", [StoredAnswer(example, "1" * 32, "anna")])
        queries: list[str] = []
        connection_of(sqlite_database).set_trace_callback(queries.append)
        assert sqlite_database.files("d") == {"1.png"}
        assert not [query for query in queries if "example" in query]
