"""`odkeras annotate` and `odkeras simulate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from odkeras.cli import options
from odkeras.cli.options import Given, with_options
from odkeras.cli.usage import AnnotateCommand
from odkeras.config.annotate import AnnotateSettings
from odkeras.config.simulation import SimulationSettings
from odkeras.text import say


def add_commands(app: typer.Typer) -> None:
    app.command(
        "annotate", cls=AnnotateCommand, epilog="Example: odkeras annotate raccoons images/ raccoons/ -spe 100"
    )(annotate)
    app.command("simulate", epilog="Example: odkeras simulate train.csv raccoons/ --images images/ --annotations 40")(
        simulate
    )


@with_options("annotate")
def annotate(
    dataset: Annotated[str, typer.Argument(help="Dataset that the answers are stored in.")],
    source: Annotated[
        str,
        typer.Argument(
            help="Directory of images, image, JSONL file, s3:// URL, dataset:NAME, or - for JSONL on stdin."
        ),
    ],
    config: options.Config,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labels of another tool about images in SOURCE: imported first, as `odkeras import` does it.",
            show_default=False,
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    *,
    given: Given,
) -> None:
    """Label images in a browser while a model learns from the answers and suggests the next boxes.

    Starts the page, the trainer and the model server. Ctrl-C stops all; the same command continues from there.
    The answers are in annotations.db beside CONFIG; `odkeras db out DATASET --project FOLDER` writes them.
    """
    from odkeras.images import absolute_path
    from odkeras.logs import configure_logging
    from odkeras.project import config_path
    from odkeras.web.server import run_annotate

    configure_logging(verbose=False)
    label_map_path, place = given["label_map_path"], config_path(config)
    settings = given.build(
        AnnotateSettings,
        dataset=dataset,
        source=_absolute_source(source),
        config=absolute_path(place),
        label_map_path=None if label_map_path is None else absolute_path(label_map_path),
        remove_base64=True,
        **{name: _directory(name, given[name], place, given["ip"]) for name in ("data_dir", "model_dir", "export_dir")},
    )
    if labels:
        _import_labels(labels, settings)
    run_annotate(settings)


def _import_labels(paths: list[Path], settings: AnnotateSettings) -> None:
    """Import labels before the page is opened. Labels that were imported before are recognised."""
    from odkeras.cli.import_labels import HowToImport, run_import
    from odkeras.formats.label_formats import find_label_files
    from odkeras.session.arguments import resolve
    from odkeras.session.setup import label_map_path
    from odkeras.web.opening import find_page_database

    settings = resolve(settings)
    files, source = find_label_files(paths), Path(settings.source)
    how = HowToImport(source if source.is_dir() else None, label_map=label_map_path(settings))
    place = find_page_database(settings).path
    report = run_import(files, settings.dataset, place, how, data_dir=settings.project.data_dir, check=False)
    for line in (*report.lines(), f"labels      {report.added} imported, {report.known} known already"):
        say(line, file=sys.stderr)


def _absolute_source(source: str) -> str:
    """So that it means the same from everywhere; what is no path stays as it is."""
    from odkeras.images import absolute_path

    return str(absolute_path(source)) if Path(source).exists() else source


def _directory(name: str, given: Path | None, config: Path, ip: str | None) -> str:
    """The one that was given, else the one beside CONFIG. With IP it was one in the working directory, with the 2019
    recipe's name, which is used if it is there."""
    from odkeras.images import absolute_path

    if given is not None:
        return str(absolute_path(given))
    if ip and Path(name).is_dir():
        return str(Path(name).absolute())
    return str(absolute_path(config).parent / name.removesuffix("_dir"))


@with_options("simulate")
def simulate(
    truth: Annotated[
        Path,
        typer.Argument(help="Known boxes: a CSV (path,xmin,ymin,xmax,ymax,label), or labels as for `odkeras import`."),
    ],
    config: options.Config,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images; default: beside TRUTH.", rich_help_panel=options.DIRECTORIES),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="For curve.json and curve.png; default: report/ beside CONFIG.", rich_help_panel=options.DIRECTORIES
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Known boxes to measure on; default: a fifth of TRUTH.", rich_help_panel=options.EVALUATION),
    ] = None,
    *,
    given: Given,
) -> None:
    """Play the annotator from known boxes, and draw how fast the model learns.

    Runs the whole loop: suggestions, answers, training, new versions. A second call with the same directories
    continues.
    """
    from odkeras.simulation.simulate import simulate as run

    result = run(truth, given.build(SimulationSettings), images, report_dir=report, test_csv=test)
    say(f"{result.curve_json}\n{result.curve_png}")
