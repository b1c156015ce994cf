"""What `odkeras init --weights` takes: a name, or a file or folder on the disk."""

from __future__ import annotations

from pathlib import Path

from odkeras.errors import ConfigError
from odkeras.init_project import DEFAULT_TEMPLATE, StartingPoint
from odkeras.pipeline import checkpoint_prefix, feature_extractor_type, load_pipeline, model_type
from odkeras.pipeline.extractors import known
from odkeras.pipeline.files import is_remote
from odkeras.pipeline.proto import PipelineConfig, get_model
from odkeras.pretrained.archive import check_model_folder, find_checkpoint
from odkeras.pretrained.cache import WeightsCache
from odkeras.pretrained.catalogue import BACKBONES, Backbone, find_weights


def find_starting_point(weights: str, *, template: str | None, cache: WeightsCache) -> StartingPoint:
    """The weights to start from, downloaded and converted where necessary.

    Args:
        weights: a name of the catalogue, the prefix of a checkpoint, an archive (.tar.gz) or an unpacked folder of the
            model zoo, or a weights file of Keras Applications under its original name (.h5).
        template: the template to use; None for the zoo's own pipeline.config, or the one that suits a backbone.

    Raises:
        ConfigError: no such name or file, no such template, or a template whose model cannot have the weights.
        WeightsError: the weights cannot be downloaded or are damaged.
        SetupError: TensorFlow, which converts backbones, is not installed.
    """
    path = Path(weights).expanduser()
    if is_remote(weights) or Path(f"{checkpoint_prefix(str(path))}.index").is_file():
        return StartingPoint.from_template(template or DEFAULT_TEMPLATE, weights)
    if path.suffix == ".h5" and path.is_file():
        return _from_backbone(_backbone_of_file(path), path, template, cache)
    if path.is_dir() and find_checkpoint(path):
        check_model_folder(path, source=str(path))
        return _from_zoo(path.name, path, template)
    if path.is_file():
        return _from_zoo(path.name, cache.unpacked(path), template)
    entry = find_weights(weights)
    if isinstance(entry, Backbone):
        return _from_backbone(entry, cache.keras_file(entry), template, cache)
    return _from_zoo(entry.name, cache.zoo_model(entry), template)


def _from_zoo(name: str, folder: Path, template: str | None) -> StartingPoint:
    checkpoint = find_checkpoint(folder)
    if template is not None:
        return StartingPoint.from_template(template, checkpoint, "detection")
    return StartingPoint.from_zoo(name, load_pipeline(folder / "pipeline.config"), checkpoint)


def _from_backbone(backbone: Backbone, file: Path, template: str | None, cache: WeightsCache) -> StartingPoint:
    from odkeras.pretrained.conversion import convert_backbone

    start = StartingPoint.from_template(template or backbone.template)
    feature_extractor = _put_into(backbone, start.config)
    checkpoint = convert_backbone(backbone, file, feature_extractor, cache)
    return StartingPoint(start.config, start.header, checkpoint, "classification")


def _put_into(backbone: Backbone, config: PipelineConfig) -> str:
    """Make the config's feature extractor one with this backbone, in place, and return its name."""
    current = feature_extractor_type(config)
    if current in backbone.feature_extractors:
        return current
    fitting = [name for name in backbone.feature_extractors if name in known(model_type(config))]
    # The networks of SSD differ in more than the backbone, and their settings do not fit each other.
    is_other_network = model_type(config) == "ssd" and not all("efficientnet" in each for each in (current, *fitting))
    if not fitting or is_other_network:
        raise ConfigError(
            f"{backbone.name} does not fit the template, whose feature extractor is {current}; leave --template out, "
            f"or take one with {' or '.join(backbone.feature_extractors)}"
        )
    get_model(config).feature_extractor.type = fitting[0]
    return fitting[0]


def _backbone_of_file(path: Path) -> Backbone:
    for backbone in BACKBONES:
        if backbone.file_name == path.name:
            return backbone
    names = ", ".join(backbone.file_name for backbone in BACKBONES)
    raise ConfigError(f"{path}: the name does not say which weights these are; rename it to one of {names}")
