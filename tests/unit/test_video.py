"""Frames of videos, and near-duplicates. The videos are made here, by PyAV."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from odkeras import near_duplicates, video
from odkeras.cli import app
from odkeras.config.annotate import AnnotateSettings
from odkeras.errors import ConfigError, ImageError, SetupError
from odkeras.near_duplicates import NearDuplicates, perceptual_hash
from odkeras.project import read_jsonl
from odkeras.session.sources import Source
from odkeras.video import FrameRules, extract_frames, list_videos
from odkeras.web.images_to_annotate import HASHES, prepare_images
from tests.fixtures_web import ListedJournal

av = pytest.importorskip("av")
pytest.importorskip("imagehash")

RATE = 10
SIZE_HW = (96, 128)


def scene(number: int) -> Image.Image:
    """A picture of large patches, different for each number."""
    patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(patches).resize(SIZE_HW[::-1], Image.Resampling.NEAREST)


def make_video(path: Path, scenes: Sequence[int], codec: str = "mpeg4", **container: Any) -> Path:
    """A video with one frame, a tenth of a second, for each of the scenes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", **container) as writer:
        stream = writer.add_stream(codec, rate=RATE)
        stream.height, stream.width = SIZE_HW
        stream.pix_fmt = "yuv420p"
        for number in scenes:
            writer.mux(stream.encode(av.VideoFrame.from_image(scene(number)).reformat(format="yuv420p")))
        writer.mux(stream.encode())
    return path


def is_scene(path: Path, number: int) -> bool:
    with Image.open(path) as opened:
        found = np.asarray(opened.convert("RGB"), np.float32)
    return float(np.abs(found - np.asarray(scene(number), np.float32)).mean()) < 20


def names(report: video.FrameReport) -> list[str]:
    return [path.stem.rpartition("_")[2] for path in report.files]


class TestFrames:
    @pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
    def test_one_every_so_many_seconds(self, tmp_path: Path, suffix: str) -> None:
        path = make_video(tmp_path / f"a walk{suffix}", [0] * 10 + [1] * 10 + [2] * 5)
        report = extract_frames([path], tmp_path / "out", FrameRules(1.0))
        assert names(report) == ["000000.000", "000001.000", "000002.000"]
        assert all(is_scene(file, number) for number, file in enumerate(report.files))
        assert (report.duplicates, report.problems) == (0, [])
        (folder,) = (tmp_path / "out").iterdir()
        assert folder.name.startswith("a walk-") and report.files[0].name == "a walk_000000.000.jpg"

    @pytest.mark.parametrize("seek_from_s", [0.0, math.inf])
    def test_the_same_frames_whether_it_decodes_all_or_jumps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seek_from_s: float
    ) -> None:
        monkeypatch.setattr(video, "_SEEK_FROM_S", seek_from_s)
        path = make_video(tmp_path / "a.mp4", range(40))
        report = extract_frames([path], tmp_path / "out", FrameRules(0.7))
        assert names(report) == [f"00000{tenth // 10}.{tenth % 10}00" for tenth in range(0, 40, 7)]
        assert all(is_scene(file, 7 * number) for number, file in enumerate(report.files))

    def test_intervals_that_are_no_multiple_of_a_frame_take_the_next_one(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "a.mp4", range(10))
        assert names(extract_frames([path], tmp_path / "out", FrameRules(0.25))) == [
            "000000.000",
            "000000.300",
            "000000.500",
            "000000.800",
        ]

    def test_frames_that_are_there_stay_as_they_are(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "a.mp4", [0] * 10 + [1] * 10)
        first = extract_frames([path], tmp_path / "out", FrameRules(1.0))
        os.utime(first.files[0], (1, 1))
        first.files[1].unlink()
        again = extract_frames([path], tmp_path / "out", FrameRules(0.5))
        assert set(first.files) < set(again.files)
        assert first.files[0].stat().st_mtime == 1
        assert is_scene(first.files[1], 1)

    def test_near_duplicates_are_left_out_of_all_videos_together(self, tmp_path: Path) -> None:
        paths = [
            make_video(tmp_path / "a.mp4", [0] * 10 + [1] * 10),
            make_video(tmp_path / "b.mp4", [1] * 10 + [2] * 10),
        ]
        kept = extract_frames(paths, tmp_path / "out", FrameRules(0.5))
        assert len(kept.files) == 8
        report = extract_frames(paths, tmp_path / "out", FrameRules(0.5, max_distance=4))
        assert [is_scene(file, number) for number, file in enumerate(report.files)] == [True] * 3
        assert report.duplicates == 5
        assert len(list((tmp_path / "out").rglob("*.jpg"))) == 3

    def test_videos_of_one_name_have_a_folder_each(self, tmp_path: Path) -> None:
        paths = [make_video(tmp_path / "1" / "a.mp4", [0] * 10), make_video(tmp_path / "2" / "a.mp4", [1] * 20)]
        report = extract_frames(paths, tmp_path / "out", FrameRules(1.0))
        assert [is_scene(file, number) for file, number in zip(report.files, (0, 1, 1), strict=True)] == [True] * 3
        assert len({file.parent for file in report.files}) == 2

    def test_a_video_that_was_moved_has_the_same_frames(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "a.mp4", [0] * 10)
        first = extract_frames([path], tmp_path / "out", FrameRules())
        (tmp_path / "moved").mkdir()
        moved = path.rename(tmp_path / "moved" / "a.mp4")
        assert extract_frames([moved], tmp_path / "out", FrameRules()).files == first.files

    def test_a_turned_video_is_shown_upright(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Frame:
            rotation = 90  # counterclockwise

            def to_image(self) -> Image.Image:
                return scene(0)

        upright = video._upright(Frame())
        assert upright.size == SIZE_HW
        assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(scene(0))))

    def test_what_cannot_be_read_costs_itself_alone(self, tmp_path: Path) -> None:
        whole = make_video(tmp_path / "whole.mp4", [0] * 10)
        cut = make_video(tmp_path / "cut.mkv", [*range(100)])
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        no_video = tmp_path / "text.mp4"
        no_video.write_text("not a video")
        (tmp_path / "empty.mp4").touch()
        paths = [no_video, tmp_path / "empty.mp4", cut, tmp_path / "missing.mp4", whole]
        report = extract_frames(paths, tmp_path / "out", FrameRules(1.0))
        assert {path.name for path, _ in report.problems} >= {"text.mp4", "empty.mp4", "missing.mp4"}
        assert all("Errno" not in reason and reason.startswith("cannot be read: ") for _, reason in report.problems)
        stems = [file.parent.name.partition("-")[0] for file in report.files]
        assert stems.count("whole") == 1 and 1 <= stems.count("cut") <= 6

    def test_a_full_disk_ends_it(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "a.mp4", [0] * 10)
        (tmp_path / "out").write_text("a file where the folder should be")
        with pytest.raises(SetupError, match="cannot write"):
            extract_frames([path], tmp_path / "out", FrameRules())

    def test_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_video(tmp_path / "a.mp4", [0] * 10)
        monkeypatch.setitem(__import__("sys").modules, "av", None)
        with pytest.raises(SetupError, match=r"PyAV: pip install 'odkeras\[video\]'"):
            extract_frames([path], tmp_path / "out", FrameRules())

    def test_videos_are_found_below_a_folder(self, tmp_path: Path) -> None:
        make_video(tmp_path / "b" / "10.MP4", [0], format="mp4")
        make_video(tmp_path / "b" / "9.mp4", [0])
        scene(0).save(tmp_path / "a.jpg")
        assert [path.name for path in list_videos(tmp_path)] == ["9.mp4", "10.MP4"]
        assert list_videos(tmp_path / "a.jpg") == list_videos(tmp_path / "none.mp4") == []

    @pytest.mark.parametrize(
        ("time_s", "text"),
        [(0, "000000.000"), (59.9996, "000100.000"), (3661.25, "010101.250"), (360000, "1000000.000")],
    )
    def test_names_sort_by_time(self, time_s: float, text: str) -> None:
        assert video._clock(time_s) == text

    @pytest.mark.parametrize(
        ("stem", "usable"), [("a/b"[2:], "b"), (".hidden", "hidden"), ("\x1b[31m", "_[31m"), ("...", "video")]
    )
    def test_names_are_printable(self, stem: str, usable: str) -> None:
        assert video._usable(stem) == usable


class TestNearDuplicates:
    def test_another_size_or_compression_is_one(self, tmp_path: Path) -> None:
        scene(0).save(tmp_path / "a.png")
        scene(0).resize((500, 400)).save(tmp_path / "b.jpg", quality=60)
        scene(1).save(tmp_path / "c.png")
        seen = NearDuplicates(6)
        assert [seen.is_new(perceptual_hash(tmp_path / name)) for name in ("a.png", "b.jpg", "c.png")] == [
            True,
            False,
            True,
        ]
        assert perceptual_hash(scene(0)) == perceptual_hash(tmp_path / "a.png")

    @pytest.mark.parametrize("has_bitwise_count", [True, False])
    def test_the_limit_is_in_bits(self, monkeypatch: pytest.MonkeyPatch, has_bitwise_count: bool) -> None:
        if not has_bitwise_count:
            monkeypatch.delattr(near_duplicates.np, "bitwise_count", raising=False)
        seen = NearDuplicates(3)
        assert [seen.is_new(value) for value in (0, 0b111, 0b1111, 2**64 - 1, 2**63)] == [
            True,
            False,
            True,
            True,
            False,
        ]
        assert [NearDuplicates(0).is_new(0), NearDuplicates(64).is_new(1)] == [True, True]

    def test_any_number_of_images(self) -> None:
        seen = NearDuplicates(0)
        values = [int(value) for value in np.random.default_rng(0).integers(0, 2**63, 500)]
        assert all(seen.is_new(value) for value in values) and not any(seen.is_new(value) for value in values)

    @pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0" + bytes(20)])
    def test_no_picture(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(data)
        with pytest.raises(ImageError, match="cannot be decoded"):
            perceptual_hash(tmp_path / "a.jpg")


class TestAnnotate:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        (tmp_path / "project" / "data").mkdir(parents=True)
        return tmp_path / "project"

    def prepare(self, source: Source, project: Path, **options: Any) -> tuple[Source, list[str]]:
        journal = ListedJournal()
        settings = AnnotateSettings(config=project / "pipeline.config", dataset="d", source="images", **options)
        return prepare_images(source, settings, journal), [event.text for event in journal.events]

    def test_a_video_stands_for_its_frames(self, tmp_path: Path, project: Path) -> None:
        path = make_video(tmp_path / "a.mp4", [0] * 10 + [1] * 10)
        found, texts = self.prepare([tmp_path / "b.jpg", path], project, frame_seconds=0.5)
        assert isinstance(found, list) and [file.name for file in found] == [
            "b.jpg",
            *(f"a_00000{second}.{rest}00.jpg" for second in (0, 1) for rest in (0, 5)),
        ]
        assert f"frames     4 of a.mp4, in {project / 'data' / 'frames'}" in texts

    def test_near_duplicates_are_left_out_and_counted(self, tmp_path: Path, project: Path) -> None:
        files = [tmp_path / f"{number}.jpg" for number in range(6)]
        for number, file in enumerate(files[:5]):
            scene(number % 3).save(file, quality=70 + number)
        files[5].write_text("no picture")
        found, texts = self.prepare(list(files), project, skip_duplicates=4)
        assert found == [*files[:3], files[5]]
        assert "images     4, 2 near-duplicates left out" in texts

    def test_hashes_are_kept_for_the_next_start(
        self, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = [tmp_path / f"{number}.jpg" for number in range(3)]
        for number, file in enumerate(files):
            scene(number).save(file)
        self.prepare(list(files), project, skip_duplicates=4)
        hashes = project / "data" / HASHES
        assert len(read_jsonl(hashes)) == 3
        hashes.write_text(hashes.read_text() + '{"file": "x", "hash": 5}\n{"hash": "00"}\nnonsense\n')
        scene(7).resize((200, 200)).save(files[1])
        read: list[Path] = []
        monkeypatch.setattr(
            "odkeras.web.images_to_annotate.perceptual_hash", lambda path: read.append(path) or perceptual_hash(path)
        )
        found, _ = self.prepare(list(files), project, skip_duplicates=4)
        assert found == files and read == [files[1]]

    def test_other_sources_stay(self, tmp_path: Path, project: Path) -> None:
        assert self.prepare(tmp_path / "tasks.jsonl", project)[0] == tmp_path / "tasks.jsonl"
        with pytest.raises(ConfigError, match="--skip-duplicates: SOURCE must be a folder of images, or a video"):
            self.prepare(tmp_path / "tasks.jsonl", project, skip_duplicates=4)

    def test_nothing_left(self, tmp_path: Path, project: Path) -> None:
        (tmp_path / "a.mp4").write_text("no video")
        with pytest.raises(ConfigError, match="no image is left"):
            self.prepare([tmp_path / "a.mp4"], project)


class TestCommand:
    def run(self, *arguments: Any) -> Any:
        return CliRunner().invoke(app, ["frames", *map(str, arguments)])

    def test_it_says_what_it_wrote(self, tmp_path: Path) -> None:
        make_video(tmp_path / "videos" / "a.mp4", [0] * 10 + [1] * 10)
        result = self.run(tmp_path / "videos", tmp_path / "out", "--frame-seconds", 0.5, "--skip-duplicates", 4)
        assert result.exit_code == 0
        assert f"{tmp_path / 'out'}: 2 frames of a.mp4, 2 near-duplicates left out" in result.stdout

    def test_a_video_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_text("no video")
        result = self.run(tmp_path / "a.mp4", tmp_path / "out")
        assert result.exit_code == 1 and "a.mp4: cannot be read: Invalid data found" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["none.mp4", "out"], "none.mp4: no such video"),
            (["folder", "out"], "folder: no videos in this folder"),
            (["a.mp4", "a.mp4"], "a.mp4: the last argument is the folder to write to, and this is a file"),
        ],
    )
    def test_wrong_arguments(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        make_video(tmp_path / "a.mp4", [0])
        (tmp_path / "folder").mkdir()
        result = self.run(*arguments)
        assert isinstance(result.exception, ConfigError) and message in str(result.exception)


def test_frames_become_jpegs_that_the_images_module_takes(tmp_path: Path) -> None:
    from odkeras.images import read_image

    path = make_video(tmp_path / "a.mp4", [0])
    (file,) = extract_frames([path], tmp_path / "out", FrameRules()).files
    assert read_image(file).image_size_hw == SIZE_HW
    assert Image.open(io.BytesIO(file.read_bytes())).format == "JPEG"
