"""The served model, as the suggester uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from odkeras.boxes import Detections
from odkeras.serving.client import ServingClient

VERSION_TIMEOUT_S = 2.0
_PREDICT_TIMEOUT_S = 30.0


class RemoteModel:
    """A model at a model server. Thread-safe. Call `close` at the end.

    The version is polled with its own client: with the timeout and the retries of predictions, a server that hangs
    would block the status and every task.

    Args:
        url: base URL of the server.
        name: name of the model.
        is_running: whether the server can respond; polled before each look at the version. The socket of a server
            whose process has ended may still be open, so that a request would time out.
        has_learned: whether a version is trained.

    Attributes:
        client: the client for predictions.
        has_learned: as given.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        is_running: Callable[[], bool] = lambda: True,
        has_learned: Callable[[int], bool] = lambda version: True,
    ) -> None:
        self.has_learned = has_learned
        self._name = name
        self._stack = ExitStack()
        self.use(url, is_running)

    def use(self, url: str, is_running: Callable[[], bool]) -> None:
        """Use another server from now on; see the arguments of the class."""
        client = self._stack.enter_context(ServingClient(url, self._name, timeout_s=_PREDICT_TIMEOUT_S))
        version_client = ServingClient(url, self._name, timeout_s=VERSION_TIMEOUT_S, retries=0)
        self._version_client = self._stack.enter_context(version_client)
        self.client, self._is_running = client, is_running

    def close(self) -> None:
        self._stack.close()

    def available_version(self) -> int | None:
        """The version being served; None while the server is down or loading. Returns within two seconds.

        Raises:
            RequestError: something other than a model server responds at that port.
        """
        return self._version_client.available_version() if self._is_running() else None

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
        """See `ServingClient.predict`."""
        return self.client.predict(images, batch_size=batch_size, version=version)
