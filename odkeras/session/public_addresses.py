"""HTTP connections that end in time, and that reach public addresses only.

The address is checked on the connected socket, before the request is sent: a name may be resolved to another address
than a moment ago.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator


class PrivateAddressError(HTTPError):
    """A redirect leads to an address that is not public.

    Args:
        host: the address or the name.
    """

    def __init__(self, host: str) -> None:
        super().__init__(
            f"it is redirected to {host}, which is not a public address; if you trust the server, allow it with "
            "--allow-private-urls"
        )


def is_private(host: str) -> bool:
    """Whether `host` is `localhost` or an IP address that is not public: of this machine, a local network or a cloud's
    metadata service. False for any other name."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return not (mapped or address).is_global


def timed_pools(*, only_public: bool = False) -> Mapping[str, type[urllib3.HTTPConnectionPool]]:
    """Pool classes by scheme. A server has the read timeout for all headers together: urllib3 starts it again with each
    byte.

    Args:
        only_public: raise `PrivateAddressError` on a connection to an address that is not public.
    """
    return _PUBLIC_POOLS if only_public else _POOLS


class _Timed:
    """Mixed into a connection."""

    def getresponse(self) -> Any:
        with _shut_down_after(self.sock):  # type: ignore[attr-defined]
            return super().getresponse()  # type: ignore[misc]


class _Public(_Timed):
    """Mixed into a connection."""

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        peer = self.sock.getpeername()[0]  # type: ignore[attr-defined]
        if is_private(peer):
            self.close()  # type: ignore[attr-defined]
            raise PrivateAddressError(f"{self.host} ({peer})")  # type: ignore[attr-defined]


@contextmanager
def _shut_down_after(connected: socket.socket) -> Iterator[None]:
    """Raise ReadTimeoutError if the block takes longer than the timeout of a socket."""
    timed_out = threading.Event()

    def shut_down() -> None:
        timed_out.set()
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(connected.gettimeout() or threading.TIMEOUT_MAX, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timed_out.is_set():  # the block may have taken the end of the connection for the end of the headers
            raise ReadTimeoutError(None, "", "the headers are not complete")  # type: ignore[arg-type]


class _TimedHttp(_Timed, HTTPConnection):
    pass


class _TimedHttps(_Timed, HTTPSConnection):
    pass


class _PublicHttp(_Public, HTTPConnection):
    pass


class _PublicHttps(_Public, HTTPSConnection):
    pass


def _pool_class(base: type[urllib3.HTTPConnectionPool], connection: Any) -> type[urllib3.HTTPConnectionPool]:
    return type(connection.__name__, (base,), {"ConnectionCls": connection})


_POOLS = {
    "http": _pool_class(urllib3.HTTPConnectionPool, _TimedHttp),
    "https": _pool_class(urllib3.HTTPSConnectionPool, _TimedHttps),
}
_PUBLIC_POOLS = {
    "http": _pool_class(urllib3.HTTPConnectionPool, _PublicHttp),
    "https": _pool_class(urllib3.HTTPSConnectionPool, _PublicHttps),
}
