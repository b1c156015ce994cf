"""The web application, asked without a socket; a fake stands in for TensorFlow."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from odkeras.serving.app import create_app
from odkeras.serving.versions import ServedModel
from tests.fixtures_serving import FakeBackend, write_version

LIMIT = 2000
PREDICT = "/v1/models/raccoon:predict"


class Service:
    """One model whose version 3 adds 3, behind the application."""

    def __init__(self, base_path: Path) -> None:
        self.base_path = base_path
        self.backend = FakeBackend()
        self.model = ServedModel("raccoon", base_path, lambda: self.backend)
        self.app = create_app({"raccoon": self.model}, max_body_bytes=LIMIT, threads=2)

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["content"] = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return asyncio.run(_ask(self.app, lambda client: client.request(method, path, **options)))

    def add(self, version: int, value: str, graph: str = "graph") -> None:
        write_version(self.base_path, version, value, graph)
        self.model.poll_once()


async def _ask(app: Starlette, send: Callable[[httpx.AsyncClient], Any]) -> Any:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await send(client)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "export")
    yield service
    for servable in service.backend.loaded:
        servable.leave.set()


def test_the_models_are_listed(empty: Service) -> None:
    """TensorFlow Serving's REST API has no such list. Clients use it to suggest the right name."""
    assert empty.ask("GET", "/odkeras/models").json() == {"models": ["raccoon"]}
    assert empty.ask("POST", "/odkeras/models", {}).status_code == 404


@pytest.fixture
def service(empty: Service) -> Service:
    empty.add(3, "3")
    return empty


def error_of(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return response.status_code, response.json()["error"]


@pytest.mark.parametrize("path", ["/v1/models/raccoon", "/v1/models/raccoon/versions/3"])
def test_status(service: Service, path: str) -> None:
    response = service.ask("GET", path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {
        "model_version_status": [
            {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models/raccoon", (404, "no loaded version of model 'raccoon'")),
        ("/v1/models/raccoon/versions/3", (404, "no loaded version 3 of model 'raccoon'")),
        ("/v1/models/raccoon/metadata", (404, "no loaded version of model 'raccoon'")),
        ("/v1/models/fox", (404, "no loaded version of model 'fox'")),
    ],
)
def test_requests_before_the_first_version_get_404(empty: Service, path: str, expected: tuple[int, str]) -> None:
    assert error_of(empty.ask("GET", path)) == expected


def test_metadata(service: Service) -> None:
    document = service.ask("GET", "/v1/models/raccoon/metadata").json()
    assert document["model_spec"] == {"name": "raccoon", "signature_name": "", "version": "3"}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert sorted(signatures) == ["serving_default", "two"]
    assert signatures["two"]["inputs"]["b"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"instances": [1.0, 2.5]}, {"predictions": [4.0, 5.5]}),
        ({"instances": [{"x": 1.0}]}, {"predictions": [4.0]}),
        ({"signature_name": "serving_default", "instances": [1]}, {"predictions": [4.0]}),
        ({"inputs": [1.0, 2.5]}, {"outputs": [4.0, 5.5]}),
        (
            {"signature_name": "two", "instances": [{"a": 1, "b": "t"}, {"a": 2, "b": {"b64": "aGVsbG8="}}]},
            {
                "predictions": [
                    {"sum": 4.0, "text_bytes": {"b64": "dA=="}},
                    {"sum": 5.0, "text_bytes": {"b64": "aGVsbG8="}},
                ]
            },
        ),
        (
            {"signature_name": "two", "inputs": {"a": [1], "b": ["t"]}},
            {"outputs": {"sum": [4.0], "text_bytes": [{"b64": "dA=="}]}},
        ),
    ],
)
@pytest.mark.parametrize("path", [PREDICT, "/v1/models/raccoon/versions/3:predict"])
def test_predict(service: Service, path: str, body: Any, expected: Any) -> None:
    response = service.ask("POST", path, body)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == expected


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (PREDICT, "", 400, "the request body is not valid JSON: "),
        ("/v1/models/fox:predict", '{"instances": [1]}', 404, "no loaded version of model 'fox'"),
        (
            "/v1/models/raccoon/versions/50:predict",
            '{"instances": [1]}',
            404,
            "no loaded version 50 of model 'raccoon'",
        ),
        (PREDICT, '{"signature_name": "foo", "instances": [1]}', 400, "the model has no signature 'foo' with inputs"),
        (PREDICT, '{"instances": ["a"]}', 400, "input 'x' must be DT_FLOAT; got \"a\""),
        (PREDICT, '{"instances": [[1]]}', 400, "input 'x' has shape [1,1], but the signature expects [-1]"),
        (PREDICT, '{"instances": [-1]}', 400, "x must not be negative"),  # the model refuses it
        (PREDICT, '{"instances": [2e6]}', 500, "ZeroDivisionError: a mistake of ours"),
        ("/v1/models/raccoon:classify", '{"examples": [{"x": 1}]}', 400, ":classify is not supported"),
        ("/v1/models/raccoon/labels/stable:predict", '{"instances": [1]}', 400, "version labels are not supported"),
        (PREDICT, "x" * (LIMIT + 1), 413, f"the request has {LIMIT + 1} bytes, more than the {LIMIT} that are allowed"),
    ],
)
def test_errors_have_a_status_and_a_message(service: Service, path: str, body: str, status: int, message: str) -> None:
    found, text = error_of(service.ask("POST", path, body))
    assert found == status
    assert text.startswith(message)


def test_a_body_without_a_length_is_limited_too(service: Service) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    status, message = error_of(service.ask("POST", PREDICT, content=chunks()))
    assert (status, message.split(",")[0]) == (413, "the request has 3000 bytes")


def test_gzip(service: Service) -> None:
    headers = {"content-encoding": "gzip"}
    body = gzip.compress(b'{"instances": [1]}')
    assert service.ask("POST", PREDICT, body, headers=headers).json() == {"predictions": [4.0]}
    assert error_of(service.ask("POST", PREDICT, b"not gzip", headers=headers))[0] == 400
    bomb = gzip.compress(b" " * 100 * LIMIT)
    assert error_of(service.ask("POST", PREDICT, bomb, headers=headers))[0] == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_unsupported_methods_get_400(service: Service, method: str) -> None:
    status, message = error_of(service.ask(method, PREDICT))
    assert status == 400
    assert message.startswith(f"no such request: {method} {PREDICT}")


def test_unknown_paths_get_404_with_a_hint(service: Service) -> None:
    status, message = error_of(service.ask("GET", "/"))
    assert status == 404
    assert message == ("nothing is at /; this odkeras model server offers /v1/models/raccoon")


def test_status_answers_while_predictions_are_running(service: Service) -> None:
    """All threads of the pool are busy, but the status needs none of them."""
    (servable,) = service.backend.loaded
    servable.hold = True

    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        predictions = [asyncio.create_task(client.post(PREDICT, json={"instances": [number]})) for number in range(4)]
        await asyncio.to_thread(servable.entered.wait, 10)
        status = await client.get("/v1/models/raccoon")
        assert not any(prediction.done() for prediction in predictions)
        servable.leave.set()
        return [status, *[await prediction for prediction in predictions]]

    status, *predictions = asyncio.run(_ask(service.app, talk))
    assert status.status_code == 200
    assert [prediction.json() for prediction in predictions] == [{"predictions": [number + 3.0]} for number in range(4)]


def test_no_request_fails_while_versions_change(service: Service) -> None:
    """Every answer is of one whole version; versions change in place (odd) and by a swap (even)."""
    done = threading.Event()

    def change() -> None:
        for version in range(4, 12):
            service.add(version, str(version), graph=f"graph {version // 2}")
        done.set()

    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        thread = threading.Thread(target=change)
        thread.start()
        responses = []
        while not done.is_set():
            responses += await asyncio.gather(*[client.post(PREDICT, json={"instances": [0]}) for _ in range(4)])
        thread.join()
        return [*responses, await client.post(PREDICT, json={"instances": [0]})]

    responses = asyncio.run(_ask(service.app, talk))
    assert {response.status_code for response in responses} == {200}
    values = [response.json()["predictions"][0] for response in responses]
    assert set(values) <= {float(value) for value in range(3, 12)}
    assert values[-1] == 11.0
