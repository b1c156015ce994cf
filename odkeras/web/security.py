"""Access control of the page's server: host names, tokens, origins, request sizes, security headers.

On the loopback interface, everyone on this machine has access. Other web pages do not, although the browser that shows
them could reach the server: their requests have a different Origin or (DNS rebinding) a different Host. On any other
interface, a token is required too.
"""

from __future__ import annotations

import hmac
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from odkeras.web import refusal
from odkeras.web.attempts import WINDOW_S, TokenAttempts
from odkeras.web.audit import note_refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 4 * 2**20
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin-allow-popups"),
)
_COOKIE = "odkeras_token"
_MAX_DIGITS = 18
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<name>[^\s\[\]:/\\?#@]+))(?::\d{1,5})?")
_READING = ("GET", "HEAD")
HEALTH_PATH = "/healthz"
"""Answers whoever asks, without a token: a load balancer must see that the server runs. It says nothing else."""


@dataclass(frozen=True)
class Policy:
    """The access rules.

    Args:
        token: required in every request; None on the loopback interface.
        hosts: allowed host names, in addition to IP addresses and localhost.
        max_body_bytes: larger requests are refused.
    """

    token: str | None = None
    hosts: frozenset[str] = field(default_factory=frozenset)
    max_body_bytes: int = MAX_BODY_BYTES

    def knows_host(self, host: str) -> bool:
        """Whether a Host header is allowed. IP addresses always are, because DNS rebinding needs a name."""
        name = host_name(host)
        return _is_address(name) or name == "localhost" or name.endswith(".localhost") or name in self.hosts

    def is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def names_of_this_machine() -> frozenset[str]:
    """This machine's host names, in lower case."""
    names = set()
    with suppress(OSError):
        names.add(socket.gethostname().lower())
        names.add(socket.getfqdn().lower())
    return frozenset(name for name in names if name)


def host_name(host: str) -> str:
    """The name in a Host header, without port, in lower case; "" if it is anything else than a name or an address with
    an optional port: `urlsplit` takes `[::1].evil.com` for `::1`."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"]).lower() if match else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware that enforces the policy and adds security headers to every response."""

    def __init__(self, app: App, policy: Policy) -> None:
        self._app = app
        self._policy = policy
        self._attempts = TokenAttempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] == HEALTH_PATH and scope["method"] in _READING:
            await _say_ok(send)
            return

        refused = self._refusal(scope, headers)
        is_page = refused is not None and refusal.wants_page(scope["method"], scope["path"], headers.get("accept", ""))
        content = refusal.CONTENT_SECURITY_POLICY if is_page else CONTENT_SECURITY_POLICY

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = (b"content-security-policy", content.encode()), *_HEADERS
                message["headers"] = [*message.get("headers", ()), *ours]
            await send(message)

        if refused is not None:
            client = _client(scope)
            note_refusal(client, scope["method"], scope["path"], headers.get("host", ""), *refused)
            await _answer(send_guarded, *refused, is_page=is_page)
        elif (there := self._after_login(scope)) is not None:
            await _redirect(send_guarded, there, _cookie(scope, str(self._policy.token)))
        else:
            await self._app(scope, _Limited(receive, self._policy.max_body_bytes), send_guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        policy, host = self._policy, headers.get("host", "")
        if not policy.knows_host(host):
            return 403, f"the host {host[:100]!r} is not allowed; --allowed-host {host_name(host)[:100]} adds it"
        if policy.token is not None and self._attempts.is_blocked(_client(scope)):
            return 429, f"too many wrong tokens; wait {WINDOW_S:g} s"
        if policy.token is not None and not self._has_token(scope, headers):
            return 401, "this page needs its token: open the link that `odkeras annotate` printed"
        if scope["method"] in _READING:
            return None
        if not _is_same_origin(headers, host):
            return 403, "requests from other web pages are refused"
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "send application/json"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > _MAX_DIGITS or int(length) > policy.max_body_bytes:
            return 413, f"the request is larger than {policy.max_body_bytes} bytes"
        return None

    def _has_token(self, scope: Scope, headers: dict[str, str]) -> bool:
        given = _given_tokens(scope, headers)
        if any(map(self._policy.is_token, given)):
            return True
        for token in given:
            self._attempts.note_wrong(_client(scope), token)
        return False

    def _after_login(self, scope: Scope) -> str | None:
        """Redirect target after a login by link: the URL without the token, which must not stay in the history. None if
        the request has no valid token in its URL."""
        if self._policy.token is None or not any(map(self._policy.is_token, _tokens_in_link(scope))):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        left = urlencode([(name, value) for name, value in query if name != "token"])
        return f"/?{left}" if left else "/"


class _Limited:
    """A `receive` that disconnects after `max_bytes`, whatever Content-Length said."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left = max_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            return {"type": "http.disconnect"}
        return message


def _given_tokens(scope: Scope, headers: dict[str, str]) -> list[str]:
    """The tokens that a request brings along: as a bearer token, in cookies, in the link."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    tokens = [credentials.strip()] if scheme.lower() == "bearer" else []
    for cookie in headers.get("cookie", "").split(";"):  # by hand: a parser may reject other servers' cookies
        name, _, value = cookie.strip().partition("=")
        if name == _cookie_name(scope):
            tokens.append(unquote(value))
    return [*tokens, *_tokens_in_link(scope)]


def _tokens_in_link(scope: Scope) -> list[str]:
    if scope["method"] != "GET" or scope["path"] != "/":
        return []
    query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
    return [query["token"]] if "token" in query else []


def _client(scope: Scope) -> str:
    """The address of the client; that of the proxy behind which it is, unless the proxy runs on this machine."""
    return str((scope.get("client") or ("unknown",))[0])


def _cookie_name(scope: Scope) -> str:
    """Cookies are per host and shared between ports, so the name contains the port: two servers on one machine must not
    overwrite each other's cookie."""
    _, port = scope.get("server") or ("", None)
    return f"{_COOKIE}_{port}"


def _cookie(scope: Scope, token: str) -> str:
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{_cookie_name(scope)}={quote(token, safe='')}; HttpOnly; Path=/; SameSite=Strict{secure}"


def _is_same_origin(headers: dict[str, str], host: str) -> bool:
    """Whether the request comes from our own page. Browsers send Origin with every POST. A client that sends neither
    Origin nor Sec-Fetch-Site is not a browser, so no foreign page can have made it send the request."""
    origin = headers.get("origin")
    if origin is not None:
        with suppress(ValueError):
            return urlsplit(origin).netloc.lower() == host.lower()
        return False
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


async def _answer(send: Send, status: int, error: str, *, is_page: bool) -> None:
    """Send an error: HTML for a browser's navigation, else JSON."""
    body = refusal.page_body(status, error) if is_page else refusal.json_body(error)
    media_type = b"text/html; charset=utf-8" if is_page else b"application/json"
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    headers += [(b"cache-control", b"no-store"), (b"vary", b"accept")]
    headers.append((b"connection", b"close"))  # the rest of the request's body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _say_ok(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2"), (b"cache-control", b"no-store"), *_HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def _redirect(send: Send, location: str, cookie: str) -> None:
    headers = [(b"location", location.encode("latin-1")), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    headers.append((b"set-cookie", cookie.encode("latin-1")))
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
