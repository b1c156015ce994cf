"""Computes the tables of docs/scale.md: a project with 10 million images and 200 annotators, from measured constants.

Example:
    python scripts/estimate_scale.py            # prints the tables
    python scripts/estimate_scale.py --write    # puts them into docs/scale.md
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from odkeras.project import write_atomically

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
START, END = "<!-- scale: made by scripts/estimate_scale.py -->", "<!-- end of scale -->"


@dataclass(frozen=True)
class Constant:
    """A constant.

    Args:
        text: what it is.
        value: in the unit.
        unit: of the value.
        source: where it was measured; "assumed" for the project's own figures.
        key: benchmark and key in benchmarks.json; "" if it is not there.
        scale: what the value there is multiplied with to have the unit.
    """

    text: str
    value: float
    unit: str
    source: str
    key: str = ""
    scale: float = 1.0


CONSTANTS = {
    "images": Constant("images", 10_000_000, "", "assumed"),
    "image_kb": Constant("size of an image", 200, "kB", "assumed"),
    "annotators": Constant("annotators at the same time", 200, "", "assumed"),
    "think_s": Constant("time for an image", 15, "s", "assumed"),
    "day_h": Constant("hours of work a day", 6, "h", "assumed"),
    "core_price": Constant("price of a core for an hour", 0.05, "€", "assumed"),
    "tb_price": Constant("price of a TB for a month", 20, "€", "assumed"),
    "person_price": Constant("price of an annotator for an hour", 20, "€", "assumed"),
    "answer_ms": Constant("an accept: CPU of the page", 6.0, "ms", "bench_scale", "scale.accept_ms_many"),
    "image_ms": Constant("an image to the browser: CPU of the page", 2.2, "ms", "simulate_scale --check"),
    "tasks_ms": Constant("five tasks: CPU of the page", 22.5, "ms", "simulate_scale --check"),
    "predict_ms": Constant("a prediction over REST, 1 image", 21.2, "ms", "bench_predict", "predict.rest_p50_ms"),
    "train_per_s": Constant(
        "training, 2 cores, images",
        19.3,
        "/s",
        "bench_throughput",
        "throughput.ssd_mobilenet_v2_fpnlite_320_batch4_ours_images_per_s",
    ),
    "round_s": Constant("a round without its steps", 0.57, "s", "bench_round", "round.overhead_s"),
    "answer_kb": Constant("an answer with 3 boxes in SQLite", 1.5, "kB", "`odkeras db in`, 50,000 answers"),
    "record": Constant("replay: bytes kept / bytes of the images", 1.03, "x", "50,000 images, before shards"),
    "written": Constant(
        "replay: bytes written / bytes of new images", 2.18, "x", "bench_scale", "scale.round_bytes_many"
    ),
    "index_s": Constant("trainer's start, for 100,000 images: CPU", 1.15, "s", "bench_scale", "scale.start_s_many"),
    "index_mb": Constant("trainer's start, for 100,000 images: memory", 56, "MB", "bench_scale", "scale.start_mb_many"),
    "page_s": Constant(
        "page's start, for 100,000 answers: CPU to the first task",
        3.24,
        "s",
        "bench_scale",
        "scale.first_task_cpu_s_many",
    ),
    "settled_s": Constant(
        "page's start, for 100,000 answers: CPU in all", 10.0, "s", "bench_scale", "scale.settled_cpu_s_many"
    ),
    "db_in_s": Constant("`db in` of 100,000 answers: CPU", 45.1, "s", "bench_scale", "scale.db_in_s"),
    "draws": Constant("training draws each new answer at least", 4, "times", "docs/how-to/training.md"),
    "batch_ms": Constant(
        "a prediction in batches, 2 cores", 11.1, "ms", "bench_predict", "predict.batch_in_process_ms"
    ),
    "hash_h": Constant("a million small images read and hashed: CPU", 0.2, "h", "`odkeras bulk hash`, 241 images"),
}
STEPS, BATCH = 500, 4


def estimates() -> list[tuple[str, str, str]]:
    """(what, value, how it is computed)"""
    c = {name: each.value for name, each in CONSTANTS.items()}
    per_s = c["annotators"] / c["think_s"]
    per_h, answers = per_s * 3600, c["images"]
    day = per_h * c["day_h"]
    tb = c["images"] * c["image_kb"] / 1e9
    page = per_s * (c["answer_ms"] + c["image_ms"] + c["tasks_ms"] / 5) / 1000
    serving = per_s * c["predict_ms"] / 1000
    round_s = c["round_s"] + STEPS * BATCH / c["train_per_s"]
    drawn = 3600 / round_s * STEPS * BATCH
    hundred_thousands = answers / 1e5
    hours, keeps_up = answers / per_h, per_h * c["draws"] / drawn
    cores = page + 2 * serving + 2 * keeps_up
    bulk_h = 2 * c["batch_ms"] * c["images"] / 3.6e6
    stored = tb * (1 + c["record"]) * c["tb_price"]
    return [
        ("answers", f"{per_s:.1f} a second, {day:,.0f} a day", "annotators / time for an image"),
        ("every image by hand", f"{answers / day:.0f} days of work", "images / answers a day"),
        ("images", f"{tb:.1f} TB", "images × size"),
        ("replay, if every image is answered", f"{tb * c['record']:.1f} TB", "× 1.03"),
        ("written by the trainer a day", f"{day * c['image_kb'] * c['written'] / 1e6:.0f} GB", "new images × 2.18"),
        ("database", f"{answers * c['answer_kb'] / 1e6:.0f} GB", "answers × 1.5 kB"),
        ("database, commits", f"{per_s:.1f} a second", "one for each answer"),
        ("page, CPU", f"{page:.2f} cores", "answers × (accept + image + a fifth of five tasks)"),
        ("predictions, CPU", f"{serving:.2f} × 2 cores", "answers × 21 ms of a server with 2 cores"),
        ("a round of 500 steps, 2 cores", f"{round_s:.0f} s", "overhead + 500 × 4 images"),
        ("rounds", f"{3600 / round_s:.0f} an hour", "one after the other"),
        ("images drawn by training, 2 cores", f"{drawn:,.0f} an hour", "rounds × 2,000"),
        ("images to be drawn", f"{per_h * c['draws']:,.0f} an hour", "answers × 4"),
        ("training speed that keeps up", f"{keeps_up:.1f} × 2 cores", "the ratio of the two"),
        ("trainer's start with all answers", f"{c['index_s'] * hundred_thousands:.0f} s of CPU", "linear"),
        ("memory of the trainer's index", f"{c['index_mb'] * hundred_thousands / 1000:.1f} GB", "linear"),
        (
            "page's start with all answers",
            f"{c['page_s'] * hundred_thousands:.0f} s of CPU",
            "linear, to the first task",
        ),
        ("page's background work after a start", f"{c['settled_s'] * hundred_thousands:.0f} s of CPU", "linear"),
        ("`db in` of all answers", f"{c['db_in_s'] * hundred_thousands / 3600:.1f} hours of CPU", "linear"),
        ("`bulk predict` of all images", f"{c['batch_ms'] * c['images'] / 3.6e6:.0f} hours of 2 cores", "linear"),
        ("`bulk hash` of all images", f"{c['hash_h'] * c['images'] / 1e6:.0f} hours of one core", "linear"),
        (
            "cost of page, predictions and training",
            f"{hours * cores * c['core_price']:,.0f} €",
            "cores × hours of work",
        ),
        ("cost of `bulk predict`", f"{bulk_h * c['core_price']:,.0f} €", "core-hours"),
        ("cost of images and replay", f"{stored:,.0f} € a month", "TB"),
        ("cost of the annotators", f"{hours * c['annotators'] * c['person_price']:,.0f} €", "hours of work × 200"),
    ]


def tables() -> str:
    """The text between the markers."""
    rows = [
        f"| {each.text} | {each.value:,.12g} {each.unit} | {each.source} |".replace("  |", " |")
        for each in CONSTANTS.values()
    ]
    computed = [f"| {text} | {value} | {how} |" for text, value, how in estimates()]
    constants = "\n".join(("| constant | | source |", "| --- | ---: | --- |", *rows))
    return f"{constants}\n\n" + "\n".join(("| computed | | how |", "| --- | ---: | --- |", *computed))


def with_tables(page: str) -> str:
    """The page with the tables."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{tables()}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    if parser.parse_args().write:
        write_atomically(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
    else:
        print(tables())


if __name__ == "__main__":
    main()
