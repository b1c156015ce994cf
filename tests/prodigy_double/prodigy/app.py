"""The web server: the REST routes that Prodigy's web app uses, on a thread per request."""

from __future__ import annotations

import json
import signal
import socketserver
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prodigy.controller import Controller


class Server(ThreadingHTTPServer):
    """Closing waits for the requests that are being answered."""

    daemon_threads = False

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        super().__init__((controller.config["host"], int(controller.config["port"])), Handler)

    def server_bind(self) -> None:
        """Without asking for the host's full name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        return f"http://{self.controller.config['host']}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 5  # or a connection that a browser opened in advance would hold up the end

    def do_GET(self) -> None:
        routes = {"/project": self.project}
        if not self.server.controller.era.since("1.10"):
            routes["/get_questions"] = self.get_questions
        self._answer(routes)

    def do_POST(self) -> None:
        routes = {"/give_answers": self.give_answers}
        if self.server.controller.era.since("1.10"):
            routes["/get_session_questions"] = self.get_questions
        self._answer(routes)

    def project(self, body: dict[str, Any]) -> dict[str, Any]:
        controller = self.server.controller
        return {**controller.config, "view_id": controller.view_id, "dataset": controller.dataset}

    def get_questions(self, body: dict[str, Any]) -> dict[str, Any]:
        controller = self.server.controller
        tasks = controller.get_questions(self._session(body))
        answer = {"tasks": tasks, "total": controller.total_annotated, "progress": controller.progress}
        if controller.era.since("1.10"):
            answer |= {"progress_kind": "custom", "session_id": controller.session_named(self._session(body))}
        return answer

    def give_answers(self, body: dict[str, Any]) -> dict[str, Any]:
        controller = self.server.controller
        controller.receive_answers(body["answers"], session_id=self._session(body))
        return {"progress": controller.progress}

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _session(self, body: dict[str, Any]) -> str | None:
        in_url = parse_qs(urlsplit(self.path).query).get("session", [None])[0]
        return body.get("session_id") or in_url

    def _answer(self, routes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        status, content = 404, {"detail": "Not Found"}
        if route := routes.get(urlsplit(self.path).path):
            try:
                status, content = 200, route(body)
            except Exception:
                traceback.print_exc()
                status, content = 500, {"detail": "Internal Server Error"}
        reply = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)


def serve(controller: Controller) -> None:
    """Until SIGINT or SIGTERM; then `on_exit`."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    with controller, Server(controller) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handle)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="web server")
        thread.start()
        print(f"\n✨  Starting the web server at {server.url} ...", flush=True)
        print("Open the app in your browser and start annotating!\n", flush=True)
        stop.wait()
        server.shutdown()
        thread.join()
