"""Names, downloads and the cache of pretrained weights, with a local server in place of the model zoo's."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from image_server import ImageServer, image_server
from zoo_archives import DETECTOR_INDEX, ResumablePage, save_archive, tar_gz, zoo_files

from odkeras.config.downloads import DownloadSettings
from odkeras.errors import ConfigError, SetupError, WeightsError
from odkeras.locks import locked
from odkeras.pipeline import list_templates
from odkeras.pipeline.extractors import known
from odkeras.pretrained import archive, cache, download
from odkeras.pretrained.cache import WeightsCache, default_cache_folder
from odkeras.pretrained.catalogue import BACKBONES, ZOO, Backbone, find_weights

MODEL = ZOO[1]
PATH = f"/{MODEL.date}/{MODEL.file_name}"
HDF5 = b"\x89HDF\r\n\x1a\n weights"


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def interrupt(done: int, _: int | None) -> None:
    """A progress callback during which somebody presses Ctrl-C."""
    if done >= 2000:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def small_pieces_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    monkeypatch.setattr(download, "BACKOFF_S", 0.0)
    monkeypatch.setattr(download, "_CHUNK_BYTES", 1000)


@pytest.fixture
def weights(tmp_path: Path, server: ImageServer) -> WeightsCache:
    """An empty cache whose mirror is the local server."""
    return WeightsCache(tmp_path / "cache", DownloadSettings(mirror=server.url(""), download_timeout=5))


class TestNames:
    def test_the_whole_zoo_is_known(self) -> None:
        assert len(ZOO) == 42
        names = [each.name for each in (*ZOO, *BACKBONES)]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize(
        "name",
        [
            "ssd_mobilenet_v2_fpnlite_320x320",
            "SSD_MobileNet_v2_FPNLite_320x320_coco17_tpu-8",
            "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.tar.gz",
        ],
    )
    def test_a_detector_has_a_short_name_and_that_of_its_archive(self, name: str) -> None:
        assert find_weights(name) is MODEL

    def test_the_two_centernets_with_mobilenet_keep_different_names(self) -> None:
        od, kpts = (find_weights(f"centernet_mobilenetv2fpn_512x512_coco17_{kind}") for kind in ("od", "kpts"))
        assert od is not kpts

    def test_an_unknown_name_suggests_similar_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"did you mean efficientdet_d0 .*odkeras weights list"):
            find_weights("efficientdet-d0")
        with pytest.raises(ConfigError, match=r"no weights are named 'yolo', and no such file exists; `odkeras"):
            find_weights("yolo")

    @pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.name)
    def test_a_backbone_fits_an_extractor_of_its_template(self, backbone: Backbone) -> None:
        meta_architectures = ("ssd", "faster_rcnn", "center_net")
        assert backbone.template in list_templates()
        assert set(backbone.feature_extractors) <= {name for kind in meta_architectures for name in known(kind)}


class TestDownload:
    def test_a_detector_is_downloaded_once(self, weights: WeightsCache, server: ImageServer) -> None:
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name, "model { ssd {} }")))
        assert not weights.has(MODEL)
        folder = weights.zoo_model(MODEL)
        assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
            "checkpoint/ckpt-0.data-00000-of-00001",
            "checkpoint/ckpt-0.index",
            "pipeline.config",
        ]
        assert (folder / "pipeline.config").read_text() == "model { ssd {} }"
        assert weights.has(MODEL)
        assert weights.zoo_model(MODEL) == folder
        assert server.requests == [PATH]
        assert list((weights.folder / "downloads").iterdir()) == []
        assert weights.name_of(archive.find_checkpoint(folder)) == MODEL.archive_name
        assert weights.name_of("/elsewhere/ckpt-0") == ""

    def test_a_mirror_may_have_all_files_in_one_folder(self, weights: WeightsCache, server: ImageServer) -> None:
        server.put(f"/{MODEL.file_name}", tar_gz(zoo_files(MODEL.archive_name)))
        assert weights.zoo_model(MODEL).is_dir()
        assert server.requests == [PATH, f"/{MODEL.file_name}"]

    def test_without_a_mirror_the_zoo_is_asked(self) -> None:
        assert download.addresses("http://zoo", "2020/a.tar.gz", mirror="") == ["http://zoo/2020/a.tar.gz"]

    def test_an_interrupted_download_continues(self, weights: WeightsCache, server: ImageServer) -> None:
        page = ResumablePage(tar_gz(zoo_files(MODEL.archive_name)), piece=3000)
        server.pages[PATH] = page
        seen: list[tuple[int, int | None]] = []
        assert replace(weights, progress=lambda done, total: seen.append((done, total))).zoo_model(MODEL).is_dir()
        assert page.starts == list(range(0, len(page.data), 3000))
        assert seen[-1] == (len(page.data), len(page.data))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def test_ctrl_c_leaves_a_part_that_the_next_call_continues(
        self, weights: WeightsCache, server: ImageServer
    ) -> None:
        page = ResumablePage(tar_gz(zoo_files(MODEL.archive_name)), piece=10**9)
        server.pages[PATH] = page

        with pytest.raises(KeyboardInterrupt):
            replace(weights, progress=interrupt).zoo_model(MODEL)
        assert not weights.has(MODEL)
        assert weights.zoo_model(MODEL).is_dir()
        assert page.starts[0] == 0 and page.starts[1] >= 2000

    def test_a_file_that_has_changed_meanwhile_is_downloaded_from_the_start(
        self, weights: WeightsCache, server: ImageServer
    ) -> None:
        server.pages[PATH] = ResumablePage(b"old" * 9000, piece=10**9)
        with pytest.raises(KeyboardInterrupt):
            replace(weights, progress=interrupt).zoo_model(MODEL)
        page = ResumablePage(tar_gz(zoo_files(MODEL.archive_name)), piece=10**9, etag='"two"')
        server.pages[PATH] = page
        assert weights.zoo_model(MODEL).is_dir()
        assert page.starts == [0]

    def test_a_part_that_the_server_cannot_continue_is_dropped(
        self, weights: WeightsCache, server: ImageServer
    ) -> None:
        data = tar_gz(zoo_files(MODEL.archive_name))
        answers = iter([(416, {}, b""), (200, {}, data)])
        downloads = weights.folder / "downloads"
        downloads.mkdir(parents=True)
        (downloads / f"{MODEL.file_name}.part").write_bytes(b"x" * 10**7)
        origin = {"address": server.url(PATH), "validator": '"one"'}
        (downloads / f"{MODEL.file_name}.part.json").write_text(json.dumps(origin))

        def answer(handler: BaseHTTPRequestHandler) -> None:
            status, _, body = next(answers)
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        server.pages[PATH] = answer
        assert weights.zoo_model(MODEL).is_dir()

    @pytest.mark.parametrize(
        ("status", "message", "requests"),
        [
            (404, r"there is no such file; .*--mirror", 2),
            (403, r"the server answered HTTP 403; .*--mirror", 1),
            (503, r"the server answered HTTP 503 \(tried 3 times\); .*--mirror", 3),
        ],
    )
    def test_errors_of_the_server(
        self, weights: WeightsCache, server: ImageServer, status: int, message: str, requests: int
    ) -> None:
        server.pages[PATH] = (status, {}, b"<html>no</html>")
        with pytest.raises(WeightsError, match=message):
            weights.zoo_model(MODEL)
        assert len(server.requests) == requests

    def test_a_server_that_stops_sending(self, weights: WeightsCache, server: ImageServer) -> None:
        server.pages[PATH] = ResumablePage(b"x" * 100, piece=0)
        with pytest.raises(WeightsError, match=r"cannot download .*bytes read.*tried 3 times"):
            weights.zoo_model(MODEL)

    def test_a_timeout(self, tmp_path: Path, server: ImageServer) -> None:
        release = threading.Event()
        server.pages[PATH] = lambda handler: release.wait(30) and None
        settings = DownloadSettings(mirror=server.url(""), download_timeout=0.05)
        try:
            with pytest.raises(WeightsError, match=r"cannot download .*[tT]imed out"):
                WeightsCache(tmp_path, settings).zoo_model(MODEL)
        finally:
            release.set()

    def test_no_server(self, tmp_path: Path) -> None:
        settings = DownloadSettings(mirror="http://127.0.0.1:1")
        with pytest.raises(WeightsError, match=r"cannot download http://127.0.0.1:1/.*refused .*--mirror"):
            WeightsCache(tmp_path, settings).zoo_model(MODEL)

    def test_a_mirror_that_is_no_address(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="cannot download mirror/"):
            WeightsCache(tmp_path, DownloadSettings(mirror="mirror")).zoo_model(MODEL)

    def test_the_proxy_of_the_environment(
        self, weights: WeightsCache, server: ImageServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", server.url(""))
        address = "http://zoo.invalid"
        server.put(f"{address}{PATH}", tar_gz(zoo_files(MODEL.archive_name)))
        through_proxy = replace(weights, settings=DownloadSettings(mirror=address))
        assert through_proxy.zoo_model(MODEL).is_dir()
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        with pytest.raises(WeightsError, match=r"the proxy of the environment: .*refused"):
            through_proxy.zoo_model(ZOO[0])

    def test_offline(self, weights: WeightsCache, server: ImageServer) -> None:
        offline = replace(weights, settings=DownloadSettings(offline=True))
        with pytest.raises(WeightsError, match=rf"{MODEL.file_name} is not in the cache, and --offline"):
            offline.zoo_model(MODEL)
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name)))
        weights.zoo_model(MODEL)
        assert offline.zoo_model(MODEL).is_dir()

    def test_too_large_a_file(
        self, weights: WeightsCache, server: ImageServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "MAX_BYTES", 1000)
        server.put(PATH, b"x" * 1001)
        with pytest.raises(WeightsError, match="has more than"):
            weights.zoo_model(MODEL)


class TestChecksums:
    def test_the_first_one_is_remembered(self, weights: WeightsCache, server: ImageServer) -> None:
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name)))
        folder = weights.zoo_model(MODEL)
        folder.rename(folder.with_name("elsewhere"))
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name, "other")))
        with pytest.raises(WeightsError, match=r"the SHA-256 checksum is .* was .* at the first download.*delete "):
            weights.zoo_model(MODEL)
        assert not weights.has(MODEL)
        (weights.folder / "checksums" / f"{MODEL.file_name}.sha256").unlink()
        assert (weights.zoo_model(MODEL) / "pipeline.config").read_text() == "other"

    def test_a_published_one_counts(self, weights: WeightsCache, server: ImageServer) -> None:
        backbone = replace(BACKBONES[1], md5=hashlib.md5(HDF5, usedforsecurity=False).hexdigest())
        server.put(f"/{backbone.path}", b"changed")
        with pytest.raises(WeightsError, match=r"MD5 checksum is .*, but .* is published"):
            weights.keras_file(backbone)
        server.put(f"/{backbone.path}", HDF5)
        assert weights.keras_file(backbone).read_bytes() == HDF5
        assert weights.has(backbone)

    def test_a_login_page_is_neither_used_nor_remembered(self, weights: WeightsCache, server: ImageServer) -> None:
        """Its checksum was taken for that of the weights, so that these were refused later."""
        backbone = BACKBONES[0]  # without a published checksum
        for path in (PATH, f"/{backbone.path}"):
            server.put(path, b"<html>please log in</html>")
        with pytest.raises(WeightsError, match=rf"{server.url(PATH)} cannot be used: .* is no complete .tar.gz"):
            weights.zoo_model(MODEL)
        with pytest.raises(WeightsError, match=r"is no weights file"):
            weights.keras_file(backbone)
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name)))
        server.put(f"/{backbone.path}", HDF5)
        assert weights.zoo_model(MODEL).is_dir()
        assert weights.keras_file(backbone).read_bytes() == HDF5


def bomb() -> bytes:
    """Zeros after the end of the archive: 1 KB that unpacks to many MB."""
    return tar_gz(zoo_files(MODEL.archive_name)) + gzip.compress(bytes(5 * 2**20))


def changed(**header: object) -> bytes:
    def change(info: tarfile.TarInfo) -> None:
        if info.name.endswith(".config"):
            for name, value in header.items():
                setattr(info, name, value)

    return tar_gz(zoo_files("m"), change)


def without(ending: str) -> bytes:
    return tar_gz({path: data for path, data in zoo_files("m").items() if not path.endswith(ending)})


def tar_with_a_huge_header() -> bytes:
    """A header for a long name that claims 5 GB, which `tarfile` would read into memory."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5 * 10**9
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(3 * 2**20))


WHOLE = tar_gz(zoo_files("m"))
BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "a web page": (lambda: b"<html>please log in</html>", r"is no complete .tar.gz archive \(Not a gzipped file"),
    "nothing": (lambda: b"", "is no complete .tar.gz archive"),
    "cut": (lambda: WHOLE[: len(WHOLE) // 2], "is no complete .tar.gz archive .*ended before"),
    "cut at the checksum": (lambda: WHOLE[:-8], "is no complete .tar.gz archive .*ended before"),
    "a wrong byte": (lambda: WHOLE[:900] + bytes([WHOLE[900] ^ 255]) + WHOLE[901:], "is no complete .tar.gz archive"),
    "no archive inside": (lambda: gzip.compress(b"x" * 2000), "is no complete .tar.gz archive"),
    "another folder": (lambda: tar_gz({"m/../../x/pipeline.config": b""}), r"outside its own folder: 'm/\.\./"),
    "an absolute name": (lambda: tar_gz({"/tmp/pipeline.config": b""}), "outside its own folder: '/tmp/"),
    "a drive of Windows": (lambda: tar_gz({"C:\\pipeline.config": b""}), "outside its own folder: 'C:"),
    "backslashes": (lambda: tar_gz({"m\\..\\..\\pipeline.config": b""}), "outside its own folder"),
    "a symbolic link": (lambda: changed(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), "a link, a device"),
    "a hard link": (lambda: changed(type=tarfile.LNKTYPE, linkname="/etc/passwd", size=0), "a link, a device"),
    "a device": (lambda: changed(type=tarfile.CHRTYPE, size=0), "a link, a device"),
    "a bomb": (bomb, "refused: it has more data than its files"),
    "a header like a bomb": (tar_with_a_huge_header, "refused: it has more data than its files"),
    "many files": (lambda: tar_gz({f"m/{number}": b"" for number in range(1001)}), "more than 1000 files"),
    "a file twice": (lambda: tar_gz({"a/pipeline.config": b"", "b/pipeline.config": b""}), "two files named pipeline"),
    "no checkpoint": (lambda: without(".index"), "has no checkpoint of TensorFlow 2"),
    "half a checkpoint": (lambda: without("-of-00001"), "is incomplete: no data file"),
    "no config": (lambda: without(".config"), "has no pipeline.config"),
    "TensorFlow 1": (
        lambda: tar_gz({**zoo_files("m"), "m/checkpoint/ckpt-0.index": b"old"}),
        "is a checkpoint of TensorFlow 1",
    ),
}


class TestArchives:
    @pytest.mark.parametrize("kind", BROKEN)
    def test_a_broken_or_dangerous_archive_leaves_nothing(self, tmp_path: Path, kind: str) -> None:
        content, message = BROKEN[kind]
        path = tmp_path / "model.tar.gz"
        path.write_bytes(content())
        with pytest.raises(WeightsError, match=message):
            WeightsCache(tmp_path / "cache").unpacked(path)
        assert list((tmp_path / "cache" / "zoo").iterdir()) == []
        assert {each.name for each in tmp_path.iterdir()} == {"model.tar.gz", "cache"}

    def test_too_much_in_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 2**20)
        with pytest.raises(WeightsError, match="it unpacks to more than"):
            WeightsCache(tmp_path).unpacked(save_archive(tmp_path / "m.tar.gz"))

    def test_an_archive_on_the_disk_is_unpacked_by_its_content(self, tmp_path: Path) -> None:
        weights = WeightsCache(tmp_path / "cache", DownloadSettings(offline=True))
        first = weights.unpacked(save_archive(tmp_path / "m.tar.gz", "one"))
        assert weights.unpacked(tmp_path / "m.tar.gz") == first
        second = weights.unpacked(save_archive(tmp_path / "m.tar.gz", "two"))
        assert [(folder / "pipeline.config").read_text() for folder in (first, second)] == ["one", "two"]
        with pytest.raises(WeightsError, match=r"cannot read .*missing.tar.gz: No such file"):
            weights.unpacked(tmp_path / "missing.tar.gz")

    def test_a_checkpoint_with_another_number_in_another_folder(self, tmp_path: Path) -> None:
        """The zoo's CenterNets with MobileNet have ckpt-301, in a folder with another name than the archive."""
        path = tmp_path / "centernet.tar.gz"
        path.write_bytes(tar_gz(zoo_files("centernet_mobilenetv2_fpn_od", step=301)))
        checkpoint = archive.find_checkpoint(WeightsCache(tmp_path / "cache").unpacked(path))
        assert Path(f"{checkpoint}.index").read_bytes() == DETECTOR_INDEX
        assert Path(checkpoint).name == "ckpt-301"


class TestCacheFolder:
    def test_what_a_killed_process_left_is_replaced(self, weights: WeightsCache, server: ImageServer) -> None:
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name)))
        left = weights.folder / "zoo" / f".new-{MODEL.archive_name}" / "checkpoint"
        left.mkdir(parents=True)
        (left / "ckpt-0.index").write_bytes(b"half")
        assert not weights.has(MODEL)
        folder = weights.zoo_model(MODEL)
        assert (folder / "checkpoint" / "ckpt-0.index").read_bytes() == DETECTOR_INDEX
        assert list(folder.parent.iterdir()) == [folder]

    def test_the_environment_names_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ODKERAS_CACHE", str(tmp_path / "weights"))
        assert default_cache_folder() == tmp_path / "weights"
        monkeypatch.delenv("ODKERAS_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        if sys.platform == "linux":
            assert default_cache_folder() == tmp_path / "xdg" / "odkeras"

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(WeightsError, match=r"cannot store .* in .*file/cache: Not a directory; .*ODKERAS_CACHE"):
            WeightsCache(tmp_path / "file" / "cache").zoo_model(MODEL)

    def test_a_full_disk(self, weights: WeightsCache, server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name)))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache, "unpack_model", full)
        with pytest.raises(WeightsError, match=r"No space left on device; \d+ MB free; .*ODKERAS_CACHE"):
            weights.zoo_model(MODEL)

    def test_another_process_that_downloads_the_same(
        self, weights: WeightsCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache, "LOCK_WAIT_S", 0)
        lock = weights.folder / "locks" / f"{MODEL.archive_name}.lock"
        with (
            locked(lock, taken="", wait_s=0),
            pytest.raises(SetupError, match="another process has been downloading"),
        ):
            weights.zoo_model(MODEL)

    def test_two_processes_download_once(self, weights: WeightsCache, server: ImageServer) -> None:
        server.put(PATH, tar_gz(zoo_files(MODEL.archive_name)))
        command = [sys.executable, "-m", "odkeras", "weights", "download", MODEL.name, "--mirror", server.url("")]
        environment = {**os.environ, "ODKERAS_CACHE": str(weights.folder)}
        both = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        outputs = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert {out.strip() for out, _ in outputs} == {str(weights.zoo_folder(MODEL))}
        assert server.requests == [PATH]


def test_the_list_has_every_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from odkeras.cli.weights import list_weights

    list_weights()
    names = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines() if line}
    assert {each.name for each in (*ZOO, *BACKBONES)} <= names
