from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tasks import bare_task

from odkeras.annotation import Suggestions, Task
from odkeras.web.queue import GONE_AFTER_S, Assignment, Tab, TaskQueue

ANNA, ANNA2, BEN = Tab("anna", "1"), Tab("anna", "2"), Tab("ben", "1")


def image_id(number: int) -> str:
    return f"{number:032x}"


def task_of(number: int, version: int | None = None) -> Task:
    return bare_task(image_id(number), suggestions=None if version is None else Suggestions(version))


def numbers(found: Assignment | Sequence[Task]) -> list[int]:
    tasks = found.tasks if isinstance(found, Assignment) else found
    return [int(task.image_id, 16) for task in tasks]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_queue(count: int = 6, *, before: dict[str | None, set[str]] | None = None, **options: Any) -> TaskQueue:
    stream = options.pop("stream", None) or (task_of(number) for number in range(count))
    return TaskQueue(stream, answered=lambda session: set((before or {}).get(session, ())), **options)


class TestMemory:
    def test_answered_tasks_are_removed_from_memory(self) -> None:
        """The order in which images came grew by an entry for each image, for as long as the page ran."""
        queue = make_queue(500)
        for number in range(500):
            assert numbers(queue.next_tasks(ANNA, 1)) == [number]
            queue.note_answered("anna", image_id(number))
        assert len(queue._order) <= 2
        assert not queue._tasks
        assert queue.next_tasks(ANNA, 1).done and queue.all_answered()


class TestAllAnswered:
    def test_all_answered_needs_the_end_of_the_stream(self) -> None:
        queue = make_queue(3)
        for number in numbers(queue.next_tasks(ANNA, 3)):
            assert not queue.all_answered()
            queue.note_answered("anna", image_id(number))
        assert not queue.all_answered(), "there may be more"
        assert queue.next_tasks(ANNA, 1).done
        assert queue.all_answered()

    def test_all_answered_waits_for_assigned_tasks(self) -> None:
        clock = Clock()
        queue = make_queue(2, clock=clock)
        queue.next_tasks(BEN, 1)
        queue.next_tasks(ANNA, 5)
        queue.note_answered("anna", image_id(1))
        assert not queue.all_answered()
        clock.now += GONE_AFTER_S + 1
        queue.release_gone()
        assert not queue.all_answered(), "nobody has it, and nobody has answered it"
        assert numbers(queue.next_tasks(ANNA, 5)) == [0]
        queue.note_answered("anna", image_id(0))
        assert queue.all_answered()

    def test_all_answered_with_overlap_needs_every_session(self) -> None:
        queue = make_queue(2, overlap=True)
        for tab in (ANNA, BEN):
            queue.next_tasks(tab, 1)
        for number in (0, 1):
            queue.next_tasks(ANNA, 5)
            queue.note_answered("anna", image_id(number))
        assert queue.next_tasks(ANNA, 5).done
        assert not queue.all_answered()
        for number in (0, 1):
            queue.next_tasks(BEN, 5)
            queue.note_answered("ben", image_id(number))
        assert queue.all_answered()

    def test_answered_before(self) -> None:
        queue = make_queue(2, before={None: {image_id(0), image_id(1)}})
        assert not queue.all_answered()
        assert queue.next_tasks(ANNA, 1).done
        assert queue.all_answered()


class TestEarlierSuggestions:
    """The image on the screen keeps its suggestions until the person takes the newer ones: these are judged."""

    def test_shown_suggestions_are_kept_until_the_answer(self) -> None:
        version = [1]
        queue = make_queue(
            stream=(task_of(number, 1) for number in range(2)),
            refresh=lambda tasks: [replace(task, suggestions=Suggestions(version[0])) for task in tasks],
            is_fresh=lambda task: task.version == version[0],
        )
        queue.next_tasks(ANNA, 1)
        for newer in (2, 3):
            version[0] = newer
            (task,) = queue.suggest_again(ANNA, [image_id(0)])
            assert task.version == newer
        for asked, found in ((1, 1), (2, 2), (3, 3), (None, 3), (9, 3), ("x", 3)):
            found_task = queue.task(image_id(0), asked)
            assert found_task is not None and found_task.version == found
        queue.note_answered("anna", image_id(0))
        assert queue.task(image_id(0), 1) is None
        assert queue._earlier == {}


class TestHandingOut:
    def test_tasks_come_in_the_order_of_the_source(self) -> None:
        queue = make_queue()
        assert numbers(queue.next_tasks(ANNA, 2)) == [0, 1]
        assert len(queue.open_tasks("anna")) == 2

    def test_a_reloaded_page_gets_its_tasks_first(self) -> None:
        queue = make_queue()
        queue.next_tasks(ANNA, 3)
        queue.note_answered("anna", image_id(1))
        assert numbers(queue.next_tasks(ANNA, 4)) == [0, 2, 3, 4]

    def test_two_tabs_of_one_session_get_different_ones(self) -> None:
        queue = make_queue()
        assert numbers(queue.next_tasks(ANNA, 2)) == [0, 1]
        assert numbers(queue.next_tasks(ANNA2, 2)) == [2, 3]
        assert numbers(queue.next_tasks(BEN, 2)) == [4, 5]
        assert len(queue.open_tasks("anna")) == 6, "they share them"

    def test_the_stream_is_read_on_demand(self) -> None:
        read: list[int] = []
        queue = make_queue(stream=(read.append(number) or task_of(number) for number in range(9)))
        queue.next_tasks(ANNA, 2)
        assert read == [0, 1]

    def test_answered_images_are_not_handed_out_again(self) -> None:
        queue = make_queue(2, before={None: {image_id(0)}})
        assert numbers(queue.next_tasks(ANNA, 5)) == [1]
        queue.note_answered("anna", image_id(1))
        assert queue.next_tasks(ANNA, 5) == Assignment(done=True)
        assert queue.task(image_id(1)) is None

    @pytest.mark.parametrize("overlap", [False, True])
    def test_the_same_picture_twice_in_the_source(self, overlap: bool) -> None:
        twice = [0, 1, 0, 2, 1, 2, 2]
        queue = make_queue(stream=iter([task_of(number) for number in twice]), overlap=overlap)
        assert numbers(queue.next_tasks(ANNA, 9)) == [0, 1, 2]

    def test_the_same_picture_again_after_it_was_answered(self) -> None:
        queue = make_queue(stream=iter([task_of(0), task_of(0), task_of(1)]))
        queue.next_tasks(ANNA, 1)
        queue.note_answered("anna", image_id(0))
        assert numbers(queue.next_tasks(ANNA, 2)) == [1]
        assert queue.task(image_id(0)) is None, "nobody will ask for it any more"


class TestNothingToGive:
    @pytest.mark.parametrize(("count", "text"), [(1, "1 image is open in other"), (2, "2 images are open in other")])
    def test_waiting_says_that_others_have_the_rest(self, count: int, text: str) -> None:
        queue = make_queue(count)
        queue.next_tasks(BEN, count)
        found = queue.next_tasks(ANNA, 1)
        assert (found.tasks, found.done) == ((), False)
        assert found.waiting.startswith(text)

    def test_a_failing_source_does_not_end_the_queue(self) -> None:
        class Failing:
            asked = 0

            def __iter__(self) -> Iterator[Task]:
                return self

            def __next__(self) -> Task:
                self.asked += 1
                if self.asked == 2:
                    raise RuntimeError("the model server answered nonsense")
                return task_of(self.asked)

        queue = make_queue(stream=Failing())
        with pytest.raises(RuntimeError):
            queue.next_tasks(ANNA, 3)
        assert numbers(queue.next_tasks(ANNA, 3)) == [1, 3, 4]


class TestGone:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    def test_tasks_of_a_closed_tab_go_to_others(self, clock: Clock) -> None:
        told: list[int] = []
        queue = make_queue(3, clock=clock, on_free=lambda: told.append(1))
        queue.next_tasks(ANNA, 2)
        queue.next_tasks(BEN, 1)
        clock.now += GONE_AFTER_S + 1
        queue.touch(BEN)
        assert queue.sessions_here() == {"ben"}
        assert queue.release_gone() == 2
        assert told == [1]
        assert queue.release_gone() == 0
        assert told == [1]
        assert numbers(queue.next_tasks(BEN, 5, have=[image_id(2)])) == [0, 1]

    def test_a_connected_tab_keeps_its_tasks(self, clock: Clock) -> None:
        queue = make_queue(3, clock=clock)
        queue.next_tasks(ANNA, 2)
        queue.connect(ANNA)
        queue.connect(ANNA)  # the browser connects again before the old connection is known to be lost
        clock.now += 10 * GONE_AFTER_S
        queue.disconnect(ANNA)
        clock.now += 10 * GONE_AFTER_S
        assert queue.release_gone() == 0
        assert queue.sessions_here() == {"anna"}
        queue.disconnect(ANNA)
        assert queue.release_gone() == 0, "a reload takes a moment"
        clock.now += GONE_AFTER_S + 1
        assert queue.release_gone() == 2
        assert queue.sessions_here() == set()

    def test_a_returning_tab_keeps_tasks_that_were_not_reassigned(self, clock: Clock) -> None:
        queue = make_queue(6, clock=clock)
        queue.next_tasks(ANNA, 3)
        clock.now += GONE_AFTER_S + 1
        queue.release_gone()
        assert numbers(queue.next_tasks(BEN, 1)) == [0]
        assert numbers(queue.next_tasks(ANNA, 1, have=[image_id(0), image_id(1), image_id(2)])) == [3]
        assert numbers(queue.next_tasks(BEN, 9, have=[image_id(0)])) == [4, 5]


class TestAfterARestart:
    def test_a_page_claims_what_it_shows_after_a_restart(self) -> None:
        queue = make_queue(4)
        assert numbers(queue.next_tasks(ANNA, 1, have=[image_id(0), image_id(2)])) == [1]
        assert numbers(queue.next_tasks(BEN, 9)) == [3]

    def test_claims_are_for_what_is_not_answered(self) -> None:
        queue = make_queue(2, before={None: {image_id(0)}})
        assert numbers(queue.next_tasks(ANNA, 5, have=[image_id(0)])) == [1]
        assert numbers(queue.next_tasks(BEN, 5)) == []
        assert len(queue.open_tasks("anna")) == 1

    def test_with_overlap_also_when_another_session_has_got_it_already(self) -> None:
        """Another session had pulled the image out of the stream: a second tab of the session was given it, too."""
        queue = make_queue(3, overlap=True)
        queue.next_tasks(BEN, 3)
        assert numbers(queue.next_tasks(ANNA, 1, have=[image_id(1)])) == [0]
        assert numbers(queue.next_tasks(ANNA2, 9)) == [2]

    def test_claims_of_images_that_are_none_do_no_harm(self) -> None:
        queue = make_queue(1)
        assert numbers(queue.next_tasks(ANNA, 2, have=[image_id(99)])) == [0]
        assert queue.next_tasks(ANNA, 2, have=[image_id(99), image_id(0)]).done


class TestReopen:
    def test_a_reopened_image_is_known_but_not_assigned_again(self) -> None:
        queue = make_queue(2)
        queue.next_tasks(ANNA, 1)
        queue.note_answered("anna", image_id(0))
        example = replace(task_of(0), other={"answer": 1})
        queue.reopen(ANNA, image_id(0), example)
        assert queue.task(image_id(0)) == example
        assert numbers(queue.next_tasks(BEN, 5)) == [1]
        queue.note_answered("anna", image_id(0))
        assert queue.task(image_id(0)) is None

    def test_an_assigned_image_is_not_replaced_by_reopening(self) -> None:
        queue = make_queue(2)
        queue.next_tasks(ANNA, 1)
        queue.reopen(BEN, image_id(0), replace(task_of(0), other={"answer": 1}))
        assert queue.task(image_id(0)) == task_of(0)


class TestOverlap:
    def test_an_answer_that_is_reopened_is_shown_to_nobody_else(self) -> None:
        """It took the place of the task, and the next annotator got it with the boxes of the first."""
        queue = make_queue(2, overlap=True)
        assert numbers(queue.next_tasks(ANNA, 2)) == [0, 1]
        queue.note_answered("anna", image_id(0))
        queue.reopen(ANNA, image_id(0), replace(task_of(0), other={"answer": 1}))
        queue.reopen(ANNA, image_id(7), replace(task_of(7), other={"answer": 1}))
        assert queue.next_tasks(BEN, 1).tasks == (task_of(0),)
        assert queue.take(BEN, image_id(7), lambda: task_of(7)) == task_of(7)

    def test_every_session_gets_every_image_once(self) -> None:
        queue = make_queue(4, overlap=True)
        assert numbers(queue.next_tasks(ANNA, 3)) == [0, 1, 2]
        assert numbers(queue.next_tasks(BEN, 1)) == [0]
        assert numbers(queue.next_tasks(ANNA2, 9)) == [3]
        queue.note_answered("anna", image_id(0))
        assert numbers(queue.next_tasks(BEN, 9, have=[image_id(0)])) == [1, 2, 3]
        assert numbers(queue.next_tasks(ANNA, 9)) == [1, 2]

    def test_what_a_session_has_answered_before(self) -> None:
        queue = make_queue(3, overlap=True, before={"anna": {image_id(0)}, "ben": {image_id(2)}})
        assert numbers(queue.next_tasks(ANNA, 9)) == [1, 2]
        assert numbers(queue.next_tasks(BEN, 9)) == [0, 1]

    def test_tasks_that_come_back_stay_with_the_session(self) -> None:
        clock = Clock()
        queue = make_queue(2, overlap=True, clock=clock)
        queue.next_tasks(ANNA, 2)
        clock.now += GONE_AFTER_S + 1
        assert queue.release_gone() == 2
        assert numbers(queue.next_tasks(BEN, 9)) == [0, 1]
        assert queue.next_tasks(BEN, 9, have=[image_id(0), image_id(1)]).done
        assert numbers(queue.next_tasks(ANNA2, 9)) == [0, 1]

    def test_the_database_is_asked_once_for_each_session(self) -> None:
        asked: list[str | None] = []
        queue = TaskQueue(iter([task_of(0)]), answered=lambda name: asked.append(name) or set(), overlap=True)
        for _ in range(3):
            queue.next_tasks(ANNA, 1)
            queue.next_tasks(BEN, 1)
            queue.note_answered("anna", image_id(0))
        assert asked == ["anna", "ben"]


class Model:
    """Suggests with the newest version; `gone` are images that it cannot be asked about."""

    def __init__(self) -> None:
        self.version = 1
        self.gone: set[int] = set()
        self.asked: list[list[int]] = []

    def stream(self, count: int) -> Iterator[Task]:
        for number in range(count):
            yield task_of(number, self.version)

    def refresh(self, tasks: Sequence[Task]) -> list[Task]:
        self.asked.append(numbers(tasks))
        return [task_of(number, self.version) for number in numbers(tasks) if number not in self.gone]

    def is_fresh(self, task: Task) -> bool:
        return bool(task.version == self.version)


def versions(tasks: Sequence[Task]) -> dict[int, int | None]:
    return {int(task.image_id, 16): task.version for task in tasks}


class TestNewerSuggestions:
    @pytest.fixture
    def model(self) -> Model:
        return Model()

    @pytest.fixture
    def queue(self, model: Model) -> TaskQueue:
        return make_queue(stream=model.stream(4), refresh=model.refresh, is_fresh=model.is_fresh, clock=Clock())

    def test_nothing_new(self, queue: TaskQueue, model: Model) -> None:
        queue.next_tasks(ANNA, 2)
        assert queue.suggest_again(ANNA, [image_id(0), image_id(1)]) == []
        assert model.asked == []

    def test_for_what_the_tab_has(self, queue: TaskQueue, model: Model) -> None:
        queue.next_tasks(ANNA, 2)
        queue.next_tasks(BEN, 1)
        model.version, model.gone = 2, {1}
        found = queue.suggest_again(ANNA, [image_id(number) for number in (0, 1, 2, 3, 99)])
        assert versions(found) == {0: 2}
        assert model.asked == [[0, 1]], "those of others, and those that nobody has, are not asked about"
        assert queue.task(image_id(0)) == task_of(0, 2), "an answer is compared with what was shown"
        assert queue.task(image_id(1)) == task_of(1, 1)

    def test_released_tasks_get_the_newest_suggestions(self, queue: TaskQueue, model: Model) -> None:
        queue.next_tasks(ANNA, 2)
        clock: Any = queue._clock
        clock.now += GONE_AFTER_S + 1
        queue.release_gone()
        model.version = 2
        assert versions(queue.next_tasks(BEN, 2).tasks) == {0: 2, 1: 2}
        assert model.asked == [[0, 1]], "asked for together"

    def test_with_overlap_the_second_session_gets_the_newest(self, model: Model) -> None:
        queue = make_queue(stream=model.stream(2), refresh=model.refresh, is_fresh=model.is_fresh, overlap=True)
        queue.next_tasks(ANNA, 2)
        model.version = 2
        assert versions(queue.next_tasks(BEN, 2).tasks) == {0: 2, 1: 2}

    def test_an_answer_during_a_prediction_wins(self, queue: TaskQueue, model: Model) -> None:
        queue.next_tasks(ANNA, 2)
        model.version = 2
        refresh = model.refresh

        def slowly(tasks: Sequence[Task]) -> list[Task]:
            queue.note_answered("anna", image_id(0))
            return refresh(tasks)

        queue._refresh = slowly
        queue.suggest_again(ANNA, [image_id(0), image_id(1)])
        assert queue.task(image_id(0)) is None
        assert len(queue.open_tasks("anna")) == 1


def run_together(*jobs: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result(timeout=30)


class TestManyAtOnce:
    @pytest.mark.parametrize("overlap", [False, True])
    def test_threads_get_each_task_exactly_once(self, overlap: bool) -> None:
        count, given, lock = 300, [], threading.Lock()
        queue = make_queue(count, overlap=overlap)
        tabs = [Tab(name, str(number)) for name in ("anna", "ben", "cleo") for number in range(3)]

        def annotate(tab: Tab) -> Callable[[], None]:
            chance = random.Random(tab.session + tab.name)

            def run() -> None:
                while found := queue.next_tasks(tab, chance.randint(1, 4)).tasks:
                    with lock:
                        given.extend((tab, each.image_id) for each in found)
                    for each in found:
                        queue.note_answered(tab.session, each.image_id)

            return run

        run_together(*map(annotate, tabs))
        audience = [(tab.session if overlap else None, each) for tab, each in given]
        assert len(audience) == len(set(audience)) == count * (3 if overlap else 1)
        assert not any(queue.open_tasks(name) for name in ("anna", "ben", "cleo"))

    def test_while_tabs_come_and_go(self) -> None:
        count, clock, answered, lock = 200, Clock(), set(), threading.Lock()
        queue = make_queue(count, clock=clock)

        def annotate(number: int) -> Callable[[], None]:
            chance = random.Random(number)

            def run() -> None:
                for life in range(1_000_000):
                    tab = Tab(f"s{number}", str(life))
                    have: list[str] = []
                    while found := queue.next_tasks(tab, 3, have).tasks:
                        have = [each.image_id for each in found]
                        for each in have[: chance.randint(1, 3)]:
                            with lock:
                                answered.add(each)
                            queue.note_answered(tab.session, each)
                        if chance.random() < 0.2:
                            break  # the tab is closed with tasks
                    with lock:
                        clock.now += GONE_AFTER_S / 2
                    queue.release_gone()
                    if len(answered) == count:
                        return

            return run

        run_together(*[annotate(number) for number in range(4)])
        assert len(answered) == count


class BoardMachine(RuleBasedStateMachine):
    """Tabs that ask, answer, remember what they hold or forget it, sleep and die, in any order."""

    COUNT = 12
    TABS = (ANNA, ANNA2, BEN, Tab("cleo", "1"))
    overlap = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        source = [task_of(number % self.COUNT) for number in range(self.COUNT + 4)]  # some twice
        self.tasks = make_queue(stream=iter(source), overlap=self.overlap, clock=self.clock)
        self.shown: dict[Tab, set[str]] = {tab: set() for tab in self.TABS}
        self.answered: set[tuple[str | None, str]] = set()
        self.seen_at: dict[Tab, float] = {}

    def audience(self, tab: Tab) -> str | None:
        return tab.session if self.overlap else None

    @rule(tab=st.sampled_from(TABS), count=st.integers(1, 4), remembers=st.booleans())
    def ask(self, tab: Tab, count: int, remembers: bool) -> None:
        if not remembers:
            self.shown[tab] = set()
        have = sorted(self.shown[tab])
        found = self.tasks.next_tasks(tab, count, have)
        self.seen_at[tab] = self.clock.now
        ids = [task.image_id for task in found.tasks]
        assert len(ids) == len(set(ids)) <= count
        assert not set(ids) & set(have)
        assert not any((self.audience(tab), each) in self.answered for each in ids)
        assert not (found.tasks and (found.done or found.waiting))
        for other, theirs in self.shown.items():
            if other != tab and self.audience(other) == self.audience(tab) and not self.is_gone(other):
                assert not theirs & set(ids), "two tabs that are there have the same image"
        self.shown[tab] |= set(ids)

    @precondition(lambda self: any(self.shown.values()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        tab = data.draw(st.sampled_from([tab for tab in self.TABS if self.shown[tab]]))
        each = data.draw(st.sampled_from(sorted(self.shown[tab])))
        self.shown[tab].discard(each)
        self.answered.add((self.audience(tab), each))
        self.tasks.note_answered(tab.session, each)

    @rule(seconds=st.sampled_from([1.0, GONE_AFTER_S / 2, GONE_AFTER_S + 1]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.tasks.release_gone()

    def is_gone(self, tab: Tab) -> bool:
        """A tab that slept may show images that have gone to others."""
        return self.clock.now - self.seen_at.get(tab, -1e9) > GONE_AFTER_S or tab in self.slept

    @property
    def slept(self) -> set[Tab]:
        held = {(who, each): holder for who, queue in self.tasks._queues.items() for each, holder in queue.held.items()}
        return {
            tab
            for tab, shown in self.shown.items()
            if any(held.get((self.audience(tab), each)) != tab for each in shown)
        }

    @invariant()
    def nobody_has_what_is_answered(self) -> None:
        for audience, queue in self.tasks._queues.items():
            assert not set(queue.held) & set(queue.free)
            assert len(queue.free) == len(set(queue.free))
            assert not {each for who, each in self.answered if who == audience} & {*queue.held, *queue.free}
            assert {*queue.held, *queue.free} <= set(self.tasks._tasks)

    def teardown(self) -> None:
        """In the end everything is answered, whoever went."""
        self.clock.now += GONE_AFTER_S + 1
        self.tasks.release_gone()
        for name in ("anna", "ben", "cleo") if self.overlap else ("dora",):
            last = Tab(name, "last")
            for task in self.tasks.next_tasks(last, 100).tasks:
                self.answered.add((self.audience(last), task.image_id))
                self.tasks.note_answered(name, task.image_id)
            assert self.tasks.next_tasks(last, 1) == Assignment(done=True)
            done = {each for audience, each in self.answered if audience == self.audience(last)}
            assert done == {image_id(number) for number in range(self.COUNT)}


class OverlapMachine(BoardMachine):
    overlap = True


BoardMachine.TestCase.settings = OverlapMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestAnyOrder = BoardMachine.TestCase
TestAnyOrderWithOverlap = OverlapMachine.TestCase
