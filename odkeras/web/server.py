"""`odkeras annotate`: runs the page's server until Ctrl-C."""

from __future__ import annotations

import gc
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlencode

from odkeras.config.annotate import AnnotateSettings
from odkeras.connections import is_loopback
from odkeras.database_url import absolute_location
from odkeras.errors import ConfigError
from odkeras.process import exit_despite_threads, open_listener, stop_on_signals
from odkeras.serving.listening import HttpServer, Tls
from odkeras.web.app import create_app
from odkeras.web.audit import audit_log
from odkeras.web.files import page_files
from odkeras.web.journal import Journal
from odkeras.web.memory import share_arenas
from odkeras.web.next_steps import export_command
from odkeras.web.opening import open_page
from odkeras.web.security import Policy, host_name, names_of_this_machine

_GRACE_S = 1
_LAST_WAIT_S = 0.5
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # wildcard address -> the loopback address to open


def run_annotate(
    settings: AnnotateSettings,
    *,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the page until SIGTERM or SIGINT, then stop the trainer and the model server, and return. If a request
    cannot be ended, exit with status 0 instead.

    Args:
        on_ready: callback with the page's URL.

    Raises:
        OdkerasError: an argument is invalid or the port is taken. Nothing was started.
    """
    share_arenas()
    tls = _tls(settings)
    files, before = page_files(), set(threading.enumerate())
    journal, stopping = Journal(), threading.Event()
    with (
        open_listener(settings.host, settings.web_port, option="--web-port") as listener,
        open_page(settings, journal) as service,
        audit_log(service.session.project.logs_dir),
    ):
        token = None if is_loopback(settings.host) else (settings.token or secrets.token_urlsafe(18))
        policy = Policy(token=token, hosts=_hosts(settings))
        port = listener.getsockname()[1]
        url = _url(settings.host, port, token, tls is not None)
        address = _outer_address(settings.host) if settings.host in _EVERYWHERE else ""
        elsewhere = _url(address, port, None, tls is not None).rstrip("/") if address else ""

        def ready() -> None:
            gc.collect()
            gc.freeze()  # a full collection would look at all that was imported, and hold up requests for 50 ms
            journal.say(f"annotate at {url} (Ctrl-C stops; nothing is lost)")
            if address:
                journal.say(f"from other machines: {_url(address, port, token, tls is not None)}")
            on_ready(url)
            if not settings.no_open and _has_a_screen():
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        app = create_app(service, files, policy, closing=stopping.is_set, elsewhere=elsewhere)
        server = HttpServer(app, ready, grace_s=_GRACE_S, tls=tls)

        def stop() -> None:
            stopping.set()
            server.stop()

        with stop_on_signals(stop):
            server.run(sockets=[listener])
            journal.say("stopping")
            service.close()
    database = absolute_location(service.database.path)
    journal.say(f"stopped; all answers are in {database}. `{export_command(service.dataset, database)}` writes them")
    # A request thread may still wait for a silent source or for the model server.
    ours = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    exit_despite_threads(ours, _LAST_WAIT_S)


def _has_a_screen() -> bool:
    """Whether there is a graphical display. Without one, a text-mode browser would take over the terminal."""
    elsewhere = sys.platform in ("darwin", "win32")
    return elsewhere or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _outer_address(host: str) -> str:
    """This machine's outbound address, at which other machines can usually reach it; "" if there is none. Connecting a
    UDP socket only looks up the route and sends nothing."""
    family, anywhere = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((anywhere, 9))
        address = str(probe.getsockname()[0])
        return "" if is_loopback(address) else address
    return ""


def _hosts(settings: AnnotateSettings) -> frozenset[str]:
    given = {host_name(name) for name in settings.allowed_host}
    return frozenset({*given, settings.host.lower(), *names_of_this_machine()}) - {""}


def _tls(settings: AnnotateSettings) -> Tls | None:
    """
    Raises:
        ConfigError: a key without a certificate.
        SetupError: the certificate cannot be used.
    """
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise ConfigError(f"--tls-key {settings.tls_key}: give its certificate, too: --tls-cert")
        return None
    tls = Tls(settings.tls_cert, settings.tls_key)
    tls.check()
    return tls


def _url(host: str, port: int, token: str | None, https: bool = False) -> str:
    shown = _EVERYWHERE.get(host, host)
    query = f"?{urlencode({'token': token})}" if token else ""
    return f"http{'s' if https else ''}://{f'[{shown}]' if ':' in shown else shown}:{port}/{query}"
