"""HTTP connection pools for clients: keep-alive, thread-safe, with the proxy settings of the environment."""

from __future__ import annotations

import threading
from collections.abc import Mapping
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

_KEPT_OPEN = 32  # per host; connections beyond that are opened on demand and closed after use


class Connections:
    """One connection pool per proxy, and one for direct connections. Thread-safe. `close()` is idempotent.

    Args:
        pool_classes: the pools of direct connections by scheme; None for those of urllib3.
    """

    def __init__(self, pool_classes: Mapping[str, type[urllib3.HTTPConnectionPool]] | None = None) -> None:
        self._pool_classes = pool_classes
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. Connections in use are closed when their request ends."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def pool_for(self, url: str) -> urllib3.PoolManager:
        """The pool for requests to `url`: the pool of its proxy, or the direct one.

        Raises:
            urllib3.exceptions.HTTPError: `url` is not an http(s) URL with a host, or the proxy URL is invalid.
        """
        proxy = _proxy_url(web_address(url))
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = pool = _open_pool(proxy)
                if not proxy and self._pool_classes is not None:
                    pool.pool_classes_by_scheme = dict(self._pool_classes)
            return self._pools[proxy]


def web_address(url: str) -> Url:
    """Parse an http(s) URL.

    Raises:
        urllib3.exceptions.LocationParseError: not an http(s) URL, or no host in it.
    """
    parts = parse_url(url)
    if parts.scheme not in ("http", "https") or not parts.host:
        raise LocationParseError(url)
    return parts


def basic_auth_headers(address: Url) -> dict[str, str]:
    """The basic authentication header for the user and password in a URL; {} if it has none."""
    return make_headers(basic_auth=unquote(address.auth)) if address.auth else {}


def is_timeout(error: Exception) -> bool:
    """Whether the request failed with a connect or read timeout."""
    cause = _cause(error)
    return isinstance(cause, TimeoutError) and not isinstance(cause, NewConnectionError)


def failure_reason(error: Exception) -> str:
    """The error's message, without the `<HTTPConnection object at 0x...>` that urllib3 puts in front."""
    cause: BaseException = _cause(error)
    if isinstance(cause, ProxyError):
        return f"the proxy of the environment: {failure_reason(cause.original_error)}"
    if isinstance(cause, NewConnectionError) and cause.__cause__ is not None:
        cause = cause.__cause__
    elif isinstance(cause, ProtocolError) and len(cause.args) > 1:
        cause = cause.args[1]
    return str(cause) or type(cause).__name__


def _cause(error: Exception) -> Exception:
    """The error of the last attempt, if urllib3 retried."""
    return error.reason or error if isinstance(error, MaxRetryError) else error


def _proxy_url(address: Url) -> str:
    """The proxy URL that the environment sets for `address`; "" for a direct connection.

    `no_proxy` is respected. Loopback addresses are always connected directly, since a proxy cannot reach them.
    """
    host = (address.host or "").strip("[]")
    if is_loopback(host) or proxy_bypass(host):
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


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address, reachable only from this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
