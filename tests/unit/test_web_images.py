from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from image_server import ImageServer, image_server

from odkeras.errors import ImageError
from odkeras.session.web_images import WebImages


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as running:
        yield running


@pytest.fixture
def web() -> Iterator[WebImages]:
    with WebImages() as found:
        yield found


def test_the_bytes(server: ImageServer, web: WebImages, png_bytes: bytes) -> None:
    url = server.put("/a%20b.png?width=64&height=48", png_bytes)
    assert web.fetch(url) == png_bytes
    assert server.requests == ["/a%20b.png?width=64&height=48"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "the server answers with status 401 (needs a login)"),
        (403, "the server answers with status 403 (not allowed, or the link has expired)"),
        (404, "the server answers with status 404 (not found)"),
        (410, "the server answers with status 410"),
        (500, "the server answers with status 500"),
        (503, "the server answers with status 503"),
    ],
)
def test_a_refusal(server: ImageServer, web: WebImages, status: int, reason: str) -> None:
    server.pages["/a.png"] = (status, {}, b"<html>no</html>")
    with pytest.raises(ImageError) as refused:
        web.fetch(server.url("/a.png"))
    assert (refused.value.reason, refused.value.source) == (reason, server.url("/a.png"))


def test_redirections_are_followed(server: ImageServer, web: WebImages, png_bytes: bytes) -> None:
    server.pages["/old.png"] = (301, {"Location": "/newer.png"}, b"")
    server.pages["/newer.png"] = (302, {"Location": server.put("/new.png", png_bytes)}, b"")
    assert web.fetch(server.url("/old.png")) == png_bytes
    assert server.requests == ["/old.png", "/newer.png", "/new.png"]


def test_but_not_in_circles(server: ImageServer, web: WebImages) -> None:
    server.pages["/a.png"] = (302, {"Location": "/a.png"}, b"")
    with pytest.raises(ImageError, match="cannot be fetched: too many redirects"):
        web.fetch(server.url("/a.png"))


@pytest.mark.parametrize(("size", "fits"), [(3072, True), (3073, False)])
def test_too_large(server: ImageServer, size: int, fits: bool) -> None:
    url = server.put("/a.png", b"\0" * size)
    with WebImages(max_bytes=3072) as web:
        if fits:
            assert len(web.fetch(url)) == size
        else:
            with pytest.raises(ImageError, match=r"a\.png: too large: more than 0\.00293 MB"):
                web.fetch(url)


def test_a_file_without_end_is_given_up_when_it_is_too_large(server: ImageServer) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"\0" * 65536)
        except OSError:
            pass

    server.pages["/a.png"] = endless
    with WebImages(max_bytes=2**20) as web, pytest.raises(ImageError, match="too large: more than 1 MB"):
        web.fetch(server.url("/a.png"))


def test_a_server_that_does_not_answer_times_out(server: ImageServer) -> None:
    go_on = threading.Event()

    def never(handler: BaseHTTPRequestHandler) -> None:
        go_on.wait(10)

    server.pages["/a.png"] = never
    with (
        WebImages(timeout_s=0.05) as web,
        pytest.raises(ImageError, match="answer within 0"),
    ):
        web.fetch(server.url("/a.png"))
    go_on.set()


def test_a_server_that_sends_byte_by_byte_times_out(server: ImageServer) -> None:
    """Each byte comes in time, so that no timeout of the connection ends it."""
    given_up = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not given_up.wait(0.005):
                handler.wfile.write(b"\0")
        except OSError:
            pass

    server.pages["/a.png"] = trickle
    with WebImages(timeout_s=0.1) as web, pytest.raises(ImageError, match=r"a\.png: no complete answer within 0\.1 s"):
        web.fetch(server.url("/a.png"))
    given_up.set()


def test_a_server_that_hangs_up(server: ImageServer, web: WebImages) -> None:
    server.pages["/none.png"] = lambda handler: None
    server.pages["/half.png"] = (200, {"Content-Length": "100"}, b"half")
    for path, words in [("/none.png", "Remote end closed connection"), ("/half.png", "IncompleteRead")]:
        with pytest.raises(ImageError, match=f"{path}: cannot be fetched: {words}"):
            web.fetch(server.url(path))


def test_nobody_is_there(web: WebImages) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/a.png"
        with pytest.raises(ImageError, match=r"a\.png: cannot be fetched: .*refused"):
            web.fetch(url)


@pytest.mark.parametrize(
    "url", ["ftp://example.org/a.png", "file:///etc/passwd", "a.png", "http://", "http://a:b/c.png", "http://[/", ""]
)
def test_what_is_no_web_address(web: WebImages, url: str) -> None:
    with pytest.raises(ImageError, match=r"cannot be fetched: .") as refused:
        web.fetch(url)
    assert refused.value.source == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_in_the_environment_is_not_for_this_machine(
    server: ImageServer, png_bytes: bytes, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """With `http_proxy` set, as in many offices, the images of a server on this machine were asked of the proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server.put("/a.png", png_bytes)
    with WebImages() as web:
        assert web.fetch(f"http://{host}:{server.server_port}/a.png") == png_bytes


def test_a_login_in_the_address(server: ImageServer, web: WebImages) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        login = handler.headers["Authorization"].encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(login)))
        handler.end_headers()
        handler.wfile.write(login)

    server.pages["/a.png"] = answer
    assert web.fetch(server.url("/a.png").replace("http://", "http://me:p%40ss@")) == b"Basic bWU6cEBzcw=="


def test_close_twice_and_without_a_fetch(server: ImageServer) -> None:
    WebImages().close()
    web = WebImages()
    web.fetch(server.put("/a.png", b"x"))
    web.close()
    web.close()


def test_many_threads_may_fetch(server: ImageServer, web: WebImages) -> None:
    urls = [server.put(f"/{number}.png", bytes([number]) * 1000) for number in range(16)]
    found: dict[int, bytes] = {}

    def fetch(number: int) -> None:
        found[number] = web.fetch(urls[number])

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {number: bytes([number]) * 1000 for number in range(16)}


class TestRedirects:
    """A server that someone trusts for images must not make this machine ask in its own network."""

    @pytest.mark.parametrize(
        "target",
        [
            "http://127.0.0.1:{port}/secret",
            "http://localhost:{port}/secret",
            "http://[::1]:{port}/secret",
            "http://[::ffff:127.0.0.1]:{port}/secret",
            "http://0.0.0.0:{port}/secret",
            "http://10.0.0.7/secret",
            "http://192.168.1.1/secret",
            "http://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/secret",
        ],
    )
    def test_not_to_private_addresses(self, server: ImageServer, web: WebImages, target: str) -> None:
        with image_server() as other:
            other.put("/secret", b"secret")
            target = target.format(port=other.server_port)
            server.pages["/a.png"] = (302, {"Location": target}, b"")
            with pytest.raises(ImageError, match=r"is not a public address; .*--allow-private-urls"):
                web.fetch(server.url("/a.png"))
            assert other.requests == []

    def test_not_to_a_name_of_a_private_address(self, server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """The connected socket is looked at, so that a name that is resolved twice cannot get around the check."""
        with image_server() as other:
            other.put("/secret", b"secret")
            server.pages["/a.png"] = (302, {"Location": f"http://images.example:{other.server_port}/secret"}, b"")
            resolve = socket.getaddrinfo
            monkeypatch.setattr(
                "socket.getaddrinfo",
                lambda host, *rest, **more: resolve("127.0.0.1" if host == "images.example" else host, *rest, **more),
            )
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.delenv(name, raising=False)
            with WebImages() as web, pytest.raises(ImageError, match=r"images\.example \(127\.0\.0\.1\), which is not"):
                web.fetch(server.url("/a.png"))
            assert other.requests == []
            with WebImages(allow_private_urls=True) as web:
                assert web.fetch(server.url("/a.png")) == b"secret"

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/a.png", "gopher://x/", "data:,x"])
    def test_only_to_http(self, server: ImageServer, web: WebImages, target: str) -> None:
        server.pages["/a.png"] = (302, {"Location": target}, b"")
        with pytest.raises(ImageError, match="cannot be fetched"):
            web.fetch(server.url("/a.png"))


@pytest.mark.parametrize("part", ["status", "headers", "redirects", "body"])
def test_one_timeout_for_the_whole_image(server: ImageServer, part: str) -> None:
    """The headers that a server sent byte by byte had a new timeout for each of them."""
    given_up = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        first = {"status": b"", "headers": b"HTTP/1.1 200 OK\r\nX: ", "body": b"HTTP/1.1 200 OK\r\n\r\n"}
        try:
            if part == "redirects":
                given_up.wait(0.05)
                handler.wfile.write(f"HTTP/1.1 302 Found\r\nLocation: {handler.path}x\r\n\r\n".encode())
                return
            handler.wfile.write(first[part])
            while not given_up.wait(0.01):
                handler.wfile.write(b"H")
        except OSError:
            pass

    for number in range(20):
        server.pages[f"/a{'x' * number}"] = drip
    started = time.monotonic()
    with WebImages(timeout_s=0.3) as web, pytest.raises(ImageError, match=r"no complete answer within 0\.3 s"):
        web.fetch(server.url("/a"))
    assert time.monotonic() - started < 3
    given_up.set()


def test_a_server_that_timed_out_has_less_time_for_its_next_image(
    server: ImageServer, png_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of a thousand URLs of a dead server took four hours."""
    monkeypatch.setattr("odkeras.session.web_images.RETRIED_TIMEOUT_S", 0.05)
    given_up = threading.Event()
    server.pages["/slow"] = lambda handler: given_up.wait(10)  # type: ignore[assignment, return-value]
    with WebImages(timeout_s=0.2) as web:
        for seconds in ("0.2", "0.05", "0.05"):
            with pytest.raises(ImageError, match=f"no complete answer within {seconds} s"):
                web.fetch(server.url("/slow"))
        web.fetch(server.put("/a.png", png_bytes))
        with pytest.raises(ImageError, match=r"no complete answer within 0\.2 s"):
            web.fetch(server.url("/slow"))
    given_up.set()
