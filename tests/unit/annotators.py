"""Simulated annotators, each a tab that answers until no image is left. If its page is gone, it goes to another one, as
behind a load balancer, and sends its answers again until one says that they are saved."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx
from fixtures_web import answer_to


class Annotator(threading.Thread):
    """
    Args:
        urls: of the pages; may change while it works.
        seed: of its pauses.

    Attributes:
        saved: (image id, answer id) of each answer that was acknowledged.
    """

    def __init__(self, name: str, urls: Sequence[str], page: int, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._urls = urls
        self._page = page
        self._chance = random.Random(seed)
        self._shown: list[dict[str, Any]] = []
        self._http = httpx.Client(timeout=20)
        self.stopping = threading.Event()
        self.saved: list[tuple[str, str]] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            have = [task["image_id"] for task in self._shown]
            reply = self._post("/api/tasks", count=3 - len(have), have=have) if len(have) < 2 else None
            if reply is not None:
                self._shown += reply["tasks"]
                if reply["done"] and not self._shown:
                    return
            if not self._shown:
                time.sleep(0.1)
                continue
            time.sleep(self._chance.uniform(0, 0.1))
            answer = answer_to(self._shown.pop(0))
            sent = self._post("/api/answers", answers=[answer])
            if sent is not None:
                assert sent == {"saved": [answer["answer_id"]], "refused": []}, sent
                self.saved.append((answer["image_id"], answer["answer_id"]))

    def _post(self, path: str, **body: Any) -> Any:
        while not self.stopping.is_set():
            url = self._urls[self._page % len(self._urls)]
            try:
                reply = self._http.post(f"{url}{path}", json={"session": self.name, "tab": "tab", **body})
                if reply.status_code == 200:
                    return reply.json()
            except httpx.TransportError:
                pass
            self._page += 1
            time.sleep(self._chance.uniform(0.02, 0.1))
        return None
