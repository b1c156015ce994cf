"""A client of TensorFlow Serving's REST API, for both the embedded server and TensorFlow Serving.

    with ServingClient("http://127.0.0.1:8501", "raccoon") as client:
        client.wait_for_version(1, timeout_s=60)
        detections = client.predict([image.data])

The exception tells whether a retry can help. `ServerUnavailableError`: the server is down or has no version loaded yet.
`RequestError`: the server refuses the request, or something other than a model server responds.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import IncompleteRead
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import Url

from odkeras.boxes import Detections, FloatArray
from odkeras.connections import Connections, basic_auth_headers, failure_reason, web_address
from odkeras.errors import ConfigError, RequestError, ServerUnavailableError
from odkeras.serving.protocol import NOT_LOADED

_RETRY_WAIT_S = 0.05
_POLL_S = 0.1
_STATUS_TIMEOUT_S = 5.0
_UNAVAILABLE = frozenset({429, 502, 503, 504})  # statuses of an overloaded or starting server or proxy
# The start of the 404 messages of TensorFlow Serving and of the embedded server that mean "not loaded (yet)".
_NOT_LOADED = ("Servable not found", "Could not find any versions", "Could not find version", NOT_LOADED)
_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
_KEYPOINTS = ("detection_keypoints", "detection_keypoint_scores")


@dataclass(frozen=True)
class VersionState:
    """The state of one version.

    Args:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: why the version failed; "" if it did not.
    """

    version: int
    state: str
    error: str = ""


class ServingClient:
    """A client of one model on one server. Thread-safe.

    Args:
        base_url: scheme, host and port of the REST API: `http://127.0.0.1:8501`. A user and password in the URL are
            sent as HTTP basic authentication.
        model_name: name of the served model.
        timeout_s: timeout of a request, in seconds, including retries.
        connect_timeout_s: timeout of a connection attempt, in seconds.
        retries: number of retries after a failed connection. Error responses are never retried.

    Raises:
        ConfigError: `base_url` is not a URL, or the proxy settings of the environment cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        model_name: str,
        *,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 2.0,
        retries: int = 2,
    ) -> None:
        self.base_url, self.model_name = base_url, model_name
        address = _checked_address(base_url)
        self._server = address._replace(auth=None).url.rstrip("/")
        self._path = f"/v1/models/{quote(model_name, safe='')}"
        self._timeout_s, self._connect_timeout_s, self._retries = timeout_s, connect_timeout_s, retries
        self._connections = Connections()
        try:
            self._http = self._connections.pool_for(self._server)
            self._login = basic_auth_headers(address)
        except (HTTPError, ValueError) as error:  # an unsupported proxy scheme, or a password not in latin-1
            raise ConfigError(
                f"{base_url} cannot be reached with the proxy settings of the environment: {error}"
            ) from error

    def __enter__(self) -> ServingClient:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._connections.close()

    def versions(self) -> list[VersionState]:
        """The states of the model's versions, ascending by number; [] if the server has none.

        Raises:
            ServerUnavailableError, RequestError: see the module's docstring.
        """
        try:
            document = self._ask("GET", self._path, timeout_s=min(self._timeout_s, _STATUS_TIMEOUT_S))
        except RequestError as error:
            if not _is_not_loaded(error):
                raise
            return []
        return sorted(map(_version_state, _list(document, "model_version_status")), key=lambda state: state.version)

    def model_names(self) -> list[str] | None:
        """The names of the server's models; None for TensorFlow Serving, whose REST API does not list them.

        Raises:
            ServerUnavailableError: see the module's docstring.
        """
        try:
            names = self._ask("GET", "/odkeras/models", timeout_s=min(self._timeout_s, _STATUS_TIMEOUT_S)).get("models")
        except RequestError:
            return None
        return [str(name) for name in names] if isinstance(names, list) else None

    def available_version(self) -> int | None:
        """The newest version that is available for predictions; None while the server is down or loading.

        Raises:
            RequestError: something other than a model server responds.
        """
        try:
            states = self.versions()
        except ServerUnavailableError:
            return None
        return max((state.version for state in states if state.state == "AVAILABLE"), default=None)

    def wait_for_version(self, at_least: int, timeout_s: float, stop: Callable[[], bool] | None = None) -> int:
        """Poll until version `at_least` or a later one is available, and return its number.

        Args:
            at_least: the lowest version number to accept.
            timeout_s: seconds to wait.
            stop: polled; True ends the wait.

        Raises:
            ServerUnavailableError: timeout, or `stop` returned True.
            RequestError: something other than a model server responds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            version = self.available_version()
            if version is not None and version >= at_least:
                return version
            if stop is not None and stop():
                raise ServerUnavailableError(f"stopped waiting for version {at_least} of {self.model_name}")
            if time.monotonic() >= deadline:
                raise ServerUnavailableError(self._why_not(at_least, timeout_s))
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

    def _why_not(self, at_least: int, timeout_s: float) -> str:
        try:
            states = self.versions()
        except ServerUnavailableError as error:
            return str(error)
        seen = [f"{state.version} is {state.state}" + (f" ({state.error})" if state.error else "") for state in states]
        versions = f"version {', version '.join(seen)}" if seen else "it has none"
        return f"{self._server} has no version {at_least} of {self.model_name} after {timeout_s:g} s: {versions}"

    def predict(self, images: Sequence[bytes], *, batch_size: int = 8, version: int | None = None) -> list[Detections]:
        """Predict the detections of each image.

        Args:
            images: encoded JPEG or PNG images.
            batch_size: maximum number of images per request.
            version: the version to use; None = the newest.

        Raises:
            ServerUnavailableError: see the module's docstring; also if `version` is not loaded (any more).
            RequestError: see the module's docstring.
        """
        detections: list[Detections] = []
        for start in range(0, len(images), batch_size):
            detections += self._predict_batch(images[start : start + batch_size], version)
        return detections

    def _predict_batch(self, images: Sequence[bytes], version: int | None) -> list[Detections]:
        instances = b",".join(b'{"b64":"%b"}' % b64encode(image) for image in images)
        body = b'{"instances":[%b]}' % instances
        path = self._path if version is None else f"{self._path}/versions/{version}"
        try:
            document = self._ask("POST", f"{path}:predict", body, timeout_s=self._timeout_s)
        except RequestError as error:
            if not _is_not_loaded(error):
                raise
            which = "yet" if version is None else f"version {version}"
            raise ServerUnavailableError(f"{self._server} has not loaded {self.model_name} {which}: {error}") from None
        predictions = _list(document, "predictions")
        if len(predictions) != len(images):
            raise RequestError(200, f"{self._server} gave {len(predictions)} predictions for {len(images)} images")
        return [parse_detections(prediction) for prediction in predictions]

    def _ask(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        for attempt in range(self._retries + 1):
            left_s = max(0.01, deadline - time.monotonic())
            timeout = urllib3.Timeout(connect=min(left_s, self._connect_timeout_s), read=left_s)
            try:
                return self._read(self._request(method, path, body, timeout))
            except ReadTimeoutError:
                raise ServerUnavailableError(f"{self._server} did not answer within {timeout_s:g} s") from None
            except HTTPError as error:
                if not _is_connection_error(error):
                    raise self._stranger(0, f"its answer is not HTTP/1.1 ({failure_reason(error)})") from None
                if attempt == self._retries or time.monotonic() + _RETRY_WAIT_S >= deadline:
                    raise ServerUnavailableError(
                        f"no model server at {self._server}: {failure_reason(error)}"
                    ) from None
            time.sleep(_RETRY_WAIT_S)
        raise AssertionError("unreachable")

    def _request(
        self, method: str, path: str, body: bytes | None, timeout: urllib3.Timeout
    ) -> urllib3.BaseHTTPResponse:
        headers = self._login if body is None else {"Content-Type": "application/json", **self._login}
        url = f"{self._server}{path}"
        return self._http.request(method, url, body=body, headers=headers, timeout=timeout, retries=False)

    def _read(self, response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        """Parse the response; raises the module's errors for anything but a successful JSON object."""
        is_error = response.status >= 400
        try:
            document = json.loads(response.data)
        except ValueError:
            document = None
        if response.status in _UNAVAILABLE:
            raise ServerUnavailableError(f"{self._server} is not ready: {_error_text(document, response)}")
        if not isinstance(document, dict) or (is_error and "error" not in document):
            kind = response.headers.get("content-type", "no content type")
            raise self._stranger(response.status, f"it answered with status {response.status} and {kind}")
        if is_error:
            raise RequestError(response.status, _error_text(document, response))
        return document

    def _stranger(self, status: int, what: str) -> RequestError:
        return RequestError(
            status,
            f"{self._server} is not TensorFlow Serving's REST API: {what}; "
            "check host and port (the REST port is 8501 unless set otherwise, 8500 is gRPC)",
        )


def _checked_address(base_url: str) -> Url:
    try:
        return web_address(base_url)
    except LocationParseError:
        raise ConfigError(
            f"{base_url!r} is not a server's address; it should look like http://127.0.0.1:8501"
        ) from None


def _is_not_loaded(error: RequestError) -> bool:
    """Whether the error means "no version loaded (yet)". Servers send the same error for an unknown model."""
    return error.status == 404 and error.message.startswith(_NOT_LOADED)


def _is_connection_error(error: HTTPError) -> bool:
    """Whether the connection failed or was lost. Otherwise the response is not valid HTTP."""
    if isinstance(error, ProtocolError):
        return isinstance(error.args[-1], (OSError, IncompleteRead))
    return isinstance(error, (NewConnectionError, ConnectTimeoutError, ProxyError, SSLError))


def _error_text(document: Any, response: urllib3.BaseHTTPResponse) -> str:
    if isinstance(document, dict) and "error" in document:
        return str(document["error"])
    return f"status {response.status}"


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    rows = document.get(key)
    if not isinstance(rows, list):
        raise RequestError(200, f"the server's answer has no list {key!r}; it has {sorted(document)}")
    return rows


def _version_state(row: Mapping[str, Any]) -> VersionState:
    status = row.get("status", {})
    error = "" if status.get("error_code", "OK") == "OK" else status.get("error_message") or status["error_code"]
    return VersionState(int(row["version"]), row.get("state", "UNKNOWN"), error)


def parse_detections(prediction: Any) -> Detections:
    """Convert one row of a predict response. Rows after `num_detections` are padding and are dropped.

    Raises:
        RequestError: the outputs are not those of a detection model.
    """
    missing = [name for name in _OUTPUTS if not isinstance(prediction, dict) or name not in prediction]
    if missing:
        has = sorted(prediction) if isinstance(prediction, dict) else type(prediction).__name__
        raise RequestError(
            200, f"the model is not an exported detection model: {missing} missing in its answer ({has})"
        )
    boxes, scores, classes, number = (prediction[name] for name in _OUTPUTS)
    try:
        count = int(number)
        return Detections(
            np.array(boxes[:count], np.float32),
            np.array(scores[:count], np.float32),
            np.array(classes[:count], np.float32).astype(np.int32),
            _parse_keypoints(prediction, count),
        )
    except (TypeError, ValueError) as error:
        raise RequestError(200, f"the model's answer is not that of a detection model: {error}") from None


def _parse_keypoints(prediction: Mapping[str, Any], count: int) -> FloatArray | None:
    """float32 (N, K, 3) [y, x, score]; None if the model predicts none."""
    if any(name not in prediction for name in _KEYPOINTS):
        return None
    points, scores = (np.array(prediction[name][:count], np.float32) for name in _KEYPOINTS)
    if not count:
        return None
    return np.concatenate([points, scores[..., np.newaxis]], axis=-1)
