"""Several pages of one dataset: leases, messages and the leader, in a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
from fixtures_postgres import PostgresServer
from tasks import bare_task
from test_answer_database import A, B, C, answer_of
from waiting import wait_until

from odkeras.database_url import DatabaseUrl
from odkeras.errors import ConfigError, InUseError
from odkeras.web.database import AnswerDatabase
from odkeras.web.gallery_rows import TaskFacts
from odkeras.web.postgres import leader, leases, pages, queue
from odkeras.web.postgres.engine import PostgresEngine
from odkeras.web.postgres.leader import Leadership
from odkeras.web.postgres.leases import Leases
from odkeras.web.queue import Tab

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
ANNA, BEN = Tab("anna", "1"), Tab("ben", "2")


@pytest.fixture
def database(postgres_url: str) -> Iterator[AnswerDatabase]:
    with AnswerDatabase.open(postgres_url) as opened:
        yield opened


def leases_of(database: AnswerDatabase, **more: Any) -> Leases:
    assert isinstance(database.engine, PostgresEngine)
    return Leases(database.engine, "d", **more)


class TestLeases:
    def test_an_image_goes_to_one_tab(self, database: AnswerDatabase) -> None:
        here, there = leases_of(database), leases_of(database)
        assert here.acquire("", ANNA, bare_task(A))
        assert not there.acquire("", BEN, bare_task(A))
        assert not here.acquire("", ANNA, bare_task(A))
        assert here.acquire("", ANNA, bare_task(A), again=True)  # it opens the image once more
        assert (here.held("", ANNA), there.held("", BEN)) == ([A], [])
        assert there.holders("") == {A: ANNA}
        task = database.open_task("d", A)
        assert task is not None and task.image_id == A

    def test_of_many_that_ask_at_once_one_gets_it(self, database: AnswerDatabase) -> None:
        granted: list[Tab] = []
        start = threading.Barrier(8)

        def ask(tab: Tab) -> None:
            start.wait()
            if leases_of(database).acquire("", tab, bare_task(A)):
                granted.append(tab)

        in_threads([partial(ask, Tab(str(number), "1")) for number in range(8)])
        assert len(granted) == 1

    def test_an_expired_one_is_free_for_others(self, database: AnswerDatabase) -> None:
        gone, here = leases_of(database, lease_s=0.0), leases_of(database)
        for image_id in (A, B):
            gone.acquire("", ANNA, bare_task(image_id))
        assert here.count_expired() == 2
        assert here.acquire("", BEN, bare_task(A))
        assert here.take_expired("", BEN, 5) == [B]
        assert here.take_expired("", BEN, 5) == []
        assert here.held("", BEN) == [A, B]

    def test_two_processes_take_different_expired_ones(self, database: AnswerDatabase) -> None:
        ids = [f"{number:032x}" for number in range(40)]
        for image_id in ids:
            leases_of(database, lease_s=0.0).acquire("", ANNA, bare_task(image_id))
        taken: list[str] = []

        def take(tab: Tab) -> None:
            while more := leases_of(database).take_expired("", tab, 3):
                taken.extend(more)

        in_threads([partial(take, Tab(str(number), "1")) for number in range(4)])
        assert sorted(taken) == ids

    def test_an_answer_ends_it_and_the_image_is_not_leased_again(self, database: AnswerDatabase) -> None:
        here = leases_of(database)
        here.acquire("", ANNA, bare_task(A))
        database.add("d", [answer_of(A, "anna")], closed=[A], shared=True)
        assert here.leased() == set()
        assert not here.acquire("", BEN, bare_task(A))
        here.claim("", BEN, [A])
        assert here.leased() == set()

    def test_an_answer_that_is_committed_meanwhile_counts(self, database: AnswerDatabase) -> None:
        """The lease is deleted, but not committed, while another tab asks: it waits, and must then see the answer."""
        here = leases_of(database)
        here.acquire("", ANNA, bare_task(A))
        outcome: list[bool] = []
        asking = threading.Thread(target=lambda: outcome.append(here.acquire("", BEN, bare_task(A))))
        waits = (
            "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO leases%'"
        )
        with AnswerDatabase.open(database.path) as other, database.transaction("cannot store") as connection:
            stored = answer_of(A, "anna")
            database._insert(connection, "d", stored, '{"answer": "accept"}', TaskFacts.of_answer(stored))
            asking.start()
            wait_until(lambda: other.read(waits.replace("%", "%%"))[0][0] == 1, "the tab that waits")
        asking.join()
        assert outcome == [False]
        assert here.leased() == set()

    def test_with_overlap_each_session_has_its_own(self, database: AnswerDatabase) -> None:
        here = leases_of(database)
        assert here.acquire("anna", ANNA, bare_task(A))
        assert here.acquire("ben", BEN, bare_task(A))
        database.add("d", [answer_of(A, "anna")])
        assert here.holders("ben") == {A: BEN}
        assert here.holders("anna") == {}
        assert not here.acquire("anna", ANNA, bare_task(A))

    def test_a_tab_claims_what_it_still_shows(self, database: AnswerDatabase) -> None:
        gone, here = leases_of(database, lease_s=0.0), leases_of(database)
        gone.acquire("", ANNA, bare_task(A))
        here.acquire("", BEN, bare_task(B))
        here.claim("", ANNA, [A, B, C])  # B is another's, and C was never leased
        assert (here.held("", ANNA), here.held("", BEN)) == ([A], [B])

    def test_renewed_ones_do_not_expire(self, database: AnswerDatabase) -> None:
        gone = leases_of(database, lease_s=0.0)
        gone.acquire("", ANNA, bare_task(A))
        gone.acquire("", BEN, bare_task(B))
        here = leases_of(database)
        here.renew([ANNA, Tab("nobody", "1")])
        assert here.holders("") == {A: ANNA}

    def test_imported_labels_are_no_answer_in_a_review(self, database: AnswerDatabase) -> None:
        database.add("d", [answer_of(A, "imported")])
        assert not leases_of(database).acquire("", ANNA, bare_task(A))
        assert leases_of(database, not_by="imported").acquire("", ANNA, bare_task(A))


def in_threads(calls: list[Any]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases end and pages take over within a second."""
    monkeypatch.setattr(leases.Leases.__init__, "__kwdefaults__", {"not_by": "", "lease_s": 0.6})
    monkeypatch.setattr(queue, "RENEW_EVERY_S", 0.1)
    monkeypatch.setattr(leader, "LOOK_S", 0.05)


class TestPages:
    def test_no_image_is_given_out_twice(self, annotate: Any, postgres_url: str) -> None:
        one, two = annotate(db=postgres_url), annotate(db=postgres_url)
        files = [task["file"] for task in one.page("anna").tasks(3)["tasks"]]
        files += [task["file"] for task in two.page("ben").tasks(4)["tasks"]]
        files += [task["file"] for task in one.page("cleo").tasks(20)["tasks"]]
        assert sorted(files) == [f"{number:02}.png" for number in range(12)]
        waiting = two.page("ben").tasks(1, [])
        assert [task["file"] for task in waiting["tasks"]] == files[3:4]  # its own, as after a reload
        waiting = two.page("dora").tasks(1)
        assert (waiting["tasks"], waiting["waiting"]) == (
            [],
            "12 images are open in other annotators' pages; you get those that they release",
        )

    def test_a_tab_may_change_from_one_to_the_other(self, annotate: Any, postgres_url: str) -> None:
        one, two = annotate(db=postgres_url), annotate(db=postgres_url)
        tasks = one.page("anna").tasks(2)["tasks"]
        there = two.page("anna")
        there.answer(tasks[0])
        assert [task["file"] for task in there.tasks(2, tasks[1:])["tasks"]] == ["02.png", "03.png"]
        assert one.page("anna").history()[0]["image_id"] == tasks[0]["image_id"]
        assert there.get(f"/images/{tasks[1]['image_id']}").status_code == 200

    def test_what_happens_on_one_is_seen_on_the_other(self, annotate: Any, postgres_url: str) -> None:
        one, two = annotate(db=postgres_url, answers_per_round=50), annotate(db=postgres_url, answers_per_round=50)
        mine, yours = one.page("anna"), two.page("ben")
        mine.answer(mine.tasks(1)["tasks"][0])

        def seen() -> bool:
            state = yours.panel()
            names = [row["name"] for row in state["sessions"]]
            return (state["answers"]["accept"], state["left"], state["pending"]) == (1, 11, 1) and "anna" in names

        wait_until(seen, "the answer on the other page")
        assert yours.save() == 1  # the other page delivers
        wait_until(lambda: yours.panel()["pending"] == 0, "the delivery")
        wait_until(lambda: mine.history()[0]["state"] == "delivered", "the delivery")
        assert len(fixtures_web.answers_in(Path("data"))) == 1

    def test_an_import_is_seen(self, annotate: Any, postgres_url: str) -> None:
        running = annotate(db=postgres_url, answers_per_round=50)
        with AnswerDatabase.open(postgres_url) as database:
            database.add(fixtures_web.DATASET, [answer_of(A, "zoe")])
        wait_until(lambda: running.page("anna").panel()["answers"]["accept"] == 1, "the answer of a command")

    def test_the_images_of_a_tab_that_is_gone_go_to_others(
        self, quickly: None, annotate: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.web.queue.GONE_AFTER_S", 0.2)
        one, two = annotate(db=postgres_url), annotate(db=postgres_url)
        assert len(one.page("anna").tasks(12)["tasks"]) == 12
        taken = two.page("ben")
        found: dict[str, Any] = {}

        def all_of_them() -> bool:
            for task in taken.tasks(12, list(found.values()))["tasks"]:
                found[task["file"]] = task
            return len(found) == 12

        wait_until(all_of_them, "the images of the tab that is gone")

    def test_with_overlap_everybody_gets_every_image(self, annotate: Any, postgres_url: str) -> None:
        one, two = annotate(db=postgres_url, overlap=True), annotate(db=postgres_url, overlap=True)
        for page in (one.page("anna"), two.page("ben")):
            tasks = page.tasks(12)["tasks"]
            assert len(tasks) == 12
            page.answer(tasks[0])
        assert [task["file"] for task in two.page("anna").tasks(12)["tasks"]] == [f"{n:02}.png" for n in range(1, 12)]

    def test_an_image_from_the_gallery(self, annotate: Any, postgres_url: str) -> None:
        one, two = annotate(db=postgres_url), annotate(db=postgres_url)
        mine, yours = one.page("anna"), two.page("ben")
        key = mine.get("/api/images", offset=5, limit=1).json()["images"][0]["key"]
        assert fixtures_web.read(mine.post("/api/open", key=key))["task"]["file"] == "05.png"
        refused = yours.post("/api/open", key=key)
        assert (refused.status_code, refused.json()["error"]) == (
            409,
            "annotator anna has this image open; wait until it is answered or released",
        )

    def test_sync_is_refused(self, annotate: Any, postgres_url: str) -> None:
        with pytest.raises(ConfigError, match="--sync works with a database in a file only"):
            annotate(db=postgres_url, sync=True)


class TestLeadership:
    def test_who_has_the_lock_leads(self, database: AnswerDatabase) -> None:
        calls: list[str] = []
        one, two = leadership_of(database, "one", calls), leadership_of(database, "two", calls)
        assert one.try_lock() and not two.try_lock()
        two.look()
        assert (one.leads, two.leads, calls) == (True, False, [])
        assert one._connection is not None
        one._connection.close()  # as if the network had lost it
        two.look()
        assert (two.leads, calls) == (True, ["two leads"])
        one.look()
        assert one.leads  # not until it reaches the database again
        one.look()
        assert (one.leads, calls) == (False, ["two leads", "one follows"])
        two.close()
        one.look()
        assert (one.leads, calls[2:]) == (True, ["one leads"])
        one.close()

    def test_who_cannot_lead_gives_the_lock_back(self, database: AnswerDatabase) -> None:
        calls: list[str] = []

        def refuse() -> None:
            raise InUseError("the data directory is in use")

        one, two = leadership_of(database, "one", calls, refuse), leadership_of(database, "two", calls)
        one.look()
        assert not one.leads
        two.look()
        assert (two.leads, calls) == (True, ["two leads"])
        two.close()


def leadership_of(database: AnswerDatabase, name: str, calls: list[str], lead: Any = None) -> Leadership:
    """Without a thread."""
    assert isinstance(database.engine, PostgresEngine)
    return Leadership(
        database.engine,
        "d",
        lead=lead or partial(calls.append, f"{name} leads"),
        leading=lambda: None,
        follow=partial(calls.append, f"{name} follows"),
    )


class TestLeader:
    def test_the_first_trains_and_the_second_takes_over(self, quickly: None, annotate: Any, postgres_url: str) -> None:
        one = annotate(model=True, db=postgres_url, answers_per_round=2)
        two = annotate(model=True, db=postgres_url, answers_per_round=2)
        assert (one.service._pages.leads, two.service._pages.leads) == (True, False)
        assert two.journal.has("another page of this dataset delivers the answers and trains")
        yours = two.page("ben")
        for task in yours.tasks(2)["tasks"]:
            yours.answer(task)
        wait_until(lambda: yours.panel()["version"], "the version that the other page's trainer made")
        assert two.service.session.url == one.service.session.url
        (task,) = yours.tasks(1)["tasks"]

        def has_suggestions() -> bool:
            newer = fixtures_web.read(yours.post("/api/suggestions", image_ids=[task["image_id"]]))["tasks"]
            return bool(task["version"] or newer)

        wait_until(has_suggestions, "suggestions of the other page's server")
        one.hang_up()
        one.close()
        wait_until(lambda: two.service._pages.leads, "the second page to lead")
        wait_until(lambda: two.service.session.trainer_status(), "its trainer")
        tasks = yours.tasks(4)["tasks"]
        for task in tasks[: len(tasks) // 2 * 2]:  # an answer without a second one waits
            yours.answer(task)
        wait_until(lambda: yours.panel()["pending"] == 0, "the delivery")
        wait_until(lambda: yours.panel()["version"], "a version of its own server")

    def test_one_that_comes_later_follows_the_new_one(self, quickly: None, annotate: Any, postgres_url: str) -> None:
        one, two = (annotate(model=True, db=postgres_url) for _ in range(2))
        one.close()
        wait_until(lambda: two.service._pages.leads, "the second page to lead")
        three = annotate(model=True, db=postgres_url)
        assert not three.service._pages.leads
        wait_until(lambda: three.service.session.url == two.service.session.url, "the server of the second page")

    def test_a_lost_connection_is_no_change_of_the_leader(
        self, quickly: None, annotate: Any, postgres_url: str, postgres_server: PostgresServer
    ) -> None:
        running = annotate(db=postgres_url)
        name = postgres_url.partition("@/")[2].partition("?")[0]
        query = (
            "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' "
            f"AND database = (SELECT oid FROM pg_database WHERE datname = '{name}')"
        )
        postgres_server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'odkeras'")
        wait_until(lambda: postgres_server.sql(query) == [(1,)], "the lock to be held again")
        assert running.service._pages.leads
        page = running.page("anna")
        page.answer(page.tasks(1)["tasks"][0])
        wait_until(lambda: page.panel()["answers"]["accept"] == 1, "the figures")
        assert page.get("/api/images", offset=0, limit=5).json()["total"] == 12

    def test_a_gallery_whose_connection_is_lost_lists_the_images_again(
        self, annotate: Any, postgres_url: str, postgres_server: PostgresServer
    ) -> None:
        """Its temporary table is lost with the connection."""
        page = annotate(db=postgres_url).page("anna")
        assert page.get("/api/images", offset=0, limit=5).json()["total"] == 12
        postgres_server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'odkeras'")

        def listed() -> bool:
            reply = page.get("/api/images", offset=0, limit=5)
            return reply.status_code == 200 and reply.json()["total"] == 12

        wait_until(listed, "the list")

    def test_a_server_that_restarts(
        self, quickly: None, annotate: Any, postgres_url: str, postgres_server: PostgresServer
    ) -> None:
        """The page says that the database is away and that it is back; the answer is sent again and counts once."""
        running = annotate(db=postgres_url)
        page = running.page("anna")
        task = page.tasks(1)["tasks"][0]
        answer = fixtures_web.answer_to(task)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("odkeras.web.postgres.engine.RETRY_S", 0.2)
            postgres_server.stop()
            try:
                refused = page.post("/api/answers", answers=[answer])
                assert (refused.status_code, "connection" in refused.json()["error"]) == (507, True)
                wait_until(lambda: running.journal.has("the database cannot be reached"), "the message")
            finally:
                postgres_server.start()
        wait_until(lambda: running.journal.has("the database can be reached again"), "the message")
        assert page.send(answer) == page.send(answer) == {"saved": [answer["answer_id"]], "refused": []}
        assert len(page.history()) == 1

    def test_a_server_of_another_machine_is_not_asked(
        self, annotate: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        annotate(model=True, db=postgres_url)
        monkeypatch.setattr(pages.socket, "gethostname", lambda: "elsewhere")
        two = annotate(model=True, db=postgres_url)
        assert two.journal.has("whose model server this machine cannot reach")
        assert two.service.session.available_version() is None

    def test_a_page_with_a_file_keeps_its_data_directory(
        self, annotate: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.web.pages.LOCK_WAIT_S", 0.1)
        annotate()
        with pytest.raises(InUseError, match="another `odkeras annotate` is using"):
            annotate(db=postgres_url)


def test_urls_are_shown_without_a_path(annotate: Any, postgres_url: str) -> None:
    running = annotate(db=postgres_url)
    assert running.service.database.path == DatabaseUrl(postgres_url)
    assert running.journal.has(f"database   {postgres_url} (0 answers in dataset things)")
    commands = [step.command for step in running.service.next_steps()]
    assert any(f"--db '{postgres_url}'" in command for command in commands)
