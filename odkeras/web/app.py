"""The page's web application: each handler validates a request, calls one method of the service and returns JSON.

    app = create_app(service, page_files(), Policy())

Blocking calls (predictions, disk) run in thread pools. Storing answers has its own pool, so that it never waits for
predictions.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from odkeras.connections import is_loopback
from odkeras.errors import ConfigError, DatabaseError, LabelMapError, OdkerasError
from odkeras.web import replies, requests
from odkeras.web.documents import span_document, task_document
from odkeras.web.files import PageFile
from odkeras.web.gallery_service import NotAvailableError
from odkeras.web.pictures import media_type
from odkeras.web.queue import Tab
from odkeras.web.relabel import count_images
from odkeras.web.requests import BadRequestError, read_body, read_query
from odkeras.web.security import App, Guard, Policy
from odkeras.web.service import PageService
from odkeras.web.sharing import Sharing
from odkeras.web.state_events import SHOWN_EVERY_S, StateEvents

ALIVE_EVERY_S = 10.0
_THREADS = 16
_STORING_THREADS = 4  # they share a processor and a disk, so more threads would only slow each other down
_BROWSING_THREADS = 3
_FETCHING_THREADS = 4
_MAX_FETCHES_WAITING = 16
T = TypeVar("T")

log = logging.getLogger(__name__)


def create_app(
    service: PageService,
    files: Mapping[str, PageFile],
    policy: Policy,
    *,
    closing: Callable[[], bool] = lambda: False,
    elsewhere: str = "",
) -> App:
    """Build the application. The caller owns the service: it must be running before and be closed afterwards.

    Args:
        files: static files by URL path.
        closing: polled by the event streams, which end when it returns True and never otherwise.
        elsewhere: see `Sharing`.
    """
    return Guard(_Handlers(service, files, closing, Sharing(policy.token, elsewhere)).starlette(), policy)


class _Handlers:
    def __init__(
        self, service: PageService, files: Mapping[str, PageFile], closing: Callable[[], bool], sharing: Sharing
    ) -> None:
        self._service = service
        self._files = files
        self._closing = closing
        self._sharing = sharing
        self._predicting = CapacityLimiter(_THREADS)
        self._storing = CapacityLimiter(_STORING_THREADS)
        self._browsing = CapacityLimiter(_BROWSING_THREADS)
        self._fetching = CapacityLimiter(_FETCHING_THREADS)
        self._fetches = 0
        self._states = StateEvents(service.panel)
        self._streams = 0

    def starlette(self) -> Starlette:
        api: dict[str, Callable[[Request], Any]] = {
            "/api/tasks": self.tasks,
            "/api/answers": self.answers,
            "/api/reopen": self.reopen,
            "/api/open": self.open,
            "/api/save": self.save,
            "/api/training": self.training,
            "/api/suggestions": self.suggestions,
            "/api/tensorboard": self.tensorboard,
            "/api/link": self.link,
            "/api/labels": self.add_label,
            "/api/labels/edit": self.edit_label,
        }
        routes = [Route(path, self._guarded(handler), methods=["POST"]) for path, handler in api.items()]
        reads = {
            "/api/log": self.log_end,
            "/api/project": self.project,
            "/api/history": self.history,
            "/api/labels": self.label_use,
            "/api/next-steps": self.next_steps,
            "/api/export/{format}": self.export,
            "/images/{image_id}": self.image,
            "/api/images": self.images,
            "/api/boxes": self.boxes,
            "/thumbnails/{image_id}": self.thumbnail,
        }
        routes += [Route(path, self._guarded(handler), methods=["GET"]) for path, handler in reads.items()]
        routes.append(Route("/api/events", self._guarded(self.events), methods=["GET"]))
        routes += [Route(path, self.file, methods=["GET"]) for path in self._files]
        return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})

    def _guarded(self, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Wrap a handler so that exceptions become JSON errors."""

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except BadRequestError as error:
                return _error(error.status, str(error))
            except DatabaseError as error:
                log.error("%s", error)
                return _error(507, f"{error}. Free disk space or fix the cause; the page keeps the answers and retries")
            except ClientDisconnect:
                return _error(413, "the request is too large or incomplete")
            except OdkerasError as error:
                return _error(409 if isinstance(error, LabelMapError) else 500, str(error))
            except asyncio.CancelledError:
                if not self._closing():
                    raise
                return _error(503, "stopping; the page reconnects when `odkeras annotate` runs again")
            except Exception as error:
                log.exception("%s %s failed", request.method, request.url.path)
                return _error(500, f"{type(error).__name__}: {error}")

        return handle

    async def file(self, request: Request) -> Response:
        file = self._files[request.url.path]
        return Response(file.data, headers={"content-type": file.media_type, "cache-control": "no-cache"})

    async def project(self, request: Request) -> Response:
        return self._about(request, read_query(request, requests.SessionQuery).session)

    def _about(self, request: Request, session: str) -> Response:
        host = request.client.host if request.client is not None else ""
        return _json(self._service.about(session, tensorboard=is_loopback(host)))

    async def add_label(self, request: Request) -> Response:
        body = await read_body(request, requests.LabelRequest)
        await self._store(self._service.labels.add, body.name)
        return self._about(request, body.session)

    async def edit_label(self, request: Request) -> Response:
        body = await read_body(request, requests.LabelEdit)
        await self._store(self._service.labels.edit, body.action, body.name, body.value)
        return self._about(request, body.session)

    async def label_use(self, request: Request) -> Response:
        read_query(request, requests.SessionQuery)
        return _json(replies.LabelUse(await self._browse(count_images, self._service.database)))

    async def log_end(self, request: Request) -> Response:
        process = read_query(request, requests.LogQuery).process
        log = await self._store(self._service.log_end, process)
        if log is None:
            raise BadRequestError(404, f"the {process} has no log here; it may run on another machine")
        return _json(log)

    async def history(self, request: Request) -> Response:
        query = read_query(request, requests.SessionQuery)
        return _json(await self._store(self._service.history, query.session))

    async def tasks(self, request: Request) -> Response:
        body = await read_body(request, requests.TasksRequest)
        assignment = await self._predict(self._service.next_tasks, _tab(body), body.count, body.have)
        tasks = [task_document(task) for task in assignment.tasks]
        return _json(replies.TasksReply(tasks, assignment.done, assignment.waiting))

    async def suggestions(self, request: Request) -> Response:
        body = await read_body(request, requests.SuggestionsRequest)
        renewed = await self._predict(self._service.suggest_again, _tab(body), body.image_ids)
        return _json(replies.SuggestionsReply([task_document(task) for task in renewed]))

    async def answers(self, request: Request) -> Response:
        body = await read_body(request, requests.AnswersRequest)
        saved, refused = await self._store(self._service.answer, _tab(body), body.answers)
        return _json(replies.AnswersReply(saved, [replies.Refusal(*refusal) for refusal in refused]))

    async def reopen(self, request: Request) -> Response:
        body = await read_body(request, requests.ReopenRequest)
        answer = await self._store(self._service.reopen, _tab(body), body.image_id)
        if answer is None:
            raise BadRequestError(404, f"image {body.image_id} has no answer by this session")
        return _json(replies.OpenedTask(task_document(answer.task), answer.decision))

    async def images(self, request: Request) -> Response:
        query = read_query(request, requests.ImagesQuery)
        wanted = read_query(request, requests.GalleryFilter)
        page = await self._browse(self._service.gallery.page, _tab(query), wanted, query.offset, query.limit)
        return _json(page)

    async def thumbnail(self, request: Request) -> Response:
        key = _image_id(request)
        gallery = self._service.gallery
        is_remote = await self._browse(gallery.must_be_fetched, key)
        thumbnail = await (self._fetch if is_remote else self._browse)(gallery.thumbnail, key)
        if thumbnail is None:
            raise BadRequestError(404, "no such image, or its file is missing")
        headers = {"cache-control": "private, max-age=31536000, immutable"}
        return Response(thumbnail, media_type="image/jpeg", headers=headers)

    async def open(self, request: Request) -> Response:
        body = await read_body(request, requests.OpenRequest)
        try:
            opened = await self._predict(self._service.gallery.open, _tab(body), body.key)
        except NotAvailableError as error:
            raise BadRequestError(409, str(error)) from error
        return _json(replies.OpenedTask(task_document(opened.task), opened.decision))

    async def boxes(self, request: Request) -> Response:
        query = read_query(request, requests.BoxesQuery)
        answer = await self._browse(self._service.gallery.answer, query.session, query.image_id)
        if answer is None:
            raise BadRequestError(404, f"image {query.image_id} has no answer")
        return _json(replies.BoxesReply(answer.task.file, [span_document(span) for span in answer.task.spans]))

    async def save(self, request: Request) -> Response:
        await read_body(request, requests.Sender)
        delivered, resumed = await self._store(self._service.train_now)
        return _json(replies.SaveReply(delivered, resumed))

    async def training(self, request: Request) -> Response:
        body = await read_body(request, requests.TrainingRequest)
        return _json(replies.TrainingReply(await self._store(self._service.control_training, body.action)))

    async def tensorboard(self, request: Request) -> Response:
        await read_body(request, requests.EmptyRequest)
        if request.client is None or not is_loopback(request.client.host):
            raise BadRequestError(409, f"from another machine, run there: {self._service.tensorboard_command}")
        try:
            return _json(replies.TensorBoardReply(await to_thread.run_sync(self._service.tensorboard_url)))
        except OdkerasError as error:
            raise BadRequestError(409, f"{error}; or run: {self._service.tensorboard_command}") from error

    async def link(self, request: Request) -> Response:
        await read_body(request, requests.EmptyRequest)
        origin = request.headers.get("origin") or f"{request.url.scheme}://{request.headers.get('host', '')}"
        url, works_elsewhere = self._sharing.link(origin)
        return _json(replies.SharedLink(url, works_elsewhere))

    async def next_steps(self, request: Request) -> Response:
        return _json(replies.NextSteps(await self._store(self._service.next_steps)))

    async def export(self, request: Request) -> Response:
        """The labels as a download. Cross-site requests are refused, so that other web pages cannot start one."""
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise BadRequestError(403, "requests from other web pages are refused")
        format = str(request.path_params["format"])
        try:
            download = await self._store(self._service.download, format)
        except ConfigError as error:
            raise BadRequestError(404, "there are no answers yet") from error
        if download is None:
            raise BadRequestError(404, f"no such format: {format[:80]!r}; jsonl and coco can be downloaded")
        headers = {"content-disposition": f'attachment; filename="{download.file}"', "cache-control": "no-store"}
        return StreamingResponse(download.chunks(), media_type=download.media_type, headers=headers)

    async def image(self, request: Request) -> Response:
        picture = await self._store(self._service.picture, _image_id(request))
        if picture is None:
            raise BadRequestError(404, "no such image, or its file is missing")
        headers = {"cache-control": "private, max-age=31536000, immutable"}
        return Response(picture.data, media_type=media_type(picture), headers=headers)

    async def events(self, request: Request) -> Response:
        tab = _tab(read_query(request, requests.Sender))
        last = request.headers.get("last-event-id", "0")
        seen = int(last) if last.isdecimal() and len(last) < 12 else 0
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(tab, seen), media_type="text/event-stream", headers=headers)

    async def _events(self, tab: Tab, seen: int) -> AsyncIterator[bytes]:
        """Server-sent events. Event events have ids, so that a reconnecting browser gets each once. A browser that
        reconnects after a server restart gets the full history."""
        service = self._service
        revision, free, silent_s, state_s = -1, service.free_count, 0.0, float("inf")
        service.queue.connect(tab)
        self._streams += 1
        try:
            yield b"retry: 1000\n\n"
            while not self._closing():
                parts = []
                if service.panel.revision != revision and state_s >= self._states.interval_s(self._streams):
                    revision, state = self._states.event(tab.session)
                    state_s = 0.0
                    parts.append(state)
                if service.panel.last_line != seen:
                    for line in service.panel.lines_after(seen if seen <= service.panel.last_line else 0):
                        seen = line.number
                        parts.append(_event("news", line.message(), seen))
                if service.free_count != free:
                    free = service.free_count
                    parts.append(_event("tasks", {}))
                pause_s = SHOWN_EVERY_S * random.uniform(
                    0.8, 1.2
                )  # streams that began together must not all wake at once
                state_s += pause_s
                silent_s = 0.0 if parts else silent_s + pause_s
                if silent_s >= ALIVE_EVERY_S:
                    silent_s = 0.0
                    parts.append(b": here\n\n")
                if parts:
                    yield b"".join(parts)
                await asyncio.sleep(pause_s)
        finally:
            self._streams -= 1
            service.queue.disconnect(tab)

    async def _predict(self, call: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(lambda: call(*arguments), limiter=self._predicting)

    async def _browse(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run in the gallery's own pool, so that scrolling through thousands of images does not delay answers."""
        return await to_thread.run_sync(lambda: call(*arguments), limiter=self._browsing)

    async def _fetch(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run in the pool for remote images, so that an unresponsive server does not block the gallery. Requests beyond
        a short queue fail at once with 503."""
        if self._fetches >= _FETCHING_THREADS + _MAX_FETCHES_WAITING:
            raise BadRequestError(503, "too many images are being fetched from other servers; retry later")
        self._fetches += 1  # a limiter counts a waiting task later, when others have passed the check
        try:
            return await to_thread.run_sync(lambda: call(*arguments), limiter=self._fetching)
        finally:
            self._fetches -= 1

    async def _store(self, call: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(lambda: call(*arguments), limiter=self._storing)


def _tab(sender: requests.Sender) -> Tab:
    return Tab(sender.session, sender.tab)


def _image_id(request: Request) -> str:
    """The image id in the path of the URL."""
    try:
        return msgspec.convert(request.path_params["image_id"], requests.ImageId)
    except msgspec.ValidationError as error:
        raise BadRequestError(404, "no such image") from error


def _event(name: str, document: Any, number: int | None = None) -> bytes:
    identity = f"id: {number}\n" if number is not None else ""
    return f"{identity}event: {name}\ndata: {replies.encode(document)}\n\n".encode()


def _json(document: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(replies.encode(document), status, media_type="application/json", headers=headers)


def _error(status: int, message: str) -> Response:
    return _json(replies.Failure(message), status)


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(getattr(error, "status_code", 404), f"nothing is at {request.url.path[:100]}")
