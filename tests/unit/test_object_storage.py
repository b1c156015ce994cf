"""Images in object storage, with a real S3 server on this machine."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
import urllib3
from fixtures_web import Annotating
from pictures import draw_pixels, encode

from odkeras.errors import ConfigError, ImageError
from odkeras.session.image_cache import ImageCache
from odkeras.session.object_storage import ObjectStorage
from odkeras.session.sources import load_task, open_source
from odkeras.session.web_images import WebImages

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Start = Callable[..., Annotating]
SECRET = "a-value-that-no-message-may-have"
KEYS = ("10.jpg", "2.jpg", "more/1.png", "more/deep/odd ?#%41name.jpg", "notes.txt")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The client of the server; "photos" has `KEYS`."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "ODKERAS_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    for number, key in enumerate(KEYS):
        client.put_object(Bucket="photos", Key=key, Body=picture(number))
    return client


def picture(number: int) -> bytes:
    return encode(draw_pixels(seed=number), "PNG" if number == 2 else "JPEG")


@pytest.mark.usefixtures("bucket")
class TestListing:
    def test_images_come_folder_by_folder_in_natural_order(self) -> None:
        urls = ["2.jpg", "10.jpg", "more/1.png", "more/deep/odd ?#%41name.jpg"]
        for place in ("s3://photos", "s3://photos/", "S3://photos/"):
            assert list(ObjectStorage().list_images(place)) == [f"s3://photos/{key}" for key in urls]
        assert list(ObjectStorage().list_images("s3://photos/more/")) == [f"s3://photos/{key}" for key in urls[2:]]
        assert list(ObjectStorage().list_images("s3://photos/2.jpg")) == ["s3://photos/2.jpg"]

    def test_a_folder_is_listed_when_it_is_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        ask = ObjectStorage._ask

        def noting(self: ObjectStorage, method: str, url: str, **options: Any) -> Any:
            asked.append(url)
            return ask(self, method, url, **options)

        monkeypatch.setattr(ObjectStorage, "_ask", noting)
        items, total = open_source("s3://photos/", on_skip=pytest.fail)
        assert (next(items).name, next(items).name, total) == ("s3://photos/2.jpg", "s3://photos/10.jpg", None)
        assert not [url for url in asked if "more" in url]
        assert [item.file for item in items] == ["1.png", "odd "]
        assert asked[-1] == "s3://photos/more/deep"

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("s3://no-such-bucket/", "not found: there is no such bucket or object"),
            ("s3://photos/empty/", "not found: there is no such bucket or object"),
            (f"s3://key:{SECRET}@photos/", "credentials in a URL are refused; set AWS_ACCESS_KEY_ID"),
        ],
    )
    def test_what_cannot_be_listed_is_said_at_the_start(self, source: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as raised:
            open_source(source, on_skip=pytest.fail)
        assert SECRET not in str(raised.value)

    def test_a_prefix_without_images(self, bucket: Any) -> None:
        bucket.put_object(Bucket="photos", Key="texts/notes.txt", Body=b"text")
        with pytest.raises(ConfigError, match="source s3://photos/texts/: no images there"):
            open_source("s3://photos/texts/", on_skip=pytest.fail)
        bucket.delete_object(Bucket="photos", Key="texts/notes.txt")


@pytest.mark.usefixtures("bucket")
class TestFetching:
    def test_an_object_is_its_bytes(self) -> None:
        for number, key in enumerate(KEYS[:4]):
            assert ObjectStorage().fetch(f"s3://photos/{key}") == picture(number)

    def test_the_second_time_it_comes_from_the_disk(self, bucket: Any, tmp_path: Path) -> None:
        bucket.put_object(Bucket="photos", Key="gone.jpg", Body=picture(0))
        cache = ImageCache(tmp_path / "images")
        assert ObjectStorage(cache).fetch("s3://photos/gone.jpg") == picture(0)
        bucket.delete_object(Bucket="photos", Key="gone.jpg")
        assert ObjectStorage(cache).fetch("s3://photos/gone.jpg") == picture(0)
        with pytest.raises(ImageError, match="not found"):
            ObjectStorage().fetch("s3://photos/gone.jpg")

    def test_a_large_object_is_refused(self) -> None:
        with pytest.raises(ImageError, match="too large: more than"):
            ObjectStorage(max_bytes=100).fetch("s3://photos/2.jpg")

    def test_time_is_limited(self) -> None:
        with pytest.raises(ImageError, match=r"no complete answer within 0\.0001 s"):
            ObjectStorage(timeout_s=0.0001).fetch("s3://photos/2.jpg")

    def test_no_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(ImageError, match="no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            ObjectStorage().fetch("s3://photos/2.jpg")

    def test_credentials_that_the_server_does_not_know(self, server: str) -> None:
        reset = f"{server}/moto-api/reset-auth"
        urllib3.request("POST", reset, body=b"0")  # from here on, the server checks them
        try:
            with pytest.raises(ImageError, match="not allowed with these credentials; set AWS_ACCESS_KEY_ID") as raised:
                ObjectStorage().fetch("s3://photos/2.jpg")
            with pytest.raises(ConfigError, match="source s3://photos: not allowed with these credentials"):
                open_source("s3://photos/", on_skip=pytest.fail)
        finally:
            urllib3.request("POST", reset, body=b"inf")
        assert SECRET not in str(raised.value)

    def test_no_server(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(ImageError, match=r"cannot be fetched|no complete answer") as raised,
        ):
            ObjectStorage().fetch("s3://photos/2.jpg")
        assert SECRET not in str(raised.value) + caplog.text

    def test_an_error_that_quotes_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Talkative:
            loop = None

            async def _cat_file(self, path: str, **options: Any) -> bytes:
                raise ValueError(f"bad signature for {SECRET}")

        def run(loop: Any, function: Any, *args: Any, timeout: float, **options: Any) -> Any:
            function(*args, **options).send(None)

        storage = ObjectStorage()
        storage._systems["s3"] = Talkative()
        monkeypatch.setattr("fsspec.asyn.sync", run)
        with pytest.raises(ImageError, match="cannot be fetched: ValueError: bad signature for …") as raised:
            storage.fetch("s3://photos/2.jpg")
        assert raised.value.__cause__ is None and raised.value.__suppress_context__

    @pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("az", "azure")])
    def test_a_package_that_is_missing(self, monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str) -> None:
        import fsspec

        def missing(*args: Any, **options: Any) -> Any:
            raise ImportError("no such package")

        monkeypatch.setattr(fsspec, "filesystem", missing)
        with pytest.raises(ImageError, match=rf"run: pip install 'odkeras\[{extra}\]'"):
            ObjectStorage().fetch(f"{scheme}://photos/2.jpg")


@pytest.mark.usefixtures("bucket")
class TestInTheLoop:
    def test_a_line_of_a_source(self, tmp_path: Path) -> None:
        lines = [{"image": "s3://photos/more/1.png", "meta": {"place": "roof"}}, {"path": "s3://photos/2.jpg"}]
        (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        items, total = open_source(tmp_path / "tasks.jsonl", on_skip=pytest.fail)
        with WebImages() as web:
            first, second = (load_task(item, fetch=web.fetch) for item in items)
        assert (first.path, first.file, first.meta, total) == ("s3://photos/more/1.png", "1.png", {"place": "roof"}, 2)
        assert (second.path, second.image_size_hw) == ("s3://photos/2.jpg", (48, 64))
        assert len(list((tmp_path / "cache" / "images").iterdir())) == 2

    def test_the_page_shows_the_images_of_a_bucket(self, annotate: Start, web_project: Path) -> None:
        page = annotate(source="s3://photos/").page()
        tasks = page.tasks(2)["tasks"]
        assert [task["file"] for task in tasks] == ["2.jpg", "10.jpg"]
        for task in tasks:
            page.answer(task)
        (next_task,) = page.tasks(1)["tasks"]
        assert next_task["file"] == "1.png"


class TestCache:
    def test_those_not_used_for_longest_are_deleted(self, tmp_path: Path) -> None:
        cache = ImageCache(tmp_path / "images", max_bytes=1000)
        for number in range(9):
            cache.put(f"s3://b/{number}", bytes([number]) * 100)
            os.utime(cache._path(f"s3://b/{number}"), (number, number))
        assert cache.get("s3://b/0") == bytes(100)  # used now
        cache.put("s3://b/new", b"n" * 200)
        kept = [number for number in range(9) if cache.get(f"s3://b/{number}") is not None]
        assert kept == [0, 3, 4, 5, 6, 7, 8]
        assert cache.get("s3://b/new") == b"n" * 200
        assert ImageCache(tmp_path / "images", max_bytes=300)._total() == 900
        cache.put("s3://b/huge", b"h" * 2000)
        assert cache.get("s3://b/huge") is None and len(kept) == 7

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        cache = ImageCache(tmp_path / "file" / "images")
        cache.put("s3://b/1", b"data")
        assert cache.get("s3://b/1") is None
