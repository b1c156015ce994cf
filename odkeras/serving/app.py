"""The ASGI application of the model server.

It responds while TensorFlow is still being imported: the status then lists the version that will be loaded. Predictions
run in a thread pool, in which clients take turns.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from odkeras.config.settings import DEFAULT_MAX_PIXELS
from odkeras.errors import RequestError
from odkeras.heartbeat import busy
from odkeras.serving.fair_queue import FairQueue
from odkeras.serving.json_tensors import PredictRequest, encode_outputs
from odkeras.serving.load import PixelBudget
from odkeras.serving.protocol import (
    DEFAULT_SIGNATURE,
    ApiRequest,
    error_document,
    find_signature,
    metadata_document,
    status_document,
)
from odkeras.serving.versions import ServedModel

log = logging.getLogger(__name__)

DEFAULT_MAX_BODY_BYTES = 128 * 2**20
DEFAULT_THREADS = 4
MODELS_PATH = "/odkeras/models"
"""Lists the names of the models. TensorFlow Serving's REST API has no such path."""
THREAD_NAMES = "odkeras-serving-request"


def create_app(
    models: Mapping[str, ServedModel],
    *,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    threads: int = DEFAULT_THREADS,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ASGIApp:
    """Create the ASGI application. The caller starts the models before it and closes them after it.

    Args:
        models: the served models, by name.
        max_body_bytes: maximum size of a request body, before and after decompression; larger ones get 413.
        threads: number of predictions that run at the same time.
        max_pixels: maximum pixels of an image; see `PixelBudget`.
    """
    queue = FairQueue(threads, thread_names=THREAD_NAMES)
    budget = PixelBudget(max_pixels)

    async def handle(request: Request) -> Response:
        path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
        try:
            body = await _read_body(request, max_body_bytes)
            client = request.client.host if request.client else ""
            document = await _dispatch(models, partial(queue.run, client), budget, request.method, path, body)
        except RequestError as error:
            return _json(error_document(error.message), error.status)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            log.exception("%s %s failed", request.method, path)
            return _json(error_document(f"{type(error).__name__}: {error}"), 500)
        return _json(document, 200)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            queue.close()

    rest = Starlette(lifespan=lifespan)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Bypasses Starlette's middleware and router, which take 0.2 ms per request and which no path needs.
        if scope["type"] == "http":
            response = await handle(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return app


def _json(document: bytes, status: int) -> Response:
    return Response(document, status_code=status, media_type="application/json")


async def _dispatch(
    models: Mapping[str, ServedModel],
    run: Callable[..., Awaitable[bytes]],
    budget: PixelBudget,
    http_method: str,
    path: str,
    body: bytes,
) -> bytes:
    if (http_method, path) == ("GET", MODELS_PATH):
        return json.dumps({"models": sorted(models)}).encode()
    if not path.lower().startswith("/v1/"):
        urls = ", ".join(f"/v1/models/{name}" for name in models)
        raise RequestError(404, f"nothing is at {path}; this odkeras model server offers {urls}")
    request = ApiRequest.parse(http_method, path)
    model = models.get(request.model_name)
    if model is None:
        raise request.not_loaded()
    if request.action == "status":
        # Not in the queue, so that clients can poll for a version while all threads are predicting.
        return status_document(model.statuses(request))
    if request.action == "metadata":
        return await run(_metadata, model, request)
    return await run(_predict, model, budget, request, body)


def _metadata(model: ServedModel, request: ApiRequest) -> bytes:
    with model.lease(request) as lease:
        return metadata_document(request.model_name, lease.version, lease.servable.signatures)


def _predict(model: ServedModel, budget: PixelBudget, request: ApiRequest, body: bytes) -> bytes:
    predict_request = PredictRequest.parse(body)
    with model.lease(request) as lease:
        signature = find_signature(lease.servable.signatures, predict_request.signature_name)
        inputs = predict_request.decode(signature.inputs)
        with budget.reserve(inputs), busy():
            outputs = lease.servable.run(predict_request.signature_name or DEFAULT_SIGNATURE, inputs)
    return encode_outputs(outputs, predict_request.row_format)


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """The request body, decompressed if its Content-Encoding is gzip.

    Raises:
        RequestError: 413, it is larger than `max_bytes`; 400, it is not gzip.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        else:
            chunks.clear()  # keep reading: most clients read the response only after they have sent the whole body
    if size > max_bytes:
        raise _too_large(size, max_bytes)
    body = b"".join(chunks)
    return _gunzip(body, max_bytes) if request.headers.get("content-encoding", "").lower() == "gzip" else body


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        decompressed = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is not gzip, as its Content-Encoding says: {error}") from None
    if len(decompressed) > max_bytes:
        raise _too_large(len(decompressed), max_bytes)
    return decompressed


def _too_large(size: int, max_bytes: int) -> RequestError:
    return RequestError(
        413, f"the request has {size} bytes, more than the {max_bytes} that are allowed; send fewer or smaller images"
    )
