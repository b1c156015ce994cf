from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odkeras.connections import is_loopback
from odkeras.web.security import (
    CONTENT_SECURITY_POLICY,
    Guard,
    Policy,
    host_name,
    names_of_this_machine,
)

TOKEN = "correct horse; battery=staple"
HOST = "127.0.0.1:8080"
JSON = {"content-type": "application/json"}
Headers = dict[str, str]


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        (value,) = [value for each, value in self.headers if each == name]
        return value

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body and says how long it was; 413 when it was cut off, 500 at /broken, 404 at /lost."""
    length, more = 0, True
    status = {"/broken": 500, "/lost": 404}.get(scope["path"], 200)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            status = 413
            break
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(length).encode()})


def ask(
    policy: Policy | None = None,
    headers: Headers | Iterable[tuple[bytes, bytes]] | None = None,
    *,
    method: str = "GET",
    path: str = "/",
    query: str = "",
    chunks: Iterable[bytes] = (b"",),
    host: str | None = HOST,
    port: int = 8080,
) -> Answer:
    given = headers.items() if isinstance(headers, dict) else headers or ()
    raw = [
        each if isinstance(each[0], bytes) else (each[0].encode("latin-1"), each[1].encode("latin-1")) for each in given
    ]
    if host is not None:
        raw.append((b"host", host.encode("latin-1")))
    scope: MutableMapping[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("latin-1"),
        "headers": raw,
        "server": ("127.0.0.1", port),
    }
    left = list(chunks)
    sent: list[Any] = []

    async def receive() -> Any:
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(echo, policy or Policy())(scope, receive, send))
    start, *bodies = sent
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return Answer(start["status"], pairs, b"".join(message["body"] for message in bodies))


def post(policy: Policy | None = None, headers: Headers | None = None, **more: Any) -> Answer:
    return ask(policy, {**JSON, **(headers or {})}, method="POST", path="/api/answers", **more)


class TestHealth:
    """A load balancer has no token, and its Host header is an address that it chose."""

    @pytest.mark.parametrize("host", [HOST, "10.0.0.7:8080", "evil.example", None])
    def test_it_answers_whoever_asks_and_says_nothing_else(self, host: str | None) -> None:
        answer = ask(Policy(token=TOKEN), path="/healthz", host=host)
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.header("cache-control") == "no-store"

    def test_other_methods_and_paths_need_the_token(self) -> None:
        assert post(Policy(token=TOKEN)).status == 401
        assert ask(Policy(token=TOKEN), method="POST", path="/healthz").status == 401
        assert ask(Policy(token=TOKEN), path="/healthz/").status == 401


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1:8080",
            "127.0.0.1",
            "localhost:8080",
            "LOCALHOST",
            "page.localhost:8080",
            "[::1]:8080",
            "192.168.1.7:8080",
            "box.example:8080",
            "BOX.example",
        ],
    )
    def test_accepted_values(self, host: str) -> None:
        assert ask(Policy(hosts=frozenset({"box.example"})), host=host).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            None,
            "",
            "evil.example",  # DNS rebinding: it has our address by now
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1@evil.example",
            "127.0.0.1:8080@evil.example",
            "evil.example/127.0.0.1",
            "evil.example#127.0.0.1",
            "evil.example?127.0.0.1",
            "2130706433",
            "0x7f000001",
            "[::1",
            "[evil]",
            "box.example.evil.example",
            "evil.example\\127.0.0.1",
            " ",
            "\xff",
        ],
    )
    def test_foreign_values_are_refused(self, host: str | None) -> None:
        for answer in (ask(Policy(hosts=frozenset({"box.example"})), host=host), post(host=host)):
            assert answer.status == 403
            assert "is not allowed" in answer.error

    def test_the_error_says_what_to_do(self) -> None:
        assert (
            ask(host="box.lan:8080").error == "the host 'box.lan:8080' is not allowed; --allowed-host box.lan adds it"
        )

    @pytest.mark.parametrize(
        ("header", "name"),
        [
            *[("A.b:80", "a.b"), ("[::1]:80", "::1"), ("", ""), ("[::1", ""), ("a:b:c", ""), ("x" * 9, "x" * 9)],
            *[("[fe80::1%25eth0]:80", "fe80::1%25eth0"), ("[::1].evil.com", ""), ("[::1]evil.com", "")],
            *[("127.0.0.1/evil.com", ""), ("a@127.0.0.1", ""), ("127.0.0.1#evil.com", ""), ("127.0.0.1:80:90", "")],
            *[("local host", ""), ("localhost\t", ""), ("127.0.0.1\n", "")],
        ],
    )
    def test_host_name(self, header: str, name: str) -> None:
        assert host_name(header) == name

    def test_this_machine(self) -> None:
        for name in names_of_this_machine():
            assert name == name.lower() != ""

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("127.0.0.1", True),
            ("127.8.8.8", True),
            ("::1", True),
            ("localhost", True),
            ("0.0.0.0", False),
            ("::", False),
            ("", False),
            ("192.168.1.7", False),
            ("box.lan", False),
        ],
    )
    def test_is_loopback(self, host: str, expected: bool) -> None:
        assert is_loopback(host) is expected


class TestOrigin:
    @pytest.mark.parametrize(
        "headers",
        [
            {},  # curl
            {"origin": f"http://{HOST}"},
            {"origin": f"https://{HOST}"},  # a proxy with TLS
            {"origin": f"HTTP://{HOST}".upper()},
            {"sec-fetch-site": "same-origin"},
            {"sec-fetch-site": "none"},
            {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"},
        ],
    )
    def test_accepted_values(self, headers: Headers) -> None:
        assert post(headers=headers).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "http://evil.example"},
            {"origin": "http://127.0.0.1:8081"},  # another program of this machine
            {"origin": "http://127.0.0.1"},
            {"origin": f"http://evil.example/{HOST}"},
            {"origin": f"http://{HOST}.evil.example"},
            {"origin": f"http://{HOST}@evil.example"},
            {"origin": "null"},  # a sandboxed frame, a file
            {"origin": ""},
            {"origin": "http://"},
            {"origin": "http://[::1"},  # `urlsplit` raised ValueError: status 500
            {"origin": "http://[evil]/"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": ""},
        ],
    )
    def test_foreign_values_are_refused(self, headers: Headers) -> None:
        answer = post(headers=headers)
        assert (answer.status, answer.error) == (403, "requests from other web pages are refused")

    def test_reading_needs_no_origin(self) -> None:
        """Other pages can have an image loaded, but not look at it: cross-origin-resource-policy."""
        answer = ask(headers={"origin": "http://evil.example", "sec-fetch-site": "cross-site"})
        assert answer.status == 200
        assert answer.header("cross-origin-resource-policy") == "same-origin"
        assert not [name for name, _ in answer.headers if name.startswith("access-control")]

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "WEIRD"])
    def test_other_methods_need_the_right_origin(self, method: str) -> None:
        assert ask(headers={"origin": "http://evil.example"}, method=method).status == 403


class TestContentType:
    @pytest.mark.parametrize("given", ["application/json", "Application/JSON; charset=utf-8", "application/json ;x"])
    def test_json(self, given: str) -> None:
        assert post(headers={"content-type": given}).status == 200

    @pytest.mark.parametrize(
        "given", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
    )
    def test_content_types_of_html_forms_are_refused(self, given: str) -> None:
        assert post(headers={"content-type": given}).status == 415
        assert ask(method="POST").status == 415


class TestSize:
    SMALL = Policy(max_body_bytes=10)

    def test_a_body_of_the_maximum_size_is_accepted(self) -> None:
        assert post(self.SMALL, {"content-length": "10"}, chunks=[b"x" * 10]).body == b"10"
        assert post(self.SMALL, chunks=[b"x" * 4, b"", b"x" * 6]).body == b"10"

    @pytest.mark.parametrize("length", ["11", "9" * 30, "9" * 5000, "-1", "", "1e1", " 5", "ten", "\xb2", "5,5"])
    def test_an_invalid_or_too_large_length_is_refused(self, length: str) -> None:
        answer = post(self.SMALL, {"content-length": length}, chunks=[b"x"])
        assert answer.status == 413
        assert answer.error == "the request is larger than 10 bytes"
        assert answer.header("connection") == "close"

    @pytest.mark.parametrize("headers", [{}, {"content-length": "5"}, {"transfer-encoding": "chunked"}])
    @pytest.mark.parametrize("chunks", [[b"x" * 11], [b"x" * 10, b"x"], [b"x"] * 40])
    def test_a_body_larger_than_the_limit_is_refused(self, headers: Headers, chunks: list[bytes]) -> None:
        assert post(self.SMALL, headers, chunks=chunks).status == 413

    def test_also_with_get(self) -> None:
        assert ask(self.SMALL, chunks=[b"x" * 11]).status == 413


def cookie_header(answer: Answer) -> str:
    """What a browser sends back."""
    return answer.header("set-cookie").partition(";")[0]


def log_in(token: str, given: str | None = None, *, query: str = "", port: int = 8080) -> Answer:
    link = urlencode({"token": token if given is None else given})
    return ask(Policy(token=token), query=f"{link}{query}", port=port)


class TestToken:
    POLICY = Policy(token=TOKEN)

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": TOKEN},
            {"authorization": "Bearer"},
            {"authorization": "Bearer "},
            {"cookie": "odkeras_token="},
            {"cookie": "odkeras_token=wrong"},
            {"cookie": f"other={TOKEN}"},
            {"cookie": ";;;=;"},
            {"cookie": "\xff\xfe"},
            {"x-token": TOKEN},
        ],
    )
    def test_requests_without_the_token_are_refused(self, headers: Headers) -> None:
        for answer in (ask(self.POLICY, headers), post(self.POLICY, headers), ask(self.POLICY, headers, path="/lost")):
            assert answer.status == 401
            assert "open the link" in answer.error
            assert TOKEN not in answer.body.decode()

    def test_bearer(self) -> None:
        assert post(self.POLICY, {"authorization": f"Bearer {TOKEN}"}).status == 200
        assert post(self.POLICY, {"authorization": f"bearer  {TOKEN} "}).status == 200

    def test_the_link_leads_to_a_cookie_and_away_from_itself(self) -> None:
        answer = log_in(TOKEN, query="&session=anna%20b")
        assert answer.status == 303
        assert answer.header("location") == "/?session=anna+b"
        assert answer.header("cache-control") == "no-store"
        attributes = answer.header("set-cookie").lower()
        assert "httponly" in attributes
        assert "samesite=strict" in attributes
        assert "path=/" in attributes
        assert ask(self.POLICY, {"cookie": cookie_header(answer)}, path="/api/project").status == 200
        assert post(self.POLICY, {"cookie": cookie_header(answer)}).status == 200

    @pytest.mark.parametrize("given", ["", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper()])
    def test_a_link_with_another_token(self, given: str) -> None:
        answer = log_in(TOKEN, given)
        assert answer.status == 401
        assert not [name for name, _ in answer.headers if name == "set-cookie"]

    def test_the_link_opens_nothing_but_the_page(self) -> None:
        query = urlencode({"token": TOKEN})
        assert ask(self.POLICY, query=query, path="/api/project").status == 401
        assert ask(self.POLICY, query=query, method="HEAD").status == 401
        assert ask(self.POLICY, JSON, query=query, method="POST").status == 401

    def test_a_session_without_a_name_is_kept(self) -> None:
        """The page asks for it."""
        assert log_in(TOKEN, query="&session=").header("location") == "/?session="

    def test_where_to_go_is_never_another_site(self) -> None:
        answer = log_in(TOKEN, query="&next=//evil.example&%0d%0aset-cookie:x=1")
        assert answer.header("location").startswith("/?next=%2F%2Fevil.example")
        assert not set(answer.header("location")) & set("\r\n")

    def test_cookies_of_other_programs_of_this_machine(self) -> None:
        """Cookies know no ports. One of another program that is not quite right hid ours: 401 for ever."""
        ours = cookie_header(log_in(TOKEN))
        for other in ("a b=1", 'x={"json": [1, 2]}', 'y="open', "z[0]=1", "=", "expires=1", "path=/x", "\xe9=1"):
            for cookie in (f"{other}; {ours}", f"{ours}; {other}"):
                assert ask(self.POLICY, {"cookie": cookie}).status == 200, cookie

    def test_two_servers_on_one_machine(self) -> None:
        """The second one's cookie replaced the first one's."""
        one, two = log_in("first token", port=8080), log_in("second token", port=8081)
        assert cookie_header(one).partition("=")[0] != cookie_header(two).partition("=")[0]
        both = f"{cookie_header(one)}; {cookie_header(two)}"
        assert ask(Policy(token="first token"), {"cookie": both}, port=8080).status == 200
        assert ask(Policy(token="second token"), {"cookie": both}, port=8081).status == 200

    def test_on_the_loopback_interface_there_is_none(self) -> None:
        assert ask(query="token=whatever").status == 200
        assert not Policy().is_token("")
        assert not Policy().is_token("None")

    def test_a_foreign_page_cannot_use_the_cookie(self) -> None:
        cookie = cookie_header(log_in(TOKEN))
        assert post(self.POLICY, {"cookie": cookie, "origin": "http://evil.example"}).status == 403

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=60))
    @example("a b;c=d,e\"f\\g'h%41+/")
    def test_any_token_survives_the_browser(self, token: str) -> None:
        answer = log_in(token)
        assert answer.status == 303
        parsed: SimpleCookie = SimpleCookie()
        parsed.load(cookie_header(answer))
        assert len(parsed) == 1
        assert ask(Policy(token=token), {"cookie": cookie_header(answer)}).status == 200


EXPECTED = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin-allow-popups",
}


class TestPageOfARefusal:
    """A person who follows an old link reads what to do; a program gets JSON, as ever."""

    BROWSER: ClassVar[Headers] = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    POLICY = Policy(token=TOKEN)

    @pytest.mark.parametrize("query", ["", "session=anna", "token=wrong"])
    @pytest.mark.parametrize("path", ["/", "/index.html", "/nowhere"])
    def test_a_missing_or_wrong_token(self, path: str, query: str) -> None:
        answer = ask(self.POLICY, self.BROWSER, path=path, query=query)
        assert answer.status == 401
        assert answer.header("content-type") == "text/html; charset=utf-8"
        assert answer.header("cache-control") == "no-store"
        text = answer.body.decode()
        assert "<h1>This page needs its link</h1>" in text
        assert "open the whole link that <code>odkeras annotate</code> printed" in text
        assert TOKEN not in text and '"error"' not in text

    def test_its_style_is_allowed_and_nothing_else(self) -> None:
        answer = ask(self.POLICY, self.BROWSER)
        style = re.search(r"<style>(.*?)</style>", answer.body.decode(), re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        policy = answer.header("content-security-policy")
        assert f"style-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy and "script-src" not in policy

    @pytest.mark.parametrize("path", ["/api/project", "/api/export/jsonl", "/images/" + "0" * 32])
    def test_data_is_refused_in_json(self, path: str) -> None:
        answer = ask(self.POLICY, self.BROWSER, path=path)
        assert answer.status == 401 and "open the link" in answer.error

    @pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
    def test_programs_get_json(self, accept: str) -> None:
        assert "open the link" in ask(self.POLICY, {"accept": accept}).error
        assert "open the link" in ask(self.POLICY).error

    def test_what_is_posted_is_refused_in_json(self) -> None:
        assert "open the link" in post(self.POLICY, self.BROWSER).error

    def test_an_unknown_host_is_named_as_text(self) -> None:
        answer = ask(Policy(), self.BROWSER, host="<b>evil.example")
        assert answer.status == 403
        assert "&lt;b&gt;evil.example" in answer.body.decode()
        assert "<b>" not in answer.body.decode()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ask(), 200),
        (ask(path="/lost"), 404),
        (ask(path="/broken"), 500),
        (ask(host="evil.example"), 403),
        (ask(Policy(token=TOKEN)), 401),
        (log_in(TOKEN), 303),
        (post(headers={"origin": "null"}), 403),
        (ask(method="POST"), 415),
        (post(Policy(max_body_bytes=1), {"content-length": "2"}), 413),
        (post(Policy(max_body_bytes=1), chunks=[b"xx"]), 413),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_every_response_has_the_security_headers(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert {name: answer.header(name) for name in EXPECTED} == EXPECTED


def test_the_policy_of_the_contract() -> None:
    for part in ("default-src 'none'", "script-src 'self'", "img-src 'self' data: blob:", "frame-ancestors 'none'"):
        assert part in CONTENT_SECURITY_POLICY


def test_what_is_no_request_passes() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Guard(app, Policy(token=TOKEN))({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


NAMES = ["host", "origin", "cookie", "authorization", "content-type", "content-length", "sec-fetch-site", "x"]


@given(
    headers=st.lists(st.tuples(st.sampled_from([name.encode() for name in NAMES]), st.binary(max_size=40)), max_size=8),
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"]),
    query=st.text(st.characters(max_codepoint=255), max_size=30),
    token=st.sampled_from([None, TOKEN]),
)
@example([(b"origin", b"http://[")], "POST", "", None)
@example([(b"content-type", b"application/json"), (b"content-length", b"9" * 5000)], "POST", "", None)
@example([(b"cookie", b'odkeras_token_8080="\\777')], "GET", "token=%ff&token", TOKEN)
def test_malformed_headers_never_cause_a_500(
    headers: list[tuple[bytes, bytes]], method: str, query: str, token: str | None
) -> None:
    for host in (None, HOST):
        answer = ask(Policy(token=token), headers, method=method, query=query, host=host)
        assert answer.status in (200, 303, 401, 403, 413, 415)
        assert {name: answer.header(name) for name in EXPECTED} == EXPECTED
