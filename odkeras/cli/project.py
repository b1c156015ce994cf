"""`odkeras init` and `odkeras settings`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli import options
from odkeras.cli.options import Given, with_options
from odkeras.cli.weights import open_cache
from odkeras.config.downloads import DownloadSettings
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.keypoints import Skeleton

_SIMILAR = ("ask", "merge", "keep")
_FROM_LABELS = "labels"


def add_commands(app: typer.Typer) -> None:
    example = "Example: odkeras init raccoons --label raccoon --weights ssd_mobilenet_v2_fpnlite_320x320"
    app.command("init", epilog=example)(init)
    app.command("settings", epilog="Example: odkeras settings raccoons/")(settings)


@with_options("init")
def init(
    directory: Annotated[Path, typer.Argument(help="Where to write pipeline.config and label_map.pbtxt.")],
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="A class to detect; repeat for each.", show_default=False)
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="A text file with the name of a class on each line (UTF-8); after --label.")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labels of another tool, as for `odkeras import`: their classes, in their order; after --label.",
            show_default=False,
        ),
    ] = None,
    similar: Annotated[
        str,
        typer.Option(
            help="With --labels, names that are alike (car, Car): merge them into the first, keep them, or ask."
        ),
    ] = "ask",
    keypoints: Annotated[
        list[str] | None,
        typer.Option(
            help="Keypoints of a label, for example arrow=tail-middle-tip,flag (a hyphen is a line) or person=coco; or "
            "`labels` for those in --labels. Repeat for each label.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="A configuration of configs/ to start from; an unknown name lists them.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "-w",
            help="Start from these trained weights, not from random ones: a name from `odkeras weights list`, which is "
            "downloaded; or a file: an archive of the model zoo (.tar.gz) or its unpacked folder, a checkpoint, or a "
            "weights file of Keras Applications (.h5).",
        ),
    ] = None,
    fine_tune_checkpoint: Annotated[
        str | None,
        typer.Option(help="Start from this checkpoint: its path without .index, for example FOLDER/checkpoint/ckpt-0."),
    ] = None,
    fine_tune_type: Annotated[
        str | None, typer.Option(help="classification, detection or full; default: detected from the checkpoint.")
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Start without labels: the page asks for the first one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of an earlier call.")] = False,
    *,
    given: Given,
) -> None:
    """Write a project that is ready to annotate: a pipeline.config and a label map."""
    from odkeras.errors import ConfigError
    from odkeras.init_project import init_project
    from odkeras.labels import LabelMap
    from odkeras.logs import configure_logging
    from odkeras.pretrained.detector_classes import explain_known_labels
    from odkeras.pretrained.starting_point import find_starting_point

    if weights and (fine_tune_checkpoint or fine_tune_type):
        raise ConfigError("give --weights, or --fine-tune-checkpoint with --fine-tune-type, not both")
    if no_labels and (label or labels or labels_file):
        raise ConfigError("--no-labels: give no labels with it")
    configure_logging(verbose=False)  # TensorFlow converts backbones
    names = [*(label or ()), *_names_in(labels or [], similar)]
    with open_cache(weights or "", given.build(DownloadSettings)) as cache:
        result = init_project(
            directory,
            names,
            labels_file=labels_file,
            keypoints=_keypoints(keypoints or [], labels or [], names),
            template=template,
            fine_tune_checkpoint=fine_tune_checkpoint,
            fine_tune_checkpoint_type=fine_tune_type,
            find_start=partial(find_starting_point, weights, template=template, cache=cache) if weights else None,
            no_labels=no_labels,
            force=force,
        )
    for path in result.paths:
        say(f"wrote {path}")
    if result.checkpoint:
        say(f"starts from {result.checkpoint}")
    if result.checkpoint and result.is_detector and not no_labels:
        say(explain_known_labels(result.checkpoint, LabelMap.load(result.label_map_path)))
    say(result.next_steps)


def _names_in(paths: list[Path], similar: str) -> list[str]:
    """The names of the classes in label files. Asks about names that are alike."""
    from odkeras.errors import ConfigError
    from odkeras.formats.label_formats import class_names, find_label_files
    from odkeras.label_choice import alike_names, explain_alike, merge_alike

    if similar not in _SIMILAR:
        raise ConfigError(f"--similar must be one of {', '.join(_SIMILAR)}; got {similar!r}")
    if not paths:
        return []
    names = list(dict.fromkeys(name.strip() for name in class_names(find_label_files(paths))))
    if not names:
        raise ConfigError(f"{', '.join(map(str, paths))}: no classes; give --label NAME for each")
    groups = alike_names(names)
    if not groups or similar == "keep":
        return names
    what = f"{len(groups)} groups of names are alike: {explain_alike(groups)}"
    if similar == "ask" and not sys.stdin.isatty():
        raise ConfigError(f"{what}. Give --similar merge, or --similar keep if they are different classes")
    if similar == "ask" and not typer.confirm(f"{what}. Is each group one class?", default=True, err=True):
        return names
    return merge_alike(names)


def _keypoints(texts: list[str], paths: list[Path], names: list[str]) -> dict[str, Skeleton]:
    """The keypoints by label: those of `--keypoints`, and those of the label files if it asks for them."""
    from odkeras.errors import ConfigError
    from odkeras.formats.label_formats import class_keypoints, find_label_files
    from odkeras.keypoints import parse_class_keypoints

    in_files = class_keypoints(find_label_files(paths)) if paths else {}
    in_files = {name: skeleton for name, skeleton in in_files.items() if name in names}
    if _FROM_LABELS not in texts:
        if in_files and not texts:
            listed = ", ".join(f"{name}: {len(skeleton.names)}" for name, skeleton in in_files.items())
            say(f"the labels have keypoints ({listed}), which are left out; --keypoints {_FROM_LABELS} takes them")
        return parse_class_keypoints(texts)
    if not in_files:
        raise ConfigError(f"--keypoints {_FROM_LABELS}: no file of --labels names keypoints; COCO's JSON can")
    return {**in_files, **parse_class_keypoints(text for text in texts if text != _FROM_LABELS)}


def settings(
    config: options.Config,
    command: Annotated[
        str, typer.Option(help="The command, such as trainer; recipe is the Prodigy recipe.")
    ] = "annotate",
) -> None:
    """Show the options of a command in this project, each with its value and where the value comes from.

    A flag overrides an environment variable ODKERAS_<NAME>, which overrides odkeras.toml beside CONFIG, which overrides
    the default.
    """
    from odkeras.config.commands import IN_A_PROJECT
    from odkeras.config.sources import effective_values, unknown_variables
    from odkeras.errors import ConfigError
    from odkeras.project import config_path

    if command not in IN_A_PROJECT:
        raise ConfigError(f"--command {command}: it must be one of {', '.join(IN_A_PROJECT)}")
    rows = list(effective_values(config_path(config), command))
    names = [row.declared.written(command) for row in rows]
    width = max(map(len, names))
    for name, row in zip(names, rows, strict=True):
        value = "(hidden)" if row.declared.option.secret and row.value else row.value
        say(f"{name:{width}}  {'' if value in (None, ()) else value!s:20}  {row.origin or 'default'}")
    for problem in unknown_variables():
        say(f"warning: {problem}")
