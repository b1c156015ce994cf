"""Exports the accepted answers of a dataset as the labels of another tool: a folder with labels, images and a manifest.

    with AnswerDatabase.open("annotations.db", create=False) as database:
        report = export_labels(database, "pets", Path("pets-yolo"), ExportOptions("yolo"))

The answers are read twice: first for their labels (`label_survey`), then one after the other into the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from odkeras import __version__
from odkeras.annotation import Answer
from odkeras.errors import AnswerError, ConfigError, ImageError, RecordError, error_reason
from odkeras.formats.coco_files import ImagePlace
from odkeras.formats.label_files import SPLIT
from odkeras.formats.prodigy import Record
from odkeras.formats.writers.writer import ExportedImage, LabelWriter, Target
from odkeras.image_store import ImageStore
from odkeras.labels import LabelMap
from odkeras.output_folder import check_output_folder, output_folder
from odkeras.splits import NAMES, GroupBy, Splits, group_key, own_split
from odkeras.web.database import AnswerDatabase
from odkeras.web.dataset_labels import DatasetLabels, labels_of_dataset
from odkeras.web.exports import check_dataset
from odkeras.web.label_images import ImageExporter, ImageFinder, ImageMode
from odkeras.web.label_report import MANIFEST_NAME, ExportReport
from odkeras.web.label_survey import Survey, read_usable
from odkeras.web.label_writers import writer_of

Progress = Callable[[int, int | None, str], object]
Answers = Callable[[], Iterator[tuple[str, Record]]]


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        format: a key of `label_writers.WRITERS`.
        splits: shares of train, val and test, of the images that were not imported with a split of their own.
        group_by: which images stay in one split; None: each image by itself.
        images: where the images shall be; None: where they are, or links for a format that needs them in the folder.
        label_map: the label map with the classes; None: see `labels_of_dataset`.
        skip_other_labels: leave out objects that `label_map` lacks, instead of refusing.
        overwrite: replace an earlier export.
    """

    format: str
    splits: Splits = field(default_factory=Splits)
    group_by: GroupBy | None = None
    images: ImageMode | None = None
    label_map: Path | None = None
    skip_other_labels: bool = False
    overwrite: bool = False

    def image_mode(self, writer: type[LabelWriter]) -> ImageMode:
        """Where the images shall be.

        Raises:
            ConfigError: the format puts the images into its files.
        """
        if writer.embeds_images and self.images not in (None, ImageMode.REFER):
            raise ConfigError(
                f"--format {self.format} has the images inside its files; leave out --copy-images and --link-images"
            )
        if self.images is not None:
            return self.images
        return ImageMode.LINK if writer.needs_images else ImageMode.REFER


def export_labels(
    database: AnswerDatabase,
    dataset: str,
    out: Path,
    options: ExportOptions,
    *,
    stores: Sequence[ImageStore] = (),
    progress: Progress = lambda done, total, note: None,
) -> ExportReport:
    """Write the images whose latest answer of all sessions is accept to a new folder, atomically.

    Answers, spans and images that cannot be used are left out and reported.

    Args:
        out: the folder to write.
        stores: where images without a file may be.
        progress: callback with the number of images done and of all, and what is done with them. All is None in the
            first pass.

    Raises:
        ConfigError: an unknown format or dataset, options that do not fit together, or `out` may not be written.
        LabelMapError: the label map cannot be read, or the one that was named lacks a label.
        RecordError: no image is left, or the folder cannot be written.
        DatabaseError: the database cannot be read.
    """
    writer_class = writer_of(options.format)
    mode = options.image_mode(writer_class)
    check_dataset(database, dataset)
    check_output_folder(out, MANIFEST_NAME, overwrite=options.overwrite)
    labels = labels_of_dataset(database, dataset, options.label_map)
    with database.snapshot():
        answers = database.iter_latest(dataset, decision="accept")
        survey = Survey.of(answers, lambda done: progress(done, None, "reading the labels"))
        labels = _checked_labels(labels, survey, options)
        _check_sources(survey, out)
        splits = tuple(name for name in NAMES if name in survey.splits or name in options.splits.names)
        report = ExportReport(dataset, options.format, labels, splits, mode)
        with output_folder(out, MANIFEST_NAME, overwrite=options.overwrite) as folder:
            target = _target(folder, out, labels, survey, report)
            images = ImageExporter(folder, mode, writer_class, ImageFinder(stores))
            export = _Export(options, labels.label_map, survey, images, report)
            with writer_class(target) as writer:
                for done, (image_id, example) in enumerate(database.iter_latest(dataset, decision="accept"), start=1):
                    image = export.read(image_id, example)
                    if image is not None:
                        export.write(image, writer)
                    progress(done, survey.images, f"writing {options.format}")
            report.finish(survey, writer, images.counts)
            report.write_manifest(folder, _option_texts(options))
    return report


class _Export:
    """Turns answers into exported images, one after the other."""

    def __init__(
        self,
        options: ExportOptions,
        label_map: LabelMap | None,
        survey: Survey,
        images: ImageExporter,
        report: ExportReport,
    ) -> None:
        self._options = options
        self._label_map = label_map
        self._survey = survey
        self._images = images
        self._report = report

    def read(self, image_id: str, example: Record) -> ExportedImage | None:
        """The image with its answer; None if it cannot be used, which is reported."""
        where = image_id
        try:
            place = ImagePlace.of(image_id, example)
            where = place.url or place.where  # the URL without a login
            answer, problems = read_usable(image_id, example, self._label_map)
        except Exception as error:  # whatever it is, the other answers can be exported
            self._report.skipped.append((where, error_reason(error)))
            return None
        if place.path is not None and self._survey.owners.get(place.path, image_id) != image_id:
            self._report.skipped.append((where, "a later answer is about the same file, which has changed in between"))
            return None
        try:
            image = self._images.put(answer, place, example, self._split(answer, place))
        except ImageError as error:
            self._report.skipped.append((where, error.reason))
            return None
        except AnswerError as error:
            self._report.skipped.append((where, str(error)))
            return None
        self._report.skipped += [(where, problem) for problem in problems]
        return image

    def write(self, image: ExportedImage, writer: LabelWriter) -> None:
        """Write the image, unless the format cannot have it, which is reported."""
        try:
            writer.write(image)
        except ImageError as error:
            self._report.skipped.append((image.place, error.reason))
        else:
            self._report.count(image)

    def _split(self, answer: Answer, place: ImagePlace) -> str:
        if (own := own_split(answer.task.other.get(SPLIT))) is not None:
            self._report.with_own_split += 1
            return own
        splits, group_by = self._options.splits, self._options.group_by
        if group_by is None:
            return splits.of(place.image_id)
        group = group_by.group(place.name, None if place.path is None else place.path.parent.as_posix())
        self._report.count_group(group)
        return splits.of(place.image_id if group is None else group_key(group))


def _checked_labels(labels: DatasetLabels, survey: Survey, options: ExportOptions) -> DatasetLabels:
    """The labels to export. Raises: LabelMapError: the label map that was named lacks one."""
    if labels.label_map is not None and options.label_map is not None and not options.skip_other_labels:
        survey.check_labels(labels.label_map, options.label_map)
    return replace(labels, label_map=survey.label_map(labels.label_map))


def _check_sources(survey: Survey, out: Path) -> None:
    """Raises: ConfigError: an image is in the folder that would be replaced; RecordError: there is no image."""
    if not survey.images:
        raise RecordError("the dataset has no accepted image; an export has those whose latest answer is accept")
    folder = out.resolve()
    parents = {path.parent: path for path in survey.owners}
    inside = next((path for parent, path in parents.items() if parent.resolve().is_relative_to(folder)), None)
    if inside is not None:
        raise ConfigError(f"{out} has images of the dataset, for example {inside}; name another folder")


def _target(folder: Path, out: Path, labels: DatasetLabels, survey: Survey, report: ExportReport) -> Target:
    return Target(
        folder,
        () if labels.label_map is None else labels.label_map.labels,
        report.split_names,
        survey.has_polygons,
        f"{report.dataset}, written by odkeras {__version__}",
        survey.images_dir,
        out.resolve(),
    )


def _option_texts(options: ExportOptions) -> dict[str, object]:
    """The options for the manifest."""
    group_by = options.group_by
    return {
        "split": "/".join(f"{share:g}" for share in options.splits.shares),
        "group_by": None if group_by is None else str(group_by),
        "label_map": None if options.label_map is None else str(options.label_map),
        "skip_other_labels": options.skip_other_labels,
    }
