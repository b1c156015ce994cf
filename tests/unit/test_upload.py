"""`odkeras upload`, with a real S3 server on this machine."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import test_object_storage
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import ConfigError, ServingError
from odkeras.export.info import EXPORT_INFO_PATH, ExportInfo, write_export_info
from odkeras.session.object_storage import ObjectStorage
from odkeras.upkeep.upload import VersionUploader

server, photos = test_object_storage.server, test_object_storage.bucket
pytestmark = pytest.mark.timeout(60)
URL = "s3://photos/models/raccoon"
FILES = ("assets.extra/odkeras.json", "saved_model.pb", "variables/variables.data-00000-of-00001")


@pytest.fixture
def bucket(photos: Any) -> Any:
    """The client of the server, with nothing at the URL."""
    for key in keys(photos):
        photos.delete_object(Bucket="photos", Key=f"models/raccoon/{key}")
    return photos


def publish(export_dir: Path, *versions: int, ours: bool = True) -> None:
    for version in versions:
        folder = export_dir / str(version)
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"graph")
        (folder / FILES[2]).write_bytes(bytes([version]) * 1000)
        if ours:
            (folder / EXPORT_INFO_PATH).parent.mkdir()
            write_export_info(folder, ExportInfo(version, "graph"))


def keys(bucket: Any) -> list[str]:
    found = bucket.list_objects_v2(Bucket="photos", Prefix="models/raccoon/").get("Contents", [])
    return [entry["Key"].removeprefix("models/raccoon/") for entry in found]


def whole(*versions: int) -> list[str]:
    return [f"{version}/{name}" for version in versions for name in FILES]


def put(bucket: Any, names: Iterable[str], body: bytes = b"x") -> None:
    for name in names:
        bucket.put_object(Bucket="photos", Key=f"models/raccoon/{name}", Body=body)


class TestUploading:
    def test_a_version_is_complete_with_its_last_file(
        self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path, 7)
        written: list[str] = []
        real = ObjectStorage.put_file

        def put_file(self: ObjectStorage, url: str, path: Path) -> None:
            written.append(path.relative_to(tmp_path / "7").as_posix())
            real(self, url, path)

        monkeypatch.setattr(ObjectStorage, "put_file", put_file)
        told: list[str] = []
        uploader = VersionUploader(tmp_path, f"{URL}/", 3)
        uploader.upload_new(told.append)
        assert written == [FILES[0], FILES[2], FILES[1]] and told == ["7"]
        assert keys(bucket) == whole(7)
        for name in FILES:
            body = bucket.get_object(Bucket="photos", Key=f"models/raccoon/7/{name}")["Body"].read()
            assert body == (tmp_path / "7" / name).read_bytes()
        uploader.upload_new(told.append)
        VersionUploader(tmp_path, URL, 3).upload_new(told.append)
        assert (len(written), told) == (3, ["7"])

    def test_the_storage_is_asked_only_for_new_versions(
        self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path, 7)
        uploader = VersionUploader(tmp_path, URL, 3)
        uploader.upload_new()
        monkeypatch.setattr(uploader, "_storage", None)
        uploader.upload_new()
        assert keys(bucket) == whole(7)

    def test_the_newest_come_first_and_old_ones_go(self, bucket: Any, tmp_path: Path) -> None:
        publish(tmp_path, 8, 9, 10, 11)
        put(bucket, whole(3))  # of an earlier upload
        put(bucket, ["5/" + FILES[0], "5/" + FILES[2]])  # one that was interrupted
        put(bucket, ["4/saved_model.pb", "notes/saved_model.pb"])  # not ours
        told: list[str] = []
        VersionUploader(tmp_path, URL, 2).upload_new(told.append)
        assert told == ["11", "10"]
        assert sorted(keys(bucket)) == sorted([*whole(10, 11), "4/saved_model.pb", "notes/saved_model.pb"])

    def test_a_version_is_deleted_with_its_graph_first(
        self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path, 9)
        put(bucket, whole(3))
        deleted: list[str] = []
        real = ObjectStorage.delete
        monkeypatch.setattr(ObjectStorage, "delete", lambda self, url: (deleted.append(url), real(self, url)))
        VersionUploader(tmp_path, URL, 2).upload_new()
        assert deleted == [f"{URL}/3/{name}" for name in (FILES[1], FILES[2], FILES[0])]

    def test_all_versions_stay(self, bucket: Any, tmp_path: Path) -> None:
        publish(tmp_path, 1, 2, 3)
        VersionUploader(tmp_path, URL, 0).upload_new()
        assert sorted(keys(bucket)) == whole(1, 2, 3)

    def test_an_interrupted_upload_is_completed(self, bucket: Any, tmp_path: Path) -> None:
        publish(tmp_path, 7)
        put(bucket, [f"7/{FILES[0]}", f"7/{FILES[2]}"], b"half")
        VersionUploader(tmp_path, URL, 3).upload_new()
        assert keys(bucket) == whole(7)
        assert (
            bucket.get_object(Bucket="photos", Key=f"models/raccoon/7/{FILES[2]}")["Body"].read() == bytes([7]) * 1000
        )

    def test_an_empty_directory_deletes_nothing(self, bucket: Any, tmp_path: Path) -> None:
        put(bucket, whole(3))
        VersionUploader(tmp_path / "none", URL, 3).upload_new()
        assert keys(bucket) == whole(3)

    def test_a_version_that_is_deleted_meanwhile_never_becomes_complete(
        self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path, 7, 8)
        real = ObjectStorage.put_file

        def put_file(self: ObjectStorage, url: str, path: Path) -> None:
            if path.parts[-2] == "variables" and path.parts[-3] == "7":
                shutil.rmtree(tmp_path / "7")
            real(self, url, path)

        monkeypatch.setattr(ObjectStorage, "put_file", put_file)
        told: list[str] = []
        uploader = VersionUploader(tmp_path, URL, 3)
        uploader.upload_new(told.append)
        assert told == ["8"] and "7/saved_model.pb" not in keys(bucket)
        uploader.upload_new()
        assert keys(bucket) == whole(8), "what was left of it is deleted"


class TestFailures:
    def test_the_storage_is_tried_again(
        self,
        bucket: Any,
        server: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        publish(tmp_path, 7)
        pauses: list[float] = []

        class Enough(Exception):
            pass

        def sleep(pause: float) -> None:
            pauses.append(pause)
            if len(pauses) == 2:
                bucket.create_bucket(Bucket="later")
            if len(pauses) == 4:
                raise Enough

        told: list[str] = []
        with caplog.at_level(logging.WARNING), pytest.raises(Enough):
            VersionUploader(tmp_path, "s3://later/models", 3).watch(told.append, sleep)
        assert pauses == [2, 4, 1, 1] and told == ["7"]
        assert "s3://later/models/7/assets.extra/odkeras.json" in caplog.text and "trying again in 2 s" in caplog.text

    @pytest.mark.parametrize("url", ["models/raccoon", "https://example.org/models", "ftp://x/y"])
    def test_a_place_of_another_kind(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(ConfigError, match="must be a prefix that starts with s3://, gs:// or az://"):
            VersionUploader(tmp_path, url, 3)

    def test_refused_credentials_are_not_in_the_message(self, bucket: Any, tmp_path: Path) -> None:
        publish(tmp_path, 7)
        with pytest.raises(ServingError, match="credentials in a URL are refused") as refused:
            VersionUploader(tmp_path, f"s3://me:{test_object_storage.SECRET}@photos/models", 3).upload_new()
        assert test_object_storage.SECRET not in str(refused.value)


class TestCommand:
    def test_once(self, bucket: Any, tmp_path: Path) -> None:
        arguments = ["upload", URL, "--once", "--export-dir", str(tmp_path)]
        assert "no versions to upload" in str(CliRunner().invoke(app, arguments).exception)
        publish(tmp_path, 1, 2, 3, 4)
        done = CliRunner().invoke(app, [*arguments, "--keep", "1"])
        assert (done.exit_code, done.stdout) == (0, f"{URL}/4\n"), done.output
        assert keys(bucket) == whole(4)

    def test_versions_are_uploaded_as_they_are_published_until_ctrl_c(self, bucket: Any, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "odkeras", "upload", URL, "--export-dir", str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            for version in (7, 8):
                publish(tmp_path / "new", version)
                (tmp_path / "new" / str(version)).rename(tmp_path / str(version))
                assert process.stdout.readline() == f"{URL}/{version}\n"
                assert keys(bucket) == whole(*range(7, version + 1))
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=20)[1]
            assert process.returncode == 130 and "Traceback" not in said, said
        finally:
            process.kill()
            process.communicate()
