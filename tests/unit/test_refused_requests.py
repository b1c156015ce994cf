"""Guessing the token, the log of refused requests, and https."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from odkeras.errors import ConfigError, SetupError
from odkeras.process import open_listener
from odkeras.serving.listening import HttpServer, Tls
from odkeras.web import attempts
from odkeras.web.attempts import MAX_WRONG, WINDOW_S, TokenAttempts
from odkeras.web.audit import NAME, audit_log, note_refusal
from odkeras.web.security import Guard, Policy
from odkeras.web.server import _tls

TOKEN = "correct-horse"


class Server:
    """The guard, asked without a socket."""

    def __init__(self, token: str | None = TOKEN) -> None:
        self.guard = Guard(self._app, Policy(token=token))
        self.scheme = "http"

    @staticmethod
    async def _app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    def ask(
        self,
        *,
        bearer: str = "",
        cookie: str = "",
        link: str = "",
        client: str = "10.0.0.1",
        path: str = "/",
        method: str = "GET",
        host: str = "127.0.0.1:8080",
    ) -> tuple[int, dict[str, str]]:
        headers = {"host": host}
        headers |= {"authorization": f"Bearer {bearer}"} if bearer else {}
        headers |= {"cookie": f"odkeras_token_8080={cookie}"} if cookie else {}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "scheme": self.scheme,
            "query_string": f"token={link}".encode() if link else b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": (client, 1),
            "server": ("127.0.0.1", 8080),
        }
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        asyncio.run(self.guard(scope, receive, send))
        found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return sent[0]["status"], found


@pytest.mark.parametrize("way", ["bearer", "cookie", "link"])
def test_guesses_are_limited(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, now = Server(), [100.0]
    server.guard._attempts = TokenAttempts(lambda: now[0])
    for number in range(MAX_WRONG):
        assert server.ask(**{way: f"guess-{number}"})[0] == 401
    for token in ("guess", TOKEN):
        assert server.ask(**{way: token})[0] == 429
    assert server.ask(bearer=TOKEN, client="10.0.0.2")[0] == 200, "another client is not blocked"
    now[0] += WINDOW_S
    assert server.ask(bearer=TOKEN)[0] == 200


def test_the_same_wrong_token_again_is_no_guess() -> None:
    """After a restart, all open tabs go on sending the old one."""
    server = Server()
    for _ in range(5 * MAX_WRONG):
        assert server.ask(cookie="old")[0] == 401
        assert server.ask()[0] == 401
    assert server.ask(link=TOKEN)[0] == 303


def test_few_clients_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_MAX_CLIENTS", 5)
    counted = TokenAttempts()
    for number in range(50):
        counted.note_wrong(f"10.0.0.{number}", "x\ud800")
    assert len(counted._wrong) == 5


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_token_leaves_the_address_for_a_strict_cookie(scheme: str) -> None:
    server = Server()
    server.scheme = scheme
    status, headers = server.ask(link=TOKEN)
    assert (status, headers["location"]) == (303, "/")
    parts = headers["set-cookie"].split("; ")
    assert parts[0] == f"odkeras_token_8080={TOKEN}"
    assert {"HttpOnly", "SameSite=Strict"} <= set(parts)
    assert ("Secure" in parts) == (scheme == "https")


def test_each_refused_request_has_a_line(tmp_path: Path) -> None:
    server = Server()
    with audit_log(tmp_path / "logs"):
        server.ask(link="wrong-token", client="10.0.0.9")
        server.ask(bearer=TOKEN, host="evil.example")
        server.ask(bearer=TOKEN, path="/api/\x1b[2J\nx", method="POST", host="evil.example")
        server.ask(bearer=TOKEN)
    lines = (tmp_path / "logs" / NAME).read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(
        "10.0.0.9 GET / host=127.0.0.1:8080: 401 this page needs its token: open the link that `odkeras annotate` "
        "printed"
    )
    assert "host=evil.example: 403 the host 'evil.example' is not allowed" in lines[1]
    assert r"POST /api/\x1b[2J\nx host" in lines[2]
    assert "wrong-token" not in "".join(lines)


def test_the_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odkeras.web.audit._MAX_BYTES", 5000)
    with audit_log(tmp_path):
        for _ in range(500):
            note_refusal("10.0.0.9", "GET", "/" + "x" * 10_000, "h" * 10_000, 401, "no")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_000
    (tmp_path / "file").write_text("")
    with audit_log(tmp_path / "file"):  # cannot be opened: the requests are refused all the same
        note_refusal("10.0.0.9", "GET", "/", "h", 401, "no")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    tls = Tls(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(tls.key)]
    try:
        subprocess.run([*command, "-out", str(tls.certificate)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return tls


def test_https(certificate: Tls) -> None:
    ready = threading.Event()
    with open_listener("127.0.0.1", 0) as listener:
        server = HttpServer(Server(token=None).guard, ready.set, grace_s=1, tls=certificate)
        server.config.lifespan = "off"
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert ready.wait(10)
            trusted = ssl.create_default_context(cafile=str(certificate.certificate))
            url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
            )
            assert opener.open(url, timeout=10).read() == b"in"
        finally:
            server.stop()
            thread.join(10)


def test_a_certificate_that_cannot_be_used(certificate: Tls, tmp_path: Path) -> None:
    class Settings:
        tls_cert: Path | None = None
        tls_key: Path | None = None

    settings: Any = Settings()
    assert _tls(settings) is None
    settings.tls_key = certificate.key
    with pytest.raises(ConfigError, match=r"--tls-key .*: give its certificate, too: --tls-cert"):
        _tls(settings)
    (tmp_path / "text.pem").write_text("no certificate")
    for cert, key in [
        (tmp_path / "none.pem", None),
        (tmp_path / "text.pem", None),
        (certificate.certificate, None),
        (certificate.certificate, tmp_path / "none.pem"),
        (tmp_path, tmp_path),
    ]:
        settings.tls_cert, settings.tls_key = cert, key
        with pytest.raises(SetupError, match=r"--tls-cert .*, --tls-key .*: cannot be used: "):
            _tls(settings)
    settings.tls_cert, settings.tls_key = certificate.certificate, certificate.key
    assert _tls(settings) == certificate
