"""How fast the input pipeline is without training, where its time goes, and what a cache of decoded images would save.

Two kinds of pictures, each in a record, read and shuffled as the loop does it:
  shapes       about 320 x 240 pixels.
  photographs  1 megapixel, with random boxes.

Each rate is measured with every buffer empty at its start. `core ms` is processor time, of all cores together.

Example:
    python scripts/bench_inputs.py --training-images-per-s 20

The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from measuring import DEFAULT_TEMPLATE, HEIGHT, WIDTH, Row, quiet_environment, report, say, write_photographs
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.pipeline import Overrides, apply_overrides, load_pipeline
from odkeras.shapes import CLASSES, draw_picture

KINDS = ("shapes", "photographs")
BATCH_SIZES = (4, 8)
ENLARGED = 2  # the shapes are drawn at 160 x 120 and 180 x 120 pixels
ROUND_STEPS = 10
DRAINED_BATCHES = 5
PASSES = 3

TruthRow = tuple[Any, ...]
Build = Callable[[], Any]


@dataclass
class Variant:
    """One input pipeline or a part of one.

    Args:
        build: creates the dataset.
        images: number of images in one element of the dataset.
    """

    build: Build
    images: int
    dataset: Any = None
    iterator: Iterator[Any] = field(default_factory=lambda: iter(()))
    rates: list[float] = field(default_factory=list)
    core_ms: list[float] = field(default_factory=list)

    def open(self, images: int) -> None:
        """Build the dataset and warm it up by reading this many images."""
        self.dataset = self.build()
        self.iterator = iter(self.dataset)
        self.take(images)

    def take(self, images: int) -> None:
        for _ in range(-(-images // self.images)):
            next(self.iterator)

    def measure(self, seconds: float) -> None:
        """Measure images/s and processor time per image, starting with empty buffers."""
        self.take(DRAINED_BATCHES * max(BATCH_SIZES))
        started, worked, elements = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - started < seconds:
            next(self.iterator)
            elements += 1
        images = elements * self.images
        self.core_ms.append(1000 * (time.process_time() - worked) / images)
        self.rates.append(images / (time.perf_counter() - started))

    def start_s(self, images: int) -> tuple[float, float]:
        """Seconds from a new iterator to its first batch, and to the given number of images."""
        self.iterator = iter(())
        started = time.perf_counter()
        self.iterator = iter(self.dataset)
        next(self.iterator)
        first_s = time.perf_counter() - started
        self.take(images - self.images)
        return first_s, time.perf_counter() - started


def main() -> None:
    args = parse_arguments()
    os.environ.update(quiet_environment())
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        for kind in KINDS:
            say(kind)
            found.update(measure_kind(Path(folder) / kind, kind, args))
    about = {"template": args.template, "images": args.images, "photograph_px": [WIDTH, HEIGHT]}
    report("inputs", list(rows(args)), found, **about, training_images_per_s=args.training_images_per_s)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="configuration to use (default: %(default)s)")
    parser.add_argument("--images", type=int, default=40, help="pictures of each kind (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each rate (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of each of them (default: %(default)s)")
    parser.add_argument(
        "--training-images-per-s", type=float, help="how many images a second are trained on, to say what share it is"
    )
    return parser.parse_args()


def make_project(directory: Path, kind: str, template: str, images: int) -> tuple[Any, Path]:
    """A project with pictures of one kind; returns its resolved configuration and the record with the pictures."""
    from odkeras.data.conversion import labels_to_records

    init_project(directory, list(CLASSES), template=template)
    write = write_shapes if kind == "shapes" else write_photographs_with_boxes
    truth, record = write(directory / "pictures", images), directory / "train.record"
    label_map = LabelMap.load(directory / "label_map.pbtxt")
    labels_to_records(truth, record, label_map=label_map, images_dir=directory / "pictures")
    config = load_pipeline(directory / "pipeline.config")
    return apply_overrides(config, Overrides(train_records=(str(record),))), record


def write_shapes(folder: Path, number: int) -> Path:
    """Write pictures of shapes, about 320 x 240 pixels; returns the CSV of their boxes."""
    folder.mkdir(parents=True)
    rows: list[TruthRow] = []
    for index in range(number):
        picture, shapes = draw_picture(np.random.default_rng([2019, index]))
        name, (width, height) = f"{index:03}.jpg", picture.size
        larger = picture.resize((ENLARGED * width, ENLARGED * height), Image.Resampling.BICUBIC)
        larger.save(folder / name, quality=90)
        rows += [(name, *(ENLARGED * side for side in shape.box_xyxy_px), shape.label) for shape in shapes]
    return write_truth(folder / "truth.csv", rows)


def write_photographs_with_boxes(folder: Path, number: int) -> Path:
    """Write photographs with one to four random boxes each; returns the CSV of the boxes."""
    generator = np.random.default_rng(0)
    rows: list[TruthRow] = []
    for path in write_photographs(folder, number):
        for _ in range(generator.integers(1, 5)):
            width, height = generator.uniform(0.1, 0.5, 2) * (WIDTH, HEIGHT)
            left, top = generator.uniform(0, (WIDTH - width, HEIGHT - height))
            rows.append((path.name, left, top, left + width, top + height, str(generator.choice(CLASSES))))
    return write_truth(folder / "truth.csv", rows)


def write_truth(path: Path, rows: Iterable[TruthRow]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "xmin", "ymin", "xmax", "ymax", "label"))
        writer.writerows(rows)
    return path


def measure_kind(directory: Path, kind: str, args: argparse.Namespace) -> dict[str, Any]:
    from odkeras import compat

    compat.prepare()
    config, record = make_project(directory, kind, args.template, args.images)
    variants = make_variants(config, record)
    for name, variant in variants.items():
        started = time.perf_counter()
        variant.open(images=PASSES * args.images)
        say(f"{kind}: {name} built and warm after {time.perf_counter() - started:.1f} s")
    for repeat in range(args.repeats):
        names = list(variants) if repeat % 2 == 0 else list(reversed(variants))
        for name in names:
            variants[name].measure(args.seconds)
    found = {"record_mb": record.stat().st_size / 2**20, **summary(variants), **shares(variants)}
    for batch_size in BATCH_SIZES:
        found |= measure_starts(variants[f"batch{batch_size}"], f"batch{batch_size}", args.repeats)
    if args.training_images_per_s:
        cores = len(os.sched_getaffinity(0))
        found["share_of_training"] = 0.1 * args.training_images_per_s * found["batch4_core_ms"] / cores
    say(f"{kind}: " + ", ".join(f"{name} {statistics.median(each.rates):.0f}/s" for name, each in variants.items()))
    return {f"{kind}_{name}": value for name, value in found.items()}


def make_variants(config: Any, record: Path) -> dict[str, Variant]:
    """Complete pipelines, parts of them, and pipelines with a cache, by name."""
    import tensorflow as tf
    from object_detection.builders import decoder_builder

    from odkeras.data.example_set import shuffle_and_repeat
    from odkeras.data.stored_example import index_record
    from odkeras.model.inference import build_detection_model, static_image_size
    from odkeras.training.inputs import example_source, training_dataset

    examples = index_record(record)
    model = build_detection_model(config.model, is_training=True)
    decode = decoder_builder.build(config.train_input_reader).decode
    endless = example_source(lambda: shuffle_and_repeat(examples))
    once = example_source(lambda: (example.read() for example in examples))
    size_hw = static_image_size(config.model)
    plain = type(config)()
    plain.CopyFrom(config)
    plain.train_config.ClearField("data_augmentation_options")

    def whole(settings: Any, batch_size: int) -> Build:
        sized = apply_overrides(settings, Overrides(batch_size=batch_size))
        return lambda: training_dataset(sized, model, endless)

    def part(function: Callable[[Any], Any]) -> Build:
        mapped = tf.autograph.experimental.do_not_convert(function)
        return lambda: endless.map(mapped, tf.data.AUTOTUNE).prefetch(2 * BATCH_SIZES[0])

    small = BATCH_SIZES[0]
    variants = {f"batch{batch_size}": Variant(whole(config, batch_size), batch_size) for batch_size in BATCH_SIZES}
    variants["read"] = Variant(lambda: endless, 1)
    variants["jpeg"] = Variant(part(decode_jpeg), 1)
    variants["decode"] = Variant(part(decode), 1)
    variants["unaugmented"] = Variant(whole(plain, small), small)
    sized = apply_overrides(config, Overrides(batch_size=small))
    variants["cached"] = Variant(lambda: cached_dataset(sized, model, once, len(examples)), small)
    if size_hw is not None:
        variants["cached_resized"] = Variant(
            lambda: cached_dataset(sized, model, once, len(examples), size_hw=size_hw), small
        )
    return variants


def decode_jpeg(serialized: Any) -> Any:
    import tensorflow as tf

    feature = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    return tf.io.decode_jpeg(tf.io.parse_single_example(serialized, feature)["image/encoded"], channels=3)


def cached_dataset(config: Any, model: Any, once: Any, number: int, size_hw: tuple[int, int] | None = None) -> Any:
    """Experiment: `training_dataset`, but with decoded images cached in memory.

    Args:
        config: the pipeline configuration.
        model: the model whose `preprocess` prepares the images.
        once: dataset with each serialized example once.
        number: number of examples.
        size_hw: cache the images in this size; None for their original size. Crops would then have fewer pixels.
    """
    import tensorflow as tf
    from object_detection import inputs as odapi_inputs
    from object_detection.builders import decoder_builder

    from odkeras.training import inputs

    def resize(tensors: dict[str, Any]) -> dict[str, Any]:
        image = tf.image.resize(tensors["image"], size_hw)
        return {**tensors, "image": tf.cast(tf.round(image), tf.uint8)}

    def build(reader: Any, batch_size: int, transform_input_data_fn: Any, **_: Any) -> Any:
        dataset = once.map(decoder_builder.build(reader).decode, tf.data.AUTOTUNE)
        if size_hw is not None:
            dataset = dataset.map(resize, tf.data.AUTOTUNE)
        dataset = dataset.cache().shuffle(number).repeat().map(transform_input_data_fn, tf.data.AUTOTUNE)
        return dataset.batch(batch_size, drop_remainder=True).prefetch(2)

    def make() -> Any:
        return odapi_inputs.train_input(config.train_config, config.train_input_reader, config.model, model=model)

    return inputs._build_pipeline(build, make, "train_input_reader")


def summary(variants: dict[str, Variant]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, variant in variants.items():
        found[f"{name}_images_per_s"] = statistics.median(variant.rates)
        found[f"{name}_core_ms"] = statistics.median(variant.core_ms)
    for name in ("cached", "cached_resized"):
        if name in variants:
            pairs = zip(variants[name].rates, variants["batch4"].rates, strict=True)
            found[f"{name}_gain"] = statistics.median(cached / usual for cached, usual in pairs)
    return found


def shares(variants: dict[str, Variant]) -> dict[str, float]:
    """Share of the processor time per image, in percent, found by leaving parts out."""
    core_ms = {name: statistics.median(variant.core_ms) for name, variant in variants.items()}
    parts = {
        "jpeg": core_ms["jpeg"] - core_ms["read"],
        "augmentation": core_ms["batch4"] - core_ms["unaugmented"],
    }
    parts["rest"] = core_ms["batch4"] - sum(parts.values())
    return {f"{name}_share": 100 * value / core_ms["batch4"] for name, value in parts.items()}


def measure_starts(variant: Variant, name: str, repeats: int) -> dict[str, Any]:
    images = ROUND_STEPS * variant.images
    seconds = [variant.start_s(images) for _ in range(max(3, repeats))]
    return {
        f"{name}_first_batch_s": statistics.median(first_s for first_s, _ in seconds),
        f"{name}_cold_images_per_s": statistics.median(images / all_s for _, all_s in seconds),
    }


def rows(args: argparse.Namespace) -> Iterator[Row]:
    for kind in KINDS:
        yield Row(f"{kind}: images/s, batches of 4", f"{kind}_batch4_images_per_s", "/s", shown=True)
        yield Row("  batches of 8", f"{kind}_batch8_images_per_s", "/s")
        for size in BATCH_SIZES:
            steps = f"  a new iterator's first {ROUND_STEPS} batches of {size}"
            yield Row(steps, f"{kind}_batch{size}_cold_images_per_s", "/s")
            yield Row("    its first batch", f"{kind}_batch{size}_first_batch_s", "s")
        yield Row("  processor time of an image", f"{kind}_batch4_core_ms", "core ms")
        yield Row("    of it decoding JPEG", f"{kind}_jpeg_share", "%")
        yield Row("    of it augmentation", f"{kind}_augmentation_share", "%")
        yield Row("    of it the rest", f"{kind}_rest_share", "%")
        training = f"  of all cores, at {args.training_images_per_s or 0:g} images/s trained on"
        yield Row(training, f"{kind}_share_of_training", "%", shown=True)
        yield Row("  with decoded images cached", f"{kind}_cached_images_per_s", "/s")
        yield Row("    ratio (median of pairs)", f"{kind}_cached_gain", "x", shown=True)
        yield Row("    processor time of an image", f"{kind}_cached_core_ms", "core ms")
        yield Row("  with decoded and resized images cached", f"{kind}_cached_resized_images_per_s", "/s")
        yield Row("    ratio (median of pairs)", f"{kind}_cached_resized_gain", "x")
        yield Row("    processor time of an image", f"{kind}_cached_resized_core_ms", "core ms")


if __name__ == "__main__":
    main()
