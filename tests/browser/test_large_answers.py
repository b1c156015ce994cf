"""Many waiting answers with hundreds of boxes each are more than a request may have."""

from __future__ import annotations

from desk import Desk, Server
from playwright.sync_api import Request
from waiting import wait_until

FILL = """([image_id, count, boxes]) => {
    const place = { type: 'rect', y: 2, width: 10.123, height: 9.5 };
    const span = (n) => ({ id: String(n), label: 'car', x: 1 + n % 50, ...place });
    const answer = (n) => ({
        answer_id: 'large-' + n, image_id, file: 'x.png', answer: 'accept', version: null,
        spans: Array.from({ length: boxes }, (_, n) => span(n)), answered_at_ms: Date.now() - 60000 + n,
    });
    const answers = Array.from({ length: count }, (_, n) => answer(n));
    localStorage.setItem('odkeras:outbox:things:default:gone', JSON.stringify(answers));
}"""


def test_they_are_sent_in_parts(desk: Desk, server: Server) -> None:
    """They were refused as too large, and sent again and again."""
    sizes: list[int] = []

    def note(request: Request) -> None:
        if request.url.endswith("/api/answers"):
            sizes.append(len(request.post_data or ""))

    image_id = desk.image_id
    desk.page.evaluate(FILL, [image_id, 30, 1000])
    desk.page.on("request", note)
    desk.page.reload()
    wait_until(lambda: any(answer["image_id"] == image_id for answer in server.answers()), "the answers")
    empty = "() => !Object.keys(localStorage).some((key) => key.startsWith('odkeras:outbox:'))"
    wait_until(lambda: desk.page.evaluate(empty), "an empty outbox")
    assert sum(sizes) > 2_400_000
    assert max(sizes) < 1_100_000
    assert len(server.stored(image_id)["spans"]) == 1000
