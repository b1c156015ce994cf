"""The model server's web application: `protocol` reads a request and writes the answer that a `ServedModel` gives.

Answers about status and metadata are given at once, also while TensorFlow is still being imported; predictions are made
in a pool of threads, `threads` at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from odkeras.errors import RequestError
from odkeras.serving import protocol
from odkeras.serving.json_tensors import decode_inputs, encode_outputs, parse_document, signature_name_of
from odkeras.serving.protocol import DEFAULT_SIGNATURE, Call
from odkeras.serving.versions import ServedModel

log = logging.getLogger(__name__)

DEFAULT_MAX_BODY_BYTES = 128 * 2**20
DEFAULT_THREADS = 4
MODELS_PATH = "/odkeras/models"
"""Lists the names of the models, which TensorFlow Serving's REST API does not."""
THREAD_NAMES = "odkeras-serving-request"


def create_app(
    models: Mapping[str, ServedModel],
    *,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    threads: int = DEFAULT_THREADS,
) -> ASGIApp:
    """The application. The caller owns the models: they are to be running before it and closed after it."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=THREAD_NAMES)

    async def answer(request: Request) -> Response:
        path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
        try:
            body = await _read_body(request, max_body_bytes)
            document = await _answer(models, pool, request.method, path, body)
        except RequestError as error:
            return _json(protocol.error_document(error.message), error.status)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            log.exception("%s %s failed", request.method, path)
            return _json(protocol.error_document(f"{type(error).__name__}: {error}"), 500)
        return _json(document, 200)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    rest = Starlette(lifespan=lifespan)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette's middleware and router, which no path needs, take 0.2 ms of a request."""
        if scope["type"] == "http":
            response = await answer(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return app


def _json(document: bytes, status: int) -> Response:
    return Response(document, status_code=status, media_type="application/json")


async def _answer(
    models: Mapping[str, ServedModel], pool: ThreadPoolExecutor, http_method: str, path: str, body: bytes
) -> bytes:
    if (http_method, path) == ("GET", MODELS_PATH):
        return json.dumps({"models": sorted(models)}).encode()
    if not protocol.is_api_path(path):
        known = ", ".join(f"/v1/models/{name}" for name in models)
        raise RequestError(404, f"nothing is at {path}; this is an odkeras model server, which answers at {known}")
    call = protocol.parse_call(http_method, path)
    if call.verb == "status":
        return _status(models, call)
    if call.verb == "metadata":
        return await asyncio.get_running_loop().run_in_executor(pool, _metadata, models, call)
    return await asyncio.get_running_loop().run_in_executor(pool, _predict, models, call, body)


def _status(models: Mapping[str, ServedModel], call: Call) -> bytes:
    protocol.check_label(call)
    model = models.get(call.model_name)
    if model is None:
        raise call.unknown()
    return protocol.status_document(model.statuses(call))


def _metadata(models: Mapping[str, ServedModel], call: Call) -> bytes:
    with _model(models, call).lease(call) as lease:
        return protocol.metadata_document(call.model_name, lease.version, lease.servable.signatures)


def _predict(models: Mapping[str, ServedModel], call: Call, body: bytes) -> bytes:
    document = parse_document(body)
    signature_name = signature_name_of(document)
    with _model(models, call).lease(call) as lease:
        signature = protocol.signature_for(call.verb, signature_name, lease.servable.signatures)
        inputs, row_format = decode_inputs(document, signature.inputs, body)
        outputs = lease.servable.run(signature_name or DEFAULT_SIGNATURE, inputs)
    return encode_outputs(outputs, row_format)


def _model(models: Mapping[str, ServedModel], call: Call) -> ServedModel:
    protocol.check_label(call)
    model = models.get(call.model_name)
    if model is None:
        raise call.unloaded()
    return model


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """The body, unpacked if it came gzipped. One that is too large is read to its end but not kept: then the client
    gets to read the refusal."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        else:
            chunks.clear()
    if size > max_bytes:
        raise _too_large(size, max_bytes)
    body = b"".join(chunks)
    return _gunzip(body, max_bytes) if request.headers.get("content-encoding", "").lower() == "gzip" else body


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        unpacked = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is not gzip, as its Content-Encoding says: {error}") from None
    if len(unpacked) > max_bytes:
        raise _too_large(len(unpacked), max_bytes)
    return unpacked


def _too_large(size: int, max_bytes: int) -> RequestError:
    return RequestError(
        413, f"the request has {size} bytes, more than the {max_bytes} that are allowed; send fewer or smaller images"
    )
