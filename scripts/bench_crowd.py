"""Many annotators at once, and one client that means no good: `odkeras annotate` as a process, asked over HTTP.

  calm     each annotator has an event stream, looks at an image for some seconds, and answers it.
  hostile  the same, while one client from another address keeps idle connections, headers that arrive byte by byte,
           bodies of 4 and 64 MB, event streams that it does not read, and malformed requests.

Goals: no errors, memory that does not grow, and a 99th percentile that the client does not double. Examples:
    python scripts/bench_crowd.py --annotators 300 --minutes 10
    python scripts/bench_crowd.py --annotators 20 --minutes 1 --no-model
    python scripts/bench_crowd.py --annotators 20 --minutes 1 --no-model --pause 0.5 --kinds idle malformed

The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bench_web import BOX, Page, annotate, start_training
from measuring import DEFAULT_TEMPLATE, Row, draw_photograph, percentile, report, say
from odkeras.init_project import init_project

WARM_UP = 0.1  # of the time, in which nothing is measured
HOSTILE_ADDRESS = "127.0.0.2"  # all of 127.0.0.0/8 is this machine on Linux
HOSTILE = {"idle": 800, "slow_headers": 200, "event_streams": 200, "large_bodies": 4, "malformed": 8}
_DRAWN = 20
_IMAGE_SIZE = (144, 112)
_FILES = 16384
_TIMEOUT_S = 30.0
_LARGE_BYTES = (4 * 2**20 - 1024, 64 * 2**20)
_MALFORMED = (
    b'POST /api/answers HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"answer',
    b"GET /images/../../../etc/passwd HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /api/tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\n\r\n[[[[[",
)


@dataclass
class Client:
    """One kept connection, as a browser has it: a request on a connection that was closed is sent once more."""

    host: str
    port: int
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        reused = self.streams is not None
        try:
            return await asyncio.wait_for(self._request(method, path, body), _TIMEOUT_S)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.streams = None
            if not reused:
                raise
            return await asyncio.wait_for(self._request(method, path, body), _TIMEOUT_S)

    async def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + body)
        await writer.drain()
        status, length = await self._read_head(reader)
        return status, await reader.readexactly(length)

    async def _read_head(self, reader: asyncio.StreamReader) -> tuple[int, int]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), int(headers.get("content-length", 0))

    async def read_events(self, session: str) -> None:
        """Read an event stream until it ends."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(
            f"GET /api/events?session={session}&tab=t HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n\r\n".encode()
        )
        while await reader.read(65536):
            pass


@dataclass
class Measured:
    """What the annotators have seen.

    Args:
        answers: (monotonic time, seconds until the answer was confirmed).
        errors: number of each kind.
    """

    answers: list[tuple[float, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def seconds_between(self, start: float, end: float) -> list[float]:
        return [seconds for at, seconds in self.answers if start <= at < end]


async def annotator(number: int, url: str, until: float, pause_s: float, measured: Measured) -> None:
    """Answer images until the time is over."""
    parts, session = urlsplit(url), f"annotator{number:03}"
    client = Client(str(parts.hostname), int(parts.port or 80))
    chance = random.Random(number)
    await asyncio.sleep(chance.uniform(0, pause_s))
    stream = asyncio.create_task(client.read_events(session))

    async def post(path: str, **body: Any) -> dict[str, Any]:
        content = json.dumps({"session": session, "tab": "t", **body}).encode()
        status, reply = await client.request("POST", path, content)
        if status != 200:
            raise ConnectionError(f"{path}: {status} {reply[:100]!r}")
        return dict(json.loads(reply))

    while time.monotonic() < until:
        try:
            tasks = (await post("/api/tasks", count=3, have=[]))["tasks"]
            for task in tasks:
                status, _ = await client.request("GET", task["image"])
                measured.errors[f"image {status}"] += status != 200
                await asyncio.sleep(pause_s * chance.uniform(0.5, 1.5))
                answer = {
                    "answer_id": uuid.uuid4().hex,
                    "image_id": task["image_id"],
                    "answer": "accept",
                    "spans": [BOX],
                }
                started = time.monotonic()
                saved = (await post("/api/answers", answers=[answer]))["saved"]
                measured.answers.append((started, time.monotonic() - started))
                measured.errors["not saved"] += saved != [answer["answer_id"]]
            if not tasks:
                measured.errors["no task"] += 1
                await asyncio.sleep(pause_s)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as error:
            measured.errors[f"{type(error).__name__}: {error}"[:120]] += 1
            await asyncio.sleep(1)
    stream.cancel()


async def crowd(page: Page, args: argparse.Namespace) -> dict[str, Any]:
    started, total_s = time.monotonic(), 60 * args.minutes
    middle, end = started + total_s * (1 + WARM_UP) / 2, started + total_s
    measured = Measured()
    everybody = [
        asyncio.create_task(annotator(number, page.url, end, args.pause, measured)) for number in range(args.annotators)
    ]
    await asyncio.sleep(total_s * WARM_UP)
    memory_start_mb = page.memory_mb()
    await asyncio.sleep(middle - time.monotonic())
    memory_calm_mb = page.memory_mb()
    say("hostile")
    command = [sys.executable, __file__, "--hostile", page.url, "--minutes", str((end - middle) / 60)]
    command += ["--kinds", *args.kinds]
    hostile = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    await asyncio.gather(*everybody)
    memory_end_mb = page.memory_mb()
    output, _ = await asyncio.to_thread(hostile.communicate, timeout=120)
    calm = measured.seconds_between(started + total_s * WARM_UP, middle)
    attacked = measured.seconds_between(middle, end)
    errors = {kind: count for kind, count in measured.errors.items() if count}
    return {
        **_summary("calm", calm),
        **_summary("hostile", attacked),
        "p99_ratio": percentile(attacked, 99) / percentile(calm, 99),
        "answers": len(measured.answers),
        "answers_per_s": len(measured.answers) / total_s,
        "errors": sum(errors.values()),
        "kinds_of_errors": errors,
        "memory_start_mb": memory_start_mb,
        "memory_calm_mb": memory_calm_mb,
        "memory_end_mb": memory_end_mb,
        "memory_growth_mb": memory_end_mb - memory_start_mb,
        "hostile_did": json.loads(output.splitlines()[-1]),
    }


def _summary(name: str, seconds: list[float]) -> dict[str, float]:
    return {
        f"{name}_p50_ms": 1000 * statistics.median(seconds),
        f"{name}_p99_ms": 1000 * percentile(seconds, 99),
        f"{name}_max_ms": 1000 * max(seconds),
    }


async def be_hostile(url: str, chosen: Sequence[str], until: float) -> Counter[str]:
    """Everything that was chosen at once, from one address; what was done how often."""
    parts, done = urlsplit(url), Counter[str]()
    kinds = {
        "idle": _idle,
        "slow_headers": _slow_headers,
        "event_streams": _unread_events,
        "large_bodies": _large_body,
        "malformed": _malformed,
    }

    async def again_and_again(kind: str) -> None:
        while time.monotonic() < until:
            try:
                made = asyncio.open_connection(parts.hostname, parts.port, local_addr=(HOSTILE_ADDRESS, 0))
                reader, writer = await asyncio.wait_for(made, 30)
                done[kind] += 1
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(kinds[kind](reader, writer), max(0.1, until - time.monotonic()))
                writer.close()
            except (OSError, asyncio.TimeoutError):
                done[f"{kind}: refused or closed"] += 1
            await asyncio.sleep(0.05)

    await asyncio.gather(*(again_and_again(kind) for kind in chosen for _ in range(HOSTILE[kind])))
    return done


async def _idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def _slow_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"GET /api/project HTTP/1.1\r\nhost: " + b"x" * 10**4:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def _unread_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /api/events?session=h&tab=%d HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % random.randrange(10**6))
    await asyncio.sleep(3600)


async def _large_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    size = random.choice(_LARGE_BYTES)
    writer.write(b"POST /api/answers HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n")
    writer.write(b"content-length: %d\r\n\r\n" % size)
    for begin in range(0, size, 65536):
        writer.write(b"[" * min(65536, size - begin))
        await writer.drain()
    await reader.read(1000)


async def _malformed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(random.choice(_MALFORMED))
    await asyncio.wait_for(reader.read(1000), 2)


def prepare(project: Path, args: argparse.Namespace) -> None:
    """Write the project and its images: few distinct small photographs, made unique by a comment in each JPEG file."""
    init_project(project, ["thing"], template=args.template)
    (project / "images").mkdir()
    needed = int(args.annotators * (60 * args.minutes / args.pause + 10))
    generator, path = np.random.default_rng(0), project / "photograph.jpg"
    drawn = []
    for _ in range(_DRAWN):
        draw_photograph(generator).resize(_IMAGE_SIZE).save(path, quality=80)
        drawn.append(path.read_bytes())
    for number in range(needed):
        data, comment = drawn[number % _DRAWN], f"{number:08}".encode()
        marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        (project / "images" / f"{number:06}.jpg").write_bytes(marked)


def main() -> None:
    args = parse_arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
    if args.hostile:
        os.nice(19)  # it stands for another machine, and takes no processor time from the page and the annotators
        print(json.dumps(run(be_hostile(args.hostile, args.kinds, time.monotonic() + 60 * args.minutes))))
        return
    found: dict[str, Any] = {}
    options = ["--steps-per-epoch", "100000"]
    if args.no_model:
        options += ["--external-trainer", "127.0.0.1", "9"]  # where nobody listens
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        project = Path(folder)
        prepare(project, args)
        with annotate(project, found, options=options) as page:
            if not args.no_model:
                start_training(page)
            say("calm")
            found.update(run(crowd(page, args)))
    settings = {
        "annotators": args.annotators,
        "minutes": args.minutes,
        "pause_s": args.pause,
        "model": not args.no_model,
    }
    hostile = {kind: HOSTILE[kind] for kind in args.kinds}
    report("crowd", ROWS, found, template=args.template, hostile=hostile, **settings)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="configuration to use")
    parser.add_argument("--annotators", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=5.0, help="seconds that a person looks at an image, on average")
    parser.add_argument("--no-model", action="store_true", help="without trainer and model server")
    parser.add_argument("--kinds", nargs="*", choices=list(HOSTILE), default=list(HOSTILE), help="of hostility")
    parser.add_argument("--hostile", metavar="URL", help="be the hostile client of this page")
    return parser.parse_args()


ROWS = (
    Row("answers, all annotators", "answers_per_s", "1/s", shown=True),
    Row("errors", "errors", "", at_most=0, shown=True),
    Row("answer acknowledged: median", "calm_p50_ms", "ms"),
    Row("  99th percentile", "calm_p99_ms", "ms", shown=True),
    Row("  longest", "calm_max_ms", "ms"),
    Row("with a hostile client: median", "hostile_p50_ms", "ms"),
    Row("  99th percentile", "hostile_p99_ms", "ms", shown=True),
    Row("  longest", "hostile_max_ms", "ms"),
    Row("  99th percentile, compared to without", "p99_ratio", "x", at_most=2, shown=True),
    Row("memory of the page's process, after a tenth of the time", "memory_start_mb", "MB"),
    Row("  before the hostile client", "memory_calm_mb", "MB"),
    Row("  at the end", "memory_end_mb", "MB", shown=True),
)


if __name__ == "__main__":
    main()
