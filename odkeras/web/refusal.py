"""The response to a refused request: an HTML page for browsers, JSON for programs."""

from __future__ import annotations

import base64
import hashlib
import html
import json

_STYLE = (
    ":root{color-scheme:light dark;font:16px/1.5 system-ui,'Segoe UI',Roboto,'Liberation Sans',sans-serif}"
    "body{max-width:34em;margin:12vh auto;padding:0 1.2em}"
    "h1{font-size:1.4em}"
    "code{font:.95em ui-monospace,Menlo,Consolas,'Liberation Mono',monospace;overflow-wrap:anywhere}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Blocks all resources and scripts except the inline style, because the page's own files are refused too."""

_TITLES = {401: "This page needs its link", 403: "Unknown address"}
_ADVICE = {
    401: """\
<p>This is the page of <code>odkeras annotate</code>, in which people label images. It opens only with its link:
the link ends with a token, and the address that you opened has none, or an old one.</p>
<p><strong>What to do:</strong> open the whole link that <code>odkeras annotate</code> printed in its terminal, or ask
the person who started it. The link changes with every start, unless <code>--token</code> is given.</p>""",
    403: """\
<p><strong>What to do:</strong> ask the person who started <code>odkeras annotate</code> for the page's link.</p>""",
}


def wants_page(method: str, path: str, accept: str) -> bool:
    """Whether the request is a browser's navigation, rather than a program's request for data."""
    return method == "GET" and not path.startswith(("/api/", "/images/")) and "text/html" in accept.lower()


def json_body(error: str) -> bytes:
    return json.dumps({"error": error}).encode()


def page_body(status: int, error: str) -> bytes:
    """The HTML document for a refusal; `error` is escaped."""
    title = _TITLES.get(status, "Request failed")
    advice = _ADVICE.get(status, "")
    shown = "" if status == 401 else f"<p>{html.escape(error[:1].upper() + error[1:])}.</p>\n"
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · odkeras annotate</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{shown}{advice}
</main>
</body>
</html>
""".encode()
