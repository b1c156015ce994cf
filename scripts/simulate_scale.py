"""A model of the queues of a project: annotators, leases, page, predictions, rounds of training, swaps of versions.

It draws the times between events at random, and lets requests wait for the page, for the model server and for the
trainer. The constants are those of docs/scale.md, all of them options. With --check, 20 annotators work on a real page
for a minute, and the model is given the CPU time of its requests: what is compared is in the table that it prints.

Example:
    python scripts/simulate_scale.py --annotators 200 --images 10000000 --pages 3
    python scripts/simulate_scale.py --check

The last line is JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from odkeras.web.queue import GONE_AFTER_S

AHEAD = 5
"""Tasks that a tab of the page fetches at a time."""
CHECK_S, CHECK_THINK_S = 60.0, 1.0


@dataclass(frozen=True)
class Project:
    """What is simulated. Times in seconds, of one core.

    Args:
        annotators: people who work at the same time.
        images: images without an answer.
        think_s: mean time that a person looks at an image; exponential.
        leave: share of the answers after which a person closes the tab, with tasks open.
        away_s: time until that person opens the page again.
        pages: processes of the page.
        tasks_s, image_s, answer_s: CPU time of the page for fetching tasks, for an image, for an answer.
        replicas: model servers.
        predict_s: CPU time of a prediction; 0 without a model.
        answers_per_round: answers that are handed over at a time.
        round_s: a round without its steps.
        step_s: a step of training.
        round_steps: steps of a round; rounds have at most 500 by default.
        swap_s: from the publication of a version to its first prediction.
        duration_s: what is simulated.
    """

    annotators: int = 200
    images: int = 10_000_000
    think_s: float = 15.0
    leave: float = 0.005
    away_s: float = 600.0
    pages: int = 3
    tasks_s: float = 0.0225
    image_s: float = 0.0022
    answer_s: float = 0.006
    replicas: int = 2
    predict_s: float = 0.021
    answers_per_round: int = 5
    round_s: float = 0.57
    step_s: float = 0.207
    round_steps: int = 500
    swap_s: float = 0.34
    duration_s: float = 3600.0


class Station:
    """Requests that wait for one of several servers, first come first served."""

    def __init__(self, servers: int) -> None:
        self._free_at = [0.0] * servers
        self.busy_s = 0.0

    def serve(self, now: float, service_s: float) -> float:
        """When a request that arrives now is done. Requests must arrive in order."""
        done = max(now, heapq.heappop(self._free_at)) + service_s
        heapq.heappush(self._free_at, done)
        self.busy_s += service_s
        return done

    def load(self, duration_s: float) -> float:
        """Share of the time in which the servers were busy."""
        return self.busy_s / duration_s / len(self._free_at)


@dataclass
class _Desk:
    """An annotator with the images that are leased to the tab."""

    held: deque[int] = field(default_factory=deque)


class Simulation:
    """Runs a project once."""

    def __init__(self, project: Project, seed: int = 0) -> None:
        self.project = project
        self.page, self.serving = Station(project.pages), Station(project.replicas)
        self.answered: dict[int, int] = {}
        self.waits: list[float] = []
        self.fetch_waits: list[float] = []
        self.version_waits: list[float] = []
        self.rounds = self.expired = self.longest_inbox = 0
        self._random = np.random.default_rng(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = self._next_image = 0
        self._freed: deque[int] = deque()
        self._undelivered: list[float] = []
        self._inbox: list[float] = []
        self._is_training = False

    def run(self) -> dict[str, Any]:
        """What happened, by name."""
        project = self.project
        for _ in range(project.annotators):
            self._at(float(self._random.uniform(0, project.think_s)), self._fetching(_Desk()))
        while self._events:
            now, _, event = heapq.heappop(self._events)
            if now > project.duration_s:
                break
            event(now)
        return {
            "answers": len(self.answered),
            "answers_per_s": len(self.answered) / project.duration_s,
            "twice": sum(count > 1 for count in self.answered.values()),
            "answer_p50_ms": 1000 * _percentile(self.waits, 50),
            "answer_p99_ms": 1000 * _percentile(self.waits, 99),
            "fetch_p99_ms": 1000 * _percentile(self.fetch_waits, 99),
            "page_load": self.page.load(project.duration_s),
            "serving_load": self.serving.load(project.duration_s),
            "leases_expired": self.expired,
            "rounds": self.rounds,
            "rounds_per_h": self.rounds / project.duration_s * 3600,
            "answer_to_version_p50_s": _percentile(self.version_waits, 50),
            "answer_to_version_p95_s": _percentile(self.version_waits, 95),
            "longest_inbox": self.longest_inbox,
        }

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        self._number += 1  # events at the same instant happen in the order in which they were planned
        heapq.heappush(self._events, (when, self._number, event))

    def _fetching(self, desk: _Desk) -> Callable[[float], None]:
        def fetch(now: float) -> None:
            while len(desk.held) < AHEAD and (image := self._lease()) is not None:
                desk.held.append(image)
            predicted = now
            if self.project.predict_s and desk.held:
                predicted = self.serving.serve(now, self.project.predict_s * len(desk.held))
            done = max(predicted, self.page.serve(now, self.project.tasks_s))
            self.fetch_waits.append(done - now)
            if desk.held:  # else no image is left
                self._at(done, self._looking(desk))

        return fetch

    def _lease(self) -> int | None:
        if self._freed:
            return self._freed.popleft()
        if self._next_image >= self.project.images:
            return None
        self._next_image += 1
        return self._next_image - 1

    def _looking(self, desk: _Desk) -> Callable[[float], None]:
        def look(now: float) -> None:
            shown = self.page.serve(now, self.project.image_s)
            self._at(shown + float(self._random.exponential(self.project.think_s)), self._answering(desk))

        return look

    def _answering(self, desk: _Desk) -> Callable[[float], None]:
        def answer(now: float) -> None:
            image = desk.held.popleft()
            done = self.page.serve(now, self.project.answer_s)
            self.waits.append(done - now)
            self.answered[image] = self.answered.get(image, 0) + 1
            self._at(done, self._deliver)
            if self._random.random() < self.project.leave:
                left = list(desk.held)
                desk.held.clear()
                self._at(done + GONE_AFTER_S, lambda _: self._free(left))
                self._at(done + self.project.away_s, self._fetching(desk))
            else:
                self._at(done, self._looking(desk) if desk.held else self._fetching(desk))

        return answer

    def _free(self, images: list[int]) -> None:
        self.expired += len(images)
        self._freed.extend(images)

    def _deliver(self, now: float) -> None:
        self._undelivered.append(now)
        if len(self._undelivered) >= self.project.answers_per_round:
            self._inbox += self._undelivered
            self._undelivered = []
            self.longest_inbox = max(self.longest_inbox, len(self._inbox))
            if not self._is_training:
                self._train(now)

    def _train(self, now: float) -> None:
        taken, self._inbox, self._is_training = self._inbox, [], True
        published = now + self.project.round_s + self.project.step_s * self.project.round_steps

        def publish(at: float) -> None:
            self.rounds += 1
            self.version_waits += [at + self.project.swap_s - answered for answered in taken]
            self._is_training = False
            if self._inbox:
                self._train(at)

        self._at(published, publish)


def _percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


ROWS = (
    ("answers a second", "answers_per_s"),
    ("images answered twice", "twice"),
    ("answer acknowledged: median, ms", "answer_p50_ms"),
    ("answer acknowledged: 99th percentile, ms", "answer_p99_ms"),
    ("tasks fetched: 99th percentile, ms", "fetch_p99_ms"),
    ("load of the page's processes", "page_load"),
    ("load of the model servers", "serving_load"),
    ("leases that expired", "leases_expired"),
    ("rounds an hour", "rounds_per_h"),
    ("answer to its version: median, s", "answer_to_version_p50_s"),
    ("answer to its version: 95th percentile, s", "answer_to_version_p95_s"),
    ("most answers in the inbox", "longest_inbox"),
)


def main() -> None:
    project, args = parse_arguments()
    if args.check:
        from check_simulation import check

        print(json.dumps(check(args.seconds, CHECK_THINK_S)))
        return
    found = Simulation(project, args.seed).run()
    for text, key in ROWS:
        print(f"{text:45} {found[key]:12,.2f}")
    print(json.dumps({"project": asdict(project), "found": found}))


def parse_arguments() -> tuple[Project, argparse.Namespace]:
    about = {line.split(":")[0].strip(): line for line in (Project.__doc__ or "").splitlines() if ":" in line}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Project()).items():
        kind = type(value)
        key = next((names for names in about if name in names.split(", ")), name)
        text = about.get(key, "").partition(":")[2].strip().replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value, help=f"{text} (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare with a real page and 20 annotators")
    parser.add_argument("--seconds", type=float, default=CHECK_S, help="how long the 20 annotators work")
    args = parser.parse_args()
    project = Project(**{name: getattr(args, name) for name in asdict(Project())})
    return project, args


if __name__ == "__main__":
    main()
