"""HTTP connections of clients: kept open, for several threads, by way of a proxy where the environment names one."""

from __future__ import annotations

import threading
from ipaddress import ip_address
from types import TracebackType
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    LocationParseError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    TimeoutError,
)
from urllib3.util import Url, make_headers, parse_url

_KEPT_OPEN = 32  # for each host; more are opened where they are needed


class Connections:
    """Pools of connections. `close()` may be called twice."""

    def __init__(self) -> None:
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close those that nobody uses; the others are closed when they are given back."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def pool_for(self, url: str) -> urllib3.PoolManager:
        """The pool to ask for `url` with: one through its proxy, or a direct one.

        Raises:
            urllib3.exceptions.HTTPError: it is no http(s) URL with a host, or the proxy cannot be used.
        """
        proxy = _proxy_of(web_address(url))
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _open_pool(proxy)
            return self._pools[proxy]


def web_address(url: str) -> Url:
    """The parts of an http(s) URL.

    Raises:
        urllib3.exceptions.LocationParseError: it is none, or names no host.
    """
    parts = parse_url(url)
    if parts.scheme not in ("http", "https") or not parts.host:
        raise LocationParseError(url)
    return parts


def login_of(address: Url) -> dict[str, str]:
    """The header that carries a URL's user and password, where it has them."""
    return make_headers(basic_auth=unquote(address.auth)) if address.auth else {}


def is_timeout(error: Exception) -> bool:
    """Whether there was no connection, or no answer, in time."""
    cause = _cause(error)
    return isinstance(cause, TimeoutError) and not isinstance(cause, NewConnectionError)


def reason_of(error: Exception) -> str:
    """What went wrong, without the connection's address in Python's notation."""
    cause: BaseException = _cause(error)
    if isinstance(cause, ProxyError):
        return f"the proxy of the environment: {reason_of(cause.original_error)}"
    if isinstance(cause, NewConnectionError) and cause.__cause__ is not None:
        cause = cause.__cause__
    elif isinstance(cause, ProtocolError) and len(cause.args) > 1:
        cause = cause.args[1]
    return str(cause) or type(cause).__name__


def _cause(error: Exception) -> Exception:
    """What the last try said."""
    return error.reason or error if isinstance(error, MaxRetryError) else error


def _proxy_of(address: Url) -> str:
    """The proxy that the environment names, "" for none: as for programs that do without, `no_proxy` lists hosts that
    are asked directly. This machine always is: a proxy is meant for hosts far away."""
    host = (address.host or "").strip("[]")
    if _is_loopback(host) or proxy_bypass(host):
        return ""
    proxies = getproxies()
    return proxies.get(address.scheme or "", "") or proxies.get("all", "")


def _open_pool(proxy: str) -> urllib3.PoolManager:
    if not proxy:
        return urllib3.PoolManager(maxsize=_KEPT_OPEN)
    address = parse_url(proxy)
    if not address.host:
        raise LocationParseError(proxy)
    headers = make_headers(proxy_basic_auth=unquote(address.auth)) if address.auth else None
    return urllib3.ProxyManager(proxy, maxsize=_KEPT_OPEN, proxy_headers=headers)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
