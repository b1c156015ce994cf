"""`odkeras init --weights`: names, archives, folders, checkpoints and files of Keras."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_server import image_server
from test_few_images import zoo_config
from typer.testing import CliRunner
from zoo_archives import save_archive, tar_gz, zoo_files

from odkeras.cli import app
from odkeras.config.downloads import DownloadSettings
from odkeras.errors import ConfigError, OdkerasError, WeightsError
from odkeras.pipeline import check_pipeline, load_pipeline, num_classes
from odkeras.pretrained.cache import WeightsCache
from odkeras.pretrained.catalogue import ZOO
from odkeras.pretrained.starting_point import find_starting_point

CONFIG = str(zoo_config("ssd_mobilenet_v2_fpnlite_320"))
MODEL = ZOO[1]


@pytest.fixture
def weights(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "cache", DownloadSettings(offline=True))


def init(tmp_path: Path, *arguments: str) -> Path:
    """Run `odkeras init` and return the pipeline.config."""
    result = CliRunner().invoke(app, ["init", str(tmp_path / "project"), *arguments])
    if isinstance(result.exception, OdkerasError):
        raise result.exception
    assert result.exit_code == 0, result.output
    assert "random weights" not in result.output
    return tmp_path / "project" / "pipeline.config"


def test_a_project_starts_from_a_detector_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODKERAS_CACHE", str(tmp_path / "cache"))
    with image_server() as server:
        server.put(f"/{MODEL.date}/{MODEL.file_name}", tar_gz(zoo_files(MODEL.archive_name, CONFIG)))
        path = init(tmp_path, "-l", "cat", "-l", "dog", "--weights", MODEL.name, "--mirror", server.url(""))
    config = load_pipeline(path)
    train = config.train_config
    assert train.fine_tune_checkpoint == str(tmp_path / "cache" / "zoo" / MODEL.archive_name / "checkpoint" / "ckpt-0")
    assert (train.fine_tune_checkpoint_type, train.fine_tune_checkpoint_version) == ("detection", 2)
    assert num_classes(config) == 2
    assert (train.batch_size, train.use_bfloat16, train.sync_replicas) == (8, False, False)
    assert config.train_input_reader.label_map_path == str(path.with_name("label_map.pbtxt"))
    assert check_pipeline(config, label_map=None, purpose="loop") == []
    assert f"from the pipeline.config of {MODEL.name}" in path.read_text().splitlines()[0]
    # the second project needs no network
    path = init(tmp_path, "-l", "cat", "--force", "--weights", MODEL.archive_name, "--offline")
    assert load_pipeline(path).train_config == train


def test_nothing_is_downloaded_for_a_command_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODKERAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pipeline.config").write_text("mine")
    with image_server() as server:
        mirror = ("--weights", MODEL.name, "--mirror", server.url(""))
        with pytest.raises(ConfigError, match="already there"):
            init(tmp_path, "-l", "cat", *mirror)
        with pytest.raises(ConfigError, match="duplicate label"):
            init(tmp_path, "-l", "cat", "-l", "cat", "--force", *mirror)
        with pytest.raises(ConfigError, match="give --weights, or --fine-tune-checkpoint"):
            init(tmp_path, "-l", "cat", "--fine-tune-checkpoint", "ckpt-0", *mirror)
        assert server.requests == []


def test_an_archive_and_an_unpacked_folder_on_the_disk(tmp_path: Path, weights: WeightsCache) -> None:
    archive = save_archive(tmp_path / "m.tar.gz", CONFIG)
    start = find_starting_point(str(archive), template=None, cache=weights)
    folder = weights.unpacked(archive)
    assert start.checkpoint == str(folder / "checkpoint" / "ckpt-0")
    again = find_starting_point(str(folder), template=None, cache=weights)
    assert (again.checkpoint, again.config) == (start.checkpoint, start.config)
    (folder / "pipeline.config").unlink()
    with pytest.raises(WeightsError, match=r"has no pipeline.config"):
        find_starting_point(str(folder), template=None, cache=weights)


def test_a_template_replaces_the_config_of_the_zoo(tmp_path: Path, weights: WeightsCache) -> None:
    archive = save_archive(tmp_path / "m.tar.gz", "no config at all")
    start = find_starting_point(str(archive), template="shapes_96", cache=weights)
    assert "template shapes_96" in start.header
    assert start.checkpoint_type == "detection"
    with pytest.raises(ConfigError, match=r"pipeline.config:1:\d+: "):
        find_starting_point(str(archive), template=None, cache=weights)


def test_the_path_of_a_checkpoint_is_a_starting_point_too(tmp_path: Path, weights: WeightsCache) -> None:
    prefix = str(weights.unpacked(save_archive(tmp_path / "m.tar.gz")) / "checkpoint" / "ckpt-0")
    for path in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001", "gs://bucket/ckpt-0"):
        start = find_starting_point(path, template=None, cache=weights)
        assert (start.checkpoint, start.checkpoint_type) == (path, None)


def test_a_folder_with_the_name_of_weights_does_not_hide_them(
    tmp_path: Path, weights: WeightsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`odkeras init efficientdet_d0 --weights efficientdet_d0`, for the second time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "efficientdet_d0").mkdir()
    with pytest.raises(WeightsError, match=r"efficientdet_d0_coco17_tpu-32.tar.gz is not in the cache"):
        find_starting_point("efficientdet_d0", template=None, cache=weights)


def test_a_file_of_keras_needs_its_name(tmp_path: Path, weights: WeightsCache) -> None:
    (tmp_path / "mine.h5").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"mine.h5: .*rename it to one of mobilenet_v2_weights"):
        find_starting_point(str(tmp_path / "mine.h5"), template=None, cache=weights)


@pytest.mark.parametrize("template", ["centernet_resnet50_512", "ssd_mobilenet_v2_fpnlite_320"])
def test_a_backbone_does_not_go_into_every_template(tmp_path: Path, weights: WeightsCache, template: str) -> None:
    (weights.folder / "backbones").mkdir(parents=True)
    (weights.folder / "backbones" / "efficientnetb0_notop.h5").write_bytes(b"")
    message = "efficientnet_b0_imagenet does not fit the template, whose feature extractor is .*ssd_efficientnet-b0"
    with pytest.raises(ConfigError, match=message):
        find_starting_point("efficientnet_b0_imagenet", template=template, cache=weights)
