"""The answer database in PostgreSQL: commands, passwords, lost connections, tables of other versions."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
from fixtures_postgres import PASSWORD, PostgresServer
from tasks import bare_task
from test_answer_database import A, B, C, answer_of, counted, kept
from typer.testing import CliRunner

from odkeras.annotation import Span
from odkeras.cli import app
from odkeras.config.annotate import AnnotateSettings
from odkeras.config.sources import read_project_file
from odkeras.database_url import DatabaseUrl, read_database_location
from odkeras.errors import ConfigError, DatabaseError
from odkeras.labels import LabelMap
from odkeras.upkeep.backup import back_up
from odkeras.upkeep.project import ProjectPlaces, check_project
from odkeras.web.database import AnswerDatabase
from odkeras.web.deliveries import Deliveries
from odkeras.web.location import find_database, remember_database
from odkeras.web.relabel import count_images, relabel

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ODKERAS_DB", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


class TestUrl:
    def test_a_text_is_a_url_or_a_path(self) -> None:
        assert read_database_location("postgresql://anna@db.example/cars") == DatabaseUrl(
            "postgresql://anna@db.example/cars"
        )
        assert read_database_location("cars.db", Path("/project")) == Path("/project/cars.db")

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://anna:hunter22@host/cars",
            "postgresql://anna@host/cars?password=hunter22",
            "postgresql://anna@host/cars?sslmode=require&sslpassword=hunter22",
        ],
    )
    def test_a_password_is_refused_wherever_it_is_given_and_never_shown(self, folder: Path, url: str) -> None:
        (folder / "odkeras.toml").write_text(f"db = {json.dumps(url)}\n")
        for call in (
            lambda: AnnotateSettings(dataset="d", source="s", config=folder / "pipeline.config", db=url),
            lambda: read_project_file(folder / "pipeline.config"),
            lambda: AnswerDatabase.open(url),
        ):
            with pytest.raises(ConfigError, match=r"PGPASSWORD, or a line of ~/\.pgpass") as refused:
                call()
            assert "hunter22" not in str(refused.value)
        for result in (
            run("db", "stats", "--db", url),
            CliRunner().invoke(app, ["db", "stats"], env={"ODKERAS_DB": url}),
        ):
            assert isinstance(result.exception, ConfigError)
            assert "hunter22" not in result.output + str(result.exception)

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("mysql://anna@host/cars", "mysql://: no such database"),
            ("postgresql://anna@host", "not the URL of a database"),
            ("postgresql://[::1/cars", "not one"),
            ("postgresql:anna@host/cars", "not one"),
        ],
    )
    def test_what_is_no_url_of_a_database_is_refused(self, url: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            read_database_location(url)

    def test_in_the_project_file_it_is_no_path(self, folder: Path) -> None:
        (folder / "odkeras.toml").write_text('db = "postgresql://anna@host/cars"\n')
        assert read_project_file(folder / "pipeline.config")["db"] == DatabaseUrl("postgresql://anna@host/cars")

    def test_without_the_packages_it_says_what_to_install(self) -> None:
        code = (
            "import sys; sys.modules['sqlalchemy'] = None\n"
            "from odkeras.web.database import AnswerDatabase\n"
            "AnswerDatabase.open('postgresql://anna@host/cars')"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "SetupError" in ended.stderr and "pip install 'odkeras[postgres]'" in ended.stderr


class TestPasswords:
    def test_of_the_environment_and_of_pgpass(
        self, postgres_server: PostgresServer, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = postgres_server.new_database()
        url = postgres_server.url(name, over_tcp=True)
        with pytest.raises(DatabaseError, match="no password supplied"):
            AnswerDatabase.open(url)
        with monkeypatch.context() as patch:
            patch.setenv("PGPASSWORD", "wrong-secret")
            with pytest.raises(DatabaseError, match="password authentication failed") as refused:
                AnswerDatabase.open(url)
            assert "wrong-secret" not in str(refused.value)
            patch.setenv("PGPASSWORD", PASSWORD)
            AnswerDatabase.open(url).close()
        line = folder / ".pgpass"
        line.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
        line.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(line))
        with AnswerDatabase.open(url) as database:
            assert PASSWORD not in str(database.path)


class TestCommands:
    def test_in_out_and_stats(self, folder: Path, postgres_url: str) -> None:
        examples = [
            {"image": f"{id}.jpg", "image_id": id, "answer": answer, "spans": [{"label": "car"}, {"label": "\udc00"}]}
            for id, answer in ((A, "accept"), (B, "accept"), (C, "reject"))
        ]
        (folder / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in examples))
        added = run("db", "in", "cars", "in.jsonl", "--db", postgres_url)
        assert added.exit_code == 0, added.output
        assert f"{postgres_url}, cars: 3 added, 0 known already, 0 skipped" in added.stdout
        assert "0 added, 3 known" in run("db", "in", "cars", "in.jsonl", "--db", postgres_url).stdout
        (stats,) = json.loads(run("db", "stats", "--json", "--db", postgres_url).stdout)
        assert (stats["images"], stats["accept"], stats["boxes"]) == (3, 2, {"car": 2, "\udc00": 2})
        assert run("db", "out", "cars", "out.jsonl", "--db", postgres_url).exit_code == 0
        assert [json.loads(line)["image_id"] for line in (folder / "out.jsonl").read_text().splitlines()] == [A, B, C]

    def test_labels_of_other_tools_in_and_out(self, folder: Path, postgres_url: str, jpeg_bytes: bytes) -> None:
        (folder / "images").mkdir()
        (folder / "images" / "a.jpg").write_bytes(jpeg_bytes)
        (folder / "labels.csv").write_text("path,xmin,ymin,xmax,ymax,label\na.jpg,1,2,30,40,car\n")
        LabelMap.from_names(["car"]).save(folder / "label_map.pbtxt")
        options = ("--images", "images", "--db", postgres_url)
        done = run("import", "cars", "labels.csv", *options)
        assert done.exit_code == 0, done.output
        assert "1 added" in done.stdout
        done = run("export-labels", "cars", "out", "--format", "csv", "--db", postgres_url)
        assert done.exit_code == 0, done.output
        assert "1 images" in done.stdout or "1 image" in done.stdout

    def test_a_database_without_answers_is_not_made_by_reading(
        self, folder: Path, postgres_server: PostgresServer
    ) -> None:
        url = postgres_server.url(postgres_server.new_database())
        refused = run("db", "out", "cars", "--db", url)
        assert isinstance(refused.exception, DatabaseError)
        assert "has no answers of odkeras" in str(refused.exception)

    def test_the_project_remembers_it(self, folder: Path, postgres_url: str) -> None:
        data_dir = folder / "data"
        data_dir.mkdir()
        with AnswerDatabase.open(postgres_url) as database:
            database.add("cars", [answer_of()])
            remember_database(data_dir, "cars", database.path, folder)
        assert find_database(None, folder, "cars", data_dir=data_dir).path == DatabaseUrl(postgres_url)
        assert find_database(None, folder, "boats", data_dir=data_dir).path == folder / "annotations.db"

    def test_a_backup_has_the_answers_in_a_file(
        self, folder: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "project").mkdir()
        (folder / "project" / "pipeline.config").write_text("")
        monkeypatch.setenv("ODKERAS_DB", postgres_url)
        places = ProjectPlaces.of(folder / "project" / "pipeline.config")
        assert places.database == DatabaseUrl(postgres_url)
        with AnswerDatabase.open(postgres_url) as database:
            database.add("cars", [answer_of(A, at=1), answer_of(A, at=2, decision="reject"), answer_of(B)])
            Deliveries(database, "cars").mark_delivered([database.read("SELECT answer_id FROM answers LIMIT 1")[0][0]])
            expected = database.examples("cars", replaced=True), kept(database, "cars")
        assert check_project(places) == []
        assert back_up(places, folder / "copy") == []
        with AnswerDatabase.open(folder / "copy" / "annotations.db") as copy:
            assert (copy.examples("cars", replaced=True), kept(copy, "cars")) == expected
            assert kept(copy, "cars") == counted(copy, "cars")


def test_a_label_is_renamed(postgres_url: str) -> None:
    with AnswerDatabase.open(postgres_url) as database:
        points = [[1, 2], [1, 4], [3, 4], [3, 2]]
        spans = [{"label": "c\u00e4r", "points": points}, {"label": "dog", "points": points}]
        database.add("d", [answer_of(A, spans=spans), answer_of(B, spans=spans[1:])])
        database.keep_open("d", [bare_task(C, spans=(Span("c\u00e4r", ((1, 2), (3, 4))),))])
        assert count_images(database) == {"c\u00e4r": 1, "dog": 2}
        assert relabel(database, "d", "c\u00e4r", "cat") == 1
        assert relabel(database, "d", "c\u00e4r", "cat") == 0
        assert count_images(database) == {"cat": 1, "dog": 2}
        assert database.examples("d")[0]["spans"] == [{"label": "cat", "points": points}, spans[1]]
        task = database.open_task("d", C)
        assert task is not None and [span.label for span in task.spans] == ["cat"]


class TestLostConnections:
    def test_one_that_the_server_ends_is_replaced(self, postgres_server: PostgresServer, postgres_url: str) -> None:
        with AnswerDatabase.open(postgres_url) as database:
            database.add("d", [answer_of(A)])
            postgres_server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'odkeras'"
            )
            assert len(database.examples("d")) == 1
            postgres_server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'odkeras'"
            )
            database.add("d", [answer_of(B)])
            assert len(database.examples("d")) == 2

    def test_a_transaction_that_is_cut_stores_nothing(self, postgres_server: PostgresServer, postgres_url: str) -> None:
        with AnswerDatabase.open(postgres_url) as database:
            with pytest.raises(DatabaseError, match="cannot store"), database.transaction("cannot store") as connection:
                connection.execute("DELETE FROM answers")
                postgres_server.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'odkeras'"
                )
                connection.execute("DELETE FROM answers")
            assert database.add("d", [answer_of(A)])

    def test_a_server_that_is_away_is_an_error_and_its_return_is_noticed(
        self, postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.web.postgres.engine.RETRY_S", 0.3)
        with AnswerDatabase.open(postgres_url) as database:
            stored = answer_of(A)
            database.add("d", [stored])
            postgres_server.stop()
            try:
                with pytest.raises(DatabaseError, match="cannot store 1 answers: connection"):
                    database.add("d", [answer_of(B)])
                with pytest.raises(DatabaseError, match="cannot be read: connection"):
                    database.examples("d")
            finally:
                postgres_server.start()
            assert database.add("d", [stored, answer_of(B)]) != []
            assert len(database.examples("d")) == 2

    def test_a_server_that_comes_back_in_time_is_waited_for(
        self, postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.web.postgres.engine.RETRY_S", 60.0)
        with AnswerDatabase.open(postgres_url) as database:
            postgres_server.stop()
            starting = threading.Thread(target=postgres_server.start)
            starting.start()
            try:
                assert database.add("d", [answer_of(A)])
            finally:
                starting.join()


class TestTables:
    def test_those_of_a_newer_odkeras_are_refused(self, postgres_server: PostgresServer, postgres_url: str) -> None:
        name = postgres_url.partition("@/")[2].partition("?")[0]
        postgres_server.sql("UPDATE odkeras.alembic_version SET version_num = '9999'", name)
        with pytest.raises(DatabaseError, match="created by a newer odkeras"):
            AnswerDatabase.open(postgres_url)

    def test_several_processes_create_them_at_once(self, postgres_server: PostgresServer) -> None:
        url = postgres_server.url(postgres_server.new_database())
        problems = []

        def opening() -> None:
            try:
                AnswerDatabase.open(url).close()
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=opening) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []

    def test_the_newest_revision_is_that_of_the_scripts(self) -> None:
        from odkeras.web.postgres import schema

        scripts = Path(schema.__file__).with_name("migrations").joinpath("versions").glob("[0-9]*.py")
        assert max(path.name.partition("_")[0] for path in scripts) == schema.NEWEST

    def test_another_schema_of_the_database_is_left_alone(
        self, postgres_server: PostgresServer, postgres_url: str
    ) -> None:
        name = postgres_url.partition("@/")[2].partition("?")[0]
        tables = "SELECT table_schema FROM information_schema.tables WHERE table_schema !~ '^(pg_|information_schema)'"
        assert set(postgres_server.sql(tables, name)) == {("odkeras",)}


def test_two_processes_answer_one_image_at_once(postgres_url: str) -> None:
    with AnswerDatabase.open(postgres_url) as one, AnswerDatabase.open(postgres_url) as other:
        answers = [answer_of(A, session, at=number) for number, session in enumerate(["anna", "ben"] * 10)]

        def add(database: AnswerDatabase, some: list[Any]) -> None:
            for answer in some:
                database.add("d", [answer], shared=True)

        threads = [
            threading.Thread(target=add, args=(database, answers[number::2]))
            for number, database in enumerate((one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(one.examples("d", replaced=True)) == 20
        latest = list(one.iter_latest("d"))
        assert len(latest) == 1
        assert kept(one, "d") == counted(one, "d")


def test_the_page_and_its_gallery(annotate: Any, postgres_url: str) -> None:
    running = annotate(db=postgres_url, answers_per_round=1)
    anna, ben = running.page("anna"), running.page("ben", "other")
    tasks = anna.tasks(3)["tasks"]
    assert [task["file"] for task in tasks] == ["00.png", "01.png", "02.png"]
    assert [task["file"] for task in ben.tasks(1)["tasks"]] == ["03.png"]
    answer = anna.answer(tasks[0])
    assert anna.send(answer) == {"saved": [answer["answer_id"]], "refused": []}  # a second time
    anna.answer(tasks[1], "reject")
    assert [row["file"] for row in anna.history()] == ["01.png", "00.png"]
    images = anna.get("/api/images", offset=0, limit=50).json()
    assert (images["total"], len(images["images"])) == (12, 12)
    assert [row["decision"] for row in images["images"]] == ["accept", "reject", *[None] * 10]
    for query, found in (
        ({"name": "0?.png"}, []),
        ({"name": "00.PNG"}, ["00.png"]),
        ({"label": "thing"}, ["00.png"]),
        ({"state": "answered"}, ["00.png", "01.png"]),
        ({"decision": "reject"}, ["01.png"]),
    ):
        listed = anna.get("/api/images", offset=0, limit=50, **query).json()
        assert [row["file"] for row in listed["images"]] == found
    running.close()
    again = annotate(db=postgres_url)
    assert again.page("anna").tasks(1)["tasks"][0]["file"] == "02.png"
