"""The link for a colleague leads to the form that asks for a name, by an address that the colleague can reach."""

from __future__ import annotations

import json
from collections.abc import Callable

import fixtures_web
import pytest
from fixtures_web import Annotating

from odkeras.web.security import Policy
from odkeras.web.sharing import Sharing

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
HERE, THERE = "http://127.0.0.1:8080", "http://192.168.1.7:8080"


@pytest.mark.parametrize(
    ("sharing", "origin", "link", "works_elsewhere"),
    [
        (Sharing(), HERE, f"{HERE}/?session=", False),
        (Sharing(), "http://localhost:8080", "http://localhost:8080/?session=", False),
        (Sharing(), "http://page.localhost:8080", "http://page.localhost:8080/?session=", False),
        (Sharing(), "http://[::1]:8080", "http://[::1]:8080/?session=", False),
        (Sharing("a&b", THERE), HERE, f"{THERE}/?token=a%26b&session=", True),
        (Sharing("secret", THERE), "http://10.0.0.1:8080", "http://10.0.0.1:8080/?token=secret&session=", True),
        (Sharing("secret"), HERE, f"{HERE}/?token=secret&session=", False),
        (Sharing(), "https://label.example", "https://label.example/?session=", True),  # a proxy on this machine
    ],
)
def test_link(sharing: Sharing, origin: str, link: str, works_elsewhere: bool) -> None:
    assert sharing.link(origin) == (link, works_elsewhere)


def test_the_route(annotate: Callable[..., Annotating]) -> None:
    page = annotate().page()
    response = page.http.post("/api/link", content="{}", headers={"content-type": "application/json"})
    assert response.json() == {"url": f"{page.http.base_url}/?session=".replace("//?", "/?"), "works_elsewhere": False}
    origin = str(page.http.base_url).rstrip("/")
    headers = {"content-type": "application/json", "origin": origin}
    assert page.http.post("/api/link", content=json.dumps({}), headers=headers).json()["url"] == f"{origin}/?session="


def test_the_token_is_told_to_those_who_have_it(annotate: Callable[..., Annotating]) -> None:
    page = annotate(policy=Policy(token="correct horse")).page()
    headers = {"content-type": "application/json"}
    assert page.http.post("/api/link", content="{}", headers=headers).status_code == 401
    headers["authorization"] = "Bearer correct horse"
    assert "token=correct+horse&session=" in page.http.post("/api/link", content="{}", headers=headers).json()["url"]
    headers["origin"] = "http://evil.example"
    assert page.http.post("/api/link", content="{}", headers=headers).status_code == 403
