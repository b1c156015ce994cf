from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest
from image_server import image_server
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError

from odkeras.connections import Connections, basic_auth_headers, failure_reason, is_timeout, web_address

FAR_AWAY = "http://far-away.example/a.png"
PROXY_NAMES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_requests_go_through_the_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with image_server() as proxy, Connections() as connections:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        proxy.pages[FAR_AWAY] = (200, {}, b"found")
        assert connections.pool_for(FAR_AWAY).request("GET", FAR_AWAY).data == b"found"
        assert proxy.requests == [FAR_AWAY]


def test_the_proxy_gets_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    with image_server() as proxy, Connections() as connections:
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{proxy.server_port}")

        def answer(handler: BaseHTTPRequestHandler) -> None:
            heard.append(handler.headers["Proxy-Authorization"])
            handler.send_response(204)
            handler.end_headers()

        proxy.pages[FAR_AWAY] = answer
        assert connections.pool_for(FAR_AWAY).request("GET", FAR_AWAY).status == 204
    assert heard == ["Basic bWU6cEBzcw=="]  # me:p@ss


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://127.8.8.8/", "http://[::1]:80/", "http://localhost/"])
def test_localhost_bypasses_the_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    with Connections() as connections:
        assert connections.pool_for(url).proxy is None
        assert connections.pool_for(FAR_AWAY).proxy is not None


def test_hosts_in_no_proxy_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "far-away.example")
    with Connections() as connections:
        assert connections.pool_for(FAR_AWAY).proxy is None
        assert connections.pool_for("http://other.example/").proxy is not None


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense", "http://"])
def test_an_invalid_proxy_address_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with Connections() as connections, pytest.raises(HTTPError) as refused:
        connections.pool_for(FAR_AWAY)
    assert failure_reason(refused.value)


def test_an_unreachable_proxy_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Connections() as connections, pytest.raises(HTTPError) as refused:
        connections.pool_for(FAR_AWAY).request("GET", FAR_AWAY, retries=False)
    assert failure_reason(refused.value).startswith("the proxy of the environment: ")
    assert "HTTPConnection" not in failure_reason(refused.value)
    assert not is_timeout(refused.value)


def test_a_refused_connection_is_reported() -> None:
    with Connections() as connections, pytest.raises(NewConnectionError) as refused:
        connections.pool_for("http://127.0.0.1:9/").request("GET", "http://127.0.0.1:9/", retries=False)
    assert "refused" in failure_reason(refused.value) and "HTTPConnection" not in failure_reason(refused.value)
    assert not is_timeout(refused.value)


@pytest.mark.parametrize("url", ["", "a.png", "//host/a", "ftp://host/a", "http://", "http://host:port/"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(LocationParseError):
        web_address(url)


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("http://me:p%40ss@a.example/", {"authorization": "Basic bWU6cEBzcw=="}),
        ("http://a.example/me:pass@b", {}),
    ],
)
def test_credentials_in_the_url_are_sent(url: str, header: dict[str, str]) -> None:
    assert basic_auth_headers(web_address(url)) == header
